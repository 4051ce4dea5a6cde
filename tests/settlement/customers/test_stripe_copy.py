"""Stripe's customer says what ours says, whatever happens on the way. Over a local Stripe, with the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stripe import APIError

from clearinghouse.database.connect import SERVE_ROLE, database_now, in_role
from clearinghouse.identity import gateways
from clearinghouse.ids import show
from settlement.customers.details import Customer
from settlement.customers.jobs import CustomersRefused, tell_stripe
from settlement.customers.store import NoCustomer, find_customer, set_details
from settlement.customers.stripe_copy import ensure_customer, heard_of_customer
from settlement.schedule import JobFailed, Tick
from settlement.stripe_link.client import StripeAway, StripeRefused
from settlement.stripe_link.desk import Desk
from tests.parts.stripe import LinkedStripe, linked_stripe
from tests.settlement.conftest import Owner

ACME = {
    "name": "Acme GmbH",
    "email": "billing@acme.example",
    "line1": "Hafenstr. 1",
    "city": "Hamburg",
    "country": "DE",
    "tax_id": "eu_vat:DE123456789",
    "locale": "de",
}


@pytest.fixture
async def stripe() -> AsyncIterator[LinkedStripe]:
    async with linked_stripe(retry_for_s=0.1) as linked:
        yield linked


@pytest.fixture
def desk(stripe: LinkedStripe, worker: AsyncEngine) -> Desk:
    return Desk(stripe.link, worker)


@pytest.fixture
async def acme(admin: AsyncEngine, gateway_id: UUID) -> UUID:
    await described(admin, gateway_id, **ACME)
    return gateway_id


async def described(admin: AsyncEngine, gateway_id: UUID, **given: object) -> Customer:
    async with admin.begin() as connection:
        return await set_details(connection, gateway_id, given, actor="cli:test")


async def kept(admin: AsyncEngine, gateway_id: UUID) -> Customer:
    async with admin.connect() as connection:
        return await find_customer(connection, gateway_id)


def at_stripe(stripe: LinkedStripe) -> list[dict[str, Any]]:
    """The customers that there are."""
    found = [one for one in stripe.local.desk().changes.each("customer") if not one.get("_deleted")]
    return [dict(one) for one in found]


def tax_ids(stripe: LinkedStripe) -> list[tuple[str, str]]:
    return [(one["type"], one["value"]) for one in stripe.local.desk().changes.each("tax_id")]


async def test_a_gateway_becomes_one_customer_with_all_that_is_known(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    stripe_id = await ensure_customer(desk, acme)
    (there,) = at_stripe(stripe)
    assert there["id"] == stripe_id
    assert (there["name"], there["email"], there["preferred_locales"]) == ("Acme GmbH", "billing@acme.example", ["de"])
    assert there["address"]["city"] == "Hamburg"
    assert there["metadata"] == {"clearinghouse_gateway_id": show("gw", acme), "clearinghouse_version": "1"}
    assert tax_ids(stripe) == [("eu_vat", "DE123456789")]
    assert (await kept(admin, acme)).is_in_step


async def test_stripe_is_asked_nothing_where_nothing_changed(stripe: LinkedStripe, desk: Desk, acme: UUID) -> None:
    first = await ensure_customer(desk, acme)
    asked_count = len(stripe.local.requests)
    assert await ensure_customer(desk, acme) == first
    assert len(stripe.local.requests) == asked_count


async def test_a_change_is_told_and_what_was_taken_away_is_gone(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    first = await ensure_customer(desk, acme)
    await described(admin, acme, city="", line1="", country="", tax_id="")
    assert await ensure_customer(desk, acme) == first
    (there,) = at_stripe(stripe)
    assert not there["address"]
    assert tax_ids(stripe) == []
    assert there["metadata"]["clearinghouse_version"] == "2"


async def test_a_tax_id_is_replaced_and_there_is_never_none_of_them(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    await ensure_customer(desk, acme)
    await described(admin, acme, tax_id="gb_vat:GB123456789")
    await ensure_customer(desk, acme)
    assert tax_ids(stripe) == [("gb_vat", "GB123456789")]
    calls = [call for call in stripe.local.requests if "tax_ids" in call and not call.startswith("GET")]
    assert [call.split()[0] for call in calls] == ["POST", "POST", "DELETE"]


async def test_another_way_to_write_the_tax_id_is_no_other_tax_id(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    await ensure_customer(desk, acme)
    await described(admin, acme, tax_id="eu_vat:DE 123 456 789")
    await ensure_customer(desk, acme)
    assert tax_ids(stripe) == [("eu_vat", "DE123456789")]


async def test_setting_what_is_set_already_is_no_change(admin: AsyncEngine, acme: UUID) -> None:
    assert (await described(admin, acme, **ACME)).version == 1
    assert (await described(admin, acme, city="Bremen")).version == 2


async def test_many_at_once_make_one_customer(worker: AsyncEngine, acme: UUID) -> None:
    """Patiently: Stripe says 409 to whoever uses a key that another is using."""
    async with linked_stripe(retry_for_s=30) as stripe:
        desk = Desk(stripe.link, worker)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ensure_customer(desk, acme)) for _ in range(8)]
        assert len({task.result() for task in tasks}) == 1
        assert len(at_stripe(stripe)) == 1
        assert tax_ids(stripe) == [("eu_vat", "DE123456789")]


@pytest.mark.parametrize("hours", [0, 30], ids=["key-kept", "key-forgotten"])
async def test_an_answer_that_was_lost_makes_no_second_customer(
    stripe: LinkedStripe, desk: Desk, owner: Owner, acme: UUID, hours: int
) -> None:
    first = await ensure_customer(desk, acme)
    owner.execute("UPDATE customer SET stripe_customer_id = NULL, stripe_version = NULL")  # we died before we kept it
    await stripe.control("clock", advance_s=hours * 3600)
    assert await ensure_customer(desk, acme) == first
    assert len(at_stripe(stripe)) == 1


async def test_a_failure_that_stripe_has_stored_does_not_last(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    await stripe.fault("status_after", method="POST", path="/v1/customers", times=None)
    with pytest.raises(StripeAway):
        await ensure_customer(desk, acme)
    await stripe.works_again()
    first = await ensure_customer(desk, acme)
    assert [one["id"] for one in at_stripe(stripe)] == [first]


async def test_a_stored_failure_with_nothing_to_show_for_it_is_not_asked_for_again(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    await stripe.fault("status_after", method="POST", path="/v1/customers", times=1)
    await made_and_deleted(stripe, desk, acme)
    first = await ensure_customer(desk, acme)
    assert [one["id"] for one in at_stripe(stripe)] == [first]
    assert (await kept(admin, acme)).stripe_attempts == 1


async def test_while_stripe_is_away_nothing_is_kept_and_later_it_is_made(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    await stripe.fault("cut", times=None)
    with pytest.raises(StripeAway):
        await ensure_customer(desk, acme)
    assert (await kept(admin, acme)).stripe_customer_id is None
    await stripe.works_again()
    await ensure_customer(desk, acme)
    assert len(at_stripe(stripe)) == 1


async def test_a_customer_deleted_at_stripe_is_made_again(stripe: LinkedStripe, desk: Desk, acme: UUID) -> None:
    first = await ensure_customer(desk, acme)
    await stripe.running.client.v1.customers.delete_async(first)
    assert await heard_of_customer(desk, first) == "it is gone: another is made"
    second = await ensure_customer(desk, acme)
    assert second != first
    assert [one["id"] for one in at_stripe(stripe)] == [second]


async def test_one_deleted_unheard_is_noticed_at_the_next_change(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    first = await ensure_customer(desk, acme)
    await stripe.running.client.v1.customers.delete_async(first)
    await described(admin, acme, city="Bremen")
    second = await ensure_customer(desk, acme)
    assert second != first
    assert [one["address"]["city"] for one in at_stripe(stripe)] == ["Bremen"]


async def test_a_late_writer_is_put_right_by_the_news_of_it(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    stripe_id = await ensure_customer(desk, acme)
    await described(admin, acme, city="Bremen")
    await ensure_customer(desk, acme)
    late = {"address": {"city": "Hamburg"}, "metadata": {"clearinghouse_version": "1"}}
    await stripe.running.client.v1.customers.update_async(stripe_id, late)  # type: ignore[arg-type]
    assert await heard_of_customer(desk, stripe_id) == "it says something else: it is told again"
    assert not (await kept(admin, acme)).is_in_step
    await ensure_customer(desk, acme)
    assert [one["address"]["city"] for one in at_stripe(stripe)] == ["Bremen"]
    assert await heard_of_customer(desk, stripe_id) == "nothing to do"


async def test_a_gateway_that_nobody_pays_for_is_said_to_be_one(desk: Desk, gateway_id: UUID) -> None:
    with pytest.raises(NoCustomer, match="no customer of gateway gw_"):
        await ensure_customer(desk, gateway_id)


async def test_the_job_tells_stripe_what_changed_and_then_has_nothing_to_do(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    async with admin.begin() as connection:
        other = (await gateways.create(connection, "other")).id
    await described(admin, other, name="Other Ltd", email="pay@other.example")
    assert await tell_stripe(await tick(desk), desk) == "2 customers told to Stripe"
    assert {one["name"] for one in at_stripe(stripe)} == {"Acme GmbH", "Other Ltd"}
    assert await tell_stripe(await tick(desk), desk) == "0 customers told to Stripe"


async def test_what_stripe_refuses_is_shown_until_it_is_described_otherwise(
    stripe: LinkedStripe, desk: Desk, admin: AsyncEngine, acme: UUID
) -> None:
    await stripe.fault("status", status=400, method="POST", path="/v1/customers/*/tax_ids", times=1)
    with pytest.raises(CustomersRefused, match="does not take 1"):
        await tell_stripe(await tick(desk), desk)
    assert (await kept(admin, acme)).stripe_refusal
    with pytest.raises(CustomersRefused, match="0 customers told"):  # nor is it asked for again
        await tell_stripe(await tick(desk), desk)
    assert (await described(admin, acme, tax_id="eu_vat:DE999999999")).stripe_refusal is None
    assert await tell_stripe(await tick(desk), desk) == "1 customers told to Stripe"


async def test_the_job_fails_while_stripe_is_away(stripe: LinkedStripe, desk: Desk, acme: UUID) -> None:
    await stripe.fault("cut", times=None)
    with pytest.raises(JobFailed, match="0 of 1 customers told"):
        await tell_stripe(await tick(desk), desk)


async def made_and_deleted(stripe: LinkedStripe, desk: Desk, gateway_id: UUID) -> None:
    """The key of the first customer is spent on a failure, and there is no customer."""
    gateway = show("gw", gateway_id)
    create = stripe.running.client.v1.customers.create_async
    params: Any = {"metadata": {"clearinghouse_gateway_id": gateway}}
    with pytest.raises(APIError):
        await create(params, {"idempotency_key": f"customer-{gateway}-0"})
    (there,) = at_stripe(stripe)
    await stripe.running.client.v1.customers.delete_async(there["id"])


async def tick(desk: Desk) -> Tick:
    async with desk.engine.connect() as connection:
        return Tick(desk.engine, await database_now(connection))


async def test_the_worker_cannot_describe_a_customer(worker: AsyncEngine, acme: UUID) -> None:
    with pytest.raises(Exception, match="permission denied") as refused:
        await described(worker, acme, name="Mallory")
    assert isinstance(refused.value.__cause__, psycopg.errors.InsufficientPrivilege)


def test_what_signs_payments_does_not_see_who_pays(database: str) -> None:
    with (
        psycopg.connect(in_role(database, SERVE_ROLE), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT email FROM customer")


async def test_a_refusal_is_raised_to_who_needs_the_customer(stripe: LinkedStripe, desk: Desk, acme: UUID) -> None:
    await stripe.fault("status", status=400, method="POST", path="/v1/customers/*", times=1)
    with pytest.raises(StripeRefused):
        await ensure_customer(desk, acme)
