"""Re-ratings, and the calls they are about, in the database. Role clearinghouse_work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.rates import EthPrice
from clearinghouse.ids import show
from clearinghouse.ledger.money import EXACT
from clearinghouse.rates.units import Per
from settlement.rerating.replay import Call, Recharged

#: Of calls, read and written.
ROWS_AT_ONCE: Final = 2000
_PROBLEM_CHARS_MAX: Final = 1000
_SELECT: Final = """
    SELECT rerating.id, rerating.gateway_id, gateway.name AS gateway_name, rerating.begins_at, period.ends_at,
           period.first_day, period.currency, card, version, as_of, reason, actor, rerating.created_at,
           rerating.calls_count, difference, included, invoice_id, rerating.state, rerating.problem,
           transfer_id, included_id,
           (SELECT id FROM invoice WHERE invoice.gateway_id = rerating.gateway_id AND kind = 'usage'
               AND invoice.begins_at = rerating.begins_at
               AND revision > (SELECT revision FROM invoice AS was WHERE was.id = rerating.invoice_id)
             ORDER BY revision LIMIT 1) AS revised_id
      FROM rerating JOIN gateway ON gateway.id = rerating.gateway_id
      JOIN billing_period AS period ON period.gateway_id = rerating.gateway_id AND period.begins_at = rerating.begins_at
"""


@dataclass(frozen=True, slots=True)
class Rerating:
    """A row of `rerating`, and its period. Amounts are in its currency, exact."""

    id: UUID
    gateway_id: UUID
    gateway_name: str
    begins_at: datetime
    ends_at: datetime
    first_day: date
    currency: str
    card: str
    version: int
    as_of: int
    reason: str
    actor: str
    created_at: datetime
    calls_count: int
    difference: Decimal
    included: Decimal
    invoice_id: UUID | None
    state: Literal["planned", "done", "refused"]
    problem: str | None
    transfer_id: UUID | None
    included_id: UUID | None
    revised_id: UUID | None

    @property
    def net(self) -> Decimal:
        """What there is to pay more; below 0: less."""
        return EXACT.subtract(self.difference, self.included)

    @property
    def name(self) -> str:
        """What may be looked up: `clearinghouse invoices show` of its invoice has it."""
        of = f", {show('inv', self.invoice_id)}" if self.invoice_id is not None else ""
        return f"re-rating {show('rrt', self.id)} of {self.gateway_name}, {self.first_day}{of}"

    @property
    def words(self) -> str:
        """For the books and for the customer."""
        return f"re-rated by {self.card}@{self.version}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RatedLine:
    """A line of the period: what its calls were charged, and what they are by the rule `rate_rule`."""

    app: str
    pipeline: str
    model: str
    rate_rule: str
    calls_count: int
    charged: Decimal
    charge: Decimal
    quantity: Decimal | None
    unit: str | None


async def find_rerating(connection: AsyncConnection, rerating_id: UUID) -> Rerating:
    """One that there is."""
    found = await _all(connection, "WHERE rerating.id = :id", id=rerating_id)
    assert found, "no row is ever removed"
    return found[0]


async def reratings_of(connection: AsyncConnection, gateway_id: UUID, begins_at: datetime) -> list[Rerating]:
    """Of a period, but for those that were refused; the newest first, which is by the newest cards."""
    where = """WHERE rerating.gateway_id = :gateway_id AND rerating.begins_at = :begins_at
                 AND rerating.state <> 'refused'
               ORDER BY rerating.as_of DESC"""
    return await _all(connection, where, gateway_id=gateway_id, begins_at=begins_at)


async def all_reratings_of(connection: AsyncConnection, gateway_id: UUID, begins_at: datetime) -> list[Rerating]:
    """Of a period, those that were refused as well; the oldest first."""
    where = """WHERE rerating.gateway_id = :gateway_id AND rerating.begins_at = :begins_at
               ORDER BY rerating.created_at, rerating.id"""
    return await _all(connection, where, gateway_id=gateway_id, begins_at=begins_at)


async def reratings_under_way(connection: AsyncConnection) -> list[Rerating]:
    """Which somebody began, and are not done; the oldest first."""
    return await _all(connection, "WHERE rerating.state = 'planned' ORDER BY rerating.created_at, rerating.id")


async def lock_rerating(connection: AsyncConnection, rerating_id: UUID) -> Rerating:
    """Nobody else changes it until the transaction ends."""
    await connection.execute(text("SELECT FROM rerating WHERE id = :id FOR NO KEY UPDATE"), {"id": rerating_id})
    return await find_rerating(connection, rerating_id)


async def insert_rerating(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """Raises IntegrityError where another of this gateway is under way."""
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    await connection.execute(text(f"INSERT INTO rerating ({names}) VALUES ({marks})"), values)  # noqa: S608 - our words


async def insert_calls(connection: AsyncConnection, rerating_id: UUID, calls: Sequence[Recharged]) -> None:
    rows = [{"rerating_id": rerating_id, **call._asdict()} for call in calls]
    await connection.execute(text(_INSERT_CALL), rows)


async def insert_lines(connection: AsyncConnection, rerating_id: UUID) -> None:
    """From the calls of the period, those that no card charged as they were."""
    await connection.execute(text(_INSERT_LINES), {"id": rerating_id})


async def rated_lines(connection: AsyncConnection, rerating_id: UUID) -> list[RatedLine]:
    query = """SELECT app, pipeline, model, rate_rule, calls_count, charged, charge, quantity, unit FROM rerated_line
                WHERE rerating_id = :id ORDER BY charge DESC, app, pipeline, model, markup_bps, rate_rule"""
    return [RatedLine(*row) for row in await connection.execute(text(query), {"id": rerating_id})]


async def charged_by_newer(
    connection: AsyncConnection, gateway_id: UUID, begins_at: datetime, ends_at: datetime, as_of: int
) -> str | None:
    """The newest version that a call was charged by, of those that were applied after the rule `as_of`. Of all calls
    that a re-rating of the period goes by: from the month on that it begins in."""
    query = """SELECT rule.card || '@' || rule.version
                 FROM issuance JOIN rate_rule AS rule ON rule.id = issuance.rate_rule
                WHERE issuance.gateway_id = :gateway_id AND issuance.created_at < :ends_at AND rule.id > :as_of
                  AND issuance.created_at >= date_trunc('month', CAST(:begins_at AS timestamptz), 'UTC')
                ORDER BY rule.id DESC LIMIT 1"""
    values = {"gateway_id": gateway_id, "begins_at": begins_at, "ends_at": ends_at, "as_of": as_of}
    return (await connection.execute(text(query), values)).scalar_one_or_none()


async def done_rerating(
    connection: AsyncConnection, rerating_id: UUID, transfer_id: UUID | None, included_id: UUID | None
) -> None:
    query = """UPDATE rerating SET state = 'done', transfer_id = :transfer_id, included_id = :included_id,
                      problem = NULL, ended_at = clock_timestamp() WHERE id = :id"""
    values = {"id": rerating_id, "transfer_id": transfer_id, "included_id": included_id}
    await connection.execute(text(query), values)


async def refused_rerating(connection: AsyncConnection, rerating_id: UUID, why: str) -> None:
    """Nothing was done."""
    query = """UPDATE rerating SET state = 'refused', problem = :why, ended_at = clock_timestamp()
                WHERE id = :id AND state = 'planned'"""
    line = " ".join(why.split())[:_PROBLEM_CHARS_MAX]
    await connection.execute(text(query), {"id": rerating_id, "why": line})


async def _all(connection: AsyncConnection, where: str, **values: Any) -> list[Rerating]:
    rows = await connection.execute(text(f"{_SELECT} {where}"), values)
    return [Rerating(**row) for row in rows.mappings()]


_INSERT_CALL: Final = """
    INSERT INTO rerated_call (rerating_id, issuance_id, charged, charge, rate_rule, quantity, at_least_cost,
                              volume_before, lead_before)
    VALUES (:rerating_id, :issuance_id, :charged, :charge, :rate_rule, :quantity, :at_least_cost, :volume_before,
            :lead_before)
"""
_INSERT_LINES: Final = """
    INSERT INTO rerated_line (rerating_id, app, pipeline, model, markup_bps, calls_count, tickets_count, ev_wei,
                              fee_wei, charged, charge, rate_rule, quantity, unit)
    SELECT rerating.id, coalesce(session.app, ''), coalesce(session.pipeline, ''), coalesce(session.model, ''),
           issuance.markup_bps, count(*), sum(issuance.num_tickets), sum(issuance.ev_wei), sum(issuance.fee_wei),
           sum(coalesce(call.charged, issuance.charge)), sum(coalesce(call.charge, issuance.charge)),
           coalesce(rule.card || '@' || rule.version || '#' || rule.ordinal, ''),
           round(sum(call.quantity) / rule.base_per_unit, 9),
           CASE WHEN sum(call.quantity) IS NOT NULL THEN rule.per END
      FROM rerating JOIN billing_period AS period USING (gateway_id, begins_at)
      JOIN issuance ON issuance.gateway_id = rerating.gateway_id AND issuance.created_at >= period.begins_at
                   AND issuance.created_at < period.ends_at
      LEFT JOIN rerated_call AS call ON call.rerating_id = rerating.id AND call.issuance_id = issuance.id
      LEFT JOIN rate_rule AS rule ON rule.id = call.rate_rule
      LEFT JOIN session ON session.id = issuance.session_id
     WHERE rerating.id = :id
     GROUP BY rerating.id, session.app, session.pipeline, session.model, issuance.markup_bps, rule.id
"""


async def calls_of(
    connection: AsyncConnection, gateway_id: UUID, begins_at: datetime, ends_at: datetime
) -> AsyncGenerator[Call, None]:
    """From the month on that the period begins in; in the order of their commits."""
    values = {"gateway_id": gateway_id, "begins_at": begins_at, "ends_at": ends_at}
    query = text(_CALLS).execution_options(yield_per=ROWS_AT_ONCE)
    rows = await connection.stream(query, values)
    try:
        async for row in rows:
            yield _call(row)
    finally:
        await rows.close()  # as a context manager it is left open by an error


def _call(row: Any) -> Call:
    price = EthPrice(row.currency, row.price, row.price_source, row.price_observed_at)
    quantity = None if row.quantity is None else int(row.quantity)
    return Call(
        row.id, row.created_at, int(row.ev_wei), price, row.charged, row.card, Per(row.per), quantity,
        row.may_be_below_cost, (row.app, row.pipeline, row.model),
    )  # fmt: skip


#: Whether a call might be charged below its cost was recorded where a card let it; else it is as its plan has it now.
_CALLS: Final = """
    SELECT issuance.id, issuance.created_at, issuance.ev_wei, issuance.currency, issuance.price, issuance.price_source,
           issuance.price_observed_at, coalesce(anew.charge, issuance.charge) AS charged, rule.card, rule.per,
           issuance.quantity, NOT issuance.at_least_cost OR rule.floor <> 'none' AND gateway.below_cost
               AS may_be_below_cost,
           coalesce(session.app, '') AS app, coalesce(session.pipeline, '') AS pipeline,
           coalesce(session.model, '') AS model
      FROM issuance JOIN rate_rule AS rule ON rule.id = issuance.rate_rule
      JOIN gateway ON gateway.id = issuance.gateway_id
      LEFT JOIN session ON session.id = issuance.session_id
      LEFT JOIN LATERAL (
          SELECT call.charge FROM rerated_call AS call
            JOIN rerating ON rerating.id = call.rerating_id AND rerating.state = 'done'
           WHERE call.issuance_id = issuance.id ORDER BY rerating.as_of DESC LIMIT 1) AS anew ON true
     WHERE issuance.gateway_id = :gateway_id AND issuance.created_at < :ends_at
       AND issuance.created_at >= date_trunc('month', CAST(:begins_at AS timestamptz), 'UTC')
     ORDER BY issuance.created_at, issuance.balance_after DESC, issuance.volume_before, issuance.id
"""
