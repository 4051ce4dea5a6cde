"""How much ETH to buy: over coverage as it is recorded, in a real database, asked as operators ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from chain.chain_reading import Lock
from chain.funding import Amounts
from chain.rates import EthPrice
from chain.signatures import checksum_address
from clearinghouse.coverage import snapshots
from clearinghouse.database.connect import SERVE_ROLE, in_role
from settlement.cli import app
from settlement.treasury.advise import cost_minor, to_buy
from tests.parts.books import commit, new_gateway, usage
from tests.parts.command_line import Answer, called
from tests.parts.watched import SENDER, snapshot_of
from tests.settlement.conftest import Owner

ETHER = 10**18
FLYING = """
    INSERT INTO topup (id, chain_id, ticket_broker, sender, payer, deposit_wei, reserve_wei, observed_block,
                       observed_deposit_wei, observed_reserve_wei, actor, created_at)
    VALUES (gen_random_uuid(), 42161, %(sender)s, %(sender)s, %(sender)s, 1, 0, 1, 0, 0, 'a test', now())
"""
ENDED = "UPDATE topup SET state = 'abandoned', ended_at = now() + %(after)s"
WALLET = """
    SELECT note_topup_standing(now() - %(age)s, 'on', NULL, 'well', %(sender)s, %(balance_wei)s, false, NULL, NULL, 'a')
"""


@dataclass(frozen=True)
class Treasury:
    database: str

    def seen(self, *, age_s: int = 1, **changes: Any) -> None:
        """Coverage as it was a moment ago: 10 ETH of deposit, 5 of reserve, of each as much is missing as is said."""
        told = {"top_up_reserve_wei": 2 * ETHER, "top_up_deposit_wei": 3 * ETHER} | changes
        asyncio.run(self._record(datetime.now(UTC) - timedelta(seconds=age_s), told))

    async def _record(self, at: datetime, told: dict[str, Any]) -> None:
        conninfo = in_role(self.database, SERVE_ROLE)
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            await snapshots.record(connection, snapshot_of(observed_at=at, **told))

    def advise(self, *arguments: str) -> Answer:
        environment = {
            "CLEARINGHOUSE_ADMIN_DATABASE_URL": self.database,
            "CLEARINGHOUSE_TOPUPS__SENDER": checksum_address(SENDER),
            "CLEARINGHOUSE_PRICE__DECLARED__USD": "3000.01",
        }
        return called(app, ["treasury", "advise", *arguments], environment)

    def bought(self, *arguments: str) -> tuple[int, int]:
        """For the reserve, and for the deposit."""
        buy = self.advise(*arguments, "--json").json()["buy"]
        return int(buy["reserve_wei"]), int(buy["deposit_wei"])


@pytest.fixture
def treasury(database: str) -> Treasury:
    return Treasury(database)


def test_what_is_missing_is_bought_less_what_is_there_the_reserve_first(treasury: Treasury, owner: Owner) -> None:
    treasury.seen()
    found = treasury.advise("--json").json()
    assert found["wallet"] is None
    assert "has read none" in found["wallet_not_known"]
    assert (found["buy"]["total_wei"], found["target"]["horizon_s"]) == (f"{5 * ETHER}", 86_400)
    assert [(each["currency"], each["amount"]) for each in found["costs"]] == [("USD", "15000.05")]
    owner.execute(WALLET, {"age": timedelta(0), "sender": SENDER, "balance_wei": 3 * ETHER + ETHER // 100})
    assert treasury.bought() == (0, 2 * ETHER)  # what is kept for gas is not counted
    assert treasury.bought("--held", "9eth") == (0, 0)
    owner.execute(FLYING, {"sender": SENDER})
    owner.execute(ENDED, {"after": timedelta(minutes=1)})
    assert treasury.bought("--held", "1eth") == (ETHER, 3 * ETHER)  # read before it ended: not counted
    treasury.seen(age_s=0, deposit_wei=11 * ETHER, posterior_expected_wei=None, top_up_deposit_wei=None)
    assert treasury.bought() == (2 * ETHER, 2 * ETHER)  # an ether has come into the deposit since it was advised
    assert "4.000000 ETH" in treasury.advise().out


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (None, "no_advice"),
        ({"age_s": 301}, "advice_stale"),
        ({"simulated": True}, "simulated"),
        ({"lock": Lock.UNLOCKING}, "unlocked"),
        ({"posterior_expected_wei": None, "top_up_deposit_wei": None}, "no_advice"),
    ],
)
def test_nothing_is_advised_on_what_top_ups_would_not_act_upon(
    treasury: Treasury, seen: dict[str, Any] | None, says: str
) -> None:
    if seen is not None:
        treasury.seen(**seen)
    refused = treasury.advise()
    assert (refused.exit_code, says in refused.err) == (1, True), refused.err


def test_nothing_is_advised_while_a_top_up_is_under_way_or_of_an_earlier_block(
    treasury: Treasury, owner: Owner
) -> None:
    treasury.seen(age_s=5)
    treasury.seen(age_s=0, block_number=99, posterior_expected_wei=None, top_up_deposit_wei=None)
    assert "chain_undecided" in treasury.advise().err
    owner.execute(FLYING, {"sender": SENDER})
    assert "in_flight" in treasury.advise().err


def test_another_horizon_and_another_target_are_asked_of_coverage_itself(treasury: Treasury, owner: Owner) -> None:
    call = usage(*new_gateway(owner, credit=10_000), ev_wei=3 * ETHER, num_tickets=3, sender=SENDER)
    assert commit(owner, call)[0] is None
    treasury.seen()
    # Three certain tickets of an ether: a hundred orchestrators share a reserve of as many, of which five are there.
    hour, month = treasury.bought("--horizon-hours", "1"), treasury.bought("--horizon-hours", "720")
    assert hour[0] == month[0] == 95 * ETHER
    assert hour[1] < month[1]
    # They need 4: expected value and one ticket. A hundred times that is more than an hour's payouts.
    assert treasury.bought("--horizon-hours", "1", "--target-bps", "1000000") == (95 * ETHER, 390 * ETHER)


@pytest.mark.parametrize(
    ("held_wei", "buy"), [(0, (2, 3)), (1, (1, 3)), (2, (0, 3)), (4, (0, 1)), (9, (0, 0))]
)  # fmt: skip
def test_what_is_held_goes_into_the_reserve_first(held_wei: int, buy: tuple[int, int]) -> None:
    found = to_buy(Amounts(deposit_wei=3, reserve_wei=2), held_wei)
    assert (found.reserve_wei, found.deposit_wei) == buy


def test_the_cost_is_rounded_up_to_what_can_be_paid() -> None:
    for currency, minor in (("USD", 300_001), ("JPY", 3_001), ("KWD", 3_000_001)):
        price = EthPrice(currency, Decimal("3000.000000000001"), "declared", datetime(2026, 1, 1, tzinfo=UTC))
        assert cost_minor(ETHER, price) == minor
