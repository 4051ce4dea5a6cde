"""The management routes over a real socket and a real database. Every answer must also fit the OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import psycopg
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from clearinghouse.api.hot_shapes import LivePaymentRequest, Receipt, SignTicketRequest
from clearinghouse.api.sign_ticket_json import REQUEST_KEYS
from clearinghouse.database.connect import async_engine
from clearinghouse.errors import Refusal
from clearinghouse.identity.webhook_signers import WEBHOOK_SECRET
from clearinghouse.readiness import NotReady
from clearinghouse.requests import MAX_BODY_BYTES
from clearinghouse.strict_json import parse_object
from tests.clearinghouse.api.http_port import ADMIN, ADMIN_TOKEN, HttpPort, fine, running_port
from tests.parts.stack import TICKET_CHARGE_USD, TICKET_EV_WEI, Stack

SENDER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
NOBODY = "lpch_" + "0" * 16 + "_" + "0" * 64


async def new_gateway(port: HttpPort, name: str = "studio", **fields: Any) -> dict[str, Any]:
    answer = await port.admin("POST", "/gateways", {"name": name, **fields})
    assert answer.status == 201, answer.body
    document: dict[str, Any] = answer.json
    return document


# --- a gateway about itself -------------------------------------------------------------------------------------------


async def test_a_gateway_reads_its_balance_with_what_expires(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway(credit="10", credit_limit="2.50")
    name = (await port.as_gateway(gateway, "GET", "/v1/balance")).json["gateway_id"]
    expires_at = "2100-01-01T00:00:00.000000Z"
    grant = {"amount": "5", "reason": "trial", "expires_at": expires_at}
    lot_id = (await port.admin("POST", f"/gateways/{name}/credit/grants", grant)).json["id"]

    answer = await port.as_gateway(gateway, "GET", "/v1/balance")

    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {
        "gateway_id": f"gw_{gateway.id.hex}",
        "available": "17.5",
        "balance": "15",
        "credit_limit": "2.5",
        "currency": "USD",
        "usage_total": "0",
        "status": "ok",
        "low_balance": "10",
        "depleted_below": "0.01",
        "credit_lots": [{"id": lot_id, "amount": "5", "remaining": "5", "expires_at": expires_at}],
        "gateway_status": "active",
        "gateway_status_reason": "",
        "keys_expiring": [],
    }


async def test_issuances_are_paged_newest_first_and_found_by_their_receipt(port: HttpPort, stack: Stack) -> None:
    gateway, stream = await stack.new_gateway(), stack.new_stream()
    receipts = [(await stack.pay(gateway, stream, end_user=f"user-{n}")).receipt for n in range(3)]
    newest = [f"iss_{receipt.issuance_id.hex}" for receipt in reversed(receipts)]

    first = (await port.as_gateway(gateway, "GET", "/v1/issuances?limit=2")).json
    second = (await port.as_gateway(gateway, "GET", f"/v1/issuances?limit=2&cursor={first['next_cursor']}")).json

    assert [item["id"] for item in first["items"] + second["items"]] == newest
    assert second["next_cursor"] is None
    assert first["items"][0]["end_user"] == "user-2"
    assert first["items"][0]["charge"] == f"{TICKET_CHARGE_USD:f}"
    assert first["items"][0]["ev_wei"] == str(TICKET_EV_WEI)
    one = await port.as_gateway(gateway, "GET", f"/v1/issuances/{newest[1]}")
    assert one.json == first["items"][1]
    session = first["items"][0]["session_id"]
    assert len((await port.as_gateway(gateway, "GET", f"/v1/issuances?session_id={session}")).json["items"]) == 3


async def test_another_gateways_issuance_is_not_found(port: HttpPort, stack: Stack) -> None:
    owner, stranger = await stack.new_gateway(), await stack.new_gateway()
    receipt = (await stack.pay(owner, stack.new_stream())).receipt

    answer = await port.as_gateway(stranger, "GET", f"/v1/issuances/iss_{receipt.issuance_id.hex}")

    answer.problem(404, "not_found")
    assert (await port.as_gateway(stranger, "GET", "/v1/issuances")).json == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("limit=0", "limit must be 1 to 1000"),
        ("limit=ten", "limit: "),
        ("limit=1&limit=2", "limit is given more than once"),
        ("cursr=x", "unknown query parameter 'cursr': known are cursor, limit, session_id"),
        ("cursor=x", "the cursor is not one"),
        ("session_id=ses_1", "session_id is not the id of a session"),
    ],
)
async def test_a_bad_page_query_is_refused_precisely(port: HttpPort, stack: Stack, query: str, part: str) -> None:
    gateway = await stack.new_gateway()

    answer = await port.as_gateway(gateway, "GET", f"/v1/issuances?{query}")

    assert part in answer.problem(400, "invalid_request")["detail"]


async def test_a_misspelled_query_of_topups_is_refused(port: HttpPort, stack: Stack) -> None:
    answer = await port.as_gateway(await stack.new_gateway(), "GET", "/v1/topups?cursr=x")

    assert (
        "unknown query parameter 'cursr': known are cursor, limit" in answer.problem(400, "invalid_request")["detail"]
    )


async def test_a_suspended_gateway_still_reads_but_does_not_sign(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway()
    await stack.suspend(gateway, reason="invoice overdue")

    assert (await port.as_gateway(gateway, "GET", "/v1/balance")).status == 200
    assert (await port.as_gateway(gateway, "GET", "/v1/issuances")).status == 200
    with pytest.raises(Refusal, match="invoice overdue"):
        await stack.pay(gateway, stack.new_stream())


@pytest.mark.parametrize("authorization", ["", "Bearer nonsense", f"Bearer {NOBODY}", "Digest x"])
async def test_without_a_key_nothing_is_read(port: HttpPort, authorization: str) -> None:
    for path in ("/v1/balance", "/v1/issuances", "/v1/issuances/iss_0"):
        answer = await port.call("GET", path, headers={"Authorization": authorization} if authorization else {})

        answer.problem(401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert NOBODY.encode() not in answer.body


async def test_a_gateway_without_a_database_is_told_503_and_not_500(stack: Stack) -> None:
    gateway = await stack.new_gateway()
    nowhere = async_engine("host=/nonexistent dbname=nothing")
    async with running_port(stack, engine=nowhere) as port:
        answer = await port.as_gateway(gateway, "GET", "/v1/balance")
    await nowhere.dispose()

    problem = answer.problem(503, "database_unavailable")
    assert "nonexistent" not in problem["detail"]


async def test_a_busy_pool_says_when_to_come_back(stack: Stack) -> None:
    gateway = await stack.new_gateway()
    tiny = async_engine(stack.conninfo, pool_size=1)
    tiny.pool._timeout = 0.05  # type: ignore[attr-defined]
    async with running_port(stack, engine=tiny) as port, tiny.connect():
        answer = await port.as_gateway(gateway, "GET", "/v1/balance")
    await tiny.dispose()

    answer.problem(503, "database_unavailable")
    assert answer.headers["retry-after"] == "1"


# --- probes -----------------------------------------------------------------------------------------------------------


async def broken() -> str:
    raise NotReady("no signer is healthy: start one")


async def leaking() -> str:
    raise RuntimeError("password=hunter2")


async def test_health_depends_on_nothing_and_readiness_lists_what_is_wrong(stack: Stack) -> None:
    probes = {"database": fine, "signer": broken, "price": leaking}
    async with running_port(stack, probes=probes) as port:
        health, ready = await port.call("GET", "/healthz"), await port.call("GET", "/readyz")

    assert (health.status, health.json) == (200, {"status": "ok"})
    assert ready.status == 503
    assert ready.json["ready"] is False
    assert ready.json["checks"][:2] == [
        {"name": "database", "ok": True, "detail": "answers"},
        {"name": "signer", "ok": False, "detail": "no signer is healthy: start one"},
    ]
    assert b"hunter2" not in ready.body


async def test_ready_is_200(port: HttpPort) -> None:
    answer = await port.call("GET", "/readyz")

    assert (answer.status, answer.json["ready"]) == (200, True)


async def test_metrics_are_prometheus_text_and_count_the_refusals_of_these_routes(port: HttpPort) -> None:
    await port.call("GET", "/v1/balance")

    answer = await port.call("GET", "/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b'clearinghouse_refusals_total{code="unauthenticated",route="management"} 1.0' in answer.body


async def test_metrics_ask_for_their_token_where_one_is_set(stack: Stack) -> None:
    async with running_port(stack, metrics_token="scrape-me-please") as port:
        refused = [
            await port.call("GET", "/metrics"),
            await port.call("GET", "/metrics", headers={"Authorization": "Bearer scrape-me"}),
            await port.call("GET", "/metrics", headers=ADMIN),
        ]
        allowed = await port.call("GET", "/metrics", headers={"Authorization": "Bearer scrape-me-please"})

    for answer in refused:
        assert "metrics token" in answer.problem(401, "unauthenticated")["what_next"]
    assert allowed.status == 200


# --- paths and methods ------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_a_problem(port: HttpPort) -> None:
    for path in ("/", "/v1", "/v1/balance/", "/v2/balance", "/redoc", "/v1/admin/ledger/verify"):
        (await port.call("GET", path, headers=ADMIN)).problem(404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/balance", "GET, HEAD"),
        ("DELETE", "/v1/admin/gateways", "GET, POST, HEAD"),
        ("GET", "/v1/admin/gateways/x/pricing", "PUT"),
        ("HEAD", "/v1/admin/gateways/x/suspend", "POST"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
        ("GET", "/v1/signTicket", "POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(port: HttpPort, method: str, path: str, allow: str) -> None:
    answer = await port.call(method, path)

    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert answer.headers["content-type"] == "application/problem+json"
    assert method == "HEAD" or answer.json["code"] == "method_not_allowed"


async def test_head_is_get_without_the_body(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway()
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/balance"):
        get, head = await port.as_gateway(gateway, "GET", path), await port.as_gateway(gateway, "HEAD", path)

        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        if path != "/metrics":  # which counts this very call
            assert head.headers["content-length"] == str(len(get.body))


async def test_a_body_beyond_the_limit_is_refused_on_every_route(port: HttpPort) -> None:
    large = b" " * (MAX_BODY_BYTES + 1)

    for method, path in [("POST", "/v1/admin/gateways"), ("GET", "/v1/balance"), ("GET", "/nowhere")]:
        (await port.call(method, path, large, headers=ADMIN)).problem(413, "request_too_large")


async def test_a_body_of_undeclared_length_is_counted_as_it_comes(port: HttpPort) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(b"POST /v1/admin/gateways HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n")
    writer.write(f"Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n".encode())
    for _ in range(17):
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    status = await asyncio.wait_for(reader.readline(), 30)
    writer.close()

    assert status.startswith(b"HTTP/1.1 413")


async def test_a_body_that_never_ends_is_given_up(port: HttpPort) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(b"POST /v1/admin/gateways HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")
    writer.write(f"Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n{{".encode())
    status = await asyncio.wait_for(reader.readline(), 30)
    writer.close()

    assert status.startswith(b"HTTP/1.1 400")


async def test_a_bug_is_an_incident_and_shows_nothing_else(port: HttpPort, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr("clearinghouse.api.probes.ready_answer", bug)

    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500")
    document = parse_object(body, bytes_max=10_000, what="a problem")
    assert document["code"] == "internal_error"
    assert re.fullmatch("[0-9a-f]{32}", document["incident"])
    assert b"secret" not in answer


# --- administration ---------------------------------------------------------------------------------------------------


async def test_a_gateway_comes_to_credit_and_a_key_over_http_and_signs(port: HttpPort, stack: Stack) -> None:
    gateway = await new_gateway(port, markup_bps=100, minimum_charge="0.0001", credit_limit="1")
    grant = {"amount": "9.5", "reason": "prepaid by wire"}
    credited = await port.admin("POST", "/gateways/studio/credit/grants", grant)
    made = await port.admin("POST", f"/gateways/{gateway['gateway_id']}/keys", {"name": "production"})

    assert credited.status == made.status == 201
    assert (credited.json["balance"], credited.json["available"]) == ("9.5", "10.5")
    assert (credited.json["actor"], credited.json["kind"]) == ("admin-api", "grant")
    assert made.headers["cache-control"] == "no-store"
    authorization = {"Authorization": f"Bearer {made.json['api_key']}"}
    signed = await port.call("POST", "/v1/signTicket", next_body(stack), headers=authorization)
    assert signed.status == 200, signed.body
    assert signed.json["receipt"]["charge"] == "0.0001"
    assert signed.headers["clearinghouse-balance"] == "9.4999 USD"
    shown = (await port.admin("GET", "/gateways/studio")).json
    assert (shown["balance"], shown["usage_total"], shown["markup_bps"]) == ("9.4999", "0.0001", 100)
    listed = (await port.admin("GET", "/gateways")).json["items"]
    assert [(item["name"], item["gateway_id"]) for item in listed] == [("studio", gateway["gateway_id"])]


def next_body(stack: Stack) -> dict[str, Any]:
    """A first call, in our own spelling."""
    theirs = stack.new_stream().document()
    return {"orchestrator": theirs["orchestrator"], "manifest_id": theirs["ManifestID"], "type": theirs["type"]}


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Bearer admin-token-of-a-tesu", "Bearer é", "Digest x"])
async def test_every_admin_route_asks_for_the_token_before_anything_else(port: HttpPort, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    routes = [(method, path) for path, item in port.document["paths"].items() for method in item if "/admin/" in path]
    assert len(routes) == 42

    for method, path in routes:
        answer = await port.call(method.upper(), re.sub(r"\{\w+\}", "x", path), b"{not json", headers=headers)
        assert "admin token" in answer.problem(401, "unauthenticated")["what_next"]


async def test_an_api_key_is_no_admin_token(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway()

    (await port.as_gateway(gateway, "GET", "/v1/admin/gateways")).problem(401, "unauthenticated")


async def test_two_authorization_headers_are_refused(port: HttpPort) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    token = f"Authorization: Bearer {ADMIN_TOKEN}\r\n"
    writer.write(f"GET /v1/admin/gateways HTTP/1.1\r\nHost: x\r\n{token}{token}\r\n".encode())
    status = await asyncio.wait_for(reader.readline(), 30)
    writer.close()

    assert status.startswith(b"HTTP/1.1 401")


async def test_without_a_configured_token_there_is_no_admin_api(stack: Stack) -> None:
    async with running_port(stack, admin_token=None) as port:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            (await port.call("GET", "/v1/admin/gateways", headers=headers)).problem(404, "not_found")
        assert not any(path.startswith(("/v1/admin", "/v1/jobs")) for path in port.document["paths"])


async def test_suspend_and_resume(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway(name="studio")

    suspended = await port.admin("POST", "/gateways/studio/suspend", {"reason": "invoice overdue"})
    assert (suspended.json["status"], suspended.json["status_reason"]) == ("suspended", "invoice overdue")
    refused = await port.as_gateway(gateway, "POST", "/v1/signTicket", next_body(stack))
    assert "invoice overdue" in refused.problem(403, "gateway_suspended")["detail"]
    resumed = await port.admin("POST", "/gateways/studio/resume")
    assert (resumed.json["status"], resumed.json["status_reason"]) == ("active", "")
    assert (await port.as_gateway(gateway, "POST", "/v1/signTicket", next_body(stack))).status == 200


async def test_limit_and_pricing_are_set(port: HttpPort) -> None:
    await new_gateway(port)

    limited = (await port.admin("PUT", "/gateways/studio/credit-limit", {"credit_limit": "25.00"})).json
    priced = (await port.admin("PUT", "/gateways/studio/pricing", {"markup_bps": 250})).json
    charged = (await port.admin("PUT", "/gateways/studio/pricing", {"minimum_charge": "0.01"})).json

    assert (limited["credit_limit"], limited["available"]) == ("25", "25")
    assert (priced["markup_bps"], priced["minimum_charge"]) == (250, "0")
    assert (charged["markup_bps"], charged["minimum_charge"]) == (250, "0.01")


async def test_limits_on_what_is_used_are_set_taken_away_and_read(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway(name="studio", credit="10")
    wanted = {"spend_per_day": "25.00", "calls_per_day": "7", "ev_open": "1000000000000000000", "burst_count": "20"}
    await stack.pay(gateway, stack.new_stream())

    set_now = (await port.admin("PUT", "/gateways/studio/limits", wanted)).json
    lifted = (await port.admin("PUT", "/gateways/studio/limits", {"calls_per_day": "none"})).json
    read = (await port.as_gateway(gateway, "GET", "/v1/limits")).json

    assert limits_of(set_now)["calls_per_day"] == ("7", "1")
    assert limits_of(lifted) == {
        "calls_per_day": (None, "1"),
        "spend_per_day": ("25", str(TICKET_CHARGE_USD)),
        "spend_per_month": (None, str(TICKET_CHARGE_USD)),
        "ev_open": ("1000000000000000000", str(TICKET_EV_WEI)),
        "sessions_open": ("20000", "1"),
        "sessions_open_per_orchestrator": ("5000", "1"),
    }
    assert (lifted["burst_count"], lifted["requests_per_s"], lifted["keys"]) == (20, None, [])
    assert read == lifted == (await port.admin("GET", "/gateways/studio/limits")).json


async def test_a_key_has_limits_of_its_own(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway(name="studio", credit="10")
    await stack.pay(gateway, stack.new_stream())
    (key,) = (await port.admin("GET", "/gateways/studio/keys")).json["items"]

    limited = (
        await port.admin("PUT", f"/keys/{key['id']}/limits", {"spend_per_month": "5", "sessions_open": "9"})
    ).json
    read = (await port.as_gateway(gateway, "GET", "/v1/limits")).json

    assert limits_of(limited) == {
        "key_calls_per_day": (None, "1"),
        "key_spend_per_day": (None, str(TICKET_CHARGE_USD)),
        "key_spend_per_month": ("5", str(TICKET_CHARGE_USD)),
        "key_ev_open": (None, str(TICKET_EV_WEI)),
        "key_sessions_open": ("9", "1"),
    }
    assert read["keys"] == [limited]


def limits_of(document: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    return {use["limit"]: (use["allowed"], use["used"]) for use in document["limits"]}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({}, "name at least one limit"),
        ({"calls_per_day": 7}, 'write "7" in quotes'),
        ({"calls_per_day": "1.5"}, "calls_per_day: a whole number"),
        ({"calls_per_day": "-1"}, "calls_per_day: a whole number"),
        ({"requests_per_s": "0"}, "requests_per_s: a whole number from 1"),
        ({"spend_per_day": "all"}, "spend_per_day: an amount is a plain decimal number"),
        ({"spend_per_year": "1"}, "spend_per_year"),
    ],
)
async def test_a_limit_that_is_none_is_refused_and_says_why(
    port: HttpPort, limits: dict[str, Any], reason: str
) -> None:
    await new_gateway(port)

    answer = await port.admin("PUT", "/gateways/studio/limits", limits)

    assert reason in answer.problem(400, "invalid_request")["detail"]


async def test_plans_are_put_read_and_deleted(port: HttpPort) -> None:
    wanted = {"calls_per_day": "10", "spend_per_day": "5.00", "currency": "USD", "price_live": "8000000000"}
    made = (await port.admin("PUT", "/plans/small", wanted)).json
    assert {name: value for name, value in made["limits"].items() if value is not None} == {
        "calls_per_day": "10", "spend_per_day": "5", "price_live": "8000000000",
    }  # fmt: skip
    assert (made["currency"], made["gateways_count"], made["changed_by"]) == ("USD", 0, "admin-api")
    changed = (await port.admin("PUT", "/plans/small", {"calls_per_day": "none"})).json
    assert changed["limits"] == {**made["limits"], "calls_per_day": None}
    assert (await port.admin("GET", "/plans/small")).json == changed
    assert [plan["name"] for plan in (await port.admin("GET", "/plans")).json["items"]] == ["default", "small"]
    assert (await port.admin("DELETE", "/plans/small")).json == {"name": "small"}
    (await port.admin("GET", "/plans/small")).problem(404, "not_found")


async def test_a_gateway_is_put_on_a_plan_and_reads_its_name_and_ceilings(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway(name="studio", credit="10")
    await port.admin("PUT", "/plans/small", {"calls_per_day": "10", "price_live": "5", "price_fixed": "1.50"})
    await port.admin("PUT", "/gateways/studio/limits", {"price_fixed": "1", "requests_per_s": "100"})
    chosen = (await port.admin("PUT", "/gateways/studio/plan", {"plan": "small"})).json
    read = (await port.as_gateway(gateway, "GET", "/v1/limits")).json
    assert read == chosen == (await port.admin("GET", "/gateways/studio/limits")).json
    assert (read["plan"], read["own_limits"], read["requests_per_s"]) == (
        "small",
        ["price_fixed", "requests_per_s"],
        100,
    )
    assert [(ceiling["ceiling"], ceiling["allowed"], ceiling["set_by"]) for ceiling in read["ceilings"]] == [
        ("price_live", "5", "plan"), ("price_lv2v", None, None), ("price_fixed", "1", "gateway"),
        ("price_untyped", None, None),
    ]  # fmt: skip
    assert limits_of(read)["calls_per_day"][0] == "10"
    inherited = (await port.admin("PUT", "/gateways/studio/limits", {"price_fixed": "inherit"})).json
    assert (inherited["own_limits"], inherited["ceilings"][2]["allowed"]) == (["requests_per_s"], "1.5")
    assert (await port.admin("GET", "/gateways/studio")).json["plan"] == "small"
    conflict = await port.admin("DELETE", "/plans/small")
    assert "1 gateways are on the plan small" in conflict.problem(409, "conflict")["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/plans/small", {"spend_per_day": "1"}, 400, "spend_per_day: say in which currency"),
        ("/plans/small", {"calls_per_day": 7}, 400, 'write "7" in quotes'),
        ("/plans/small", {"calls_per_day": "inherit"}, 400, "calls_per_day: a whole number"),
        ("/plans/small", {"calls_per_year": "1"}, 400, "calls_per_year"),
        ("/plans/-small", {"calls_per_day": "1"}, 400, "a plan's name has only"),
        ("/plans/default", {}, 400, "name at least one of currency"),
        ("/plans/default", {"spend_per_day": "1", "currency": "EUR"}, 409, "the gateway studio is on the plan default"),
        ("/gateways/studio/plan", {"plan": "nowhere"}, 404, "there is no plan nowhere"),
        ("/gateways/studio/plan", {}, 400, "plan is missing"),
        ("/gateways/studio/limits", {"price_live": "0"}, 400, "price_live: wei per second are needed"),
    ],
)
async def test_a_plan_that_cannot_be_is_refused_and_says_why(
    port: HttpPort, path: str, body: dict[str, Any], status: int, reason: str
) -> None:
    await new_gateway(port)
    answer = await port.admin("PUT", path, body)
    codes = {400: "invalid_request", 404: "not_found", 409: "conflict"}
    assert reason in answer.problem(status, codes[status])["detail"]
    assert [plan["name"] for plan in (await port.admin("GET", "/plans")).json["items"]] == ["default"]


async def test_a_limit_below_the_debt_is_a_conflict(port: HttpPort, stack: Stack) -> None:
    gateway = await stack.new_gateway(name="studio", credit="0", credit_limit="1")
    await stack.pay(gateway, stack.new_stream())

    answer = await port.admin("PUT", "/gateways/studio/credit-limit", {"credit_limit": "0"})

    assert "owes" in answer.problem(409, "conflict")["detail"]


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_repeated_grant_is_booked_once(port: HttpPort, by_header: bool) -> None:
    await new_gateway(port)
    body = {"amount": "5", "reason": "wire 17"}
    headers = {"Idempotency_Key": "wire-17"} if by_header else {}
    if not by_header:
        body["idempotency_key"] = "wire-17"

    first = await port.admin("POST", "/gateways/studio/credit/grants", body, **headers)
    again = await port.admin("POST", "/gateways/studio/credit/grants", body, **headers)
    other = await port.admin("POST", "/gateways/studio/credit/grants", {**body, "amount": "6"}, **headers)

    assert (first.status, first.json["was_repeated"]) == (201, False)
    assert (again.status, again.json["was_repeated"]) == (200, True)
    assert again.json["id"] == first.json["id"]
    other.problem(409, "idempotency_conflict")
    assert (await port.admin("GET", "/gateways/studio")).json["balance"] == "5"


async def test_a_key_in_header_and_body_must_be_one(port: HttpPort) -> None:
    await new_gateway(port)
    body = {"amount": "5", "reason": "wire", "idempotency_key": "a"}

    answer = await port.admin("POST", "/gateways/studio/credit/grants", body, Idempotency_Key="b")

    assert "differ" in answer.problem(400, "invalid_request")["detail"]


async def test_a_withdrawal_takes_at_most_what_is_available(port: HttpPort) -> None:
    await new_gateway(port)
    await port.admin("POST", "/gateways/studio/credit/grants", {"amount": "5", "reason": "wire"})

    taken = await port.admin("POST", "/gateways/studio/credit/withdrawals", {"amount": "2", "reason": "refund"})
    refused = await port.admin("POST", "/gateways/studio/credit/withdrawals", {"amount": "3.01", "reason": "refund"})

    assert (taken.status, taken.json["kind"], taken.json["balance"]) == (201, "withdrawal", "3")
    assert refused.problem(402, "out_of_credit")["available"] == "3"


async def test_keys_are_made_rotated_and_revoked(port: HttpPort, stack: Stack) -> None:
    await stack.new_gateway(name="studio")
    made = (await port.admin("POST", "/gateways/studio/keys", {"name": "ci"})).json

    async def status_of(api_key: str) -> int:
        return (await port.call("GET", "/v1/balance", headers={"Authorization": f"Bearer {api_key}"})).status

    rotated = await port.admin("POST", f"/keys/{made['id']}/rotate", {"grace_s": 3600})
    assert (rotated.status, rotated.json["name"]) == (201, "ci")
    assert rotated.headers["cache-control"] == "no-store"
    assert [await status_of(key) for key in (made["api_key"], rotated.json["api_key"])] == [200, 200]

    at_once = await port.admin("POST", f"/keys/{rotated.json['public_id']}/rotate", {"grace_s": 0})
    assert [await status_of(key) for key in (rotated.json["api_key"], at_once.json["api_key"])] == [401, 200]

    revoked = await port.admin("POST", f"/keys/{at_once.json['id']}/revoke")
    assert (revoked.status, revoked.json["status"]) == (200, "revoked")
    assert await status_of(at_once.json["api_key"]) == 401
    (await port.admin("POST", f"/keys/{at_once.json['id']}/rotate", {})).problem(409, "conflict")

    listed = await port.admin("GET", "/gateways/studio/keys")
    assert [key["status"] for key in listed.json["items"]] == ["revoked", "expired", "active", "active"]
    for secret in (made["api_key"], rotated.json["api_key"], at_once.json["api_key"]):
        assert secret.encode() not in listed.body


async def test_webhook_signers_are_registered_rotated_and_revoked(port: HttpPort) -> None:
    wanted = {"name": "signer-1", "sender": SENDER, "face_value_max_wei": "1000000000000000000"}
    made = await port.admin("POST", "/webhook-signers", wanted)
    assert (made.status, made.headers["cache-control"]) == (201, "no-store")
    (await port.admin("POST", "/webhook-signers", wanted)).problem(409, "conflict")

    rotated = await port.admin("POST", "/webhook-signers/signer-1/rotate", {"grace_s": 3600})
    assert rotated.status == 201
    assert [secret["status"] for secret in rotated.json["secrets"]] == ["active", "active"]
    (await port.admin("POST", "/webhook-signers/signer-1/rotate")).problem(409, "conflict")
    old, new = (WEBHOOK_SECRET.read(answer.json["webhook_secret"]).public_id for answer in (made, rotated))
    one = await port.admin("POST", "/webhook-signers/signer-1/revoke", {"secret": old})
    assert [(found["public_id"], found["status"]) for found in one.json["secrets"]] == [
        (new, "active"), (old, "revoked"),
    ]  # fmt: skip
    (await port.admin("POST", "/webhook-signers/signer-1/revoke", {"secret": "0" * 16})).problem(404, "not_found")

    signer_id = made.json["webhook_signer_id"]
    revoked = await port.admin("POST", f"/webhook-signers/{signer_id}/revoke")
    assert (revoked.status, revoked.json["status"]) == (200, "revoked")
    (await port.admin("POST", f"/webhook-signers/{signer_id}/rotate")).problem(409, "conflict")
    listed = await port.admin("GET", "/webhook-signers")
    assert listed.json["items"] == [revoked.json] == [(await port.admin("GET", "/webhook-signers/signer-1")).json]
    for answer in (made, rotated):
        assert answer.json["webhook_secret"].encode() not in listed.body


async def test_a_key_may_be_made_to_expire(port: HttpPort) -> None:
    await new_gateway(port)
    soon = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)

    made = await port.admin("POST", "/gateways/studio/keys", {"expires_at": soon.isoformat()})
    past = await port.admin("POST", "/gateways/studio/keys", {"expires_at": "2001-01-01T00:00:00Z"})
    local = await port.admin("POST", "/gateways/studio/keys", {"expires_at": "2030-01-01T00:00:00"})

    assert datetime.fromisoformat(made.json["expires_at"]) == soon
    assert "in the past" in past.problem(400, "invalid_request")["detail"]
    assert "with its zone" in local.problem(400, "invalid_request")["detail"]


# --- bodies -----------------------------------------------------------------------------------------------------------

BAD_BODIES: list[tuple[str, str, object, str]] = [
    ("POST", "/gateways", {}, "name is missing"),
    ("POST", "/gateways", b"", "name is missing"),
    ("POST", "/gateways", b"[]", "it must be an object"),
    ("POST", "/gateways", b"{", "unexpected end of JSON"),
    ("POST", "/gateways", b'{"name":"a","name":"b"}', "duplicate key 'name'"),
    ("POST", "/gateways", b'{"name":"\xff"}', "not UTF-8"),
    ("POST", "/gateways", b'{"name":' + b"[" * 50_000, "nested too deeply"),
    ("POST", "/gateways", {"name": 7}, "name: a string is needed, not number 7"),
    ("POST", "/gateways", {"name": "a b"}, "begins with a letter or digit"),
    ("POST", "/gateways", {"name": "gw_1"}, "cannot begin with gw_"),
    ("POST", "/gateways", {"name": "a", "Currency": "USD"}, "unknown key 'Currency': did you mean currency?"),
    ("POST", "/gateways", {"name": "a", "currency": "usd"}, "did you mean USD?"),
    ("POST", "/gateways", {"name": "a", "credit_limit": 5}, 'credit_limit: an amount is a decimal string: write "5"'),
    ("POST", "/gateways", {"name": "a", "credit_limit": "-5"}, "a plain decimal number"),
    ("POST", "/gateways", {"name": "a", "markup_bps": "250"}, "markup_bps: a whole number is needed, not string"),
    ("POST", "/gateways", {"name": "a", "markup_bps": True}, "markup_bps: a whole number is needed, not bool"),
    ("POST", "/gateways", {"name": "a", "markup_bps": 2.5}, "markup_bps: a whole number is needed, not number 2.5"),
    ("POST", "/gateways", {"name": "a", "markup_bps": -1}, "a markup is 0 to"),
    ("POST", "/gateways", {"name": "a", "markup_bps": 10**30}, "a markup is 0 to"),
    ("POST", "/gateways/studio/suspend", {}, "reason is missing"),
    ("POST", "/gateways/studio/suspend", {"reason": " "}, "a reason is needed"),
    ("POST", "/gateways/studio/suspend", {"reason": "a\u0000b"}, "printable"),
    ("POST", "/gateways/studio/resume", {"reason": "x"}, "unknown key 'reason'"),
    ("PUT", "/gateways/studio/pricing", {}, "name a markup, a minimum charge, or both"),
    ("PUT", "/gateways/studio/pricing", {"minimum_charge": "1e3"}, "a plain decimal number"),
    ("PUT", "/gateways/studio/credit-limit", {"credit_limit": None}, "credit_limit is missing"),
    ("POST", "/gateways/studio/credit/grants", {"amount": "5"}, "reason is missing"),
    ("POST", "/gateways/studio/credit/grants", {"amount": 5.25, "reason": "x"}, 'write "5.25" in quotes'),
    ("POST", "/gateways/studio/credit/grants", {"amount": "0", "reason": "x"}, "must be greater than 0"),
    ("POST", "/gateways/studio/credit/grants", {"amount": "9" * 16, "reason": "x"}, "too large"),
    ("POST", "/gateways/studio/credit/grants", {"amount": "0." + "1" * 13, "reason": "x"}, "too fine"),
    ("POST", "/gateways/studio/credit/grants", {"amount": "5", "reason": "x", "expires_at": 1}, "expires_at: a string"),
    ("POST", "/gateways/studio/credit/grants", {"amount": "5", "reason": "x", "idempotency_key": ""}, "1 to 255"),
    ("POST", "/gateways/studio/credit/withdrawals", {"amount": "5", "reason": "x", "expires_at": "y"}, "unknown key"),
    ("POST", "/gateways/studio/keys", {"name": "a\nb"}, "none of them a control character"),
    ("POST", "/keys/key_1/rotate", {"grace_s": 10**30}, "between nothing and 100 years"),
    ("POST", "/keys/key_1/rotate", {"grace_s": -1}, "between nothing and 100 years"),
    ("POST", "/keys/key_1/revoke", {}, "not the id of an API key"),
    ("POST", "/keys/lpch_" + "0" * 16 + "_" + "0" * 80 + "/revoke", {}, "this is a whole API key"),
    ("POST", "/webhook-signers", {"name": "a"}, "sender is missing"),
    ("POST", "/webhook-signers", {"name": "a", "sender": "0x7"}, "sender: "),
    ("POST", "/webhook-signers", {"name": "a", "sender": SENDER, "face_value_max_wei": "1.5"}, "a whole number of wei"),
    ("POST", "/webhook-signers", {"name": "a", "sender": SENDER, "face_value_max_wei": 5}, 'write "5" in quotes'),
    ("POST", "/webhook-signers", {"name": "whs_1", "sender": SENDER}, "cannot begin with whs_"),
    ("POST", "/webhook-signers/whs_1/rotate", {}, "not the id of a webhook signer"),
    ("POST", "/webhook-signers/x/rotate", {"grace_s": 10**30}, "between nothing and 100 years"),
    ("POST", "/webhook-signers/x/rotate", {"expires_at": "2030-01-01T00:00:00Z"}, "unknown key"),
    ("POST", "/webhook-signers/lpws_" + "0" * 16 + "_" + "0" * 80 + "/revoke", {}, "this is a whole webhook secret"),
    ("GET", "/gateways/gw_1", None, "not the id of a gateway"),
    ("GET", "/gateways/%00", None, "gateway: "),
    ("GET", "/gateways/" + "a" * 200, None, "gateway: "),
]


async def test_bad_input_is_refused_precisely_and_changes_nothing(port: HttpPort) -> None:
    before = await new_gateway(port)

    for method, path, body, part in BAD_BODIES:
        answer = await port.admin(method, path, body)
        assert part in answer.problem(400, "invalid_request")["detail"], (method, path, body, answer.body)

    assert (await port.admin("GET", "/gateways/studio")).json == before
    assert len((await port.admin("GET", "/gateways")).json["items"]) == 1
    assert (await port.admin("GET", "/gateways/studio/keys")).json["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/gateways/nobody", None),
        ("GET", "/gateways/gw_" + "0" * 32, None),
        ("POST", "/gateways/nobody/credit/grants", {"amount": "1", "reason": "x"}),
        ("POST", "/keys/key_" + "0" * 32 + "/revoke", {}),
        ("POST", "/keys/0123456789abcdef/rotate", {}),
        ("GET", "/webhook-signers/nobody", None),
        ("POST", "/webhook-signers/whs_" + "0" * 32 + "/rotate", {}),
    ],
)
async def test_what_does_not_exist_is_not_found(port: HttpPort, method: str, path: str, body: object) -> None:
    (await port.admin(method, path, body)).problem(404, "not_found")


async def test_a_taken_name_is_a_conflict(port: HttpPort) -> None:
    await new_gateway(port)

    (await port.admin("POST", "/gateways", {"name": "studio"})).problem(409, "conflict")


async def test_an_account_in_eth_counts_to_the_wei(port: HttpPort) -> None:
    await new_gateway(port, currency="ETH")

    answer = await port.admin(
        "POST", "/gateways/studio/credit/grants", {"amount": "0.000000000000000001", "reason": "one wei"}
    )

    assert Decimal(answer.json["balance"]) == Decimal("1e-18")
    assert answer.json["balance"] == "0.000000000000000001"


# --- jobs -------------------------------------------------------------------------------------------------------------


async def test_an_operator_sees_the_jobs_and_nobody_else_does(port: HttpPort, stack: Stack) -> None:
    (await port.call("GET", "/v1/jobs")).problem(401, "unauthenticated")
    (await port.as_gateway(await stack.new_gateway(), "GET", "/v1/jobs")).problem(401, "unauthenticated")
    assert (await port.call("GET", "/v1/jobs", headers=ADMIN)).json == {
        "leader": None, "leads_since": None, "items": [],
    }  # fmt: skip
    with psycopg.connect(stack.conninfo, autocommit=True) as owner:
        owner.execute("SELECT register_jobs('w:1', '2026-11-01T00:00Z', '{a,b}', '{60,86400}', '{0,5}')")
        columns = "job, due_at, started_at, ended_at, outcome, said, error_kind, error, leader, by_hand"
        for run in (
            ("a", 0, 0, "00:01.5", "ok", "x", None, None, False),
            ("a", 1, 1, "01:02", "failed", None, "E", "e", True),
            ("a", 2, 2, "02:02", "lost", None, None, None, False),
            ("b", 2, 2, None, None, None, None, None, False),
        ):
            job, due, begun, ended, *rest, by_hand = run
            at = [f"2026-11-01T00:0{due}Z", f"2026-11-01T00:0{begun}Z", ended and f"2026-11-01T00:{ended}Z"]
            values = [job, *at, *rest, "w:1", by_hand]
            owner.execute(f"INSERT INTO job_run ({columns}) VALUES ({', '.join(['%s'] * 10)})", values)

    a, b = (await port.call("GET", "/v1/jobs", headers=ADMIN)).json["items"]

    assert (a["name"], a["every_s"], a["failures_count"], a["last_ok_at"]) == (
        "a",
        60,
        1,
        "2026-11-01T00:00:00.000000Z",
    )
    assert a["last"] == {
        "outcome": "failed", "started_at": "2026-11-01T00:01:00.000000Z", "ended_at": "2026-11-01T00:01:02.000000Z",
        "duration_ms": 2000, "said": None, "error_kind": "E", "error": "e", "by_hand": True, "leader": "w:1",
    }  # fmt: skip
    assert a["late"] == "was due at 2026-11-01T00:02:00.000000Z"
    assert (b["last"], b["running_since"]) == (None, "2026-11-01T00:02:00.000000Z")
    assert b["late"] == "has been running since 2026-11-01T00:02:00.000000Z"


# --- documentation ----------------------------------------------------------------------------------------------------


async def test_the_openapi_document_is_valid_and_describes_every_route(port: HttpPort) -> None:
    document = (await port.call("GET", "/openapi.json")).json

    OpenAPIV31SpecValidator(document).validate()
    assert document == port.document
    hot = {"/generate-live-payment", "/sign-orchestrator-info", "/discover-orchestrators", "/v1/signTicket"}
    hot |= {"/webhooks/remote-signer", "/authorize"}
    cold = {"/v1/balance", "/v1/limits", "/v1/prices", "/v1/coverage", "/v1/issuances", "/v1/issuances/{issuance_id}"}
    cold |= {"/v1/invoices", "/v1/invoices/{invoice_id}"}
    cold |= {"/v1/topups", "/v1/topups/{topup_id}", "/v1/statements", "/v1/statements/{period}", "/v1/usage"}
    machines = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
    machines |= {"/v1/jobs"}
    cold |= {"/v1/billing"}
    assert hot | cold | machines == {path for path in document["paths"] if not path.startswith("/v1/admin/")}
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert all(operation["description"] and operation["tags"] for operation in operations)
    assert not any("422" in operation["responses"] for operation in operations)


async def test_every_reference_of_the_document_leads_somewhere(port: HttpPort) -> None:
    schemas = port.document["components"]["schemas"]
    wanted = set(re.findall(r"#/components/schemas/(\w+)", str(port.document)))

    assert wanted <= schemas.keys()


def test_the_documented_sign_ticket_body_has_the_keys_that_are_read() -> None:
    assert SignTicketRequest.model_fields.keys() == REQUEST_KEYS
    assert set(LivePaymentRequest.model_fields) == {
        "state", "orchestrator", "ManifestID", "app", "inPixels", "type", "maxPrice", "capabilities",
    }  # fmt: skip


async def test_the_hot_routes_answer_as_documented(port: HttpPort, stack: Stack) -> None:
    gateway, stream = await stack.new_gateway(), stack.new_stream()

    signed = await port.as_gateway(gateway, "POST", "/v1/signTicket", next_body(stack))
    paid = await port.as_gateway(gateway, "POST", "/generate-live-payment", stream.body())
    proof = await port.as_gateway(gateway, "POST", "/sign-orchestrator-info")
    discovery = await port.as_gateway(gateway, "GET", "/discover-orchestrators")
    bad = [
        await port.as_gateway(gateway, "POST", "/v1/signTicket", {"orchestator": ""}),
        await port.as_gateway(gateway, "POST", "/generate-live-payment", {}),
        await port.call("POST", "/generate-live-payment", stream.body()),
    ]

    assert [answer.status for answer in (signed, paid, proof, discovery)] == [200, 200, 200, 404]
    assert signed.json["receipt"].keys() == Receipt.model_fields.keys()
    assert "did you mean orchestrator?" in bad[0].problem(400, "invalid_request")["detail"]
    assert [answer.status for answer in bad] == [400, 400, 401]
    documented = port.document["paths"]["/generate-live-payment"]["post"]["responses"]["200"]["headers"]
    sent = {name.lower() for name in paid.headers if name.lower().startswith("clearinghouse-")}
    assert sent | {"clearinghouse-replayed"} == {name.lower() for name in documented}


class _Page(HTMLParser):
    """Collects what a page would load or run, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [tag] if tag in {"script", "link", "img", "iframe"} or "src" in given else []
        self.links |= {given["href"] or ""} if "href" in given else set()
        self.ids |= {given["id"] or ""} if "id" in given else set()
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_docs_page_is_whole_and_loads_nothing(port: HttpPort) -> None:
    answer = await port.call("GET", "/docs")
    page = _Page()
    page.feed(answer.body.decode())

    assert (page.loads, page.open) == ([], [])
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert inside <= page.ids
    assert page.links - {f"#{name}" for name in inside} == {"openapi.json"}
    for path in port.document["paths"]:
        assert path.encode() in answer.body
    for code in ("out_of_credit", "refresh_session", "method_not_allowed", "internal_error"):
        assert f"<code>{code}</code>".encode() in answer.body


async def test_the_docs_page_escapes_what_the_document_says(port: HttpPort) -> None:
    from clearinghouse.api.docs_page import docs_page

    document = {**port.document, "info": {**port.document["info"], "description": "<script>`&`</script>"}}

    assert "<p>&lt;script&gt;<code>&amp;</code>&lt;/script&gt;</p>" in docs_page(document)


async def test_what_anybody_may_ask_for_is_rendered_once(port: HttpPort, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {path: (await port.call("GET", path)).body for path in ("/docs", "/openapi.json")}
    for render in ("docs_page", "json_bytes", "openapi_document"):
        monkeypatch.delattr(f"clearinghouse.api.documentation.{render}")
    assert {path: (await port.call("GET", path)).body for path in first} == first


async def test_documentation_can_be_switched_off(stack: Stack) -> None:
    async with running_port(stack, docs_enabled=False) as port:
        for path in ("/docs", "/openapi.json"):
            (await port.call("GET", path)).problem(404, "not_found")
