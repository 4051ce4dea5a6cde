"""What gateways will ask for, as a plan of sessions, and the tickets that it takes: closed formulas, no dice.

A session begins with the protocol's first payment (60 s of pixels, 10 s, or one call), goes on paying at one price, and
ends after a time that is exponentially distributed. Its balance is kept a ticket ahead (remote-signer protocol, 3.5),
so that it issues ceil(x + r·t) tickets in t seconds: x with its first payments, r per second.

Amounts and tickets' terms are exact. Rates and probabilities are floats: they describe dice.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, exp, expm1
from typing import Final, NamedTuple

from chain.exposure import Float, orchestrator_float
from chain.fees import FIXED, LIVE, LIVE_PRELOAD_S, LV2V, LV2V_PRELOAD_S
from chain.tickets import WIN_PROB_CERTAIN, ticket_ev

DAY_S: Final = 86_400
#: Arbitrum's contracts count L1 blocks.
L1_BLOCK_S: Final = 12
#: A round as deployed; tickets live through the one they were created in and the next (8.1, 8.4).
ROUND_S: Final = 5_760 * L1_BLOCK_S
#: Ticket parameters are good for 40 L1 blocks, and winners are redeemed after that (8.5, 5).
REDEEMED_AFTER_MIN_S: Final = 40 * L1_BLOCK_S
#: Between two payments of a session that is paid by time.
PAYMENT_INTERVAL_S: Final = 10
TICKETS_PER_CALL_MAX: Final = 100

_PRELOAD_S: Final = {LIVE: LIVE_PRELOAD_S, LV2V: LV2V_PRELOAD_S}
_TICKETS_PER_DAY_MAX: Final = 10**15  # floats count them exactly, with room to add up


class Pace(NamedTuple):
    """How many tickets sessions issue, on average."""

    sessions_per_s: float
    #: With a session's first payments.
    first_tickets: int
    #: Of a session, while it lasts.
    tickets_per_s: float
    #: How long a session lasts.
    session_s: float

    @property
    def tickets_per_day(self) -> float:
        """Of all sessions."""
        return self.tickets_per_session * self.sessions_per_s * DAY_S

    @property
    def tickets_per_session(self) -> float:
        return self.first_tickets + self.tickets_per_s * self.session_s


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sessions that are alike, of gateways that are alike. Raises ValueError for what cannot be."""

    gateways_count: int
    #: Open at once, on average.
    sessions_count: int
    #: How long a session lasts, on average.
    session_s: int
    job_type: str
    #: Wei per second, pixel or call.
    price_wei_per_unit: Fraction
    #: Units of a session: seconds, pixels or calls per second.
    units_per_s: Fraction
    face_value_wei: int
    #: What the orchestrator makes a ticket worth; the win probability follows from it.
    ticket_ev_wei: int
    #: From the first moment at which a winner may be redeemed to its redemption, on average.
    redemption_s: int
    #: By how much a gateway's sessions of a day vary around their mean: coefficient of variation.
    demand_variation: Fraction

    def __post_init__(self) -> None:
        for name in ("gateways_count", "sessions_count", "session_s", "price_wei_per_unit", "units_per_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("redemption_s", "demand_variation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.job_type not in (LIVE, LV2V, FIXED):
            raise ValueError(f"job_type must be {LIVE}, {LV2V} or {FIXED}, got {self.job_type!r}")
        if not 0 < self.ticket_ev_wei <= self.face_value_wei:
            raise ValueError(
                f"a ticket's expected value must be above 0 and at most its face value: "
                f"{self.ticket_ev_wei} of {self.face_value_wei} wei"
            )
        call = ceil(max(self._first_evs, self._payment_evs))
        if call > TICKETS_PER_CALL_MAX:
            raise ValueError(
                f"a payment would take {call} tickets of {self.ticket_ev_wei} wei expected value, and a call may have "
                f"{TICKETS_PER_CALL_MAX}: the orchestrator has to make a ticket worth at least "
                f"{ceil(self.ticket_ev_wei * Fraction(call, TICKETS_PER_CALL_MAX))} wei"
            )
        if not 1 <= self.pace().tickets_per_day <= _TICKETS_PER_DAY_MAX:
            raise ValueError(
                f"this is {self.pace().tickets_per_day:.3g} tickets a day: plan for 1 to {_TICKETS_PER_DAY_MAX:.0e}"
            )

    @property
    def win_prob(self) -> int:
        """Over WIN_PROB_CERTAIN, as go-livepeer's orchestrators compute it (4.3)."""
        if self.ticket_ev_wei == self.face_value_wei:
            return WIN_PROB_CERTAIN
        quotient, rest = divmod(WIN_PROB_CERTAIN, self.face_value_wei)
        return self.ticket_ev_wei * (quotient + (1 if rest % 2**64 else 0))

    @property
    def win_probability(self) -> float:
        return self.win_prob / WIN_PROB_CERTAIN

    @property
    def fee_wei_per_s(self) -> Fraction:
        """Of one session."""
        return self.price_wei_per_unit * self.units_per_s

    def pace(self) -> Pace:
        """The tickets that the plan takes.

        For an exponential session of mean m, the tickets after the first are a sum of P(t > (k - x) / r) over k, which
        is geometric: exp(-g / (r·m)) / (1 - exp(-1 / (r·m))), where g is what the first ones left over.
        """
        ahead = self._first_evs + max(Fraction(0), 1 - self._payment_evs)
        first = max(1, ceil(ahead))
        evs_per_session = float(self.fee_wei_per_s / self._ev * self.session_s)
        later = exp(-float(first - ahead) / evs_per_session) / -expm1(-1 / evs_per_session)
        return Pace(self.sessions_count / self.session_s, first, later / self.session_s, self.session_s)

    def in_time(self, age_s: float) -> float:
        """The probability that a ticket of this age can still be redeemed; its round was at any point when it began."""
        return min(1.0, max(0.0, 2 - age_s / ROUND_S))

    @property
    def _ev(self) -> Fraction:
        return ticket_ev(self.face_value_wei, self.win_prob)

    @property
    def _first_evs(self) -> Fraction:
        """What a session's first payment is for, in tickets."""
        if self.job_type == FIXED:
            return self._payment_evs
        return self.fee_wei_per_s * _PRELOAD_S[self.job_type] / self._ev

    @property
    def _payment_evs(self) -> Fraction:
        """What each further payment is for, in tickets."""
        fee_wei = self.price_wei_per_unit if self.job_type == FIXED else self.fee_wei_per_s * PAYMENT_INTERVAL_S
        return fee_wei / self._ev


@dataclass(frozen=True, slots=True)
class PlannedFunds:
    """What a plan has the TicketBroker hold for a sender, and how it may be used; nothing was claimed yet."""

    deposit_wei: int
    reserve_wei: int
    #: Orchestrators among whom the reserve is divided (8.4).
    pool_size_count: int
    #: A face value may be this share of the deposit at most.
    divisor_count: int

    def quoted(self) -> Float:
        """What an orchestrator computes of the sender, and so the largest face value it asks for (8.5)."""
        return orchestrator_float(
            deposit_wei=self.deposit_wei,
            reserve_wei=self.reserve_wei,
            claimed_in_round_wei=0,
            pool_size_count=self.pool_size_count,
        )
