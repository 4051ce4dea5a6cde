"""What Stripe has of a period, copied into temporary tables of one connection, to be compared with the books there.

Stripe is asked before the books are seen, so that no snapshot is held while a long list is read; memory holds a page of
it. A period is more than what was made in it: invoices of last month are paid, debits are answered, refunds fail. So
what is from before is looked at, too, where it moved the balance at Stripe in the period, or changed in the books in
it, or is not final there: one by one, but for invoices. What Stripe does not know is in `stripe_missing`. Amounts are
in the books' units. Nothing at Stripe is changed.

Calls: one for each hundred objects of a list, and one for each payout and of what is from before, as above. How much
else the account does costs none, but for what goes back in the period of charges of before that the books do not know:
those charges are asked for, and what they paid.
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
#: Most invoices are paid so soon after they were issued: those of that time are listed, older ones asked for by id.
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

    async def copy_lists(self) -> None:
        """What Stripe made in the period."""
        v1 = self._link.client.v1
        await self._copied("stripe_invoice", v1.invoices.list_async, _invoice)
        await self._copied("stripe_note", v1.credit_notes.list_async, _note)
        await self._copied("stripe_charge", v1.charges.list_async, _charge)
        await self._copied("stripe_refund", v1.refunds.list_async, _refund)
        await self._copied("stripe_dispute", v1.disputes.list_async, _dispute)

    async def copy_others(self) -> None:
        """What is from before and belongs to the period all the same. The lists and movements were read."""
        v1 = self._link.client.v1
        await self._asked("stripe_note", _NOTES_NOT_LISTED, v1.credit_notes.retrieve_async, _note)
        for not_listed in (_REFUNDS_NOT_LISTED, _REFUNDS_MOVED):
            await self._asked("stripe_refund", not_listed, v1.refunds.retrieve_async, _refund)
        for not_listed in (_DISPUTES_NOT_LISTED, _DISPUTES_MOVED):
            await self._asked("stripe_dispute", not_listed, v1.disputes.retrieve_async, _dispute)
        for not_listed in (_CHARGES_MOVED, _CHARGES_OF_UNKNOWN):
            await self._asked("stripe_charge", not_listed, v1.charges.retrieve_async, _charge)
        await self._charges_of_payments()
        await self._payments_of_invoices()
        await self._invoices_of_before()
        await self._connection.execute(text(f"ANALYZE {', '.join(_NAMES)}"))  # nothing else does, of temporary tables
        await self._connection.commit()

    async def movements(self) -> AsyncIterator[stripe.BalanceTransaction]:
        """Of the account's balance at Stripe, of the period. What they are of is noted."""
        rows = list[Row]()
        async for one in self._each(self._link.client.v1.balance_transactions.list_async):
            if (source_id := id_of(one.source)) is not None:
                rows.append({"source_id": source_id})
            if len(rows) == _PAGE_ROWS:
                await self._insert("stripe_moved", rows)
                rows = []
            yield one
        await self._insert("stripe_moved", rows)

    async def payouts(self) -> AsyncIterator[stripe.Payout]:
        async for one in self._each(self._link.client.v1.payouts.list_async):
            yield one

    async def parts(self, payout: stripe.Payout) -> AsyncIterator[stripe.BalanceTransaction]:
        """The movements that a payout is made of, whenever they were."""
        list_ = self._link.client.v1.balance_transactions.list_async
        async for one in self._link.each(list_, params={"payout": payout.id}):
            if one.id != id_of(payout.balance_transaction):
                yield one

    async def _each(
        self,
        function: Callable[..., Awaitable[stripe.ListObject[Any]]],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[Any]:
        begins_at, ends_at = since or self._period.begins_at, until or self._period.ends_at
        created = {"gte": int(begins_at.timestamp()), "lt": int(ends_at.timestamp())}
        async for one in self._link.each(function, params={"created": created}):
            self._count += 1
            if self._count % _OBJECTS_BETWEEN_LINES == 0:
                self._tell(f"{self._count} objects read from Stripe")
            yield one

    async def _copied(
        self,
        table: str,
        function: Callable[..., Awaitable[stripe.ListObject[Any]]],
        row_of: Callable[[Any], Row],
        *,
        before: timedelta | None = None,
    ) -> None:
        """Those of the period; with `before`, those of so long before it."""
        rows = list[Row]()
        begins_at = self._period.begins_at
        span = {"since": begins_at - before, "until": begins_at} if before is not None else {}
        async for one in self._each(function, **span):
            rows.append({**row_of(one), "in_period": before is None})
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

    async def _payments_of_invoices(self) -> None:
        """What a charge has paid that is no top-up's: by a list of what was to be paid lately, by invoices of ours that
        are older and were still to be paid, and by the charges of before that are in neither. What then has no invoice
        of ours pays nothing that the books know.
        """
        list_ = self._link.client.v1.invoice_payments.list_async
        rows = list[Row]()
        async for one in self._each(list_, since=self._period.begins_at - _PAID_WITHIN):
            rows += _invoice_paid(one)
            if len(rows) >= _PAGE_ROWS:
                await self._insert("stripe_invoice_paid", rows)
                rows = []
        await self._insert("stripe_invoice_paid", rows)
        async for invoice_id in self._ids(_INVOICES_STILL_TO_BE_PAID):
            async for one in self._link.each(list_, params={"invoice": invoice_id}):
                await self._insert("stripe_invoice_paid", _invoice_paid(one))
        async for intent_id in self._ids(_CHARGES_OF_BEFORE):
            params = {"payment": {"type": "payment_intent", "payment_intent": intent_id}}
            async for one in self._link.each(list_, params=params):
                await self._insert("stripe_invoice_paid", _invoice_paid(one))

    async def _invoices_of_before(self) -> None:
        """A list may be far shorter than what would be asked for one by one: but only that is kept of it."""
        invoices = self._link.client.v1.invoices
        await self._copied("stripe_invoice", invoices.list_async, _invoice, before=_PAID_WITHIN)
        await self._connection.execute(text(_DROP_INVOICES_UNTOUCHED), self._period._asdict())
        await self._connection.commit()
        await self._asked("stripe_invoice", _INVOICES_NOT_LISTED, invoices.retrieve_async, _invoice)

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


def _invoice_paid(found: Any) -> list[Row]:
    intent_id = id_of(getattr(found.payment, "payment_intent", None))
    return [{"intent_id": intent_id, "invoice_id": id_of(found.invoice)}] if intent_id is not None else []


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
    "CREATE TEMPORARY TABLE stripe_moved (source_id text PRIMARY KEY)",
    "CREATE TEMPORARY TABLE stripe_missing (id text PRIMARY KEY)",
)

_NAMES: Final = (
    "stripe_invoice", "stripe_note", "stripe_charge", "stripe_refund", "stripe_dispute", "stripe_invoice_paid",
    "stripe_moved", "stripe_missing",
)  # fmt: skip


def _not_listed(id_: str, row: str, table: str, *, where: str) -> str:
    return f"""
        SELECT {id_} FROM {row}
         WHERE {where} AND {id_} COLLATE "C" > :after
           AND NOT EXISTS (SELECT FROM {table} AS listed WHERE listed.id = {id_})
         ORDER BY {id_} COLLATE "C" LIMIT {_PAGE_ROWS}
    """  # noqa: S608


def _moved(prefixes: tuple[str, ...], table: str) -> str:
    """What the balance moved for, by how Stripe begins its ids. Debits have some of their own, old disputes too."""
    kinds = " OR ".join(f"starts_with(source_id, '{prefix}')" for prefix in prefixes)
    return _not_listed("source_id", "stripe_moved", table, where=f"({kinds})")


def _at_some_time(*columns: str) -> str:
    """In the period by any of these; or it is not final, and was there before the period ended."""
    times = " OR ".join(f"{name} >= :begins_at AND {name} < :ends_at" for name in columns)
    return f"({times} OR ended_at IS NULL AND created_at < :ends_at)"


_IN_PERIOD: Final = "transfer.created_at >= :begins_at AND transfer.created_at < :ends_at"
#: What entries of the period name as what stands behind them.
_BOOKED_FOR: Final = f"""
    (SELECT split_part(key, ':', 2) FROM transfer
      WHERE kind IN ('payment', 'refund', 'dispute', 'dispute_won') AND {_IN_PERIOD})
"""  # noqa: S608
_OURS: Final = _at_some_time("created_at", "ended_at")
_REFUNDS_NOT_LISTED: Final = _not_listed(
    "stripe_refund_id", "refund", "stripe_refund", where=f"({_OURS} OR stripe_refund_id IN {_BOOKED_FOR})"
)
_DISPUTES_NOT_LISTED: Final = _not_listed(
    "dispute.id", "dispute", "stripe_dispute", where=f"({_OURS} OR dispute.id IN {_BOOKED_FOR})"
)
_CHARGES_MOVED: Final = _moved(("ch_", "py_"), "stripe_charge")
_REFUNDS_MOVED: Final = _moved(("re_", "pyr_"), "stripe_refund")
_DISPUTES_MOVED: Final = _moved(("du_", "dp_"), "stripe_dispute")
#: Whether the books miss what went back depends on whether they know what it went back of.
_CHARGES_OF_UNKNOWN: Final = _not_listed(
    "back.charge_id",
    """(SELECT charge_id FROM stripe_refund AS there
         WHERE NOT EXISTS (SELECT FROM refund WHERE refund.stripe_refund_id = there.id)
         UNION
        SELECT charge_id FROM stripe_dispute AS there
         WHERE NOT EXISTS (SELECT FROM dispute WHERE dispute.id = there.id)) AS back""",
    "stripe_charge",
    where="true",
)
#: Of notes that are in the books, whoever made them. Stripe lets one be voided as long as its invoice is open.
_NOTES_NOT_LISTED: Final = _not_listed(
    "noted.id",
    f"""(SELECT split_part(key, ':', 3) AS id FROM transfer
          WHERE kind = 'adjustment' AND key LIKE 'adjustment:credit\\_note:%' AND {_IN_PERIOD}
          UNION
         SELECT split_part(key, ':', 3) FROM invoice
           JOIN invoice_entry ON invoice_id = invoice.id JOIN transfer ON transfer.id = transfer_id
          WHERE invoice.ended_at IS NULL AND invoice.created_at < :ends_at
            AND transfer.kind = 'adjustment' AND key LIKE 'adjustment:credit\\_note:%') AS noted""",  # noqa: S608
    "stripe_note",
    where="true",
)
#: A top-up that Stripe has as paid. Of one that is not paid here, a charge of any state says how far Stripe is.
_PAYMENTS_NOT_LISTED: Final = f"""
    SELECT stripe_intent_id FROM payment
     WHERE method NOT IN ('setup', 'wire', 'stablecoin') AND {_at_some_time("ended_at")}
       AND stripe_intent_id COLLATE "C" > :after
       AND NOT EXISTS (SELECT FROM stripe_charge AS listed
                        WHERE listed.intent_id = payment.stripe_intent_id
                          AND (listed.status = 'succeeded' OR payment.state <> 'succeeded'))
     ORDER BY stripe_intent_id COLLATE "C" LIMIT {_PAGE_ROWS}
"""  # noqa: S608
_INVOICES_STILL_TO_BE_PAID: Final = f"""
    SELECT stripe_invoice_id FROM invoice
     WHERE created_at < :begins_at - interval '{_PAID_WITHIN.days} days' AND finalized_at IS NOT NULL
       AND (ended_at IS NULL OR ended_at >= :begins_at) AND stripe_invoice_id COLLATE "C" > :after
     ORDER BY stripe_invoice_id COLLATE "C" LIMIT {_PAGE_ROWS}
"""  # noqa: S608
#: They are there for what went back of them, or moved otherwise: months after an invoice was paid, perhaps.
_CHARGES_OF_BEFORE: Final = f"""
    SELECT DISTINCT intent_id COLLATE "C" FROM stripe_charge AS charge
     WHERE NOT in_period AND intent_id COLLATE "C" > :after
       AND NOT EXISTS (SELECT FROM payment WHERE payment.stripe_intent_id = charge.intent_id)
       AND NOT EXISTS (SELECT FROM stripe_invoice_paid AS paid WHERE paid.intent_id = charge.intent_id)
     ORDER BY 1 LIMIT {_PAGE_ROWS}
"""  # noqa: S608
#: Invoices of ours that the report is about, by their own times, by the entries of the period, or by its charges.
_INVOICE_TOUCHED: Final = f"""({_OURS} OR invoice.id IN
    (SELECT invoice_id FROM invoice_entry JOIN transfer ON transfer.id = transfer_id WHERE {_IN_PERIOD})
    OR 'payment:invoice:' || invoice.id || '\\:edited' IN
    (SELECT key FROM transfer WHERE kind = 'payment' AND {_IN_PERIOD})
    OR stripe_invoice_id IN
    (SELECT paid.invoice_id FROM stripe_invoice_paid AS paid JOIN stripe_charge AS charge USING (intent_id)
      WHERE charge.status = 'succeeded'))"""  # noqa: S608
_INVOICES_NOT_LISTED: Final = _not_listed("stripe_invoice_id", "invoice", "stripe_invoice", where=_INVOICE_TOUCHED)
_DROP_INVOICES_UNTOUCHED: Final = f"""
    DELETE FROM stripe_invoice AS there
     WHERE NOT there.in_period
       AND NOT EXISTS (SELECT FROM invoice WHERE stripe_invoice_id = there.id AND {_INVOICE_TOUCHED})
"""  # noqa: S608
