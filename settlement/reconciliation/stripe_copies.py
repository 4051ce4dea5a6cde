"""What Stripe has of a period, copied into temporary tables of one connection, to be compared with the books there.

Stripe is asked before the books are seen, so that no snapshot is held while a long list is read; memory holds a page of
it. What the books have of the period and the lists do not, is asked for one by one: Stripe made it a moment before or
after the period, or does not know it (`stripe_missing`). Amounts are in the books' units. Nothing at Stripe is changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import stripe
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.invoices.seen import note, seen
from settlement.payments.amounts import amount_of
from settlement.payments.fetched import id_of
from settlement.reconciliation.report import Period
from settlement.stripe_link.client import StripeLink, StripeRefused

_GONE: Final = "resource_missing"
_PAGE_ROWS: Final = 100
#: Most invoices are paid so soon after they were issued.
_PAID_WITHIN: Final = timedelta(days=62)
_OBJECTS_BETWEEN_LINES: Final = 1000
Row = dict[str, Any]


class StripeCopies:
    """`connection` is in no transaction, and the tables are its own. Methods raise StripeAway and StripeRefused."""

    def __init__(
        self, connection: AsyncConnection, link: StripeLink, period: Period, tell: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._link = link
        self._period = period
        self._tell = tell
        self._count = 0

    async def prepare(self) -> None:
        """Makes the tables. Raises sqlalchemy.exc.ProgrammingError where the role may not."""
        for statement in _TABLES:
            await self._connection.execute(text(statement))
        await self._connection.commit()

    async def copy(self) -> None:
        """Everything that is compared one by one."""
        v1 = self._link.client.v1
        await self._copied("stripe_invoice", v1.invoices.list_async, _invoice)
        await self._copied("stripe_note", v1.credit_notes.list_async, _note)
        await self._copied("stripe_charge", v1.charges.list_async, _charge)
        await self._copied("stripe_refund", v1.refunds.list_async, _refund)
        await self._copied("stripe_dispute", v1.disputes.list_async, _dispute)
        await self._asked("stripe_invoice", _INVOICES_NOT_LISTED, v1.invoices.retrieve_async, _invoice)
        await self._asked("stripe_note", _NOTES_NOT_LISTED, v1.credit_notes.retrieve_async, _note)
        await self._asked("stripe_refund", _REFUNDS_NOT_LISTED, v1.refunds.retrieve_async, _refund)
        await self._asked("stripe_dispute", _DISPUTES_NOT_LISTED, v1.disputes.retrieve_async, _dispute)
        await self._charges_of_payments()
        await self._invoices_of_charges()
        await self._connection.execute(text(f"ANALYZE {', '.join(_NAMES)}"))  # nothing else does, of temporary tables
        await self._connection.commit()

    async def movements(self) -> AsyncIterator[stripe.BalanceTransaction]:
        """Of the account's balance at Stripe, of the period."""
        async for one in self._each(self._link.client.v1.balance_transactions.list_async):
            yield one

    async def payouts(self) -> AsyncIterator[stripe.Payout]:
        async for one in self._each(self._link.client.v1.payouts.list_async):
            yield one

    async def _each(
        self, function: Callable[..., Awaitable[stripe.ListObject[Any]]], *, since: datetime | None = None
    ) -> AsyncIterator[Any]:
        begins_at = since or self._period.begins_at
        created = {"gte": int(begins_at.timestamp()), "lt": int(self._period.ends_at.timestamp())}
        async for one in self._link.each(function, params={"created": created}):
            self._count += 1
            if self._count % _OBJECTS_BETWEEN_LINES == 0:
                self._tell(f"{self._count} objects read from Stripe")
            yield one

    async def _copied(
        self, table: str, function: Callable[..., Awaitable[stripe.ListObject[Any]]], row_of: Callable[[Any], Row]
    ) -> None:
        rows = list[Row]()
        async for one in self._each(function):
            rows.append({**row_of(one), "in_period": True})
            if len(rows) == _PAGE_ROWS:
                await self._insert(table, rows)
                rows = []
        await self._insert(table, rows)

    async def _asked(
        self, table: str, not_listed: str, function: Callable[..., Awaitable[Any]], row_of: Callable[[Any], Row]
    ) -> None:
        """Those of ours that were not listed, one by one."""
        async for id_ in self._ids(not_listed):
            try:
                found = await self._link.call(function, id_)
            except StripeRefused as refused:
                if refused.code != _GONE:
                    raise
                await self._missing(id_)
            else:
                await self._insert(table, [{**row_of(found), "in_period": False}])

    async def _charges_of_payments(self) -> None:
        async for intent_id in self._ids(_PAYMENTS_NOT_LISTED):
            params = {"payment_intent": intent_id}
            found = [one async for one in self._link.each(self._link.client.v1.charges.list_async, params=params)]
            paid = [{**_charge(one), "in_period": False} for one in found if one.status == "succeeded"]
            await (self._insert("stripe_charge", paid) if paid else self._missing(intent_id))

    async def _invoices_of_charges(self) -> None:
        """What a charge has paid that is no top-up's: by a list of what was to be paid lately, and else one by one."""
        list_ = self._link.client.v1.invoice_payments.list_async
        rows = list[Row]()
        async for one in self._each(list_, since=self._period.begins_at - _PAID_WITHIN):
            intent_id = id_of(getattr(one.payment, "payment_intent", None))
            if intent_id is not None:
                rows.append({"intent_id": intent_id, "invoice_id": id_of(one.invoice)})
            if len(rows) == _PAGE_ROWS:
                await self._insert("stripe_invoice_paid", rows)
                rows = []
        await self._insert("stripe_invoice_paid", rows)
        async for intent_id in self._ids(_CHARGES_OF_NO_PAYMENT):
            params = {"payment": {"type": "payment_intent", "payment_intent": intent_id}}
            async for one in self._link.each(list_, params=params):
                await self._insert("stripe_invoice_paid", [{"intent_id": intent_id, "invoice_id": id_of(one.invoice)}])

    async def _ids(self, query: str) -> AsyncIterator[str]:
        """Page by page, and after each page in no transaction: what comes of an id may be written meanwhile."""
        after = ""
        while True:
            rows = await self._connection.execute(text(query), {**self._period._asdict(), "after": after})
            ids: Sequence[str] = rows.scalars().all()
            await self._connection.commit()
            for id_ in ids:
                yield id_
            if len(ids) < _PAGE_ROWS:
                return
            after = ids[-1]

    async def _missing(self, id_: str) -> None:
        await self._insert("stripe_missing", [{"id": id_}])

    async def _insert(self, table: str, rows: list[Row]) -> None:
        if not rows:
            return
        names = ", ".join(rows[0])
        marks = ", ".join(f":{name}" for name in rows[0])
        query = f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 (constants)
        await self._connection.execute(text(query), rows)
        await self._connection.commit()


def _invoice(found: Any) -> Row:
    shown = seen(found)
    return {
        "id": shown.id, "status": shown.status, "currency": shown.currency, "total_minor": shown.total_minor,
        "paid_minor": shown.paid_minor, "total": amount_of(shown.total_minor, shown.currency),
    }  # fmt: skip


def _note(found: Any) -> Row:
    shown = note(found)
    return {
        "id": shown.id, "invoice_id": id_of(found.invoice), "is_void": shown.is_void,
        "currency": found.currency.upper(), "net": amount_of(shown.net_minor, found.currency), "kind": shown.kind,
    }  # fmt: skip


def _charge(found: Any) -> Row:
    return {
        "id": found.id, "status": found.status, "intent_id": id_of(found.payment_intent), **_money(found),
        "refunded": amount_of(found.amount_refunded, found.currency),
    }  # fmt: skip


def _refund(found: Any) -> Row:
    return {"id": found.id, "status": found.status, "charge_id": id_of(found.charge), **_money(found)}


def _dispute(found: Any) -> Row:
    return {"id": found.id, "status": found.status, "charge_id": id_of(found.charge), **_money(found)}


def _money(found: Any) -> Row:
    return {"amount": amount_of(found.amount, found.currency), "currency": found.currency.upper()}


_OF_MONEY: Final = "id text PRIMARY KEY, in_period boolean NOT NULL, status text, amount numeric, currency text"
_TABLES: Final = (
    """CREATE TEMPORARY TABLE stripe_invoice (
           id text PRIMARY KEY, in_period boolean NOT NULL, status text, currency text, total numeric,
           total_minor bigint, paid_minor bigint)""",
    """CREATE TEMPORARY TABLE stripe_note (
           id text PRIMARY KEY, in_period boolean NOT NULL, invoice_id text, is_void boolean, kind text, net numeric,
           currency text)""",
    f"CREATE TEMPORARY TABLE stripe_charge ({_OF_MONEY}, intent_id text, refunded numeric)",
    "CREATE INDEX ON stripe_charge (intent_id)",
    f"CREATE TEMPORARY TABLE stripe_refund ({_OF_MONEY}, charge_id text)",
    f"CREATE TEMPORARY TABLE stripe_dispute ({_OF_MONEY}, charge_id text)",
    """CREATE TEMPORARY TABLE stripe_invoice_paid (
           intent_id text, invoice_id text, PRIMARY KEY (intent_id, invoice_id))""",
    "CREATE TEMPORARY TABLE stripe_missing (id text PRIMARY KEY)",
)

_NAMES: Final = (
    "stripe_invoice", "stripe_note", "stripe_charge", "stripe_refund", "stripe_dispute", "stripe_invoice_paid",
    "stripe_missing",
)  # fmt: skip


def _not_listed(id_: str, row: str, table: str, *, where: str) -> str:
    return f"""
        SELECT {id_} FROM {row}
         WHERE {where} AND {id_} COLLATE "C" > :after
           AND NOT EXISTS (SELECT FROM {table} AS listed WHERE listed.id = {id_})
         ORDER BY {id_} COLLATE "C" LIMIT {_PAGE_ROWS}
    """  # noqa: S608


_IN_PERIOD: Final = "created_at >= :begins_at AND created_at < :ends_at"
_INVOICES_NOT_LISTED: Final = _not_listed("stripe_invoice_id", "invoice", "stripe_invoice", where=_IN_PERIOD)
#: Notes that are in the books, whoever made them.
_NOTES_NOT_LISTED: Final = _not_listed(
    "noted.id",
    """(SELECT DISTINCT split_part(key, ':', 3) AS id FROM transfer
         WHERE kind = 'adjustment' AND key LIKE 'adjustment:credit\\_note:%'
           AND created_at >= :begins_at AND created_at < :ends_at) AS noted""",
    "stripe_note",
    where="true",
)
_REFUNDS_NOT_LISTED: Final = _not_listed("stripe_refund_id", "refund", "stripe_refund", where=_IN_PERIOD)
_DISPUTES_NOT_LISTED: Final = _not_listed("dispute.id", "dispute", "stripe_dispute", where=_IN_PERIOD)
_PAYMENTS_NOT_LISTED: Final = f"""
    SELECT stripe_intent_id FROM payment
     WHERE state = 'succeeded' AND method NOT IN ('setup', 'wire', 'stablecoin')
       AND ended_at >= :begins_at AND ended_at < :ends_at AND stripe_intent_id COLLATE "C" > :after
       AND NOT EXISTS (SELECT FROM stripe_charge AS listed
                        WHERE listed.intent_id = payment.stripe_intent_id AND listed.status = 'succeeded')
     ORDER BY stripe_intent_id COLLATE "C" LIMIT {_PAGE_ROWS}
"""  # noqa: S608
_CHARGES_OF_NO_PAYMENT: Final = f"""
    SELECT DISTINCT intent_id COLLATE "C" FROM stripe_charge AS listed
     WHERE in_period AND status = 'succeeded' AND intent_id COLLATE "C" > :after
       AND NOT EXISTS (SELECT FROM payment WHERE payment.stripe_intent_id = listed.intent_id)
       AND NOT EXISTS (SELECT FROM stripe_invoice_paid AS paid WHERE paid.intent_id = listed.intent_id)
     ORDER BY 1 LIMIT {_PAGE_ROWS}
"""  # noqa: S608
