"""How coverage looks in JSON, on the command line and over HTTP: a sender's gate, its newest snapshot, the outlook.

Amounts are decimal strings of wei, coverages are basis points, probabilities are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.coverage import Level
from chain.signatures import checksum_address
from clearinghouse.coverage import snapshots
from clearinghouse.coverage.payees import Quote
from clearinghouse.coverage.snapshots import Snapshot
from clearinghouse.instants import rfc3339

Document = dict[str, Any]

_GATES: Final = """
    SELECT sender, level, face_value_max_wei, evaluated_at, valid_until, clock_timestamp()
      FROM coverage_gate ORDER BY sender
"""


@dataclass(frozen=True, slots=True)
class SenderCoverage:
    """What is in force for a sender, and the newest snapshot of it; None before there is one."""

    sender: bytes
    level: Level
    face_value_max_wei: int | None
    evaluated_at: datetime
    valid_until: datetime
    #: The database's clock when this was read.
    now: datetime
    snapshot: Snapshot | None


async def read_all(connection: AsyncConnection) -> list[SenderCoverage]:
    """Of every sender that was ever evaluated, by sender. Any role."""
    newest = {snapshot.sender: snapshot for snapshot in await snapshots.newest_of_all(connection)}
    return [
        SenderCoverage(
            bytes(sender), Level(level), None if cap is None else int(cap), evaluated_at, valid_until, now,
            newest.get(bytes(sender)),
        )
        for sender, level, cap, evaluated_at, valid_until, now in await connection.execute(text(_GATES))
    ]  # fmt: skip


def coverage_document(found: SenderCoverage) -> Document:
    """`is_known` is false where nobody has evaluated the sender lately: then calls are refused, whatever the level."""
    snapshot = found.snapshot
    return {
        "sender": checksum_address(found.sender),
        "level": found.level.value,
        "is_known": found.now < found.valid_until,
        "evaluated_at": rfc3339(found.evaluated_at),
        "age_s": _seconds(found.evaluated_at, found.now),
        "face_value_max_wei": _amount(found.face_value_max_wei),
        "snapshot": _snapshot_document(snapshot, found.now) if snapshot is not None else None,
    }


def _snapshot_document(snapshot: Snapshot, now: datetime) -> Document:
    return {
        "observed_at": rfc3339(snapshot.observed_at),
        "age_s": _seconds(snapshot.observed_at, now),
        "is_enforced": snapshot.is_enforced,
        "simulated": snapshot.simulated,
        "block_number": snapshot.block_number,
        "block_time": rfc3339(snapshot.block_time),
        "l1_block_number": snapshot.l1_block_number,
        "round": snapshot.round,
        "deposit_wei": str(snapshot.deposit_wei),
        "reserve_wei": str(snapshot.reserve_wei),
        "claimed_in_round_wei": str(snapshot.claimed_in_round_wei),
        "pool_size": snapshot.pool_size,
        "lock": snapshot.lock.value,
        "open_tickets": snapshot.num_tickets,
        "expected_wei": str(snapshot.expected_wei),
        "deviation_wei": str(snapshot.deviation_wei),
        "largest_ticket_wei": str(snapshot.face_value_max_wei),
        "worst_case_wei": str(snapshot.worst_case_wei),
        "coverage_bps": snapshot.coverage_bps,
        "remaining_ev_wei": str(snapshot.remaining_ev_wei),
        "issuable_face_value_wei": str(snapshot.issuable_face_value_wei),
        "reserve_share_wei": str(snapshot.reserve_share_wei),
        "orchestrators": [_quote_document(quote) for quote in snapshot.quotes],
        "outlook": _outlook_document(snapshot) if snapshot.has_outlook else None,
    }


def _quote_document(quote: Quote) -> Document:
    return {
        "recipient": checksum_address(quote.recipient),
        "claimed_in_round_wei": str(quote.claimed_wei),
        "is_claim_exact": quote.is_claim_exact,
        "reserve_share_wei": str(quote.reserve_share_wei),
        "issuable_face_value_wei": str(quote.issuable_face_value_wei),
        "asked_face_value_wei": _amount(quote.asked_wei),
        "asks_too_much": quote.asks_too_much,
    }


def _outlook_document(snapshot: Snapshot) -> Document:
    return {
        "posterior_expected_wei": _amount(snapshot.posterior_expected_wei),
        "posterior_deviation_wei": _amount(snapshot.posterior_deviation_wei),
        "posterior_coverage_bps": snapshot.posterior_coverage_bps,
        "delays_count": snapshot.delays_count,
        "exhausted_probability": snapshot.exhausted_probability,
        "posterior_exhausted_probability": snapshot.posterior_exhausted_probability,
        "horizon_s": snapshot.horizon_s,
        "exhausted_in_horizon_probability": snapshot.exhausted_in_horizon_probability,
        "burn_wei_per_day": _amount(snapshot.burn_wei_per_day),
        "empty_median_s": snapshot.empty_median_s,
        "empty_pessimistic_s": snapshot.empty_pessimistic_s,
        "windows": [
            window._asdict() | {"burn_wei_per_day": str(window.burn_wei_per_day)} for window in snapshot.windows or ()
        ],
        "top_up": {
            "confidence_bps": snapshot.confidence_bps,
            "reserve_wei": _amount(snapshot.top_up_reserve_wei),
            "deposit_wei": _amount(snapshot.top_up_deposit_wei),
        },
    }


def _amount(wei: int | None) -> str | None:
    return None if wei is None else str(wei)


def _seconds(since: datetime, now: datetime) -> int:
    """Never below 0: the clocks of a database and of a service differ."""
    return max(int((now.astimezone(UTC) - since).total_seconds()), 0)
