"""What every call goes through: keys, idempotency, Stripe's own description, trouble on demand, pages, expansion."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import stripe

from settlement.stripe_local.description import API_VERSION
from settlement.stripe_local.keys import DEFAULT_KEY, ApiKeys
from tests.settlement.stripe_local.parts import Running, client_of, running

AUTHORIZED = {"authorization": f"Bearer {DEFAULT_KEY}"}


async def posted(local: Running, path: str, form: str, **headers: str) -> tuple[int, Any]:
    """A call as any client makes it: the status, and the answer's JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = await local.http.post(f"{local.base_url}/v1/{path}", content=form, headers={**AUTHORIZED, **kind, **named})
    return answer.status_code, answer.json()


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_only_a_known_test_key_opens_it(local: Running) -> None:
    for key in ("sk_test_other", "sk_live_0123456789", "rk_live_0123456789"):
        async with client_of(local.base_url, api_key=key) as client:
            with pytest.raises(stripe.AuthenticationError) as caught:
                await client.v1.customers.create_async()
            assert key not in str(caught.value)
    assert (await local.http.get(f"{local.base_url}/v1/customers")).status_code == 401
    assert (await local.http.get(f"{local.base_url}/v1/customers", auth=(DEFAULT_KEY, ""))).status_code == 200


async def test_a_restricted_key_does_what_it_was_given_and_no_more() -> None:
    keys = ApiKeys(restricted={"rk_test_local_reader": {"customers": "read", "invoices": "write"}})
    async with running(keys=keys) as local, client_of(local.base_url, api_key="rk_test_local_reader") as client:
        await client.v1.customers.list_async()
        await client.v1.invoices.list_async()
        for refused in (client.v1.customers.create_async(), client.v1.refunds.list_async()):
            with pytest.raises(stripe.PermissionError):
                await refused


async def test_another_api_version_is_refused(local: Running) -> None:
    status, answer = await posted(local, "customers", "", stripe_version="2020-08-27")
    assert (status, "Invalid Stripe API version" in answer["error"]["message"]) == (400, True)
    assert stripe.api_version == API_VERSION


# --- Stripe's description ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "form", "code", "param"),
    [
        ("customers", "colour=red", "parameter_unknown", "colour"),
        ("customers", "address[planet]=Mars", "parameter_unknown", "address[planet]"),
        ("customers", "name=", "parameter_invalid_empty", "name"),
        ("customers", f"name={'x' * 257}", "parameter_invalid_string_too_long", "name"),
        ("customers", "balance=1.5", "parameter_invalid_integer", "balance"),
        ("customers", "tax_exempt=maybe", None, "tax_exempt"),
        ("customers", "address=here", None, "address"),
        ("payment_intents", "amount=100", "parameter_missing", "currency"),
        (
            "payment_intents",
            "amount=100&currency=usd&payment_method_types[]=card",
            "parameter_unknown",
            "payment_method_types",
        ),
        ("invoiceitems", "unit_amount_decimal=0.1234567890123", None, "unit_amount_decimal"),
        ("invoices", "auto_advance=perhaps", None, "auto_advance"),
    ],
    ids=str,
)
async def test_a_request_that_stripes_description_does_not_allow_is_refused_by_name(
    local: Running, path: str, form: str, code: str | None, param: str
) -> None:
    status, answer = await posted(local, path, form, stripe_version=API_VERSION)
    assert status == 400
    assert (answer["error"].get("code"), answer["error"]["param"]) == (code, param)


async def test_what_stripe_has_and_this_server_does_not_do_is_said(local: Running) -> None:
    status, answer = await posted(local, "payouts", "amount=100&currency=usd")
    assert (status, answer["error"]["code"]) == (400, "stripe_local_unsupported")
    assert (await posted(local, "no_such_thing", ""))[0] == 404


async def test_nested_forms_are_read_however_their_positions_are_written(local: Running) -> None:
    for form in (
        "tax_id_data[0][type]=eu_vat&tax_id_data[0][value]=DE1",
        "tax_id_data[][type]=eu_vat&tax_id_data[][value]=DE1",
    ):
        status, customer = await posted(local, "customers", f"{form}&expand[]=tax_ids&metadata[a]=1&metadata[b]=2")
        assert status == 200
        assert [one["value"] for one in customer["tax_ids"]["data"]] == ["DE1"]
        assert customer["metadata"] == {"a": "1", "b": "2"}


# --- idempotency ------------------------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_answer_and_one_object(local: Running) -> None:
    customers = local.client.v1.customers
    first = await customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
    second = await customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
    assert first.id == second.id
    assert second.last_response is not None
    assert second.last_response.headers["idempotent-replayed"] == "true"
    assert len((await customers.list_async()).data) == 1
    with pytest.raises(stripe.IdempotencyError):
        await customers.create_async({"name": "B"}, {"idempotency_key": "k1"})


async def test_a_decline_is_remembered_and_a_wrong_request_is_not(local: Running) -> None:
    intents = local.client.v1.payment_intents
    wanted: Any = {"amount": 100, "currency": "usd", "confirm": True, "payment_method": "pm_card_chargeDeclined"}
    declines = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            await intents.create_async(wanted, {"idempotency_key": "k2"})
        declines.append(caught.value.json_body["error"]["payment_intent"]["id"])
    assert declines[0] == declines[1]
    assert (await posted(local, "customers", "colour=red", idempotency_key="k3"))[0] == 400
    assert (await posted(local, "customers", "name=A", idempotency_key="k3"))[0] == 200


async def test_a_key_is_forgotten_after_a_day(local: Running) -> None:
    customers = local.client.v1.customers
    first = await customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
    await local.control("clock", advance_s=86_400)
    assert (await customers.create_async({"name": "A"}, {"idempotency_key": "k1"})).id != first.id


async def test_the_same_key_at_the_same_time_is_a_conflict(local: Running) -> None:
    await local.control("faults", kind="latency", delay_ms=300, times=1)
    calls = [posted(local, "customers", "name=A", idempotency_key="k1") for _ in range(2)]
    statuses = sorted([status for status, _ in await asyncio.gather(*calls)])
    assert statuses == [200, 409]


# --- trouble on demand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "is_done"),
    [
        ({"kind": "status", "status": 500}, False),
        ({"kind": "status", "status": 429}, False),
        ({"kind": "cut"}, False),
        ({"kind": "hang"}, False),
        ({"kind": "status_after", "status": 500}, True),
        ({"kind": "cut_after"}, True),
        ({"kind": "hang_after"}, True),
    ],
    ids=str,
)
async def test_trouble_comes_before_or_after_the_work_and_only_once(
    local: Running, fault: dict[str, Any], is_done: bool
) -> None:
    await local.control("faults", path="/v1/customers", method="POST", **fault)
    expected = stripe.RateLimitError if fault.get("status") == 429 else (stripe.APIError, stripe.APIConnectionError)
    patience_s = 0.5 if fault.get("kind", "").startswith("hang") else 30
    async with client_of(local.base_url, timeout_s=patience_s) as impatient:
        with pytest.raises(expected):
            await impatient.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
    assert len((await local.client.v1.customers.list_async()).data) == int(is_done)
    if "status" in fault and is_done:  # Stripe remembers a 500 too
        with pytest.raises(stripe.APIError):
            await local.client.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
    else:
        await local.client.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
        assert len((await local.client.v1.customers.list_async()).data) == 1


async def test_it_can_be_down_for_as_long_as_a_test_wants(local: Running) -> None:
    await local.control("faults", kind="status", status=503, times=None)
    for _ in range(3):
        with pytest.raises(stripe.APIError):
            await local.client.v1.customers.list_async()
    await local.control("faults", "DELETE")
    assert (await local.client.v1.customers.list_async()).data == []


async def test_a_fault_that_does_not_exist_is_refused(local: Running) -> None:
    answer = await local.http.post(f"{local.base_url}/_control/faults", json={"kind": "meteor"})
    assert (answer.status_code, "meteor" in answer.text) == (400, True)


async def test_what_was_asked_for_can_be_read(local: Running) -> None:
    await local.client.v1.customers.list_async()
    assert await local.control("requests", "GET") == ["GET /v1/customers"]


# --- lists, searches, expansion ---------------------------------------------------------------------------------------


async def test_lists_are_paged_newest_first_and_the_sdk_walks_all_of_them(local: Running) -> None:
    made = [(await local.client.v1.customers.create_async({"name": f"{at}"})).id for at in range(7)]
    first = await local.client.v1.customers.list_async({"limit": 3})
    assert ([one.id for one in first.data], first.has_more) == (made[:-4:-1], True)
    assert [one.id async for one in first.auto_paging_iter()] == made[::-1]
    before = await local.client.v1.customers.list_async({"limit": 2, "ending_before": made[2]})
    assert [one.id for one in before.data] == [made[4], made[3]]
    with pytest.raises(stripe.InvalidRequestError, match="Invalid limit"):
        await local.client.v1.customers.list_async({"limit": 101})


async def test_objects_are_found_by_their_metadata(local: Running) -> None:
    await local.client.v1.customers.create_async({"metadata": {"gateway": "acme-1"}, "email": "a@example.org"})
    wanted = await local.client.v1.customers.create_async({"metadata": {"gateway": "acme-2"}})
    found = await local.client.v1.customers.search_async({"query": "metadata['gateway']:'acme-2'"})
    assert [one.id for one in found.data] == [wanted.id]
    both = await local.client.v1.customers.search_async(
        {"query": "metadata['gateway']~'acme' AND -email:'a@example.org'"}
    )
    assert [one.id for one in both.data] == [wanted.id]
    with pytest.raises(stripe.InvalidRequestError, match="unable to parse"):
        await local.client.v1.customers.search_async({"query": "colour:'red'"})


async def test_only_what_there_is_can_be_expanded(local: Running) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await local.client.v1.customers.create_async({"expand": ["favourite_colour"]})
    assert (await local.client.v1.customers.list_async()).data == []


async def test_metadata_is_merged_and_taken_away_as_stripe_does(local: Running) -> None:
    customers = local.client.v1.customers
    made = await customers.create_async({"metadata": {"a": "1", "b": "2"}})
    merged = await customers.update_async(made.id, {"metadata": {"a": "", "c": "3"}})
    assert merged.metadata is not None
    assert merged.metadata.to_dict() == {"b": "2", "c": "3"}
    emptied = await customers.update_async(made.id, {"metadata": ""})
    assert emptied.metadata is not None
    assert emptied.metadata.to_dict() == {}


async def test_a_deleted_customer_says_so_and_is_of_no_use(local: Running) -> None:
    made = await local.client.v1.customers.create_async({"tax_id_data": [{"type": "eu_vat", "value": "DE1"}]})
    await local.client.v1.customers.delete_async(made.id)
    assert (await local.client.v1.customers.retrieve_async(made.id)).deleted is True
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        await local.client.v1.invoices.create_async({"customer": made.id})


# --- what stays -------------------------------------------------------------------------------------------------------


async def test_with_a_journal_everything_is_there_again_after_a_restart_and_without_a_half_line(tmp_path: Path) -> None:
    journal = tmp_path / "stripe.jsonl"
    async with running(journal) as local:
        first = await local.client.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
    with journal.open("a") as file:
        file.write('{"cus_half":{"id":"cus_ha')
    async with running(journal) as local:
        again = await local.client.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k1"})
        assert again.id == first.id
        await local.client.v1.customers.create_async({"name": "B"})
    async with running(journal) as local:
        assert [one.name for one in (await local.client.v1.customers.list_async()).data] == ["B", "A"]
