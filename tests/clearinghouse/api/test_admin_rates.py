"""Rate cards over the management API, on a real socket and database: the same judgement as the command line's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from clearinghouse.api.rate_shapes import RateCardDocument, RateDocument, RateTierDocument
from clearinghouse.rates.document import document, read_json
from clearinghouse.rates.quote import Quote
from tests.clearinghouse.api.http_port import ADMIN, HttpPort
from tests.parts.stack import Stack

STANDARD: dict[str, Any] = {
    "card": "standard",
    "version": 1,
    "currency": "USD",
    "effective_from": "2026-01-01T00:00:00Z",
    "note": "for all",
    "rates": [
        {"per": "cost", "markup_bps": 500},
        {
            "application": "studio", "pipeline": "live", "model": "m", "per": "minute", "floor": "call",
            "minimum_charge": "0.01", "tiers": [{"up_to": "100", "price": "0.10"}, {"price": "0.08"}],
        },
    ],
}  # fmt: skip
VERSION_1 = "/rate-cards/standard/versions/1"


async def test_a_card_is_checked_stored_once_and_shown_as_it_was_sent(port: HttpPort) -> None:
    previewed = (await port.admin("POST", "/rate-cards/check", STANDARD)).json
    assert (previewed["rates"], previewed["is_stored"], len(previewed["sha256"])) == (2, False, 64)
    assert (await port.admin("GET", "/rate-cards")).json == {"items": []}, "a check stores nothing"

    stored = await port.admin("PUT", VERSION_1, STANDARD)
    assert (stored.status, stored.json["applied_by"], stored.json["rates"]) == (200, "admin-api", 2)
    assert (await port.admin("PUT", VERSION_1, STANDARD)).json == stored.json, "again it is found as it is"
    assert (await port.admin("POST", "/rate-cards/check", STANDARD)).json["is_stored"] is True
    assert (await port.admin("GET", "/rate-cards")).json == {"items": [stored.json]}
    assert (await port.admin("GET", "/rate-cards/standard")).json == {"items": [stored.json]}
    shown = (await port.admin("GET", VERSION_1)).json
    assert shown.pop("document") == document(read_json(json.dumps(STANDARD)))
    assert shown == stored.json


async def test_what_is_wrong_with_a_card_is_told_at_once_and_nothing_is_stored(port: HttpPort) -> None:
    wrong = {**STANDARD, "currency": "usd", "rates": [{"per": "hour", "price": "1"}, {"per": "cost", "price": 2}]}
    detail = (await port.admin("PUT", VERSION_1, wrong)).problem(400, "invalid_request")["detail"]
    assert all(part in detail for part in ("currency", "rates[0].per", "rates[1]")), detail
    (await port.admin("PUT", "/rate-cards/standard/versions/2", STANDARD)).problem(400, "invalid_request")
    (await port.admin("PUT", "/rate-cards/none/versions/1", {**STANDARD, "card": "none"})).problem(
        400, "invalid_request"
    )
    for body in (
        b"",
        b"[]",
        b'{"card": "a", "card": "b"}',
        b'{"card": "\\ud800"}',
        b'{"card": "' + b"x" * 300_000 + b'"}',
    ):
        answer = await port.call("PUT", f"/v1/admin{VERSION_1}", body, headers=ADMIN)
        assert answer.status in {400, 413}, answer.body
    (await port.admin("GET", VERSION_1)).problem(404, "not_found")
    (await port.call("GET", "/v1/admin/rate-cards")).problem(401, "unauthenticated")


async def test_a_version_never_changes_and_one_in_the_past_is_a_correction_or_refused(port: HttpPort) -> None:
    await port.admin("PUT", VERSION_1, STANDARD)
    (await port.admin("PUT", VERSION_1, {**STANDARD, "note": "for some"})).problem(409, "conflict")
    second = {**STANDARD, "version": 2, "effective_from": "2026-02-01T00:00:00Z"}
    for method, path in (("POST", "/rate-cards/check"), ("PUT", "/rate-cards/standard/versions/2")):
        (await port.admin(method, path, second)).problem(409, "conflict")
        assert (await port.admin(method, f"{path}?correction=true", second)).status == 200
    assert len((await port.admin("GET", "/rate-cards/standard")).json["items"]) == 2


async def test_a_gateway_and_a_plan_are_put_on_a_card_and_calls_are_quoted_by_it(port: HttpPort, stack: Stack) -> None:
    await port.admin("PUT", VERSION_1, STANDARD)
    name = f"gw_{(await stack.new_gateway()).id.hex}"
    (await port.admin("POST", f"/gateways/{name}/quote", {})).problem(400, "invalid_request")

    plan = await port.admin("PUT", "/plans/default/rate-card", {"card": "standard"})
    assert plan.json == {"plan": "default", "rate_card": "standard", "below_cost": False, "gateways_count": 1}
    by_plan = await port.admin("PUT", f"/gateways/{name}/rate-card", {"card": "inherit"})
    assert by_plan.json == {"gateway_id": name, "rate_card": "standard", "below_cost": False}
    call = {"ev_wei": "1000000000000000", "eth_price": "2000"}
    quoted = (await port.admin("POST", f"/gateways/{name}/quote", call)).json
    assert (quoted["charge"], quoted["cost"], quoted["margin"]) == ("2.1", "2", "0.1")

    assert (await port.admin("PUT", f"/gateways/{name}/rate-card", {"card": "none"})).json["rate_card"] == "none"
    by_minute = {"application": "studio", "pipeline": "live", "model": "m", "seconds": "90", "card": "standard"}
    quoted = (await port.admin("POST", f"/gateways/{name}/quote", by_minute)).json
    assert (quoted["version"], quoted["quantity"], quoted["charge"]) == (1, "1.5", "0.15")


async def test_a_call_that_cannot_be_is_not_quoted(port: HttpPort, stack: Stack) -> None:
    rates = [{"per": "request", "price": "1"}, {"pipeline": "p", "per": "second", "price": "1"}]
    await port.admin("PUT", VERSION_1, {**STANDARD, "rates": rates})
    name = f"gw_{(await stack.new_gateway()).id.hex}"
    await port.admin("PUT", f"/gateways/{name}/rate-card", {"card": "standard"})
    assert (await port.admin("POST", f"/gateways/{name}/quote", {"ev_wei": "1", "eth_price": "1"})).status == 200
    for wrong in (
        {"seconds": "0.0000000001"}, {"seconds": "-1"}, {"ev_wei": "1.5"}, {"ev_wei": "1" * 40}, {"ev_wei": "1"},
        {"pixels": -1}, {"requests": 10**30}, {"version": 1}, {"at": "1999-01-01T00:00:00Z"}, {"pipeline": "p"},
        {"card": "standard", "eth_price": "0"},
    ):  # fmt: skip
        (await port.admin("POST", f"/gateways/{name}/quote", wrong)).problem(400, "invalid_request")
    (await port.admin("POST", f"/gateways/{name}/quote", {"card": "other"})).problem(404, "not_found")


async def test_a_quote_that_is_not_as_described_is_our_mistake_and_not_the_callers(
    port: HttpPort, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await port.admin("PUT", VERSION_1, STANDARD)
    name = f"gw_{(await stack.new_gateway()).id.hex}"
    monkeypatch.setattr(Quote, "explanation", lambda _: {})
    assert (await port.admin("POST", f"/gateways/{name}/quote", {"card": "standard"})).status == 500


def test_the_described_card_has_the_fields_that_are_read() -> None:
    shown = document(read_json(json.dumps(STANDARD)))
    tiers = shown["rates"][1]["tiers"]
    described: list[tuple[type[BaseModel], set[str]]] = [
        (RateCardDocument, set(shown)),
        (RateDocument, {*shown["rates"][0], *shown["rates"][1], "price"}),
        (RateTierDocument, {*tiers[0], *tiers[1], "markup_bps"}),
    ]
    for model, fields in described:
        assert set(model.model_fields) == fields
