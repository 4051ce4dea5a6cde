"""One invoice, from our row to Stripe's: each step is looked up there before it is done, and done under one key.

    planned    an empty draft is made, or the one is found that somebody made and did not live to tell
    drafted    the lines are put on it, those that are missing
    itemized   Stripe's sums are compared with ours: any difference, and nothing is issued
    agreed     it is finalized, and the books say so in the same transaction as our row
    finalized  it is sent, or a card is to be charged
    open       the saved card is charged, and after a decline again on other days; another card at once

Stripe forgets an idempotency key after a day: whoever takes up an invoice that somebody had begun, looks first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from clearinghouse.errors import Refusal
from settlement.invoices import requests
from settlement.invoices.arrived import arrive
from settlement.invoices.entries import Disagrees
from settlement.invoices.seen import Seen, disagreements, metadata_of, seen
from settlement.invoices.store import Invoice, changed, claim, find, give_back, lines_of, note_problem
from settlement.payments.cards import card_of, forgotten_if_gone
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk

#: Longer than any walk: whoever ended in the middle of one keeps nobody waiting for longer.
LEASE: Final = timedelta(minutes=15)
#: After so long a declined card is tried again; then it is the customer's turn.
PAY_AGAIN_AFTER: Final = (timedelta(days=1), timedelta(days=3), timedelta(days=5))
#: Our row may be a little younger by Stripe's clock than its draft.
_CLOCKS_DIFFER: Final = timedelta(days=1)
_DECLINED: Final = 402

#: The gateway's customer at Stripe, made and told what it must know. Raises Refusal where nobody pays for the gateway.
CustomerOf = Callable[[Desk, UUID], Awaitable[str]]


class WalkedElsewhere(Exception):
    """Somebody else has it at this moment, or went on with it meanwhile."""


@dataclass(frozen=True, slots=True)
class Walker:
    """`lease` is how long an invoice is left alone that somebody has begun to walk and says nothing more of."""

    desk: Desk
    customer_of: CustomerOf
    lease: timedelta = LEASE

    async def walk(self, invoice_id: UUID) -> Invoice | None:
        """As far as it goes now; None where somebody else walks it. Its row says why it did not go on, if it did not.

        Raises StripeAway: nobody knows what was done, and the next walk finds out.
        """
        async with self.desk.transaction() as connection:
            invoice = await claim(connection, invoice_id, self.lease)
        if invoice is None:
            return None
        try:
            invoice = await self._through(invoice)
        except StripeRefused as refused:
            # It did nothing, and would for a day give the same answer under this key, whatever is mended meanwhile.
            return await self._held(invoice_id, f"Stripe refused: {refused}", key_is_spent=True)
        except (Disagrees, Refusal) as reason:
            return await self._held(invoice_id, str(reason))
        except WalkedElsewhere:
            return None
        except Exception as error:
            async with self.desk.transaction() as connection:
                await give_back(connection, invoice_id, key_is_spent=getattr(error, "key_is_spent", False))
            raise
        async with self.desk.transaction() as connection:
            await give_back(connection, invoice_id)
        return invoice

    async def _through(self, invoice: Invoice) -> Invoice:
        """Step by step. `is_begun`: somebody may have done the next step already."""
        is_begun = invoice.claims_count > 1
        while True:
            step = _STEPS.get(invoice.state)
            if step is None:
                return invoice
            after = await step(self, invoice, is_begun)
            if after.state == invoice.state:
                return after
            invoice = after

    async def _held(self, invoice_id: UUID, problem: str, *, key_is_spent: bool = False) -> Invoice | None:
        async with self.desk.transaction() as connection:
            await note_problem(connection, invoice_id, problem, key_is_spent=key_is_spent)
            return await find(connection, invoice_id)

    # --- the steps ----------------------------------------------------------------------------------------------------

    async def _draft(self, invoice: Invoice, is_begun: bool) -> Invoice:
        known = invoice.stripe_customer_id
        found = await self.find_at_stripe(invoice, known) if is_begun and known is not None else None
        if found is None:
            customer_id = await self.customer_of(self.desk, invoice.gateway_id)
            if customer_id != known:
                invoice = await self._changed(invoice, stripe_customer_id=customer_id)
            found = await self._made(invoice)
        return await self.drafted(invoice, found)

    async def _items(self, invoice: Invoice, is_begun: bool) -> Invoice:
        link = self.desk.link
        async with self.desk.engine.connect() as connection:
            lines = await lines_of(connection, invoice.id)
        there = await self._lines_there(invoice) if is_begun else set()
        for position, line in enumerate(lines, 1):
            if position not in there:
                await link.call(
                    link.client.v1.invoice_items.create_async,
                    params=requests.item(invoice, position, line),
                    idempotency_key=requests.key(invoice, f"line-{position}"),
                )
        return await self._changed(invoice, state="itemized")

    async def _agree(self, invoice: Invoice, is_begun: bool) -> Invoice:
        found = await self._retrieved(invoice)
        if found.status != "draft":
            return await self._arrived(invoice, found)
        wrong = disagreements(invoice, found)
        if wrong:
            raise Disagrees(f"the draft at Stripe is not what was asked for: {'; '.join(wrong)}")
        return await self._changed(invoice, state="agreed", problem=None, problem_at=None)

    async def _finalize(self, invoice: Invoice, is_begun: bool) -> Invoice:
        if is_begun and (found := await self._retrieved(invoice)).status != "draft":
            return await self._arrived(invoice, found)
        link, asked_at = self.desk.link, await self.desk.now()
        done = await link.call(
            link.client.v1.invoices.finalize_invoice_async,
            invoice.at_stripe,
            params={"auto_advance": False},
            idempotency_key=requests.key(invoice, "finalize"),
        )
        return await self._arrived(invoice, seen(done, asked_at))

    async def _send(self, invoice: Invoice, is_begun: bool) -> Invoice:
        if is_begun:
            invoice = await self._arrived(invoice, await self._retrieved(invoice))
            if invoice.state != "finalized":
                return invoice
        if invoice.collection == "charge_automatically":
            return await self._changed(invoice, state="open", pay_next_at=await self.desk.now())
        link = self.desk.link
        await link.call(
            link.client.v1.invoices.send_invoice_async,
            invoice.at_stripe,
            idempotency_key=requests.key(invoice, "send"),
        )
        return await self._changed(invoice, state="open", sent_at=await self.desk.now(), problem=None, problem_at=None)

    async def _pay(self, invoice: Invoice, is_begun: bool) -> Invoice:
        if invoice.collection != "charge_automatically":
            return invoice
        now = await self.desk.now()
        async with self.desk.engine.connect() as connection:
            card = await card_of(connection, invoice.gateway_id)
        is_another = card is not None and card.payment_method_id != invoice.stripe_method_id
        if not is_another and (invoice.pay_next_at is None or invoice.pay_next_at > now):
            return invoice
        if is_begun:
            invoice = await self._arrived(invoice, await self._retrieved(invoice))
            if invoice.state != "open":
                return invoice
        if card is None:
            return await self._without_card(invoice, "no card is saved", now)
        if is_another:
            invoice = await self._noted(invoice, card.payment_method_id, now)
        link = self.desk.link
        try:
            done = await link.call(
                link.client.v1.invoices.pay_async,
                invoice.at_stripe,
                params={"payment_method": invoice.stripe_method_id, "off_session": True},
                idempotency_key=requests.key(invoice, f"pay-{invoice.pay_attempts_count}"),
            )
        except StripeRefused as refused:
            # Nobody has paid, or somebody else had: what Stripe says of the invoice tells.
            after = await self._charged(invoice, await self._retrieved(invoice))
            return after if after.state != "open" else await self._declined(after, refused, now)
        after = await self._charged(invoice, seen(done, now))
        if after.state != "open":
            return after
        return await self._changed(after, pay_next_at=now + PAY_AGAIN_AFTER[0])  # it is under way: Stripe will tell

    # --- what they are made of ----------------------------------------------------------------------------------------

    async def find_at_stripe(self, invoice: Invoice, customer_id: str) -> Seen | None:
        """Stripe's invoice with our id. Of two, which no key kept from being made, the one that got further."""
        link = self.desk.link
        since_s = int((invoice.created_at - _CLOCKS_DIFFER).timestamp())
        asked = {"customer": customer_id, "created": {"gte": since_s}}
        ours = [
            found
            async for one in link.each(link.client.v1.invoices.list_async, params=asked)
            if (found := seen(one)).our_id == requests.shown_id(invoice)
        ]
        return min(ours, key=lambda found: (found.status == "draft", found.created_at, found.id), default=None)

    async def _lines_there(self, invoice: Invoice) -> set[int]:
        """Which lines the draft has. One that it has twice, which no key kept from being made, goes."""
        link, there = self.desk.link, set()
        async for item in link.each(link.client.v1.invoice_items.list_async, params={"invoice": invoice.at_stripe}):
            position = requests.line_key(metadata_of(item), invoice)
            if position in there:
                await link.call(link.client.v1.invoice_items.delete_async, item.id)
            elif position is not None:
                there.add(position)
        return there

    async def _made(self, invoice: Invoice) -> Seen:
        link = self.desk.link
        made = await link.call(
            link.client.v1.invoices.create_async,
            params=requests.draft(invoice),
            idempotency_key=requests.key(invoice, "draft"),
        )
        return seen(made)

    async def drafted(self, invoice: Invoice, found: Seen) -> Invoice:
        """From now on it is that one. Raises WalkedElsewhere."""
        async with self.desk.transaction() as connection:
            after = await changed(
                connection, invoice, state="drafted", stripe_invoice_id=found.id, problem=None, problem_at=None
            )
        if after is None:
            await self._drop(invoice, found)
            raise WalkedElsewhere
        return after

    async def _drop(self, invoice: Invoice, found: Seen) -> None:
        """Somebody else was first. If it was with another draft, or took it all back, then this one is nobody's."""
        async with self.desk.engine.connect() as connection:
            kept = await find(connection, invoice.id)
        if kept is None or found.status != "draft" or kept.stripe_invoice_id == found.id:
            return
        if kept.stripe_invoice_id is not None or kept.state == "void":
            await self.desk.link.call(self.desk.link.client.v1.invoices.delete_async, found.id)

    async def _retrieved(self, invoice: Invoice) -> Seen:
        link, asked_at = self.desk.link, await self.desk.now()
        return seen(await link.call(link.client.v1.invoices.retrieve_async, invoice.at_stripe), asked_at)

    async def _arrived(self, invoice: Invoice, found: Seen) -> Invoice:
        after = await arrive(self.desk, found)
        assert after is not None, f"{invoice.at_stripe} is in our row"
        return after

    async def _charged(self, invoice: Invoice, found: Seen) -> Invoice:
        """Raises WalkedElsewhere where another attempt was noted since: this answer is of the one before."""
        after = await self._arrived(invoice, found)
        ours = (invoice.stripe_method_id, invoice.pay_attempts_count)
        if after.state == "open" and (after.stripe_method_id, after.pay_attempts_count) != ours:
            raise WalkedElsewhere
        return after

    async def _changed(self, invoice: Invoice, **values: Any) -> Invoice:
        async with self.desk.transaction() as connection:
            after = await changed(connection, invoice, **values)
        if after is None:
            raise WalkedElsewhere
        return after

    async def _noted(self, invoice: Invoice, method_id: str, now: datetime) -> Invoice:
        """With which card it is charged from now on, before Stripe is asked: whoever goes on after a crash asks for the
        same. It has attempts of its own, and keys of its own: Stripe refuses a key that comes with another card."""
        keys_spent_count = invoice.keys_spent_count + int(invoice.stripe_method_id is not None)
        return await self._changed(
            invoice, stripe_method_id=method_id, pay_attempts_count=0, pay_next_at=now,
            keys_spent_count=keys_spent_count,
        )  # fmt: skip

    async def _without_card(self, invoice: Invoice, why: str, now: datetime) -> Invoice:
        """Nothing is charged before a card is saved; then it is at once, since that one is another."""
        save = f"`clearinghouse payments save-card {invoice.gateway_name}`"
        return await self._changed(invoice, pay_next_at=None, problem=f"{why}: {save}"[:1000], problem_at=now)

    async def _declined(self, invoice: Invoice, refused: StripeRefused, now: datetime) -> Invoice:
        assert invoice.stripe_method_id is not None, "it was charged"
        if refused.status != _DECLINED and await forgotten_if_gone(self.desk, invoice.stripe_method_id):
            return await self._without_card(invoice, "the saved card was taken away at Stripe", now)
        tried = invoice.pay_attempts_count
        again = now + PAY_AGAIN_AFTER[tried] if tried < len(PAY_AGAIN_AFTER) else None
        why = refused.decline_code or refused.code or str(refused)
        what = "the payment was declined" if refused.status == _DECLINED else "it cannot be charged"
        return await self._changed(
            invoice, pay_attempts_count=tried + 1, pay_next_at=again, problem=f"{what}: {why}"[:1000], problem_at=now
        )


_Step = Callable[[Walker, Invoice, bool], Awaitable[Invoice]]
_STEPS: Final[dict[str, _Step]] = {
    "planned": Walker._draft,
    "drafted": Walker._items,
    "itemized": Walker._agree,
    "agreed": Walker._finalize,
    "finalized": Walker._send,
    "open": Walker._pay,
}
