"""After each step: is there an order of things, as the books have it, that explains every answer?

Each new entry must be the lawful effect of one call that is under way, at the point where it stands; each answer must
be one that the twin allows at some point between its call and now. What is not known to have failed stays under way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction

from chain.messages import Payment as Tickets
from chain.messages import decode_payment
from tests.parts.payer import Counts, Received
from tests.storm.books import Account, Snapshot
from tests.storm.facts import CERTAIN, Answer, Call, Entry, Refused, Released, Unheard, read_state
from tests.storm.services import CALM_DEADLINE_S
from tests.storm.twin import (
    COVER_LOW,
    COVER_UNKNOWN,
    COVER_USED,
    REFUSAL_REMEMBERED_S,
    TOO_MUCH,
    Broken,
    Paid,
    Payment,
    Replayed,
    Terms,
    Twin,
    Verdict,
    follows,
)

#: After these the payment may be on record all the same: the same request tells.
UNCERTAIN = frozenset({"database_unavailable", "deadline_exceeded", "shutting_down", "unavailable", "internal_error"})


@dataclass
class Sent:
    """A call under way. `price` is of an ETH, at the service it was sent to, in its gateway's currency."""

    call: Call
    price: Fraction
    began_ns: int = field(default_factory=time.time_ns)
    #: time.monotonic()
    began_s: float = field(default_factory=time.monotonic)
    answer: Answer | None = None
    #: Who sent it hung up on purpose.
    hangs_up: bool = False
    payment: Payment | None = None
    #: Its idempotency key was not used when the step began.
    has_unused_key: bool = False
    verdicts: set[Verdict] = field(default_factory=set)
    #: Refusals that hold by terms of a moment ago.
    outdated: set[Verdict] = field(default_factory=set)

    @property
    def may_take_effect(self) -> bool:
        if self.payment is not None:
            return False
        return (
            self.answer is None
            or isinstance(self.answer, Unheard)
            or (isinstance(self.answer, Refused) and self.answer.code in UNCERTAIN)
        )


@dataclass
class Hands:
    """What a gateway holds, for the comparison with its books."""

    received: dict[str, Received] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


class Judge:
    """Keeps the twin up with the books, and raises Broken."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self.hands: dict[str, Hands] = {}
        #: Of earlier steps, with an outcome that is still unknown.
        self.under_way: list[Sent] = []
        self._released: dict[str, Released] = {}
        self._signatures: dict[tuple[bytes, int], bytes] = {}
        #: By service and key: limits that were met, and when.
        self._limits_met: defaultdict[tuple[int, str], dict[str, float]] = defaultdict(dict)

    def step(
        self, sent: Sequence[Sent], books: Snapshot, before: Mapping[str, Terms], *, excuses: frozenset[str]
    ) -> list[Payment]:
        """`before`: every gateway's terms when the step began. Returns the payments that were delivered for the first
        time; their answers have been checked. `excuses`: codes that whatever is broken at present explains."""
        for one in sent:
            one.has_unused_key = (one.call.gateway, one.call.idempotency_key) not in self.twin.keyed
        self._weigh(sent, before)
        for entry in books.entries:
            owner = self._owner(entry, [*sent, *self.under_way], before)
            self._note_limits_of_unheard(before)
            owner.payment = self.twin.book(entry, owner.call)
            self._weigh(sent, before)
        self._note_limits_of_unheard(before)
        for one in sorted(sent, key=_needs_excuse):  # what one met explains what another at the same time was told
            self._require_allowed(one, excuses)
        for account in books.accounts:
            self._require_account(account)
        self.under_way = [one for one in [*self.under_way, *sent] if one.may_take_effect]
        return [payment for one in sent if (payment := self._delivered(one)) is not None]

    def settle(self) -> None:
        """Nothing is under way any more: what has had no effect will have none."""
        self.under_way = []

    # --- entries ------------------------------------------------------------------------------------------------------

    def _owner(self, entry: Entry, candidates: Sequence[Sent], before: Mapping[str, Terms]) -> Sent:
        """The call whose effect this entry is."""
        possible = [
            one for one in candidates if one.payment is None and (_is_told_of(one, entry) or one.may_take_effect)
        ]
        # The one that was told of a new payment; one that was told of a recorded one only where nobody else made it.
        possible.sort(key=lambda one: (1 + one.answer.is_replay * 2) if isinstance(one.answer, Released) else 2)
        reasons = []
        for one in possible:
            if one.call.gateway != entry.gateway or one.call.offer.rand != entry.rand:
                continue
            why = self._why_not(entry, one, before)
            if not why:
                return one
            reasons.append(f"{one.call}: {why}")
        raise Broken(f"in the books, and no call explains it: {entry}; {reasons or 'no such call is under way'}")

    def _why_not(self, entry: Entry, one: Sent, before: Mapping[str, Terms]) -> str:
        reasons = []
        for terms in self._terms(one.call.gateway, before):
            why = self.twin.why_not(entry, one.call, terms, price=one.price, span=(one.began_ns, time.time_ns()))
            if not why:
                return ""
            reasons.append(why)
        return "; or ".join(dict.fromkeys(reasons))

    def _terms(self, gateway: str, before: Mapping[str, Terms]) -> list[Terms]:
        """An operator's change within the step may have come before or after anything else in it."""
        now = self.twin.gateways[gateway].terms
        earlier = before.get(gateway, now)
        return [now] if earlier is now else [now, earlier]

    # --- answers ------------------------------------------------------------------------------------------------------

    def _weigh(self, sent: Sequence[Sent], before: Mapping[str, Terms]) -> None:
        for one in sent:
            span = (one.began_ns, time.time_ns())
            for terms in self._terms(one.call.gateway, before):
                one.verdicts |= self.twin.judge(one.call, terms, price=one.price, span=span)
                if one.has_unused_key:  # it is looked up before the session is, and may be used in between
                    keyless = self.twin.judge(replace(one.call, idempotency_key=""), terms, price=one.price, span=span)
                    one.verdicts |= {verdict for verdict in keyless if not isinstance(verdict, Paid)}
            for terms in self.twin.gateways[one.call.gateway].terms_since(one.began_s - REFUSAL_REMEMBERED_S):
                one.outdated |= self.twin.judge(one.call, terms, price=one.price, span=span)

    def _require_allowed(self, one: Sent, excuses: frozenset[str]) -> None:
        answer = one.answer
        if isinstance(answer, Released):
            self._require_paid(one, answer)
        elif isinstance(answer, Refused):
            if answer not in one.verdicts and not self._is_excused(one, answer, excuses):
                raise Broken(f"{one.call} was answered {answer}; allowed: {sorted(map(str, one.verdicts))}")
            self._note_limit(one, answer)
        elif isinstance(answer, Unheard):
            if answer.status == 200 and one.payment is None and not _replays(one.verdicts):
                raise Broken(f"{one.call} was answered 200 before its debit")
            if not one.hangs_up and not excuses & {"no answer", f"no answer at {one.call.service}"}:
                raise Broken(f"{one.call} was not answered")
            for verdict in one.verdicts | one.outdated:
                self._note_limit(one, verdict)

    def _note_limits_of_unheard(self, before: Mapping[str, Terms]) -> None:
        """Nobody waits for them any more, and they go on until their deadline: each may meet a limit at any time."""
        going_on = [one for one in self.under_way if time.monotonic() - one.began_s < CALM_DEADLINE_S]
        for one in going_on:
            one.verdicts = set()  # it was judged in its own step; here counts what holds now
        self._weigh(going_on, before)
        for one in going_on:
            for verdict in one.verdicts:
                self._note_limit(one, verdict)

    def _note_limit(self, one: Sent, verdict: Verdict) -> None:
        if isinstance(verdict, Refused) and verdict.limit:
            self._limits_met[one.call.service, one.call.key][verdict.limit] = time.monotonic()

    def _is_excused(self, one: Sent, answer: Refused, excuses: frozenset[str]) -> bool:
        if answer.code in excuses:
            return True
        if answer in one.outdated and answer.code in {"unauthenticated", "gateway_suspended", "limit_reached"}:
            return True
        # What a process reads of the gates is a moment old. It only refuses by it: the commit judges by what holds.
        if self.twin.gateways[one.call.gateway].was_covered_otherwise_since(one.began_s - REFUSAL_REMEMBERED_S) and (
            answer in one.outdated or answer in {COVER_UNKNOWN, COVER_LOW, COVER_USED, TOO_MUCH}
        ):
            return True
        # A limit that was met a moment ago is named before credit is judged again, and before the signer is asked.
        met_at_s = self._limits_met[one.call.service, one.call.key].get(answer.limit, -REFUSAL_REMEMBERED_S)
        is_remembered = answer.status == 429 and one.began_s - met_at_s < REFUSAL_REMEMBERED_S
        if is_remembered and self.twin.gateways[one.call.gateway].was_relaxed_since(one.began_s - REFUSAL_REMEMBERED_S):
            return True
        is_refused_later = self.twin.reaches_money(one.call) and not any(isinstance(v, Paid) for v in one.verdicts)
        return is_remembered and is_refused_later

    def _require_paid(self, one: Sent, answer: Released) -> None:
        payment = self.twin.payments.get(answer.receipt)
        if payment is None:
            raise Broken(f"released, and not debited: {answer} for {one.call}")
        if answer.is_replay and Replayed(answer.receipt) not in one.verdicts:
            raise Broken(f"{one.call} got the answer of another call, {payment.call}")
        if not answer.is_replay and one.payment is not payment:
            raise Broken(f"{one.call} was told that {answer.receipt} is new; it is of {payment.call}")
        known = self._released.setdefault(answer.receipt, answer)
        if _content(known) != _content(answer):
            raise Broken(f"one payment, two answers: {known} and {answer}")
        if known is answer:
            self._require_content(payment, answer)

    def _require_content(self, payment: Payment, answer: Released) -> None:
        """What was released is what was charged for, to the ticket and to the last digit."""
        entry, tickets = payment.entry, decode_payment(answer.payment)
        got = (tickets.recipient_rand_hash, tickets.nonces, tickets.face_value_wei, tickets.win_prob)
        if got != (entry.rand, tuple(entry.nonces), entry.face_value_wei, entry.win_prob):
            raise Broken(f"other tickets than were charged for: {answer}, {entry}")
        if (answer.charge, answer.currency, answer.balance) != (entry.charge, entry.currency, entry.balance_after):
            raise Broken(f"another charge than is on record: {answer}, {entry}")
        for nonce, signature in zip(tickets.nonces, tickets.signatures, strict=True):
            if self._signatures.setdefault((entry.rand, nonce), signature) != signature:
                raise Broken(f"two tickets with nonce {nonce} of rand {entry.rand.hex()}")
        if not follows(read_state(answer.state, answer.sig, answer.receipt), payment):
            raise Broken(f"a state that does not follow: {answer.state!r}, {payment}")

    def _delivered(self, one: Sent) -> Payment | None:
        if not isinstance(one.answer, Released):
            return None
        hands = self.hands.setdefault(one.call.gateway, Hands())
        if one.answer.receipt in hands.received:
            return None
        hands.received[one.answer.receipt] = _received(one.answer, decode_payment(one.answer.payment))
        return self.twin.payments[one.answer.receipt]

    # --- accounts -----------------------------------------------------------------------------------------------------

    def _require_account(self, account: Account) -> None:
        gateway = self.twin.gateways.get(account.gateway)
        if gateway is None:
            return
        day = datetime.now(UTC).date()
        if account.balance != gateway.balance:
            raise Broken(f"balance {float(account.balance)} is on the account, {float(gateway.balance)} is right")
        if account.balance < -account.credit_limit:
            raise Broken(f"overspent: {account}")
        used = gateway.used
        if used.calls and day != max(used.calls):
            return  # the counters are of a day that has just ended
        wanted = Account(
            account.gateway, gateway.balance, gateway.terms.credit_limit, used.calls[day], used.spent[day],
            used.spent_in_month(day), used.ev_open_wei(day), self.twin.open_sessions(account.gateway),
        )  # fmt: skip
        if account != wanted:
            raise Broken(f"counted is {account}, right is {wanted}")


def _needs_excuse(one: Sent) -> bool:
    return isinstance(one.answer, Refused) and one.answer not in one.verdicts


def _is_told_of(one: Sent, entry: Entry) -> bool:
    return isinstance(one.answer, Released) and one.answer.receipt == entry.receipt


def _content(answer: Released) -> tuple[object, ...]:
    return (
        answer.payment, answer.seg_creds, answer.state, answer.sig, answer.charge, answer.currency, answer.balance,
    )  # fmt: skip


def _replays(verdicts: set[Verdict]) -> bool:
    return any(isinstance(verdict, Replayed) for verdict in verdicts)


def _received(answer: Released, tickets: Tickets) -> Received:
    return Received(
        receipt=answer.receipt,
        body=answer.state,
        rand_hash=tickets.recipient_rand_hash,
        nonces=tickets.nonces,
        signatures=tickets.signatures,
        charge=answer.charge,
        ev_wei=len(tickets.nonces) * Fraction(tickets.face_value_wei * tickets.win_prob, CERTAIN),
    )
