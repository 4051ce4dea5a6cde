"""Automatic top-ups: the job that finds whose balance is low, and plans the charge. The clerk makes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.errors import InvalidRequest
from clearinghouse.ledger.money import show_amount
from settlement.currencies import currency
from settlement.notices.telling import Told, tell
from settlement.payments.cash import plan
from settlement.payments.refill_rules import Charge, RefillFacts, Wait, due
from settlement.payments.telling import SUBJECT
from settlement.schedule import Job, Tick

log = structlog.get_logger(__name__)

_TAKEN_AT_ONCE: Final = 500
_HINTS: Final = {
    "no_card": "No card is saved for it: save one, POST /v1/topups with method setup.",
    "cap": "What may be charged in a day or a month is used up: ask for a link, POST /v1/topups with method checkout.",
}

# The terms that hold now, of gateways whose balance is below them.
_LOW: Final = """
    SELECT account.id FROM account
     CROSS JOIN LATERAL (SELECT * FROM billing_terms WHERE gateway_id = account.id AND begins_at <= :now
                          ORDER BY begins_at DESC LIMIT 1) AS terms
      JOIN gateway ON gateway.id = account.id
     WHERE account.balance < terms.refill_below AND gateway.status = 'active' AND gateway.billing_hold = 'none'
       AND NOT EXISTS (SELECT FROM payment WHERE gateway_id = account.id AND method IN ('card', 'automatic')
                          AND ended_at IS NULL)
     ORDER BY account.id LIMIT :count
"""
# Read again where nobody else plans for this gateway: what is decided holds.
_FACTS: Final = """
    WITH mine AS (SELECT * FROM payment WHERE gateway_id = :id AND method = 'automatic'),
    counted AS (SELECT * FROM mine WHERE state IN ('requested', 'open', 'succeeded'))
    SELECT account.currency, account.balance, terms.refill_below, terms.refill_to, terms.refill_cooldown_s,
           terms.refill_day_max, terms.refill_month_max,
           (SELECT coalesce(sum(amount), 0) FROM counted
             WHERE created_at >= date_trunc('day', CAST(:now AS timestamptz), 'UTC')) AS day_spent,
           (SELECT coalesce(sum(amount), 0) FROM counted
             WHERE created_at >= date_trunc('month', CAST(:now AS timestamptz), 'UTC')) AS month_spent,
           (SELECT max(created_at) FROM mine) AS last_at,
           (SELECT count(*) FROM mine WHERE state <> 'succeeded' AND created_at > coalesce(
               (SELECT max(created_at) FROM mine WHERE state = 'succeeded'), '-infinity')) AS failures_count,
           saved_card.gateway_id IS NOT NULL AS has_card, saved_card.refused AS card_refused,
           EXISTS (SELECT FROM payment WHERE gateway_id = :id AND method IN ('card', 'automatic')
                      AND ended_at IS NULL) AS is_under_way
      FROM account
     CROSS JOIN LATERAL (SELECT * FROM billing_terms WHERE gateway_id = account.id AND begins_at <= :now
                          ORDER BY begins_at DESC LIMIT 1) AS terms
      LEFT JOIN saved_card ON saved_card.gateway_id = account.id
     WHERE account.id = :id
"""


def refills_job(*, every_s: int) -> Job:
    return Job("automatic-topups", every_s, refill)


async def refill(tick: Tick) -> str:
    """A turn."""
    async with tick.engine.connect() as connection:
        values = {"now": tick.now, "count": _TAKEN_AT_ONCE}
        low = list((await connection.execute(text(_LOW), values)).scalars())
    planned = 0
    for gateway_id in low:
        try:
            async with tick.transaction() as connection:
                planned += await _refilled(connection, gateway_id, tick)
        except InvalidRequest as refused:  # an account that nothing can be paid into is no reason to leave the others
            log.warning("automatic_topup_impossible", gateway_id=str(gateway_id), reason=refused.message)
    return f"{planned} charges planned for {len(low)} low balances" if low else "no balance is low"


async def _refilled(connection: AsyncConnection, gateway_id: UUID, tick: Tick) -> bool:
    """Whether a charge was planned, in this transaction: nobody else plans one for this gateway at the same time."""
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended('payments of ' || CAST(:id AS text), 0))")
    await connection.execute(lock, {"id": str(gateway_id)})
    row = (await connection.execute(text(_FACTS), {"id": gateway_id, "now": tick.now})).mappings().one_or_none()
    if row is None or row["refill_below"] is None or row["balance"] >= row["refill_below"]:
        return False
    decided = due(_facts(row), tick.now)
    if isinstance(decided, Charge):
        reason = f"balance {show_amount(row['balance'])} below {show_amount(row['refill_below'])} {row['currency']}"
        await plan(connection, gateway_id, "automatic", decided.amount, reason)
        await _remember(connection, gateway_id, "planned", tick)
        return True
    if decided.is_told and await _remember(connection, gateway_id, f"{decided.reason} {tick.now:%Y-%m-%d}", tick):
        await tell(connection, gateway_id, _told(decided))
    return False


def _facts(row: Mapping[Any, Any]) -> RefillFacts:
    """InvalidRequest where nothing is paid in the account's currency: its terms should not say so."""
    return RefillFacts(
        currency=currency(row["currency"]), balance=row["balance"], to=row["refill_to"],
        cooldown=timedelta(seconds=row["refill_cooldown_s"]), day_max=row["refill_day_max"],
        month_max=row["refill_month_max"], day_spent=row["day_spent"], month_spent=row["month_spent"],
        last_at=row["last_at"], failures_count=row["failures_count"], has_card=row["has_card"],
        card_refused=row["card_refused"], is_under_way=row["is_under_way"],
    )  # fmt: skip


async def _remember(connection: AsyncConnection, gateway_id: UUID, state: str, tick: Tick) -> bool:
    """Whether that is news: a gateway is told of the same thing once a day."""
    remember = """INSERT INTO notice_state (gateway_id, subject, state, changed_at) VALUES (:id, :subject, :state, :now)
                  ON CONFLICT (gateway_id, subject) DO UPDATE SET state = :state, changed_at = :now
                          WHERE notice_state.state <> :state"""
    values = {"id": gateway_id, "subject": SUBJECT, "state": state, "now": tick.now}
    return (await connection.execute(text(remember), values)).rowcount > 0


def _told(decided: Wait) -> Told:
    hint = _HINTS[decided.reason]
    return Told(
        type="topup.waiting", subject=SUBJECT, level="warning", title="{name}: no automatic top-up",
        body=f"The balance of gateway {{name}} is low, and it is not topped up automatically. {hint}",
        data={"reason": decided.reason, "said": hint},
    )  # fmt: skip
