"""What a call costs and whether it may: the part of the flow that every way in shares.

    terms ─▶ price ─▶ credit ─▶ limits ──▶ … ──▶ commit, on the terms that hold ──▶ receipt, or why not

A way in knows what its call is worth (n·EV) and what it goes on from. That a gateway has the credit, is within its
limits and is debited before anything is released (promise 1) is decided here, in the same words for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from chain.rates import EthPrice, PriceSource, PriceUnknown
from clearinghouse.commits import GroupCommit, Issuance, Outcome
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.errors import (
    AccountBusy,
    BillingHold,
    CoverageCritical,
    CoverageLow,
    CoverageUnknown,
    DatabaseUnavailable,
    IdempotencyConflict,
    OutOfCredit,
    PriceExceeded,
    PriceStale,
    RateUnknown,
    Refusal,
    SessionMismatch,
    SessionNotYours,
    Suspended,
    TicketNotAllowed,
    Unauthenticated,
)
from clearinghouse.identity.authenticate import Authenticator, Caller
from clearinghouse.ledger.money import show_amount
from clearinghouse.lookups import Receipt
from clearinghouse.open_ev import OpenEvCeiling
from clearinghouse.policy import EVERYBODY, Rule
from clearinghouse.rates.card import RateUnknown as NoRate
from clearinghouse.rates.rules import Rules
from clearinghouse.rates.usage import Cost, Usage
from clearinghouse.rating import FREE, Priced, by_markup, by_rule
from clearinghouse.sessions import Session
from clearinghouse.usage import Limit, Reads, UsageLimits, Use

LIMITS: Final = frozenset(map(str, Limit))
#: What the commit says where the sender's deposit does not cover what is asked for (migrations/sql/0001_exposure.sql).
UNCOVERED: Final = frozenset({"coverage_unknown", "coverage_low", "coverage_critical", "face_value"})
#: After these the session is what it was.
LEAVES_SESSION: Final = LIMITS | UNCOVERED
#: Of coverage_unknown: whoever tells of the coverage does so every few seconds.
COVERAGE_UNKNOWN_RETRY_S: Final = 5
#: Of the other two: somebody has to send ETH, or tickets to expire.
COVERAGE_RETRY_S: Final = 60
#: An operator has to give the call a price first.
RATE_RETRY_S: Final = 30
#: Each is an operator's change in the moment between a look and the commit.
TERMS_CHANGES_MAX_COUNT: Final = 10
NO_CARDS: Final = Rules(())
#: Of what costs nothing.
NOTHING: Final = Usage("", "", "", requests=0)
#: What the commit says where a session or its nonces went on meanwhile. What then helps, each way in says itself.
CHAIN_CODES: Final = frozenset({"rand_of_other_session", "state_not_newest", "nonce_used"})


class Quote(NamedTuple):
    """What a call should cost, at a price that stays its own; `use` is what its limits are judged by.

    `usage` is what it was priced for: what a rate card may sell by.
    """

    price: EthPrice
    use: Use
    usage: Usage
    priced: Priced


class Rates(Protocol):
    """All rate cards, as this process knows them (clearinghouse.rate_watch)."""

    @property
    def rules(self) -> Rules: ...

    async def newest(self) -> Rules: ...


class Charging:
    """Refuses who cannot pay, and debits who can."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        prices: PriceSource,
        commits: GroupCommit,
        usage: Reads,
        ceiling: OpenEvCeiling | None = None,
        cover: EarlyGate | None = None,
        rates: Rates | None = None,
    ) -> None:
        """Without `rates` there are no rate cards, and whose calls are charged by one are refused."""
        self._authenticator = authenticator
        self._prices = prices
        self._commits = commits
        self._limits = UsageLimits(usage)
        self._ceiling = ceiling
        self._cover = cover
        self._rates = rates

    async def require_terms(self, caller: Caller, judge: Callable[[Caller], None]) -> Caller:
        """What `judge` makes of the caller's price ceilings; who would be refused by them is read again first.

        Raises PriceExceeded. So a raised ceiling holds within a second; `commit` sees to it that a lowered one holds at
        once.
        """
        try:
            judge(caller)
        except PriceExceeded as refusal:
            if refusal.facts["set_by"] == EVERYBODY:
                raise
            caller = await self._authenticator.newer(caller)
            judge(caller)
        return caller

    async def quote(
        self,
        caller: Caller,
        judge: Callable[[Caller], None],
        *,
        ev_wei: int,
        usage: Usage,
        sender: bytes,
        face_value_wei: int | None,
        orchestrator: bytes,
        is_new_session: bool,
    ) -> tuple[Caller, Quote]:
        """Refuses what is not covered, a caller without credit, or one past a limit, before any work is done. The
        commit has the last word.

        Nothing due, `ev_wei` 0, costs nothing. `face_value_wei` is None where it is not shown. Raises BillingHold,
        CoverageUnknown, CoverageLow, TicketNotAllowed, PriceStale, RateUnknown, OutOfCredit, LimitReached,
        CeilingReached or CoverageCritical, and what may have happened to the caller meanwhile: `judge` is asked of
        whatever is read anew.
        """
        if is_new_session:
            caller = await self._require_new_sessions(caller, judge)
        if self._cover is not None:
            _require_cover(self._cover.refusal(sender, is_new_session=is_new_session, face_value_wei=face_value_wei))
        price = self._price(caller)
        caller, priced = await self._require_credit(caller, judge, ev_wei, usage, price)
        use = Use(caller.gateway_id, caller.key_id, orchestrator, is_new_session, priced.charge, ev_wei)
        if self._limits.remembers(use):
            if self._limits.asks_again(use):
                # Refused by what is remembered of it, a caller could be told of a limit that its new terms keep it
                # within.
                caller = await self._newest(caller, judge)
                caller, priced = await self._require_credit(caller, judge, ev_wei, usage, price)
                use = use._replace(charge=priced.charge)
            await self._limits.require(use)
        if self._ceiling is not None:
            self._ceiling.require(ev_wei)
        if self._cover is not None:
            _require_cover(self._cover.share_refusal(sender, caller.gateway_id, ev_wei))
        return caller, Quote(price, use, usage, priced)

    async def _require_new_sessions(self, caller: Caller, judge: Callable[[Caller], None]) -> Caller:
        """Who would be refused is read again first, unless that was less than a second ago."""
        if caller.hold_reason is not None:
            caller = await self._authenticator.newer(caller)
            judge(caller)
            if caller.hold_reason is not None:
                raise _no_new_session(caller.hold_reason)
        return caller

    async def _require_credit(
        self, caller: Caller, judge: Callable[[Caller], None], ev_wei: int, usage: Usage, price: EthPrice
    ) -> tuple[Caller, Priced]:
        """With what the call will cost. Who would be refused is read again first, and so are rate cards."""
        try:
            priced = self.price(caller, ev_wei, usage, price)
        except RateUnknown:
            if self._rates is None:
                raise
            await self._rates.newest()
            caller = await self._newest(caller, judge)
            priced = self.price(caller, ev_wei, usage, price)
        if priced.charge and caller.available < priced.charge:
            caller = await self._newest(caller, judge)
            priced = self.price(caller, ev_wei, usage, price)
            if caller.available < priced.charge:
                raise _out_of_credit(caller, priced.charge)
        return caller, priced

    def price(
        self, caller: Caller, ev_wei: int, usage: Usage, price: EthPrice, *, at: datetime | None = None
    ) -> Priced:
        """What tickets worth `ev_wei` cost the caller, exactly or at most (clearinghouse.rating); none cost nothing.

        `at` is the database's time, where it is known: what the commit looks for a rate card's version by. Raises
        RateUnknown.
        """
        if not ev_wei:
            return FREE
        if caller.rate_card is None:
            return by_markup(ev_wei, price, markup_bps=caller.markup_bps, minimum_charge=caller.minimum_charge)
        try:
            rules = self._rates.rules if self._rates is not None else NO_CARDS
            rule = rules.at(caller.rate_card, at or datetime.now(UTC), *usage[:3])
            return by_rule(rule, usage, Cost(ev_wei, price), may_be_below_cost=caller.may_be_below_cost)
        except NoRate as error:
            raise RateUnknown(str(error), retry_after_s=RATE_RETRY_S) from error

    def reprice(self, caller: Caller, quote: Quote, ev_wei: int, usage: Usage) -> Priced:
        """The same of what was signed: mostly it is what was quoted."""
        if ev_wei == quote.use.ev_wei and (quote.priced.rule_id is None or usage == quote.usage):
            return quote.priced
        return self.price(caller, ev_wei, usage, quote.price)

    async def _newest(self, caller: Caller, judge: Callable[[Caller], None]) -> Caller:
        caller = await self._authenticator.refresh(caller)
        judge(caller)
        return caller

    def nothing_due(self, caller: Caller, *, orchestrator: bytes) -> Quote:
        """For what is recorded and costs nothing, whatever the caller has left. Raises PriceStale."""
        use = Use(caller.gateway_id, caller.key_id, orchestrator, False, Decimal(0), 0)
        return Quote(self._price(caller), use, NOTHING, FREE)

    async def commit(
        self, caller: Caller, issuance: Issuance, price: EthPrice, usage: Usage, judge: Callable[[Caller], None]
    ) -> tuple[Caller, Issuance, Outcome]:
        """The outcome, on the terms that hold at the commit, which may be newer than the caller's.

        Raises PriceExceeded where `judge` finds that the ceilings, which it had accepted, were lowered since; and
        RateUnknown where the call has no price any more, or another one each time that it is asked for.
        """
        for _ in range(TERMS_CHANGES_MAX_COUNT):
            outcome = await self._commits.commit(issuance)
            if outcome.code != "terms_changed":
                break
            caller = await self._newest(caller, judge)
            if caller.rate_card is not None and self._rates is not None:
                await self._rates.newest()
            priced = self.price(caller, issuance.ev_wei, usage, price, at=outcome.created_at)
            issuance = _on_terms_of(caller, issuance, priced)
        else:  # and the last one came to nothing: a refusal after a debit would break promise 1
            raise RateUnknown("What this call costs changes faster than it can be said.", retry_after_s=RATE_RETRY_S)
        if issuance.rate_rule is not None:
            issuance = issuance._replace(charge=outcome.charge)
        return caller, issuance, outcome

    def settled(self, caller: Caller, issuance: Issuance, outcome: Outcome) -> None:
        """It was recorded: what the commit found of the caller is remembered."""
        self._authenticator.confirm(caller)
        if self._ceiling is not None:
            self._ceiling.released(issuance.ev_wei)
        caller.available = outcome.balance + outcome.credit_limit

    def receipt(self, caller: Caller, issuance: Issuance, outcome: Outcome) -> Receipt:
        """Of what was recorded, which is remembered."""
        self.settled(caller, issuance, outcome)
        return Receipt(
            issuance_id=issuance.id,
            session_id=issuance.session_id,
            num_tickets=issuance.num_tickets,
            ev_wei=issuance.ev_wei,
            fee_wei=issuance.fee_wei,
            charge=issuance.charge,
            currency=caller.currency,
            price=issuance.price,
            markup_bps=issuance.markup_bps if issuance.rate_rule is None else 0,
            balance=outcome.balance,
            created_at=outcome.created_at,
        )

    async def refusal(self, caller: Caller, issuance: Issuance, outcome: Outcome, quote: Quote) -> Refusal:
        """The commit's refusal, in the vocabulary of all refusals; CHAIN_CODES are not for here."""
        if outcome.code in LIMITS:
            use = quote.use._replace(charge=issuance.charge, ev_wei=issuance.ev_wei)
            return await self._limits.passed(outcome.code, use)
        if outcome.code in UNCOVERED:
            return uncovered_refusal(outcome.code)
        self._authenticator.forget(caller)
        if outcome.code == "billing_hold":
            return await self._held(caller)
        match outcome.code:
            case "unauthenticated":
                return Unauthenticated("The API key was revoked or has expired.")
            case "gateway_suspended":
                return Suspended("The gateway is suspended.")
            case "account_busy":
                return AccountBusy("Somebody else is changing the account.", retry_after_s=1)
            case "idempotency_conflict":
                return IdempotencyConflict("This idempotency key was used with another request.")
            case "session_not_yours":
                return SessionNotYours("The session of this state is not known here.")
            case "session_mismatch":
                return SessionMismatch("This call does not keep what its session began with.")
            case "out_of_credit":
                caller.available = outcome.balance + outcome.credit_limit
                return _out_of_credit(caller, issuance.charge)
            case code:
                raise AssertionError(f"commit_issuances gave an unknown code: {code}")

    async def _held(self, caller: Caller) -> Refusal:
        """With the reason, which the commit does not tell."""
        try:
            newest = await self._authenticator.refresh(caller)
        except Refusal as refusal:
            return refusal
        if newest.hold_reason is not None:
            return _no_new_session(newest.hold_reason)
        return BillingHold("Something was held against the gateway, and is not any more.", hold="signing")

    def _price(self, caller: Caller) -> EthPrice:
        try:
            return self._prices.price(caller.currency)
        except PriceUnknown as error:
            raise price_stale(error) from error


def may_be_paid_for(refusal: Refusal) -> bool:
    """Whether another process may have made this very payment meanwhile: then it is answered, and not refused. Who may
    not sign at all gets nothing, whatever is paid for."""
    if isinstance(refusal, BillingHold):
        return refusal.facts["hold"] != "signing"
    return not isinstance(refusal, DatabaseUnavailable | Unauthenticated | Suspended)


def uncovered_refusal(code: str) -> Refusal:
    """For one of UNCOVERED, wherever it is found."""
    match code:
        case "coverage_unknown":
            return CoverageUnknown(
                "What the clearinghouse's deposit covers is not known at present.",
                retry_after_s=COVERAGE_UNKNOWN_RETRY_S,
            )
        case "coverage_low":
            return CoverageLow(
                "The clearinghouse's deposit is low: no new session is begun, those that have begun go on.",
                retry_after_s=COVERAGE_RETRY_S,
            )
        case "coverage_critical":
            return CoverageCritical(
                "The gateway has used its share of what the clearinghouse's deposit still covers.",
                retry_after_s=COVERAGE_RETRY_S,
            )
        case "face_value":
            return TicketNotAllowed(
                "The face value is more than the clearinghouse's deposit allows at present.", rule=Rule.FACE_VALUE
            )
    raise AssertionError(f"{code} is not about the deposit")


def _require_cover(code: str | None) -> None:
    """Raises what the commit would refuse with."""
    if code is not None:
        raise uncovered_refusal(code)


def price_stale(reason: PriceUnknown) -> PriceStale:
    """Fail closed: what is not known is not charged at."""
    return PriceStale(str(reason), retry_after_s=30)


def session_after(issuance: Issuance) -> Session:
    """The session as of what was just recorded."""
    return Session(
        id=issuance.session_id,
        gateway_id=issuance.gateway_id,
        orchestrator=issuance.orchestrator,
        recipient=issuance.recipient,
        job_type=issuance.job_type,
        manifest_id=issuance.manifest_id,
        app=issuance.app,
        transcoder=issuance.transcoder,
        head_state_hash=issuance.head_state_hash,
        request_hash=issuance.request_hash,
        issuance_id=issuance.id,
        answer=issuance.answer,
        approved=issuance.approved,
        pipeline=issuance.pipeline,
        model=issuance.model,
    )


def _on_terms_of(caller: Caller, issuance: Issuance, priced: Priced) -> Issuance:
    return issuance._replace(
        ceilings_version=caller.ceilings_version,
        markup_bps=caller.markup_bps,
        minimum_charge=caller.minimum_charge,
        charge=priced.charge,
        rate_rule=priced.rule_id,
        quantity=priced.quantity,
    )


def _no_new_session(reason: str) -> BillingHold:
    text = f"No new session is opened for the gateway, those that it has go on: {reason}"
    return BillingHold(text, hold="new_sessions")


def _out_of_credit(caller: Caller, wanted: Decimal) -> OutOfCredit:
    return OutOfCredit(
        f"This call costs {show_amount(wanted)} {caller.currency}; "
        f"{show_amount(caller.available)} {caller.currency} are available.",
        charge=show_amount(wanted),
        available=show_amount(caller.available),
        currency=caller.currency,
    )
