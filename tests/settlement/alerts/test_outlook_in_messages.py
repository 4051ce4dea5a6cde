"""Who is told of a level at the moment at which it is reached hears of burn, time left and advice all the same."""

from __future__ import annotations

from typing import Any, Final

from chain.coverage import Level
from chain.signatures import checksum_address
from settlement.alerts.observe import OUTLOOK_WITHIN
from tests.parts.watched import ETHER, SENDER, Watched

#: As of a snapshot that a change of level wrote: its outlook is still being computed.
WITHOUT_OUTLOOK: Final[dict[str, Any]] = dict.fromkeys(
    (
        "posterior_expected_wei", "posterior_deviation_wei", "posterior_coverage_bps", "delays_count",
        "exhausted_probability", "posterior_exhausted_probability", "horizon_s", "confidence_bps",
        "exhausted_in_horizon_probability", "burn_wei_per_day", "empty_median_s", "empty_pessimistic_s", "windows",
        "top_up_reserve_wei", "top_up_deposit_wei",
    )
)  # fmt: skip


async def test_a_message_has_the_newest_outlook_and_counts_what_the_deposit_has_lost_since(house: Watched) -> None:
    await house.escrow(after_s=0, top_up_deposit_wei=ETHER)
    await house.escrow(after_s=30, level=Level.LOW, deposit_wei=8 * ETHER, coverage_bps=14_000, **WITHOUT_OUTLOOK)
    await house.evaluated(after_s=31)
    facts = house.facts("coverage_low")
    assert (facts["deposit"], facts["burn"]) == ("8 ETH", "0.1 ETH a day")
    assert facts["time left"] == "90 days 0 h usually, 60 days 0 h in one case of twenty"
    assert f"Advised top-up: 3 ETH to the deposit of {checksum_address(SENDER)}." in advice(house, "coverage_low")


async def test_what_was_foreseen_long_ago_is_not_repeated(house: Watched) -> None:
    await house.escrow(after_s=0, top_up_deposit_wei=ETHER)
    late_s = OUTLOOK_WITHIN.total_seconds() + 1
    await house.escrow(after_s=late_s, level=Level.LOW, coverage_bps=14_000, **WITHOUT_OUTLOOK)
    await house.evaluated(after_s=late_s)
    assert {"burn", "time left"}.isdisjoint(house.facts("coverage_low"))
    assert "top-up" not in advice(house, "coverage_low")


def advice(house: Watched, rule: str) -> str:
    """Of the only message about it."""
    query = """SELECT message->'document'->>'advice' FROM delivery
                WHERE message->'document'->>'rule' = %s AND channel = 'log'"""
    ((said,),) = house.owner.execute(query, [rule])
    return str(said)
