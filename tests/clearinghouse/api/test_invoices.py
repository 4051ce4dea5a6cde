"""GET /v1/invoices over a real socket: the answers fit the OpenAPI document, and belong to who asks."""

from __future__ import annotations

import json

import psycopg

from clearinghouse.ids import uuid7
from tests.clearinghouse.api.http_port import HttpPort, running_port
from tests.parts.stack import Stack

_INVOICE = """
    INSERT INTO invoice (id, gateway_id, kind, begins_at, ends_at, first_day, next_day, currency, decimals, exact,
                         total_minor, state, stripe_customer_id, stripe_invoice_id, number, remaining_minor,
                         finalized_at, due_at)
    VALUES (%s, %s, 'usage', '2026-10-01Z', '2026-11-01Z', '2026-10-01', '2026-11-01', 'USD', 2, 12.345, 1235, 'open',
            'cus_1', 'in_1', 'A-1', 1235, '2026-11-01Z', '2026-11-15Z')
"""
_LINE = "INSERT INTO invoice_line VALUES (%s, 1, 'usage', 'live video', 12.345, 1235, %s)"


async def test_invoices_are_read_by_whom_they_ask_and_by_nobody_else(stack: Stack, database: str) -> None:
    ours, stranger, invoice_id = await stack.new_gateway(), await stack.new_gateway(), uuid7()
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(_INVOICE, [invoice_id, ours.id])
        owner.execute(_LINE, [invoice_id, json.dumps({"app": "studio", "calls": "3"})])
    path = f"/v1/invoices/inv_{invoice_id.hex}"
    async with running_port(stack) as port:
        await asked(port, ours, stranger, path)


async def asked(port: HttpPort, ours: object, stranger: object, path: str) -> None:
    page = (await port.as_gateway(ours, "GET", "/v1/invoices?limit=1")).json  # type: ignore[arg-type]
    one = (await port.as_gateway(ours, "GET", path)).json  # type: ignore[arg-type]
    assert (page["next_cursor"], page["items"][0]["amount_due"], page["items"][0]["status"]) == (None, "12.35", "open")
    assert one == {
        **page["items"][0],
        "lines": [
            {"kind": "usage", "description": "live video", "amount": "12.35", "exact": "12.345",
             "facts": {"app": "studio", "calls": "3"}}
        ],
    }  # fmt: skip
    assert (await port.as_gateway(stranger, "GET", "/v1/invoices")).json["items"] == []  # type: ignore[arg-type]
    (await port.as_gateway(stranger, "GET", path)).problem(404, "not_found")  # type: ignore[arg-type]
    (await port.as_gateway(ours, "GET", "/v1/invoices?page=2")).problem(400, "invalid_request")  # type: ignore[arg-type]
