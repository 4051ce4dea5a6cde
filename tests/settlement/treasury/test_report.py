"""What a period earned: from real calls, at their own prices and at what the ETH did cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from clearinghouse.config import Settings
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.ids import show
from settlement.cli import app
from settlement.reconciliation.report import Period
from settlement.treasury.documents import report_document
from settlement.treasury.report import treasury_report
from tests.parts.books import commit, new_gateway, usage
from tests.parts.command_line import called
from tests.parts.devnet import Devnet
from tests.parts.indexed import FACE_VALUE_WEI, indexed, issued, prepared, ticket
from tests.settlement.conftest import Owner

ETHER = 10**18
DAY = timedelta(days=1)


def run(database: str, *arguments: str) -> Any:
    return called(app, ["treasury", *arguments], {"CLEARINGHOUSE_ADMIN_DATABASE_URL": database})


def around(now: datetime) -> tuple[str, ...]:
    return "--from", f"{now - DAY:%Y-%m-%d}", "--to", f"{now + DAY:%Y-%m-%d}"


def report(database: str) -> Any:
    return run(database, "report", *around(datetime.now(UTC)), "--json").json()


def buy(database: str, bought: str, paid: str, fee: str, reference: str, *, days_ago: int = 0) -> None:
    at = f"{datetime.now(UTC) - days_ago * DAY:%Y-%m-%dT%H:%M:%SZ}"
    told = ("--paid", paid, "--fee", fee, "--currency", "USD", "--venue", "kraken", "--reference", reference)
    assert run(database, "buy", bought, *told, "--at", at).exit_code == 0


def test_margins_are_by_the_price_of_each_call_and_by_what_the_eth_did_cost(database: str, owner: Owner) -> None:
    gateways = [new_gateway(owner) for _ in range(2)]
    owner.execute("UPDATE gateway SET markup_bps = 1000")
    for (gateway, key), ev_wei in zip(gateways, (3 * ETHER // 1000, 7 * ETHER // 1000), strict=True):
        for price, times in ((2000, 1), (3000, 3)):
            call = usage(gateway, key, ev_wei=times * ev_wei, markup_bps=1000)
            charge = Decimal(call.ev_wei * price * 11).scaleb(-19)
            assert commit(owner, replace(call, price=Decimal(price), charge=charge))[0] is None
    empty = report(database)
    assert (empty["bought"], empty["luck"]) == ([], None)
    assert [each["margin_as_bought"] for each in empty["gateways"]] == [None, None]
    assert len(empty["not_known"]) == 2

    buy(database, "1eth", "2000.01", "0.01", "a")
    buy(database, "2eth", "4999.99", "9.99", "b")
    buy(database, "9eth", "1", "0", "of another period", days_ago=5)
    run(database, "buy", "1eth", "--paid", "9", "--currency", "EUR", "--venue", "x", "--reference", "c", "--at",
        f"{datetime.now(UTC):%Y-%m-%d}")  # fmt: skip
    found = report(database)
    (_, usd) = found["bought"]
    assert (usd["paid"], usd["fee"], usd["bought_wei"]) == ("7000", "10", f"{3 * ETHER}")
    assert usd["average_price"] == "2333.333333333333"
    by_id = {each["gateway_id"]: each for each in found["gateways"]}
    first = by_id[show("gw", gateways[0][0])]
    assert (first["calls_count"], first["ev_wei"]) == (2, f"{12 * ETHER // 1000}")
    assert (first["charged"], first["cost_as_priced"], first["margin_as_priced"]) == ("36.3", "33", "3.3")
    assert (first["cost_as_bought"], first["margin_as_bought"]) == ("28", "8.3")
    (total,) = found["totals"]
    assert (total["charged"], total["margin_as_priced"]) == ("121", "11")
    # 40 finney at 7000/3 dollars an ether.
    assert (total["cost_as_bought"], total["margin_as_bought"]) == ("93.333333333333", "27.666666666667")
    shown = run(database, "report", *around(datetime.now(UTC))).out
    assert "27.67" in shown
    assert "not known: luck" in shown


#: Two re-ratings of one call, of which the later one counts; and one that came to nothing.
RERATED = """
    WITH planned AS (
        INSERT INTO rerating (id, gateway_id, begins_at, card, version, as_of, reason, actor, calls_count, difference,
                              included, state, transfer_id, ended_at)
        SELECT gen_random_uuid(), %(gateway)s, now(), 'card', 1, as_of, 'a test', 'a test', 1, -1, 0, state,
               CASE state WHEN 'done' THEN gen_random_uuid() END, now()
          FROM (VALUES (1, 'done'), (2, 'done'), (3, 'refused')) AS planned (as_of, state) RETURNING *)
    INSERT INTO rerated_call (rerating_id, issuance_id, charged, charge, rate_rule, at_least_cost)
    SELECT planned.id, issuance.id, issuance.charge, issuance.charge - planned.as_of * 0.25, 1, false
      FROM planned JOIN issuance USING (gateway_id)
"""


def test_what_re_rating_has_changed_since_is_in_the_margin(database: str, owner: Owner) -> None:
    gateway, key = new_gateway(owner)
    owner.execute("UPDATE gateway SET markup_bps = 10000")
    assert commit(owner, usage(gateway, key, ev_wei=ETHER // 1000, markup_bps=10_000))[0] is None
    owner.execute("SET session_replication_role = replica")  # a re-rating without its period and its card
    owner.execute(RERATED, {"gateway": gateway})
    (found,) = report(database)["gateways"]
    assert (found["charged"], found["rerated"], found["margin_as_priced"]) == ("4", "-0.5", "1.5")


async def test_the_luck_of_the_period_is_beside_its_margins(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    now = datetime.now(UTC)
    async with indexed(database, devnet, confirmations=3) as chain:
        engine = async_engine(in_role(database, ADMIN_ROLE))
        with psycopg.connect(database, autocommit=True) as owner:
            await issued(engine, owner, count=3)
        chain.redeem(ticket(1))
        await chain.catch_up()
        found = report_document(await treasury_report(engine, Settings(), Period(now - DAY, now + DAY)))
        before = report_document(await treasury_report(engine, Settings(), Period(now - 2 * DAY, now - DAY)))
        await engine.dispose()
    assert found["luck"] == {
        "tickets_count": 3, "expected_wei": f"{3 * FACE_VALUE_WEI}", "redeemed_count": 1,
        "redeemed_wei": f"{FACE_VALUE_WEI}", "spread_wei": f"{-2 * FACE_VALUE_WEI}", "deviation_wei": "0",
        "deviations": None,
    }  # fmt: skip
    assert (before["luck"]["tickets_count"], before["gateways"], before["totals"]) == (0, [], [])
