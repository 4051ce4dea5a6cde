"""Customers and terms over the management API, on a real socket and database."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from clearinghouse.cli import running
from settlement.api import operators_routes
from settlement.api.customer_shapes import CustomerDetails, NewTerms
from settlement.cli import main
from settlement.customers.agreed import _OF_WAY
from settlement.customers.details import _READERS
from tests.clearinghouse.api.http_port import HttpPort, running_port
from tests.parts.stack import Stack, running_stack

ACME = {"name": "Acme GmbH", "email": "billing@acme.example", "country": "DE", "tax_id": "eu_vat:DE123456789"}


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    async with running_stack(database, remember_s=0) as made:
        yield made


@pytest.fixture
async def port(stack: Stack) -> AsyncIterator[HttpPort]:
    async with running_port(stack) as serving:
        created = await serving.admin("POST", "/gateways", {"name": "acme"})
        assert created.status == 201
        yield serving


async def terms(port: HttpPort, **given: str) -> Any:
    return (await port.admin("POST", "/gateways/acme/terms", given)).json


async def test_who_pays_is_said_changed_in_part_and_listed(port: HttpPort) -> None:
    (await port.admin("GET", "/gateways/acme/customer")).problem(404, "not_found")
    made = (await port.admin("PUT", "/gateways/acme/customer", ACME)).json
    assert {name: made[name] for name in ("name", "email", "tax_id", "changed_by")} == {
        "name": ACME["name"], "email": ACME["email"], "tax_id": ACME["tax_id"], "changed_by": "admin-api",
    }  # fmt: skip
    changed = (
        await port.admin("PUT", "/gateways/acme/customer", {"net_days": 30, "tax_id": "", "is_taxed": True})
    ).json
    assert (changed["name"], changed["net_days"], changed["tax_id"], changed["is_taxed"]) == (
        "Acme GmbH",
        30,
        None,
        True,
    )
    assert (await port.admin("GET", "/gateways/acme/customer")).json == changed
    assert (await port.admin("GET", "/customers")).json == {"items": [changed]}


async def test_all_that_is_wrong_with_a_customer_is_said_and_nothing_is_changed(port: HttpPort) -> None:
    (await port.admin("PUT", "/gateways/acme/customer", {"name": "Acme"})).problem(400, "invalid_request")
    wrong = {**ACME, "email": "nobody", "country": "Atlantis", "net_days": 10**30}
    detail = (await port.admin("PUT", "/gateways/acme/customer", wrong)).problem(400, "invalid_request")["detail"]
    assert all(part in detail for part in ("e-mail", "Atlantis", "days")), detail
    for body in ({}, {"name": 7}, {"nmae": "x"}, {"net_days": "14"}, {"is_taxed": 1}):
        (await port.admin("PUT", "/gateways/acme/customer", body)).problem(400, "invalid_request")
    (await port.admin("PUT", "/gateways/nobody/customer", ACME)).problem(404, "not_found")
    assert (await port.admin("GET", "/customers")).json == {"items": []}


async def test_terms_are_agreed_on_for_a_period_taken_back_and_shown(port: HttpPort) -> None:
    shown = (await port.admin("GET", "/gateways/acme/terms")).json
    assert (shown["terms"]["way"], shown["to_come"]) == ("prepaid", [])
    begun = await terms(port, way="postpaid", credit_limit="500", begins="start", time_zone="Europe/Berlin")
    assert (begun["terms"]["way"], begun["terms"]["credit_limit"]) == ("postpaid", "500")
    planned = await terms(port, way="subscription", fee="100", included="120")
    (coming,) = planned["to_come"]
    assert (coming["fee"], coming["included"], coming["time_zone"]) == ("100", "120", "Europe/Berlin")
    assert coming["begins_at"] == planned["period"]["ends_at"]
    billing = (await port.admin("GET", "/gateways/acme/billing")).json
    assert (billing["terms"], billing["next_change"], billing["credit_limit"]) == (begun["terms"], coming, "500")
    assert (await port.admin("DELETE", "/gateways/acme/terms")).json["to_come"] == []
    (await port.admin("DELETE", "/gateways/acme/terms")).problem(409, "conflict")


async def test_the_end_of_free_terms_is_moved_and_no_other_terms_have_one(port: HttpPort) -> None:
    end = {"ends_at": "2100-01-01T00:00:00Z"}
    (await port.admin("PUT", "/gateways/acme/terms/end", end)).problem(409, "conflict")
    await terms(port, way="free", begins="start")
    moved = (await port.admin("PUT", "/gateways/acme/terms/end", end)).json
    assert moved["terms"]["ends_at"] == "2100-01-01T00:00:00.000000Z"
    assert (await port.admin("PUT", "/gateways/acme/terms/end", {"ends_at": "never"})).json["terms"]["ends_at"] is None
    (await port.admin("PUT", "/gateways/acme/terms/end", {"ends_at": "soon"})).problem(400, "invalid_request")
    past = {"ends_at": "2000-01-01T00:00:00Z"}
    (await port.admin("PUT", "/gateways/acme/terms/end", past)).problem(409, "conflict")


async def test_terms_that_cannot_be_are_refused_and_nothing_changes(port: HttpPort) -> None:
    before = (await port.admin("GET", "/gateways/acme/terms")).json
    for wrong in (
        {"way": "barter"}, {"way": "postpaid"}, {"credit_limit": "5"}, {"way": "subscription", "fee": "1"},
        {"time_zone": "Moon/Sea"}, {"cadence": "hourly"}, {"begins": "yesterday"}, {"begins": "1999-01"},
        {"way": "postpaid", "credit_limit": "1" * 40}, {"way": "postpaid", "credit_limit": 500},
        {"way": "free", "ends_at": "2000-01-01T00:00:00Z"}, {"way": "free", "credit_limit": "5"},
        {"way": "automatic", "refill_below": "9", "refill_to": "5", "refill_day_max": "1", "refill_month_max": "1"},
    ):  # fmt: skip
        (await port.admin("POST", "/gateways/acme/terms", wrong)).problem(400, "invalid_request")
    assert (await port.admin("GET", "/gateways/acme/terms")).json == before


def test_the_described_bodies_have_the_fields_that_are_judged() -> None:
    assert set(CustomerDetails.model_fields) == set(_READERS)
    of_ways = set().union(*_OF_WAY.values())
    assert set(NewTerms.model_fields) == {"begins", "way", "cadence", "time_zone", *of_ways}


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_whatever_serves_is_handed_these_routes_by_the_console_script(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handed: list[running.Above] = []
    monkeypatch.setattr(running, "_serve", lambda _settings, _started, above, *_: handed.append(above))
    monkeypatch.setattr(sys, "argv", ["clearinghouse", command, "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert [above.routes() for above in handed] == [operators_routes()]
