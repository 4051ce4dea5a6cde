"""What a signer's successive states say about the work and the tickets between them: pure and exact.

    balance + n·EV - fee = next balance             (remote-signer protocol, section 3.5)

The fee follows from the states alone: the price the session began with, times the units of the time that passed on the
signer's own clock (sections 3.1 and 3.2); an untyped job's pixels stand in its request. So whoever knows the tickets
knows the next balance (`require_follows`), and whoever sees the states only knows the tickets' value (`derive`,
section 6.1). Fractions are compared as whole numbers over one denominator: Fraction reduces at every step, and each
payment passes here once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from chain.fees import LIVE, LV2V, UNTYPED, JobTypeError, billable_units
from chain.messages import Price
from chain.payment_state import PaymentState
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.rates.usage import Work

#: Most tickets a signer puts into one payment (section 1.2, step 21).
TICKETS_MAX_COUNT: Final = 100
#: How far a signer's clock may be from ours. It covers the signer's own way to its answer as well.
CLOCK_SKEW_MAX_NS: Final = 30 * 10**9
#: What is billed by time; the reference would bill the first call's seconds again where time runs backward (A22).
_TIMED_TYPES: Final = frozenset({LIVE, LV2V})
_NS_PER_S: Final = 10**9


class DerivationError(ValueError):
    """A state that does not follow. The text says what is wrong with it and completes "The signer's state …"."""


class TimeRanBackward(DerivationError):
    """The signer's clock was behind that of the state's base. The reference bills the first seconds again then."""


class Fee(NamedTuple):
    """Wei, exactly: numerator / denominator, not reduced, neither of them negative."""

    numerator: int
    denominator: int

    @property
    def wei(self) -> int:
        """Rounded half up, as the signer's own reports show it."""
        return (2 * self.numerator + self.denominator) // (2 * self.denominator)


class Derived(NamedTuple):
    """What was issued between two states."""

    first_nonce: int
    num_tickets: int
    work: Work
    fee: Fee
    #: n·EV·WIN_PROB_CERTAIN = n · face value · win probability: a whole number, though neither factor is known.
    ev_numerator: int

    @property
    def ev_wei(self) -> int:
        """Expected value of all tickets together, rounded up once."""
        return -(-self.ev_numerator // WIN_PROB_CERTAIN)


def work_of(state: PaymentState, base: PaymentState | None, *, in_pixels: int) -> Work:
    """What the call was for that led from `base`, or from nothing, to `state`; `in_pixels` is an untyped job's request.

    The time is what the signer's clock says went by; ours is not asked. Raises DerivationError where that time or its
    units cannot be billed.
    """
    elapsed_ns = _elapsed_ns(state, base)
    try:
        units = billable_units(state.type, elapsed_ns, in_pixels)
    except JobTypeError:
        raise DerivationError("is of a type that no job has.") from None
    if units <= 0:
        raise DerivationError("bills no unit, so that nothing was due.")
    return Work(units, elapsed_ns)


def fee_of(state: PaymentState, work: Work) -> Fee:
    """At the price that the session began with. Raises DerivationError where that cannot be one."""
    price = state.initial_price
    if price.price_per_unit <= 0 or price.pixels_per_unit <= 0:
        raise DerivationError("has an InitialPrice that is not positive.")
    return Fee(work.units * price.price_per_unit, price.pixels_per_unit)


def require_clock(state: PaymentState, *, now_unix_ns: int, clock_skew_max_ns: int = CLOCK_SKEW_MAX_NS) -> None:
    """The signer's clock is about ours. Every job type sets LastUpdate, and the next call's time counts from it."""
    updated_unix_ns = state.last_update_unix_ns
    if updated_unix_ns is None:
        raise DerivationError("has no LastUpdate.")
    if not -clock_skew_max_ns <= updated_unix_ns - now_unix_ns <= clock_skew_max_ns:
        raise DerivationError(f"has a LastUpdate more than {clock_skew_max_ns // _NS_PER_S} s off this clock.")


def require_follows(
    state: PaymentState,
    base: PaymentState | None,
    *,
    fee: Fee,
    num_tickets: int,
    face_value_wei: int,
    win_prob: int,
) -> None:
    """The state's balance is the base's and the tickets' value less the fee, and no other number of tickets was due.

    The tickets are worth something. Raises DerivationError.
    """
    ev_n = face_value_wei * win_prob  # over WIN_PROB_CERTAIN
    base_n, base_d = _balance(base)
    paid_n, paid_d = _paid(state, fee)
    credit_n = base_n * WIN_PROB_CERTAIN + num_tickets * ev_n * base_d  # over base_d * WIN_PROB_CERTAIN
    if paid_n * base_d * WIN_PROB_CERTAIN != credit_n * paid_d:
        raise DerivationError("has another Balance than follows from the request.")
    _require_due(state, paid_n, paid_d, ev_n)


def derive(state: PaymentState, base: PaymentState | None) -> Derived:
    """The tickets between two successive states of one session; `base` None stands before a session's first.

    AuthID and the clock are the caller's to judge. Raises DerivationError where `state` does not follow `base`, by
    continuity or by arithmetic, and for an untyped job, whose pixels no state shows.
    """
    if state.type == UNTYPED:
        raise DerivationError("is of an untyped job, whose pixels it does not show.")
    _require_continuity(state, base)
    first_nonce, num_tickets = _nonces(state, base)
    work = work_of(state, base, in_pixels=0)
    fee = fee_of(state, work)
    base_n, base_d = _balance(base)
    paid_n, paid_d = _paid(state, fee)
    value_n = paid_n * base_d - base_n * paid_d
    if value_n <= 0:
        raise DerivationError("pays with tickets without value.")
    ev_n, rest = divmod(value_n * WIN_PROB_CERTAIN, paid_d * base_d * num_tickets)
    if rest or ev_n > WIN_PROB_CERTAIN * WIN_PROB_CERTAIN:
        raise DerivationError(f"has a Balance that no {num_tickets} equal tickets leave.")
    _require_due(state, paid_n, paid_d, ev_n)
    return Derived(first_nonce, num_tickets, work, fee, ev_n * num_tickets)


def _elapsed_ns(state: PaymentState, base: PaymentState | None) -> int:
    """0 for a first call, and after a state without a time (section 3.1)."""
    if state.last_update_unix_ns is None:
        raise DerivationError("has no LastUpdate.")
    if base is None or base.last_update_unix_ns is None:
        return 0
    elapsed_ns = state.last_update_unix_ns - base.last_update_unix_ns
    if elapsed_ns < 0 and state.type in _TIMED_TYPES:
        raise TimeRanBackward("has a LastUpdate before the last payment's.")
    return elapsed_ns


def _balance(base: PaymentState | None) -> tuple[int, int]:
    balance = base.balance if base is not None else None
    return (balance.numerator, balance.denominator) if balance is not None else (0, 1)


def _paid(state: PaymentState, fee: Fee) -> tuple[int, int]:
    """What was there before the fee: next balance + fee."""
    balance = state.balance
    if balance is None:
        raise DerivationError("has no Balance.")
    balance_n, balance_d = balance.numerator, balance.denominator
    return balance_n * fee.denominator + fee.numerator * balance_d, balance_d * fee.denominator


def _require_due(state: PaymentState, paid_n: int, paid_d: int, ev_n: int) -> None:
    """The least number of tickets that covers the fee and one ticket's value, `ev_n` over WIN_PROB_CERTAIN.

    Fewer are what a number of tickets that wrapped around leaves behind (A15).
    """
    assert state.balance is not None, "what was paid is computed from it"
    one_n, all_n = ev_n * paid_d, paid_n * WIN_PROB_CERTAIN
    if state.balance.numerator < 0 or all_n < one_n:
        raise DerivationError("has a Balance that fewer tickets than due leave.")
    left_n, left_d = state.balance.numerator, state.balance.denominator
    if all_n >= 2 * one_n and left_n * WIN_PROB_CERTAIN >= ev_n * left_d:
        raise DerivationError("has a Balance that more tickets than due leave.")


def _require_continuity(state: PaymentState, base: PaymentState | None) -> None:
    """Section 6.1: what a session keeps, and one step at a time."""
    if base is None:
        got: tuple[object, ...] = (state.sequence_number, state.auth_expiry_unix_s)
        wanted: tuple[object, ...] = (0, 0)
        names: tuple[str, ...] = ("SequenceNumber", "AuthExpiry")
    else:
        got, wanted, names = _kept(state), _kept(base, steps=1), _KEPT
    if got != wanted:
        name = next(name for name, mine, theirs in zip(names, got, wanted, strict=True) if mine != theirs)
        raise DerivationError(f"has another {name} than follows from the last one.")


_KEPT: Final = ("SequenceNumber", "AuthExpiry", "StateID", "OrchestratorAddress", "App", "Type", "InitialPrice")


def _kept(state: PaymentState, *, steps: int = 0) -> tuple[int, int, str, bytes, str, str, Price]:
    """In the order of _KEPT."""
    return (
        state.sequence_number + steps, state.auth_expiry_unix_s, state.state_id, state.orchestrator_address, state.app,
        state.type, state.initial_price,
    )  # fmt: skip


def _nonces(state: PaymentState, base: PaymentState | None) -> tuple[int, int]:
    """The first nonce and how many: they go on with the PM session, and begin at 1 in a new one (section 3.8)."""
    continues = base is not None and base.pm_session_id == state.pm_session_id
    used = base.sender_nonce if base is not None and continues else 0
    count = state.sender_nonce - used
    if not 1 <= count <= TICKETS_MAX_COUNT:
        raise DerivationError(f"has issued {count} tickets; 1 to {TICKETS_MAX_COUNT} are possible.")
    return used + 1, count
