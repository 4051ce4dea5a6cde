"""How a gateway is billed, and what it owes: terms, period, the next change, what holds it back, open invoices, and
what follows where they are not paid.

Reads only; the terms are made one floor above, in settlement/customers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse.dunning_steps import OPEN_STATES, Policy
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.accounts import standing
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Document = dict[str, Any]

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Of a gateway for which nothing else was said: prepaid, in months of UTC. What settlement bills by is made of it.
DEFAULT_TERMS: Final[Mapping[Any, Any]] = {
    "way": "prepaid", "begins_at": None, "cadence": "monthly", "anchor_day": 1, "time_zone": "UTC",
    "credit_limit": Decimal(0), "refill_to": None, "fee": None, "included": None, "ends_at": None,
}  # fmt: skip


async def billing_document(connection: AsyncConnection, gateway_id: UUID, policy: Policy) -> Document:
    """What GET /v1/billing answers. `policy`: of dunning, as the worker has it. NotFound without such a gateway."""
    now = await standing(connection, gateway_id)
    terms = (await connection.execute(text(_TERMS), {"gateway_id": gateway_id})).mappings().all()
    owed = {"gateway_id": gateway_id, "states": list(OPEN_STATES)}
    unpaid = (await connection.execute(text(_UNPAID), owed)).all()
    begun, to_come = [each for each in terms if each["has_begun"]], [each for each in terms if not each["has_begun"]]
    return {
        "gateway_id": show("gw", gateway_id),
        "currency": now.currency,
        "balance": show_amount(now.balance),
        "credit_limit": show_amount(now.credit_limit),
        "available": show_amount(now.available),
        "terms": terms_document(begun[-1] if begun else DEFAULT_TERMS),
        "period": await _period(connection, gateway_id),
        "next_change": terms_document(to_come[0]) if to_come else None,
        **await _hold(connection, gateway_id),
        "open_invoices": [_open_invoice(row, policy) for row in unpaid],
        "dunning": _dunning(unpaid, policy),
    }


def terms_document(row: Mapping[Any, Any]) -> Document:
    """Of a row of billing_terms. Amounts are in the account's currency; what the way does not have is null."""
    anchor = row["anchor_day"] if row["cadence"] == "monthly" else _WEEKDAYS[row["anchor_day"] - 1]
    return {
        "way": row["way"],
        "begins_at": _instant(row["begins_at"]),
        "cadence": f"{row['cadence']}:{anchor}",
        "time_zone": row["time_zone"],
        "credit_limit": show_amount(row["credit_limit"]),
        "refill": _refill(row) if row["refill_to"] is not None else None,
        "fee": _amount(row["fee"]),
        "included": _amount(row["included"]),
        "ends_at": _instant(row["ends_at"]),
    }


def _refill(row: Mapping[Any, Any]) -> Document:
    return {
        "below": show_amount(row["refill_below"]),
        "to": show_amount(row["refill_to"]),
        "cooldown_s": row["refill_cooldown_s"],
        "day_max": show_amount(row["refill_day_max"]),
        "month_max": show_amount(row["refill_month_max"]),
    }


async def _period(connection: AsyncConnection, gateway_id: UUID) -> Document | None:
    """None where the worker has not reckoned since the last one ended."""
    query = """SELECT first_day, next_day, begins_at, ends_at FROM current_period
                WHERE gateway_id = :gateway_id AND begins_at <= now() AND ends_at > now()"""
    row = (await connection.execute(text(query), {"gateway_id": gateway_id})).one_or_none()
    if row is None:
        return None
    return {
        "first_day": row.first_day.isoformat(),
        "last_day": (row.next_day - timedelta(days=1)).isoformat(),
        "begins_at": rfc3339(row.begins_at),
        "ends_at": rfc3339(row.ends_at),
    }


async def _hold(connection: AsyncConnection, gateway_id: UUID) -> Document:
    query = """SELECT billing_hold, billing_hold_reason, signs_until, signs_until <= now() AS has_ended
                 FROM gateway JOIN account ON account.gateway_id = gateway.id WHERE gateway.id = :gateway_id"""
    row = (await connection.execute(text(query), {"gateway_id": gateway_id})).one()
    if row.has_ended and row.billing_hold != "signing":
        return {"hold": "signing", "hold_reason": f"What was free ended at {rfc3339(row.signs_until)}."}
    return {"hold": row.billing_hold, "hold_reason": row.billing_hold_reason}


def _open_invoice(row: Any, policy: Policy) -> Document:
    return {
        "number": row.number,
        "currency": row.currency,
        "amount_due": show_amount(Decimal(row.remaining_minor).scaleb(-row.decimals)),
        "due_at": rfc3339(row.due_at),
        "hosted_url": row.hosted_url,
        "reminded_at": [rfc3339(at) for at in row.reminded_at],
        "next_reminder_at": _instant(policy.next_reminder_at(row.due_at, row.now)),
    }


def _dunning(unpaid: Sequence[Any], policy: Policy) -> Document:
    """By the invoice that is due first, of several the lowest number, as dunning goes: `unpaid` is in that order."""
    if not unpaid:
        return {"number": None, "new_sessions_stop_at": None, "signing_stops_at": None}
    return {
        "number": unpaid[0].number,
        "new_sessions_stop_at": rfc3339(policy.new_sessions_stop_at(unpaid[0].due_at)),
        "signing_stops_at": rfc3339(policy.signing_stops_at(unpaid[0].due_at)),
    }


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else show_amount(amount)


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)


_TERMS: Final = """
    SELECT *, begins_at <= now() AS has_begun FROM billing_terms WHERE gateway_id = :gateway_id ORDER BY begins_at
"""
_UNPAID: Final = """
    SELECT coalesce(number, replace(id::text, '-', '')) AS number, currency, remaining_minor, decimals, due_at,
           hosted_url, now() AS now,
           ARRAY(SELECT notice.created_at FROM notice
                  WHERE notice.gateway_id = :gateway_id AND notice.type = 'invoice.reminder'
                    AND notice.data ->> 'invoice_id' = 'inv_' || replace(invoice.id::text, '-', '')
                  ORDER BY notice.number) AS reminded_at
      FROM invoice
     WHERE gateway_id = :gateway_id AND state = ANY (:states) AND remaining_minor > 0
     ORDER BY due_at, coalesce(number, replace(id::text, '-', '')) COLLATE "C"
"""
