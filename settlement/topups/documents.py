"""Top-ups as JSON shows them: amounts as decimal strings, bytes in hexadecimal, times in RFC 3339."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chain.funding import Amounts
from chain.signatures import checksum_address
from clearinghouse.instants import rfc3339
from settlement.topups.planning import Rules
from settlement.topups.pursuing import Attempt, Topup
from settlement.topups.store import HowThingsStand, Planned


def planned_document(planned: Planned, rules: Rules, *, day_wei: int) -> dict[str, Any]:
    standing = planned.standing
    return {
        "sender": checksum_address(planned.sender),
        "payer": checksum_address(planned.payer),
        **_amounts(planned.amounts),
        "gas_max_wei": str(planned.gas_max_wei),
        "advised_at": rfc3339(planned.snapshot_at) if planned.snapshot_at is not None else None,
        "escrow": {"deposit_wei": str(standing.deposit_wei), "reserve_wei": str(standing.reserve_wei)},
        "wallet": {"balance_wei": str(standing.balance_wei), "nonce": standing.nonce},
        "block_number": standing.block.number,
        "base_fee_wei": str(standing.base_fee_wei),
        "sent_within_a_day_wei": str(day_wei),
        "transaction_max_wei": str(rules.transaction_max_wei),
        "day_max_wei": str(rules.day_max_wei),
    }


def topup_document(topup: Topup) -> dict[str, Any]:
    return {
        "id": str(topup.id),
        "state": topup.state.value,
        "created_at": rfc3339(topup.created_at),
        "ended_at": rfc3339(topup.ended_at) if topup.ended_at is not None else None,
        "sender": checksum_address(topup.sender),
        "payer": checksum_address(topup.payer),
        **_amounts(topup.amounts),
        "nonce": topup.nonce,
        "is_cancelling": topup.is_cancelling,
        "mined_block": topup.mined_block,
        "fee_wei": str(topup.fee_wei) if topup.fee_wei is not None else None,
        "actor": topup.actor,
        "reason": topup.reason,
        "transactions": [_attempt(attempt) for attempt in topup.attempts],
    }


def event_documents(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "at": rfc3339(event["at"])} for event in events]


def standing_document(stands: HowThingsStand | None) -> dict[str, Any] | None:
    """None where nobody has looked yet: no worker runs, or none with a wallet."""
    if stands is None:
        return None
    return {
        "observed_at": rfc3339(stands.observed_at),
        "mode": stands.mode,
        "condition": stands.condition.value if stands.condition is not None else None,
        "said": stands.said,
        "since": rfc3339(stands.since),
        "payer": checksum_address(stands.payer) if stands.payer is not None else None,
        "balance_wei": str(stands.balance_wei) if stands.balance_wei is not None else None,
        "balance_at": rfc3339(stands.balance_at) if stands.balance_at is not None else None,
        "balance_is_low": stands.balance_is_low,
        "advised": _amounts(stands.advised) if stands.advised is not None else None,
    }


def _amounts(amounts: Amounts) -> dict[str, str]:
    return {"deposit_wei": str(amounts.deposit_wei), "reserve_wei": str(amounts.reserve_wei)}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "purpose": attempt.purpose.value,
        "hash": f"0x{attempt.hash.hex()}",
        "signed_at": rfc3339(attempt.signed_at),
        "gas_limit_count": attempt.gas_limit_count,
        "max_fee_per_gas_wei": str(attempt.fees.max_per_gas_wei),
        "priority_fee_per_gas_wei": str(attempt.fees.priority_per_gas_wei),
    }
