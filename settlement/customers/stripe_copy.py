"""Stripe's customer says what ours says: made once for a gateway, and told of every change.

    customer.version          7      counts what was changed here
    customer.stripe_version   6      so Stripe is told again: `ensure_customer`, or at the latest the job
    metadata at Stripe        6      where that differs from what we believe, we do not believe it: `heard_of_customer`

It is made with nothing but its gateway's id in the metadata, so that the request under one idempotency key is always
the same. Stripe forgets keys after a day; by then its search knows the customer.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import stripe
from sqlalchemy import text

from clearinghouse.ids import show
from settlement.customers.details import (
    GATEWAY_KEY,
    VERSION_KEY,
    Customer,
    has_left_over,
    same_tax_id,
    stripe_address,
    stripe_fields,
)
from settlement.customers.store import find_customer
from settlement.stripe_link.client import StripeAway, StripeLink, StripeRefused
from settlement.stripe_link.desk import Desk

#: Steps from nothing to a copy in step are two; others who do the same at this moment may cost some more.
_STEPS_MAX: Final = 8
_MISSING: Final = "resource_missing"
#: Stripe remembers for a day what it answered under an idempotency key; and one more.
_KEY_KEPT_S: Final = 2 * 86_400


async def ensure_customer(desk: Desk, gateway_id: UUID) -> str:
    """The id of the gateway's customer at Stripe, which has been told all that is known of it by now.

    Asks Stripe only where something has changed. Raises NoCustomer, StripeAway, and StripeRefused, which is kept in
    `stripe_refusal` until the customer is described otherwise. Call it without a transaction open.
    """
    for _ in range(_STEPS_MAX):
        async with desk.engine.connect() as connection:
            customer = await find_customer(connection, gateway_id)
        if customer.stripe_customer_id is None:
            await _make(desk, customer)
        elif customer.is_in_step:
            return customer.stripe_customer_id
        else:
            await _tell(desk, customer, customer.stripe_customer_id)
    raise StripeAway(f"the customer of {show('gw', gateway_id)} changes faster than Stripe can be told")


async def _make(desk: Desk, customer: Customer) -> None:
    """Keeps the id of the one that there is at Stripe, or that is made now; else the next key is another."""
    gateway = show("gw", customer.gateway_id)
    made = await _found(desk.link, gateway) or await _created(desk.link, gateway, customer.stripe_attempts)
    keep = (
        "UPDATE customer SET stripe_customer_id = :made, stripe_version = NULL"
        if made is not None
        else "UPDATE customer SET stripe_attempts = stripe_attempts + 1"
    )
    values = {"gateway_id": customer.gateway_id, "attempts": customer.stripe_attempts}
    query = f"{keep} WHERE gateway_id = :gateway_id AND stripe_customer_id IS NULL AND stripe_attempts = :attempts"
    async with desk.transaction() as connection:
        await connection.execute(text(query), values if made is None else values | {"made": made})


async def _found(link: StripeLink, gateway: str) -> str | None:
    """By search, which may lag behind by a minute or more."""
    query = {"query": f"metadata['{GATEWAY_KEY}']:'{gateway}'", "limit": 100}
    page = await link.call(link.client.v1.customers.search_async, params=query)
    return _oldest(page.data)


async def _created(link: StripeLink, gateway: str, attempts: int) -> str | None:
    """None where Stripe failed, will say so again for a day, and has nothing to show for it."""
    key = f"customer-{gateway}-{attempts}"
    try:
        made = await link.call(
            link.client.v1.customers.create_async, params={"metadata": {GATEWAY_KEY: gateway}}, idempotency_key=key
        )
    except StripeAway as away:
        if not away.key_is_spent:
            raise
        return await _listed(link, gateway)
    return made.id


async def _listed(link: StripeLink, gateway: str) -> str | None:
    """By reading all that were made since the key was first used: unlike a search, that leaves none out."""
    newest = None
    async for one in link.each(link.client.v1.customers.list_async, params={}):
        newest = newest or one
        if one.created < newest.created - _KEY_KEPT_S:
            return None
        if _plain(one.metadata).get(GATEWAY_KEY) == gateway:
            return str(one.id)
    return None


def _plain(there: stripe.StripeObject | None) -> dict[str, Any]:
    return {} if there is None else there.to_dict()


def _oldest(found: list[Any]) -> str | None:
    oldest = min(found, key=lambda one: (one.created, one.id), default=None)
    return None if oldest is None else str(oldest.id)


async def _tell(desk: Desk, customer: Customer, stripe_id: str) -> None:
    """Brings Stripe's up to this version of ours. One that was deleted there is forgotten here."""
    values = {"gateway_id": customer.gateway_id, "stripe_id": stripe_id, "version": customer.version}
    try:
        await _update(desk.link, customer, stripe_id)
        await _replace_tax_ids(desk.link, customer, stripe_id)
    except StripeRefused as refused:
        async with desk.transaction() as connection:
            if refused.code == _MISSING:
                await connection.execute(text(_FORGET), values)
                return
            await connection.execute(text(_NOTE_REFUSAL), values | {"refusal": refused.message})
        raise
    async with desk.transaction() as connection:
        await connection.execute(text(_NOTE_TOLD), values)


async def _update(link: StripeLink, customer: Customer, stripe_id: str) -> None:
    update, address = link.client.v1.customers.update_async, stripe_address(customer)
    fields = stripe_fields(customer, gateway=show("gw", customer.gateway_id))
    there = await link.call(update, stripe_id, params=fields)
    if has_left_over(_plain(there.address), address):
        await link.call(update, stripe_id, params={"address": ""})
        await link.call(update, stripe_id, params=fields)


async def _replace_tax_ids(link: StripeLink, customer: Customer, stripe_id: str) -> None:
    """One of ours at most; others go after it came, so that no invoice goes out without."""
    tax_ids = link.client.v1.customers.tax_ids
    there = [one async for one in link.each(tax_ids.list_async, stripe_id, params={})]
    wanted = (customer.tax_id_type or "", customer.tax_id or "")
    kept = next((one.id for one in there if same_tax_id((one.type, one.value), wanted)), None)
    if kept is None and customer.tax_id is not None:
        params = {"type": customer.tax_id_type, "value": customer.tax_id}
        key = f"tax-id-{stripe_id}-{customer.version}"  # who else does the same at this moment does it once with us
        try:
            await link.call(tax_ids.create_async, stripe_id, params=params, idempotency_key=key)
        except StripeAway as away:
            if not away.key_is_spent:
                raise
            await link.call(tax_ids.create_async, stripe_id, params=params)
    for one in there:
        if one.id != kept:
            await link.call(tax_ids.delete_async, stripe_id, one.id)


async def heard_of_customer(desk: Desk, stripe_id: str) -> str:
    """Handler of customers: where Stripe's is not of the version that we believe, or is gone, it is told again."""
    there = await desk.link.call(desk.link.client.v1.customers.retrieve_async, stripe_id)
    is_gone = bool(getattr(there, "deleted", False))
    version = None if is_gone else _plain(there.metadata).get(VERSION_KEY)
    async with desk.transaction() as connection:
        query = text(_FORGET if is_gone else _NOTE_DOUBT)
        values = {"stripe_id": stripe_id} if is_gone else {"stripe_id": stripe_id, "version": version}
        changed = (await connection.execute(query, values)).rowcount
    if not changed:
        return "nothing to do"
    return "it is gone: another is made" if is_gone else "it says something else: it is told again"


_FORGET: Final = """
    UPDATE customer SET stripe_customer_id = NULL, stripe_version = NULL, stripe_attempts = stripe_attempts + 1
     WHERE stripe_customer_id = :stripe_id
"""
_NOTE_REFUSAL: Final = (
    "UPDATE customer SET stripe_refusal = :refusal WHERE gateway_id = :gateway_id AND version = :version"
)
# Who was told a newer version before this one arrived there does not know it any more.
_NOTE_TOLD: Final = """
    UPDATE customer SET stripe_version = CASE WHEN coalesce(stripe_version, 0) <= :version THEN :version END,
           stripe_refusal = CASE WHEN version > :version THEN stripe_refusal END
     WHERE gateway_id = :gateway_id AND stripe_customer_id = :stripe_id
"""
_NOTE_DOUBT: Final = """
    UPDATE customer SET stripe_version = NULL
     WHERE stripe_customer_id = :stripe_id AND stripe_version::text IS DISTINCT FROM :version
       AND stripe_version IS NOT NULL
"""
