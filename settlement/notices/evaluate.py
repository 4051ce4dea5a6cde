"""The job that finds out what gateways have to be told, and puts it into the outbox, all in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.balance_bounds import bounds_in
from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.dunning_steps import policy_of
from clearinghouse.ids import show
from settlement.notices.due import Due, GatewayNow, Invoice, Key, due
from settlement.notices.invoices import invoices_to_tell
from settlement.notices.messages import notice_message
from settlement.notices.targets import Target, all_targets
from settlement.notices.telling import put_notice, take_turn
from settlement.schedule import Tick

# What a charge would find: credit that has expired is gone, whether or not that is in the books yet.
_GATEWAYS: Final = """
    WITH expired AS (
        SELECT account_id, sum(amount) AS amount FROM (
            SELECT lot.account_id, lot.remaining - greatest(0, least(lot.remaining, account.usage_total
                   - account.lots_usage - coalesce(sum(lot.remaining) OVER (
                       PARTITION BY lot.account_id ORDER BY lot.rank, lot.expires_at, lot.id
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0))) AS amount, lot.expires_at
              FROM credit_lot AS lot JOIN account ON account.id = lot.account_id WHERE lot.remaining > 0) AS lot
         WHERE expires_at <= :now GROUP BY account_id)
    SELECT gateway.id, gateway.name, status, status_reason, billing_hold, billing_hold_reason, currency,
           balance + credit_limit - coalesce(expired.amount, 0) AS available
      FROM gateway JOIN account ON account.id = gateway.id LEFT JOIN expired ON expired.account_id = account.id
     ORDER BY gateway.id
"""
_KEYS: Final = """
    SELECT gateway_id, id, public_id, name, expires_at FROM api_key
     WHERE revoked_at IS NULL AND expires_at > :now AND expires_at <= :until ORDER BY expires_at, id
"""


class NoticeEvaluation:
    """A job's tick."""

    def __init__(self, settings: NoticeSettings, dunning: DunningSettings) -> None:
        self._settings = settings
        self._policy = policy_of(dunning)
        self._key_expiry = timedelta(days=settings.key_expiry_days)

    async def tick(self, tick: Tick) -> str:
        count = 0
        async with tick.transaction() as connection:
            await take_turn(connection)
            targets, told = await all_targets(connection), await told_so_far(connection)
            for gateway_id, gateway in (await self._gateways(connection, targets, tick.now)).items():
                for one in due(gateway, told[gateway_id], tick.now, key_expiry=self._key_expiry):
                    target = targets.get(gateway_id, Target(gateway_id))
                    count += await _note(connection, gateway, target, one, tick.now)
        return f"{count} notices" if count else "nothing to say"

    async def _gateways(
        self, connection: AsyncConnection, targets: Mapping[UUID, Target], now: datetime
    ) -> dict[UUID, GatewayNow]:
        keys = await _keys(connection, now, now + self._key_expiry)
        invoices = await invoices_to_tell(connection, now, self._policy)
        rows = await connection.execute(text(_GATEWAYS), {"now": now})
        return {
            row.id: gateway_now(
                row,
                targets.get(row.id, Target(row.id)),
                self._settings,
                keys=keys[row.id],
                invoices=invoices.get(row.id, ()),
            )
            for row in rows
        }


def gateway_now(
    row: Any, target: Target, settings: NoticeSettings, *, keys: Sequence[Key], invoices: Sequence[Invoice]
) -> GatewayNow:
    """Of a row of _GATEWAYS."""
    bounds = bounds_in(row.currency, settings, low_balance=target.low_balance, depleted_below=target.depleted_below)
    return GatewayNow(
        show("gw", row.id), row.name, row.currency, row.available, bounds, is_suspended=row.status == "suspended",
        suspension_reason=row.status_reason, keys=tuple(keys), hold=row.billing_hold,
        hold_reason=row.billing_hold_reason, invoices=tuple(invoices),
    )  # fmt: skip


async def _keys(connection: AsyncConnection, now: datetime, until: datetime) -> defaultdict[UUID, list[Key]]:
    keys: defaultdict[UUID, list[Key]] = defaultdict(list)
    for row in await connection.execute(text(_KEYS), {"now": now, "until": until}):
        keys[row.gateway_id].append(Key(show("key", row.id), row.public_id, row.name, row.expires_at))
    return keys


async def told_so_far(connection: AsyncConnection) -> defaultdict[UUID, dict[str, str]]:
    """But for invoices that are done with: of those there are more every month, and nothing is said of them again."""
    told: defaultdict[UUID, dict[str, str]] = defaultdict(dict)
    query = """SELECT gateway_id, subject, state FROM notice_state
                WHERE NOT (starts_with(subject, 'inv_') AND state IN ('paid', 'withdrawn'))"""
    for gateway_id, subject, state in await connection.execute(text(query)):
        told[gateway_id][subject] = state
    return told


async def _note(connection: AsyncConnection, gateway: GatewayNow, target: Target, one: Due, now: datetime) -> int:
    """Remembers what is told, and where something is, the notice and its messages. Returns how many notices."""
    remember = """INSERT INTO notice_state (gateway_id, subject, state, changed_at) VALUES (:id, :subject, :state, :now)
                  ON CONFLICT (gateway_id, subject) DO UPDATE SET state = :state, changed_at = :now"""
    values = {"id": target.gateway_id, "now": now}
    await connection.execute(text(remember), {**values, "subject": one.subject, "state": one.state})
    if one.type is None:
        return 0
    await put_notice(
        connection, target, one.type, one.data, lambda number: notice_message(gateway, one, number=number, now=now),
        now=now,
    )  # fmt: skip
    return 1
