"""How coverage looks to whoever asks over HTTP: clearinghouse/coverage/documents.py has the same, for operators."""

from __future__ import annotations

from pydantic import Field

from clearinghouse.api.shapes import Answer


class GatewayCoverage(Answer):
    """What a gateway needs to know of the deposit that its tickets are drawn on."""

    level: str | None = Field(description="ok, watch, low or critical; null while it is not known.", examples=["ok"])
    takes_new_sessions: bool = Field(description="Whether a first call would be let through by the coverage.")
    age_s: int | None = Field(description="Since it was evaluated.")


class CoverageWindow(Answer):
    """What comes of it if tickets go on being issued as in the last `window_s`."""

    window_s: int
    burn_wei_per_day: str
    exhausted_probability: float
    reserve_exhausted_probability: float
    empty_median_s: int | None
    empty_pessimistic_s: int | None


class CoverageTopUp(Answer):
    """What to add, to the reserve first."""

    confidence_bps: int
    reserve_wei: str
    deposit_wei: str


class CoverageOutlook(Answer):
    """What is probable. The posterior view knows how long winners took to be redeemed."""

    posterior_expected_wei: str
    posterior_deviation_wei: str
    posterior_coverage_bps: int | None
    delays_count: int = Field(description="Redemptions that this view is drawn from.")
    exhausted_probability: float = Field(description="By the open tickets alone, each of which may still win.")
    posterior_exhausted_probability: float
    horizon_s: int
    exhausted_in_horizon_probability: float
    burn_wei_per_day: str
    empty_median_s: int | None = Field(description="Null where it is not foreseen within a year.")
    empty_pessimistic_s: int | None = Field(description="By then with a probability of 5 %.")
    windows: list[CoverageWindow]
    top_up: CoverageTopUp


class CoverageOrchestrator(Answer):
    """An orchestrator that can quote less than others do, or asks for more than it can quote."""

    recipient: str = Field(examples=["0x70997970C51812dc3A010C7d01b50e0d17dc79C8"])
    claimed_in_round_wei: str = Field(description="Of the reserve, in this round.")
    is_claim_exact: bool = Field(description="Otherwise it is what all of them together have claimed, and so at most.")
    reserve_share_wei: str = Field(description="What is left of its share: the largest face value that it quotes.")
    issuable_face_value_wei: str = Field(description="The largest ticket that may still be issued to it.")
    asked_face_value_wei: str | None = Field(description="The largest of the tickets that it was issued last.")
    asks_too_much: bool = Field(description="That is more than its share by now.")


class CoverageSnapshot(Answer):
    """What was known at a moment."""

    observed_at: str
    age_s: int
    is_enforced: bool
    simulated: bool
    block_number: int | None
    block_time: str
    l1_block_number: int
    round: int
    deposit_wei: str
    reserve_wei: str
    claimed_in_round_wei: str
    pool_size: int
    lock: str = Field(description="locked, unlocking or unlocked; all but the first count as gone.")
    open_tickets: int
    expected_wei: str
    deviation_wei: str
    largest_ticket_wei: str
    worst_case_wei: str
    coverage_bps: int | None = Field(description="Deposit over what the open tickets need; null where none is open.")
    remaining_ev_wei: str
    issuable_face_value_wei: str
    reserve_share_wei: str
    orchestrators: list[CoverageOrchestrator] = Field(description="Those of which there is something to say.")
    outlook: CoverageOutlook | None = Field(description="Null where it did not come to an end in time.")


class SenderCoverageAnswer(Answer):
    """One sender's coverage, for operators."""

    sender: str = Field(examples=["0x70997970C51812dc3A010C7d01b50e0d17dc79C8"])
    level: str
    is_known: bool = Field(description="Whether it was evaluated lately. If not, calls are refused.")
    evaluated_at: str
    age_s: int
    face_value_max_wei: str | None
    snapshot: CoverageSnapshot | None


class CoverageList(Answer):
    """Every sender's."""

    items: list[SenderCoverageAnswer]
