"""GET /v1/statements over a real socket: of closed periods, as JSON and CSV, and of nobody else."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg

from clearinghouse.cells import text_of
from clearinghouse.ledger import transfers
from tests.clearinghouse.api.http_port import HttpPort
from tests.parts.stack import Stack, TestGateway

Owner = psycopg.Connection[tuple[Any, ...]]


async def used(stack: Stack, owner: Owner) -> tuple[TestGateway, datetime]:
    """A gateway that paid and used, and an instant after that. Then it used some more."""
    gateway, stream = await stack.new_gateway(), stack.new_stream()
    await stack.pay(gateway, stream)
    await stack.pay(gateway, stream)
    async with stack.engine.begin() as connection:
        await transfers.book(
            connection, gateway.id, "refund", Decimal("-0.125"), key="re_1", reason="=1+1", actor="test"
        )
    (end,) = owner.execute("SELECT clock_timestamp()").fetchone() or ()
    await stack.pay(gateway, stream)
    return gateway, end


def close(owner: Owner, gateway: TestGateway, end: datetime) -> None:
    owner.execute("SELECT seal_books(ARRAY[%s], ARRAY[%s], true)", [gateway.id, end])
    found = owner.execute(
        "SELECT o_outcome FROM close_periods(ARRAY[%s], ARRAY[(SELECT created_at FROM gateway WHERE id = %s)], "
        "ARRAY[%s], ARRAY['2026-10-01'::date], ARRAY['2026-11-01'::date], ARRAY['prepaid'], ARRAY['Europe/Berlin'])",
        [gateway.id, gateway.id, end],
    )
    assert found.fetchone() == ("closed",)


async def test_a_closed_period_is_read_and_balances_by_hand(port: HttpPort, stack: Stack, owner: Owner) -> None:
    gateway, end = await used(stack, owner)
    close(owner, gateway, end)
    listed = (await port.as_gateway(gateway, "GET", "/v1/statements")).json["items"]
    shown = (await port.as_gateway(gateway, "GET", "/v1/statements/2026-10-01")).json
    assert listed == [{name: shown[name] for name in listed[0]}]
    assert (shown["opening"], shown["time_zone"]) == ("0", "Europe/Berlin")
    assert [movement["kind"] for movement in shown["movements"]] == ["grant", "refund"]
    assert shown["movements"][1]["amount"] == "-0.125"
    assert [line["calls"] for line in shown["lines"]] == [2]
    moved = sum(Fraction(movement["amount"]) for movement in shown["movements"])
    assert moved - sum(Fraction(line["amount"]) for line in shown["lines"]) == Fraction(shown["closing"])


async def test_as_csv_its_rows_add_up_to_the_last(port: HttpPort, stack: Stack, owner: Owner) -> None:
    gateway, end = await used(stack, owner)
    close(owner, gateway, end)
    headers = {"Authorization": gateway.authorization, "Accept": "text/csv"}
    answer = await port.call("GET", "/v1/statements/2026-10-01", headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline=""), strict=True))
    *parts, closing = (Fraction(row["amount"]) for row in rows)
    assert sum(parts) == closing
    assert [row["row"] for row in rows] == ["opening", "movement", "movement", "usage", "closing"]
    assert (rows[2]["description"], text_of(rows[2]["description"])) == ("'=1+1", "=1+1")


async def test_what_is_not_closed_or_of_another_is_not_there(port: HttpPort, stack: Stack, owner: Owner) -> None:
    gateway, end = await used(stack, owner)
    assert (await port.as_gateway(gateway, "GET", "/v1/statements")).json == {"items": []}
    for period in ("2026-10-01", "2026-10", "current", "%27"):
        (await port.as_gateway(gateway, "GET", f"/v1/statements/{period}")).problem(404, "not_found")
    close(owner, gateway, end)
    other = await stack.new_gateway()
    (await port.as_gateway(other, "GET", "/v1/statements/2026-10-01")).problem(404, "not_found")
    (await port.as_gateway(gateway, "GET", "/v1/statements/2026-10-01?form=pdf")).problem(400, "invalid_request")
    (await port.call("GET", "/v1/statements")).problem(401, "unauthenticated")


async def test_a_statement_that_does_not_balance_is_not_given(port: HttpPort, stack: Stack, owner: Owner) -> None:
    gateway, end = await used(stack, owner)
    close(owner, gateway, end)
    owner.execute("ALTER TABLE billing_line DISABLE TRIGGER USER")
    owner.execute("UPDATE billing_line SET charge = charge + 1")
    assert (await port.as_gateway(gateway, "GET", "/v1/statements/2026-10-01")).status == 500
