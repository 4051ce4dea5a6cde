"""The slow, obvious twin of the service: what the promises allow, in dicts and fractions.

Written from the design's promises and docs/api.md, without a line of the service's code. It has no time-outs and no
races: the order of things is that of the entries in the books, and `judge` says what a call may be answered at one
point of it. Where the service may answer from memory that is a moment old, there are several permitted answers; they
are all refusals or repeated answers, never a payment.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from math import ceil

from tests.storm.facts import Call, Entry, Refused, State

#: go-livepeer's and the clearinghouse's own bounds, as documented.
TICKETS_MAX = 100
NONCES_MAX = 600
CALL_EV_MAX_WEI = 2 * 10**13
PIXELS_PER_S = 1280 * 720 * 30
#: A refusal may be repeated from memory for so long after its cause is gone; a little more, because two clocks read it.
REFUSAL_REMEMBERED_S = 1.2

UNAUTHENTICATED = Refused(401, "unauthenticated")
SUSPENDED = Refused(403, "gateway_suspended")
NOT_YOURS = Refused(403, "session_not_yours")
MISMATCH = Refused(403, "session_mismatch")
INVALID = Refused(400, "invalid_request")
CONFLICT = Refused(409, "idempotency_conflict")
TOO_MUCH = Refused(403, "ticket_not_allowed")
REFRESH = Refused(480, "refresh_session")
TOO_DEAR = Refused(481, "price_exceeded")
NOTHING_DUE = Refused(482, "no_tickets")
BROKE = Refused(402, "out_of_credit")
COVER_UNKNOWN = Refused(503, "coverage_unknown")
COVER_LOW = Refused(503, "coverage_low")
COVER_USED = Refused(503, "coverage_critical")


class Broken(AssertionError):
    """The service did what no promise allows."""


@dataclass(frozen=True)
class Paid:
    """Tickets may be released: so many, charged in full."""

    num_tickets: int


@dataclass(frozen=True)
class Replayed:
    """The answer of an earlier payment, charged once and for all then."""

    receipt: str


Verdict = Paid | Replayed | Refused


@dataclass(frozen=True)
class Cover:
    """What the sender's deposit covers, as far as it concerns a gateway."""

    level: str = "ok"
    face_value_max_wei: int | None = None
    #: While critical: up to where all expected value that the gateway was ever released may go.
    ev_total_max_wei: int = 0


@dataclass(frozen=True)
class Terms:
    """What an operator sets for a gateway. Amounts in its currency."""

    currency: str
    granted: Fraction
    credit_limit: Fraction = Fraction(0)
    markup_bps: int = 0
    minimum_charge: Fraction = Fraction(0)
    is_suspended: bool = False
    keys: frozenset[str] = frozenset()
    limits: Mapping[str, Fraction] = field(default_factory=dict)
    key_limits: Mapping[tuple[str, str], Fraction] = field(default_factory=dict)
    cover: Cover = Cover()


@dataclass
class Counters:
    """What a gateway or a key has used, by day and month (UTC)."""

    calls: defaultdict[date, int] = field(default_factory=lambda: defaultdict(int))
    spent: defaultdict[date, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    ev_wei: defaultdict[date, int] = field(default_factory=lambda: defaultdict(int))

    def count(self, entry: Entry) -> None:
        day = entry.at.astimezone(UTC).date()
        self.calls[day] += 1
        self.spent[day] += entry.charge
        self.ev_wei[day] += entry.ev_wei

    def spent_in_month(self, day: date) -> Fraction:
        return sum((amount for d, amount in self.spent.items() if (d.year, d.month) == (day.year, day.month)), _ZERO)

    def ev_total_wei(self) -> int:
        return sum(self.ev_wei.values())

    def ev_open_wei(self, day: date) -> int:
        """Of the tickets released on this day and the two before."""
        return sum(wei for d, wei in self.ev_wei.items() if 0 <= (day - d).days <= 2)


_ZERO = Fraction(0)


@dataclass
class Session:
    """As of its newest payment."""

    gateway: str
    call: Call
    manifest: str
    price_wei: Fraction
    receipt: str
    sequence: int
    #: The key that opened it last.
    opened_by: str
    is_closed: bool = False


@dataclass
class Payment:
    """One entry in the books and the call that it was made for."""

    entry: Entry
    call: Call
    balance_wei: Fraction


@dataclass
class Gateway:
    """A tenant. `spent` is the sum of all charges."""

    id: str
    terms: Terms
    spent: Fraction = _ZERO
    used: Counters = field(default_factory=Counters)
    used_by_key: defaultdict[str, Counters] = field(default_factory=lambda: defaultdict(Counters))
    #: Terms that were replaced, and when: refusals may still be by them for a moment.
    replaced: list[tuple[float, Terms]] = field(default_factory=list)
    #: When its sessions were closed; refusals may still count them for a moment. time.monotonic()
    swept_at_s: float = 0.0

    @property
    def balance(self) -> Fraction:
        return self.terms.granted - self.spent

    def terms_since(self, since_s: float) -> Iterator[Terms]:
        """What has been replaced since then (time.monotonic())."""
        return (terms for at_s, terms in self.replaced if at_s > since_s)

    def was_covered_otherwise_since(self, since_s: float) -> bool:
        """Whether the gates said something else then."""
        return any(terms.cover != self.terms.cover for terms in self.terms_since(since_s))

    def was_relaxed_since(self, since_s: float) -> bool:
        """Whether a limit that held then may hold no more."""
        return self.swept_at_s > since_s or any(self.terms_since(since_s))


class Twin:
    """The whole of what is known. `prices` has, for every currency, what an ETH costs at each service."""

    def __init__(self) -> None:
        self.gateways: dict[str, Gateway] = {}
        self.sessions: dict[str, Session] = {}
        #: By recipientRandHash: the session that uses it, and the last nonce.
        self.rands: dict[bytes, tuple[str, int]] = {}
        self.payments: dict[str, Payment] = {}
        self.keyed: dict[tuple[str, str], str] = {}
        self._by_identity: dict[tuple[object, ...], str] = {}

    # --- operators ----------------------------------------------------------------------------------------------------

    def open_gateway(self, gateway_id: str, terms: Terms) -> Gateway:
        return self.gateways.setdefault(gateway_id, Gateway(gateway_id, terms))

    def change(self, gateway_id: str, **changes: object) -> None:
        gateway = self.gateways[gateway_id]
        gateway.replaced = [*gateway.replaced[-40:], (time.monotonic(), gateway.terms)]
        gateway.terms = replace(gateway.terms, **changes)  # type: ignore[arg-type]

    def close_sessions(self, gateway_id: str) -> None:
        self.gateways[gateway_id].swept_at_s = time.monotonic()
        for session in self.sessions.values():
            if session.gateway == gateway_id:
                session.is_closed = True

    def open_sessions(self, gateway_id: str, *, orchestrator: bytes | None = None, opened_by: str | None = None) -> int:
        return sum(
            not s.is_closed
            and s.gateway == gateway_id
            and orchestrator in (None, s.call.offer.orchestrator)
            and opened_by in (None, s.opened_by)
            for s in self.sessions.values()
        )

    # --- the judgement ------------------------------------------------------------------------------------------------

    def judge(self, call: Call, terms: Terms, *, price: Fraction, span: tuple[int, int]) -> set[Verdict]:
        """What this call may be answered now, under these terms. `span`: when the signer looks at its clock, unix ns.

        The order is docs/api.md's, "How a call is judged".
        """
        barred = UNAUTHENTICATED if call.key not in terms.keys else SUSPENDED if terms.is_suspended else None
        verdicts = self._of_request(call) or self._of_money(call, terms, price=price, span=span)
        if barred is None:
            return verdicts
        # A caller may be remembered as it was: it gets as far as anybody without a payment.
        return {barred, *(verdict for verdict in verdicts if not isinstance(verdict, Paid))}

    def reaches_money(self, call: Call) -> bool:
        """Whether nothing but money and the signer stands against the call now."""
        return not self._of_request(call)

    def _of_request(self, call: Call) -> set[Verdict]:
        """Steps 2 to 6. Empty: the request may be paid for."""
        state = call.state
        if state is not None and not call.manifest:
            return {INVALID}
        if state is not None and state.gateway != call.gateway:
            return {NOT_YOURS}
        if call.idempotency_key and (receipt := self.keyed.get((call.gateway, call.idempotency_key))) is not None:
            return {Replayed(receipt) if self.payments[receipt].call.identity == call.identity else CONFLICT}
        used_by, last_nonce = self.rands.get(call.offer.rand, ("", 0))
        if used_by and self._is_newest_of(used_by, call):
            return {Replayed(self.sessions[used_by].receipt)}
        verdict = self._pins(call) or self._nonces(call, used_by, last_nonce)
        if verdict is None:
            return set()
        # A process that has not heard of the newer payment may repeat what it released itself.
        earlier = self._by_identity.get((call.gateway, *call.identity))
        return {verdict} if earlier is None else {verdict, Replayed(earlier)}

    def _is_newest_of(self, session_id: str, call: Call) -> bool:
        session = self.sessions[session_id]
        return session.gateway == call.gateway and session.call.identity == call.identity

    def _pins(self, call: Call) -> Refused | None:
        """A session keeps what it began with."""
        if call.state is None:
            return None
        session = self.sessions[call.state.session]
        began, offer = session.call, call.offer
        if (began.offer.orchestrator, began.app, began.job_type) != (offer.orchestrator, call.app, call.job_type):
            return INVALID
        if (began.offer.recipient, began.offer.url) != (offer.recipient, offer.url):
            return MISMATCH
        return MISMATCH if session.manifest not in ("", call.manifest) else None

    def _nonces(self, call: Call, used_by: str, last_nonce: int) -> Refused | None:
        """No nonce twice: the newest state goes on, an older one only with parameters that nobody used."""
        state = call.state
        if used_by and (state is None or used_by != state.session):
            return REFRESH
        if used_by and (state is None or self.sessions[used_by].receipt != state.receipt):
            return REFRESH
        return REFRESH if call.first_nonce != last_nonce + 1 else None

    def _of_money(self, call: Call, terms: Terms, *, price: Fraction, span: tuple[int, int]) -> set[Verdict]:
        """Steps 7 to 10, for every number of tickets that may be due within the span."""
        return set().union(*(self._of_tickets(call, terms, count, price=price) for count in due_counts(call, span)))

    def _of_tickets(self, call: Call, terms: Terms, count: int, *, price: Fraction) -> set[Verdict]:
        ev_wei = ceil(count * call.offer.ev_wei)
        if ev_wei > CALL_EV_MAX_WEI:
            return {TOO_MUCH}
        if 0 < count <= NONCES_MAX < call.first_nonce + count - 1:
            return {REFRESH}
        if (uncovered := _uncovered(call, terms.cover)) is not None:
            return {uncovered}
        signers_no = _signers_no(call, count)
        charge = cost(ev_wei, price, terms) if count else _ZERO
        limit = self.limit_passed(call, terms, charge=charge, ev_wei=ev_wei)
        stopped = Refused(429, "limit_reached", limit)
        if count and charge > terms.granted + terms.credit_limit - self.gateways[call.gateway].spent:
            return {BROKE, signers_no or BROKE}  # credit is remembered, too
        # A share is known before the signer is asked, a limit only where it was met a moment ago.
        refused: set[Verdict] = self._beyond_share(call, terms.cover, ev_wei) | ({stopped} if limit else set())
        if signers_no is not None:
            return {signers_no, *refused}  # a limit that was reached before is told first
        return refused or {Paid(count)}

    def _beyond_share(self, call: Call, cover: Cover, ev_wei: int) -> set[Verdict]:
        if cover.level != "critical" or not ev_wei:
            return set()
        total_wei = self.gateways[call.gateway].used.ev_total_wei() + ev_wei
        return {COVER_USED} if total_wei > cover.ev_total_max_wei else set()

    def limit_passed(self, call: Call, terms: Terms, *, charge: Fraction, ev_wei: int) -> str:
        """The first limit, in the published order, that the call would pass; "" where none."""
        gateway, day = self.gateways[call.gateway], datetime.now(UTC).date()
        of_key, is_new = gateway.used_by_key[call.key], call.state is None
        orchestrator = call.offer.orchestrator
        wanted: list[tuple[str, Fraction | None, Fraction | int]] = [
            ("calls_per_day", terms.limits.get("calls_per_day"), gateway.used.calls[day] + 1),
            ("spend_per_day", terms.limits.get("spend_per_day"), gateway.used.spent[day] + charge),
            ("spend_per_month", terms.limits.get("spend_per_month"), gateway.used.spent_in_month(day) + charge),
            ("ev_open", terms.limits.get("ev_open"), gateway.used.ev_open_wei(day) + ev_wei),
            (
                "sessions_open",
                terms.limits.get("sessions_open") if is_new else None,
                self.open_sessions(call.gateway) + 1,
            ),
            ("key_calls_per_day", terms.key_limits.get((call.key, "calls_per_day")), of_key.calls[day] + 1),
            ("key_spend_per_day", terms.key_limits.get((call.key, "spend_per_day")), of_key.spent[day] + charge),
            ("key_ev_open", terms.key_limits.get((call.key, "ev_open")), of_key.ev_open_wei(day) + ev_wei),
            (
                "key_sessions_open",
                terms.key_limits.get((call.key, "sessions_open")) if is_new else None,
                self.open_sessions(call.gateway, opened_by=call.key) + 1,
            ),
            (
                "sessions_open_per_orchestrator",
                terms.limits.get("sessions_open_per_orchestrator") if is_new else None,
                self.open_sessions(call.gateway, orchestrator=orchestrator) + 1,
            ),
        ]
        return next((name for name, allowed, used in wanted if allowed is not None and used > allowed), "")

    # --- the books ----------------------------------------------------------------------------------------------------

    def why_not(self, entry: Entry, call: Call, terms: Terms, *, price: Fraction, span: tuple[int, int]) -> str:
        """What is wrong with this entry as the effect of this call under these terms; "" where nothing is."""
        verdicts = self.judge(call, terms, price=price, span=span)
        if Paid(entry.num_tickets) not in verdicts:
            return f"allowed was {_shown(verdicts)}"
        offer, state, gateway = call.offer, call.state, self.gateways[call.gateway]
        charge = cost(entry.ev_wei, price, terms)
        expected = {
            "gateway": call.gateway,
            "key": call.key,
            "session": state.session if state is not None else entry.session,
            "sequence": state.sequence + 1 if state is not None else 0,
            "rand": offer.rand,
            "first_nonce": call.first_nonce,
            "face_value_wei": offer.face_value_wei,
            "win_prob": offer.win_prob,
            "ev_wei": ceil(entry.num_tickets * offer.ev_wei),
            "charge": charge,
            "currency": terms.currency,
            "price": price,
            "markup_bps": terms.markup_bps,
            "balance_after": terms.granted - gateway.spent - charge,
            "idempotency_key": call.idempotency_key,
        }
        for name, wanted in expected.items():
            if (got := getattr(entry, name)) != wanted:
                return f"its {name} is {got}, expected was {wanted}"
        if state is None and entry.session in self.sessions:
            return "a new session has the id of another"
        units = _units_billed(entry, call)
        if units is None or entry.num_tickets != _count(call, units):
            return f"its fee of {entry.fee_wei} wei does not need {entry.num_tickets} tickets"
        return ""

    def book(self, entry: Entry, call: Call) -> Payment:
        """The entry is accepted: this is the state of things from now on."""
        gateway, offer = self.gateways[entry.gateway], call.offer
        units = _units_billed(entry, call)
        assert units is not None, "the entry was not judged"
        session = self.sessions.get(entry.session)
        price_wei = session.price_wei if session is not None else offer.price_wei
        manifest = (session.manifest if session is not None else "") or call.manifest
        opened_by = entry.key if session is None or session.is_closed else session.opened_by
        self.sessions[entry.session] = Session(
            entry.gateway, call, manifest, price_wei, entry.receipt, entry.sequence, opened_by
        )
        self.rands[entry.rand] = entry.session, entry.nonces[-1]
        gateway.spent += entry.charge
        gateway.used.count(entry)
        gateway.used_by_key[entry.key].count(entry)
        balance_wei = _balance_wei(call) + entry.num_tickets * offer.ev_wei - units * price_wei
        payment = self.payments[entry.receipt] = Payment(entry, call, balance_wei)
        self._by_identity[(entry.gateway, *call.identity)] = entry.receipt
        if call.idempotency_key:
            self.keyed[entry.gateway, call.idempotency_key] = entry.receipt
        return payment

    def exposure(self) -> tuple[int, int]:
        """All tickets that were ever charged, and the integer sum of face value times win probability."""
        entries = [payment.entry for payment in self.payments.values()]
        return (
            sum(entry.num_tickets for entry in entries),
            sum(entry.num_tickets * entry.face_value_wei * entry.win_prob for entry in entries),
        )


def cost(ev_wei: int, price: Fraction, terms: Terms) -> Fraction:
    """n·EV at the price of ETH plus the markup, not rounded; the minimum if that is more."""
    return max(Fraction(ev_wei * price * (10_000 + terms.markup_bps), 10**22), terms.minimum_charge)


# --- what is due: remote-signer protocol, section 3 -------------------------------------------------------------------


def due_counts(call: Call, span: tuple[int, int]) -> range:
    """How many tickets may be due, by the clock."""
    least, most = _units(call, span)
    return range(_count(call, least), _count(call, most) + 1)


def _units(call: Call, span: tuple[int, int]) -> tuple[int, int]:
    """Units billed, at least and at most."""
    if call.job_type == "fixed":
        return 1, 1
    if call.job_type == "":
        return call.in_pixels, call.in_pixels
    if call.state is None:
        preload = 10 if call.job_type == "live" else 60 * PIXELS_PER_S
        return preload, preload
    least_ns, most_ns = (max(at_ns - call.state.updated_unix_ns, 1) for at_ns in span)
    if call.job_type == "live":
        return -(-least_ns // 10**9), -(-most_ns // 10**9)
    # Pixels are counted in binary floating point: one more or less is rounding.
    return PIXELS_PER_S * least_ns // 10**9 - 1, PIXELS_PER_S * most_ns // 10**9 + 1


def _count(call: Call, units: int) -> int:
    """Tickets that bring the balance up to the fee, or to one ticket's value if that is more."""
    ev_wei = call.offer.ev_wei
    gap_wei = max(units * _price_wei(call), ev_wei) - _balance_wei(call)
    return max(0, ceil(gap_wei / ev_wei))


def _price_wei(call: Call) -> Fraction:
    """A session is billed at the price it began with."""
    return call.state.price_wei if call.state is not None else call.offer.price_wei


def _balance_wei(call: Call) -> Fraction:
    return call.state.balance_wei if call.state is not None else _ZERO


def _units_billed(entry: Entry, call: Call) -> int | None:
    """Out of the fee that was recorded, which is rounded to a wei. None: it is no fee of this call."""
    units = round(entry.fee_wei / _price_wei(call))
    return units if abs(units * _price_wei(call) - entry.fee_wei) <= 1 else None


def _signers_no(call: Call, count: int) -> Refused | None:
    """What any signer refuses."""
    if call.state is not None and call.state.is_forged:
        return INVALID
    if call.offer.price_wei > _price_wei(call):
        return TOO_DEAR
    if count == 0:
        return NOTHING_DUE
    return INVALID if count > TICKETS_MAX else None


def _uncovered(call: Call, cover: Cover) -> Refused | None:
    """What the gates refuse, whatever the call is worth."""
    if cover.level == "unknown":
        return COVER_UNKNOWN
    if call.state is None and cover.level in {"low", "critical"}:
        return COVER_LOW
    if cover.face_value_max_wei is not None and call.offer.face_value_wei > cover.face_value_max_wei:
        return TOO_MUCH
    return None


def _shown(verdicts: set[Verdict]) -> str:
    return " or ".join(sorted(map(str, verdicts))) or "nothing"


def follows(state: State, payment: Payment) -> bool:
    """Whether a released state is the one that the payment leads to, to the last fraction of a wei."""
    entry = payment.entry
    return (state.auth_id, state.sequence, state.rand, state.nonce, state.balance_wei) == (
        f"{entry.gateway}/{entry.session}", entry.sequence, entry.rand, entry.nonces[-1], payment.balance_wei,
    )  # fmt: skip
