"""What a call costs and whether it may: the part of the flow that every way in shares.

    terms ─▶ price ─▶ credit ─▶ limits ──▶ … ──▶ commit, on the terms that hold ──▶ receipt, or why not

A way in knows what its call is worth (n·EV) and what it goes on from. That a gateway has the credit, is within its
limits and is debited before anything is released (promise 1) is decided here, in the same words for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from chain.rates import EthPrice, PriceSource, PriceUnknown
from clearinghouse import pricing
from clearinghouse.commits import GroupCommit, Issuance, Outcome
from clearinghouse.errors import (
    AccountBusy,
    IdempotencyConflict,
    OutOfCredit,
    PriceExceeded,
    PriceStale,
    Refusal,
    SessionMismatch,
    SessionNotYours,
    Suspended,
    Unauthenticated,
)
from clearinghouse.identity.authenticate import Authenticator, Caller
from clearinghouse.ledger.money import show_amount
from clearinghouse.lookups import Receipt
from clearinghouse.open_ev import OpenEvCeiling
from clearinghouse.policy import EVERYBODY
from clearinghouse.sessions import Session
from clearinghouse.usage import Limit, Reads, UsageLimits, Use

LIMITS: Final = frozenset(map(str, Limit))
#: What the commit says where a session or its nonces went on meanwhile. What then helps, each way in says itself.
CHAIN_CODES: Final = frozenset({"rand_of_other_session", "state_not_newest", "nonce_used"})


class Quote(NamedTuple):
    """What a call should cost, at a price that stays its own; `use` is what its limits are judged by."""

    price: EthPrice
    use: Use


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
    ) -> None:
        self._authenticator = authenticator
        self._prices = prices
        self._commits = commits
        self._limits = UsageLimits(usage)
        self._ceiling = ceiling

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
        orchestrator: bytes,
        is_new_session: bool,
    ) -> tuple[Caller, Quote]:
        """Refuses a caller without credit, or past a limit, before any work is done. The commit has the last word.

        Nothing due, `ev_wei` 0, costs nothing. Raises PriceStale, OutOfCredit, LimitReached or CeilingReached, and
        what may have happened to the caller meanwhile: `judge` is asked of whatever is read anew.
        """
        price = self._price(caller)
        caller, cost = await self._require_credit(caller, judge, ev_wei, price)
        use = Use(caller.gateway_id, caller.key_id, orchestrator, is_new_session, cost, ev_wei)
        if self._limits.asks_again(use):
            # Refused by what is remembered of it, a caller could be told of a limit that its new terms keep it within.
            caller, cost = await self._require_credit(await self._newest(caller, judge), judge, ev_wei, price)
            use = use._replace(charge=cost)
        await self._limits.require(use)
        if self._ceiling is not None:
            self._ceiling.require(ev_wei)
        return caller, Quote(price, use)

    async def _require_credit(
        self, caller: Caller, judge: Callable[[Caller], None], ev_wei: int, price: EthPrice
    ) -> tuple[Caller, Decimal]:
        """With what the call will cost. Who would be refused is read again first."""
        cost = charge(ev_wei, caller, price)
        if cost and caller.available < cost:
            caller = await self._newest(caller, judge)
            cost = charge(ev_wei, caller, price)
            if caller.available < cost:
                raise _out_of_credit(caller, cost)
        return caller, cost

    async def _newest(self, caller: Caller, judge: Callable[[Caller], None]) -> Caller:
        caller = await self._authenticator.refresh(caller)
        judge(caller)
        return caller

    def nothing_due(self, caller: Caller, *, orchestrator: bytes) -> Quote:
        """For what is recorded and costs nothing, whatever the caller has left. Raises PriceStale."""
        use = Use(caller.gateway_id, caller.key_id, orchestrator, False, Decimal(0), 0)
        return Quote(self._price(caller), use)

    async def commit(
        self, caller: Caller, issuance: Issuance, price: EthPrice, judge: Callable[[Caller], None]
    ) -> tuple[Caller, Issuance, Outcome]:
        """The outcome, on the terms that hold at the commit, which may be newer than the caller's.

        Raises PriceExceeded where `judge` finds that the ceilings, which it had accepted, were lowered since.
        """
        outcome = await self._commits.commit(issuance)
        while outcome.code == "terms_changed":
            caller = await self._newest(caller, judge)
            issuance = _on_terms_of(caller, issuance, price)
            outcome = await self._commits.commit(issuance)
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
            markup_bps=issuance.markup_bps,
            balance=outcome.balance,
            created_at=outcome.created_at,
        )

    async def refusal(self, caller: Caller, issuance: Issuance, outcome: Outcome, quote: Quote) -> Refusal:
        """The commit's refusal, in the vocabulary of all refusals; CHAIN_CODES are not for here."""
        if outcome.code in LIMITS:
            use = quote.use._replace(charge=issuance.charge, ev_wei=issuance.ev_wei)
            return await self._limits.passed(outcome.code, use)
        self._authenticator.forget(caller)
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

    def _price(self, caller: Caller) -> EthPrice:
        try:
            return self._prices.price(caller.currency)
        except PriceUnknown as error:
            raise price_stale(error) from error


def price_stale(reason: PriceUnknown) -> PriceStale:
    """Fail closed: what is not known is not charged at."""
    return PriceStale(str(reason), retry_after_s=30)


def charge(ev_wei: int, caller: Caller, price: EthPrice) -> Decimal:
    """What tickets worth `ev_wei` cost the caller, exactly; none cost nothing."""
    if not ev_wei:
        return Decimal(0)
    return pricing.charge(ev_wei, price=price, markup_bps=caller.markup_bps, minimum_charge=caller.minimum_charge)


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
    )


def _on_terms_of(caller: Caller, issuance: Issuance, price: EthPrice) -> Issuance:
    return issuance._replace(
        ceilings_version=caller.ceilings_version,
        markup_bps=caller.markup_bps,
        minimum_charge=caller.minimum_charge,
        charge=charge(issuance.ev_wei, caller, price),
    )


def _out_of_credit(caller: Caller, wanted: Decimal) -> OutOfCredit:
    return OutOfCredit(
        f"This call costs {show_amount(wanted)} {caller.currency}; "
        f"{show_amount(caller.available)} {caller.currency} are available.",
        charge=show_amount(wanted),
        available=show_amount(caller.available),
        currency=caller.currency,
    )
