"""What the webhook charges for a session's states, whoever shows them: honest callers, unlucky ones, and cheats.

The signer here is a correct one in plain fractions; its callers may go on from any state they were ever given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chain.fees import LIVE, LV2V, billable_units, fee_wei, tickets_needed
from chain.messages import Price
from chain.payment_state import PaymentState
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.approved_states import (
    HEADS_MAX_COUNT,
    Approved,
    Due,
    Kind,
    Step,
    judge,
    keep,
    read_approved,
    write_approved,
)
from clearinghouse.derivation import derive
from clearinghouse.errors import StateConflict

S = 10**9
BEGIN_UNIX_NS = 1_775_592_000_123_456_789
PRICE = Price(7, 3)


@dataclass
class Issued:
    """What the signer had in hand when it asked."""

    state: PaymentState
    rand: int
    nonces: range
    ev_numerator: int

    @property
    def value(self) -> int:
        return len(self.nonces) * self.ev_numerator


@dataclass
class Session:
    """The session as the webhook keeps it, and what it has charged, times 2^256 - 1."""

    approved: Approved | None = None
    last_nonces: dict[int, int] = field(default_factory=dict)
    charged: int = 0

    def show(self, issued: Issued) -> Step:
        if self.approved is not None:
            self.approved = read_approved(write_approved(self.approved))
        step = judge(keep(issued.state), self.approved, self.last_nonces.get(issued.rand, 0))
        self.approved = step.approved
        self.last_nonces[issued.rand] = step.charged.first_nonce + step.charged.num_tickets - 1
        self.charged += step.charged.ev_numerator
        return step


def sign(
    base: PaymentState | None, *, at_ns: int, rand: int = 0, ev_numerator: int, job_type: str = LIVE, name: str = "a"
) -> Issued | None:
    """Section 3.5; None where nothing is due, or too much."""
    last_ns = base.last_update_unix_ns if base is not None else None
    units = billable_units(job_type, at_ns - last_ns if last_ns is not None else 0, 0)
    balance = (base.balance if base is not None else None) or Fraction(0)
    fee, ev = fee_wei(units, PRICE), Fraction(ev_numerator, WIN_PROB_CERTAIN)
    count = tickets_needed(balance=balance, fee=fee, ev=ev)
    if units <= 0 or not 1 <= count <= 100:
        return None
    session = bytes([rand]) * 32
    used = base.sender_nonce if base is not None and base.pm_session_id == session else 0
    state = PaymentState(
        state_id=base.state_id if base is not None else name,
        pm_session_id=session,
        last_update_unix_ns=at_ns,
        orchestrator_address=b"\x02" * 20,
        app="",
        auth_expiry_unix_s=0,
        sender_nonce=used + count,
        balance=balance + count * ev - fee,
        initial_price=PRICE,
        type=job_type,
        sequence_number=base.sequence_number + 1 if base is not None else 0,
        auth_id="",
    )
    return Issued(state, rand, range(used + 1, used + count + 1), ev_numerator)


def signed(base: PaymentState | None, *, seconds: float, rand: int = 0, wei: int = 20, **how: str) -> Issued:
    issued = sign(base, at_ns=BEGIN_UNIX_NS + int(seconds * S), rand=rand, ev_numerator=wei * WIN_PROB_CERTAIN, **how)
    assert issued is not None
    return issued


# --- one by one -------------------------------------------------------------------------------------------------------


def test_a_session_goes_on_payment_by_payment_and_is_charged_its_tickets() -> None:
    session, base = Session(), None
    worth = 0
    for number in range(5):
        issued = signed(base, seconds=20 * number, rand=number // 3)
        step = session.show(issued)
        assert (step.kind, step.charged.first_nonce, step.charged.num_tickets) == (
            Kind.NEXT, issued.nonces[0], len(issued.nonces),
        )  # fmt: skip
        base, worth = issued.state, worth + issued.value
    assert session.charged == worth


def test_a_lost_answer_is_charged_once_and_the_session_goes_on_from_the_repeat() -> None:
    session = Session()
    first = signed(None, seconds=0)
    session.show(first)
    lost, again = signed(first.state, seconds=20), signed(first.state, seconds=21)
    session.show(lost)
    step = session.show(again)
    assert (step.kind, step.charged.num_tickets, step.charged.ev_numerator) == (Kind.REPEAT, 0, 0)
    assert step.shown == Due(again.nonces[0], len(again.nonces), again.value)
    after = signed(again.state, seconds=40)
    session.show(after)
    assert first.value + again.value + after.value <= session.charged
    assert session.charged <= first.value + again.value + after.value + 3 * WIN_PROB_CERTAIN  # one second's price


def test_of_a_repeat_that_grew_only_what_grew_is_charged() -> None:
    session = Session()
    first = signed(None, seconds=0)
    session.show(first)
    lost, again = signed(first.state, seconds=20), signed(first.state, seconds=45)
    assert len(lost.nonces) == 2 < len(again.nonces)
    session.show(lost)
    step = session.show(again)
    grown = len(again.nonces) - len(lost.nonces)
    assert step.charged == Due(lost.nonces[-1] + 1, grown, grown * again.ev_numerator)
    after = signed(again.state, seconds=60)
    session.show(after)
    assert session.charged == first.value + again.value + after.value


def test_a_lost_first_answer_has_another_state_id_and_either_may_go_on() -> None:
    for chosen in (0, 1):
        session = Session()
        attempts = [signed(None, seconds=number, name=f"{number}") for number in (0, 1)]
        assert [session.show(attempt).kind for attempt in attempts] == [Kind.NEXT, Kind.REPEAT]
        after = signed(attempts[chosen].state, seconds=30)
        session.show(after)
        assert session.charged == attempts[0].value + after.value


def test_fresh_parameters_right_after_a_repeat_that_grew_cost_no_more_than_what_it_grew_by() -> None:
    """Which of both attempts arrived does not show then, and what it may be worth is charged."""
    for chosen in (0, 1):
        session = Session()
        first = signed(None, seconds=0)
        attempts = [signed(first.state, seconds=seconds) for seconds in (20, 45)]
        for issued in (first, *attempts):
            session.show(issued)
        charged, grown = session.charged, attempts[1].value - attempts[0].value
        assert grown > 0
        after = signed(attempts[chosen].state, seconds=60, rand=1)
        session.show(after)
        assert after.value <= session.charged - charged <= after.value + grown


def test_fresh_parameters_for_a_lost_answer_are_charged_in_full() -> None:
    session = Session()
    first = signed(None, seconds=0)
    session.show(first)
    lost, fork = signed(first.state, seconds=20), signed(first.state, seconds=22, rand=1)
    session.show(lost)
    step = session.show(fork)
    assert (step.kind, step.charged.ev_numerator) == (Kind.FORK, fork.value)
    after = signed(fork.state, seconds=40, rand=1)
    session.show(after)
    assert session.charged >= first.value + lost.value + fork.value + after.value


def test_an_older_state_and_one_from_elsewhere_are_in_conflict() -> None:
    session, states = Session(), []
    base = None
    for number in range(4):
        issued = signed(base, seconds=20 * number)
        if number < 3:
            session.show(issued)
        base = issued.state
        states.append(issued)
    with pytest.raises(StateConflict, match="later payment"):
        session.show(signed(states[0].state, seconds=90))
    unseen = signed(states[3].state, seconds=90)
    with pytest.raises(StateConflict, match="not approved here"):
        session.show(unseen)
    session.show(states[3])
    session.show(unseen)


OTHERS = {
    "tickets worth more": {"wei": 40},
    "tickets worth less": {"wei": 10},
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_nonces_for_other_tickets_are_in_conflict(name: str) -> None:
    session = Session()
    first = signed(None, seconds=0)
    session.show(first)
    session.show(signed(first.state, seconds=20))
    with pytest.raises(StateConflict, match="other tickets"):
        session.show(signed(first.state, seconds=20, **OTHERS[name]))


def test_a_session_cannot_begin_in_the_middle_or_with_an_expiry() -> None:
    first = signed(None, seconds=0)
    for changes in ({"sequence_number": 3}, {"auth_expiry_unix_s": 2**40}):
        with pytest.raises(StateConflict):
            Session().show(replace(first, state=first.state._replace(**changes)))


@pytest.mark.parametrize(("rand", "wei"), [(2, 140), (1, 70)], ids=["fresh parameters", "the fork's parameters"])
def test_a_cheap_branch_beside_a_dear_one_is_not_charged_as_if_the_dear_one_went_on(rand: int, wei: int) -> None:
    """The fork leaves a high balance, which is paid for once: it must not pay for tickets on the other branch too."""
    session = Session()
    first = signed(None, seconds=0, wei=25)
    cheap = signed(first.state, seconds=5, wei=15)
    dear = signed(first.state, seconds=5, rand=1, wei=65)
    for issued in (first, cheap, dear):
        session.show(issued)
    charged = session.charged
    trick = signed(cheap.state, seconds=65, rand=rand, wei=wei)
    assert derive(trick.state, dear.state).ev_numerator < trick.value
    session.show(trick)
    assert session.charged - charged >= trick.value


@pytest.mark.parametrize("job_type", [LIVE, LV2V])
def test_a_clock_that_is_behind_does_not_hide_what_is_billed_for_it_behind_another_branch(job_type: str) -> None:
    """Of two signers with one key, one is a second ahead; the other, shown its state, bills a first call anew."""
    scale = 27_648_000 if job_type == LV2V else 1
    session = Session()
    first = signed(None, seconds=0, wei=25 * scale, job_type=job_type)
    ahead = signed(first.state, seconds=21, wei=20 * scale, job_type=job_type)
    behind = signed(first.state, seconds=20, rand=1, wei=20 * scale, job_type=job_type)
    for issued in (first, ahead, behind):
        session.show(issued)
    trick = signed(ahead.state, seconds=20.5, rand=2, wei=150 * scale, job_type=job_type)
    assert derive(trick.state, behind.state).ev_numerator < trick.value
    with pytest.raises(StateConflict, match="LastUpdate before"):
        session.show(trick)


def test_what_is_kept_of_a_session_is_bounded() -> None:
    session = Session()
    first = signed(None, seconds=0)
    session.show(first)
    for number in range(HEADS_MAX_COUNT):
        session.show(signed(first.state, seconds=20, rand=number + 1))
    with pytest.raises(StateConflict, match=f"approved {HEADS_MAX_COUNT} times"):
        session.show(signed(first.state, seconds=20, rand=99))
    assert session.approved is not None
    assert len(write_approved(session.approved)) < 10_000


# --- any history ------------------------------------------------------------------------------------------------------

EVS = st.integers(3, 400).map(lambda wei: wei * WIN_PROB_CERTAIN) | st.integers(3 << 256, 400 << 256)
TYPES = st.sampled_from([LIVE, LV2V, "fixed"])


@dataclass(frozen=True)
class Tick:
    """A payment of an honest caller: `lost`, and it is tried again a moment later until it is not."""

    elapsed_ns: int
    lost: tuple[int, ...]
    refreshes: bool


TICKS = st.lists(
    st.builds(
        Tick,
        elapsed_ns=st.integers(1, 60 * S),
        lost=st.lists(st.integers(1, 20 * S), max_size=3).map(tuple),
        refreshes=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200)
@given(TICKS, EVS, TYPES)
def test_an_honest_caller_pays_for_each_nonce_once_whatever_is_lost(ticks: list[Tick], ev: int, job_type: str) -> None:
    ev = ev * 27_648_000 if job_type == LV2V else ev
    session, base, at_ns, rand = Session(), None, BEGIN_UNIX_NS, 0
    tickets: set[tuple[int, int]] = set()
    losses, was_lost = 0, False
    for tick in ticks:
        rand += tick.refreshes and not was_lost
        for later_ns in (tick.elapsed_ns, *tick.lost):
            at_ns += later_ns
            issued = sign(base, at_ns=at_ns, rand=rand, ev_numerator=ev, job_type=job_type, name=str(at_ns))
            if issued is None:
                break
            session.show(issued)
            tickets.update((rand, nonce) for nonce in issued.nonces)
        if issued is None:
            continue
        losses, was_lost = losses + len(tick.lost), bool(tick.lost)
        base = issued.state
    worth = len(tickets) * ev
    assert worth <= session.charged
    #: A unit more or less lies between two readings of a clock; lv2v reads it through a float.
    unit = -(-PRICE.price_per_unit * WIN_PROB_CERTAIN // PRICE.pixels_per_unit)
    assert session.charged <= worth + 4 * unit * losses
    if job_type == "fixed" or not losses:
        assert session.charged == worth


@dataclass(frozen=True)
class Trick:
    """A payment of a cheat: from any state it has, with any parameters it has, whatever happened before."""

    base: int
    rand: int
    ev: int
    elapsed_ns: int


TRICKS = st.lists(
    st.builds(
        Trick,
        base=st.integers(0, 3),
        rand=st.integers(0, 2),
        ev=st.integers(0, 2),
        elapsed_ns=st.sampled_from([0, 1, 5 * S, 60 * S, -S]) | st.integers(-5 * S, 120 * S),  # of signers' clocks
    ),
    min_size=2,
    max_size=14,
)


@settings(max_examples=600)
@given(TRICKS, st.tuples(EVS, EVS, EVS), st.sampled_from([LIVE, "fixed"]))
def test_no_history_is_worth_more_than_was_charged_but_for_what_counted_repeats_hide(
    tricks: list[Trick], evs: tuple[int, int, int], job_type: str
) -> None:
    """Tickets count each time they are released, also those with a nonce that was used before: they may be others."""
    session, at_ns = Session(), BEGIN_UNIX_NS
    states: list[PaymentState | None] = [None]
    worth = hidden = 0
    for number, trick in enumerate(tricks):
        at_ns += trick.elapsed_ns
        base = states[-1 - trick.base % len(states)]
        issued = sign(
            base, at_ns=at_ns, rand=trick.rand, ev_numerator=evs[trick.ev], job_type=job_type, name=str(number)
        )
        if issued is None:
            continue
        try:
            step = session.show(issued)
        except StateConflict:
            continue
        states.append(issued.state)
        worth += issued.value
        if step.kind is Kind.REPEAT:
            hidden += step.shown.ev_numerator + 2 * PRICE.price_per_unit * WIN_PROB_CERTAIN
    assume(len(states) > 2)
    assert session.charged + hidden >= worth


def test_the_tricks_are_many() -> None:
    """Otherwise the test above would prove little: each kind of step happens, and so do refusals."""
    kinds: list[Kind] = []
    session = Session()
    first = signed(None, seconds=0)
    kinds.append(session.show(first).kind)
    kinds.append(session.show(signed(first.state, seconds=20)).kind)
    kinds.append(session.show(signed(first.state, seconds=21)).kind)
    kinds.append(session.show(signed(first.state, seconds=22, rand=1, wei=33)).kind)
    assert _set(kinds) == set(Kind)


def _set(kinds: Iterable[Kind]) -> set[Kind]:
    return set(kinds)
