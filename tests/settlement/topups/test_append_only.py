"""The audit of top-ups stays as it was written: by triggers, so that not even the owner of the tables changes it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from chain.funding import Amounts
from settlement.topups.pursuing import State
from tests.parts.devnet import Devnet
from tests.parts.topups import CONFIRMATIONS, Funding, funding
from tests.parts.wallet import ETHER

TABLES = ("topup", "topup_transaction", "topup_event")
CHANGES = [
    "UPDATE topup_transaction SET raw = 'another'",
    "UPDATE topup_transaction SET hash = hash WHERE false",
    "DELETE FROM topup_transaction",
    "TRUNCATE topup_transaction",
    "UPDATE topup_event SET facts = '{}'",
    "DELETE FROM topup_event WHERE false",
    "TRUNCATE topup_event",
    "DELETE FROM topup",
    "TRUNCATE topup CASCADE",
    "UPDATE topup SET deposit_wei = deposit_wei + 1",
    "UPDATE topup SET sender = payer",
    "UPDATE topup SET actor = 'another'",
    "UPDATE topup SET created_at = created_at - interval '1 day'",
    "UPDATE topup SET nonce = nonce + 1",
    "UPDATE topup SET nonce = NULL, state = 'planned'",
]


@pytest.fixture
async def chain(database: str, devnet: Devnet) -> AsyncIterator[Funding]:
    async with funding(database, devnet) as made:
        yield made


async def test_nobody_changes_or_removes_what_is_written_of_a_top_up(chain: Funding) -> None:
    await chain.send(Amounts(ETHER, ETHER))
    before = [chain.query(f"SELECT * FROM {table}") for table in TABLES]
    assert all(before)
    for change in CHANGES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            chain.query(change)
    assert [chain.query(f"SELECT * FROM {table}") for table in TABLES] == before
    chain.mine(1 + CONFIRMATIONS)
    assert (await chain.pursue()).topup.state is State.CONFIRMED


async def test_what_is_being_cancelled_or_was_abandoned_remains_so(chain: Funding) -> None:
    abandoned = await chain.begin(Amounts(ETHER, 0))
    await chain.topups.cancel(abandoned.id, chain.now)
    refused = [f"UPDATE topup SET state = 'planned', ended_at = NULL WHERE id = '{abandoned.id}'"]
    cancelled = await chain.send(Amounts(ETHER, 0))
    if (await chain.found(cancelled.id)).is_open:
        chain.rewrite(f"UPDATE topup SET is_cancelling = true WHERE id = '{cancelled.id}'")
    refused.append(f"UPDATE topup SET is_cancelling = false WHERE id = '{cancelled.id}'")
    for change in refused:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            chain.query(change)
