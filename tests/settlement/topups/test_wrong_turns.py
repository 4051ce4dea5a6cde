"""What somebody changes, or takes back, while a top-up is under way: nothing is paid that was not meant, nothing twice,
and what waits for ever is told of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chain.funding import Amounts
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.flow import Point
from settlement.topups.pursuing import Purpose, State
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import changed
from tests.parts.topups import CONFIRMATIONS, SENDER, STUCK_AFTER_S, Automatic, Funding, automatic, funding
from tests.parts.wallet import ETHER, without_blocks

BOTH = Amounts(deposit_wei=2 * ETHER, reserve_wei=ETHER)
OTHER_CHAIN = 42161


@pytest.fixture
async def chain(database: str, devnet: Devnet) -> AsyncIterator[Funding]:
    async with funding(database, devnet) as funded:
        yield funded


@pytest.fixture
def auto(chain: Funding, tmp_path: Path) -> Automatic:
    return automatic(chain, tmp_path)


def raw_sent(chain: Funding) -> list[Any]:
    return [
        call["params"][0]
        for proxy in chain.proxies
        for batch in proxy.requests
        for call in batch
        if call["method"] == "eth_sendRawTransaction"
    ]


# --- another chain ---


async def test_one_of_another_chain_is_neither_followed_nor_signed_for_this_one(chain: Funding) -> None:
    """As where chain.network was changed: on this chain its nonce means nothing, and its amount was never planned."""
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.devnet.rpc("anvil_dropAllTransactions")
        chain.rewrite(f"UPDATE topup SET chain_id = {OTHER_CHAIN}")
        for proxy in chain.proxies:
            proxy.requests.clear()
        for _ in range(3):
            chain.later(STUCK_AFTER_S)
            pursued = await chain.pursue()
            assert pursued.trouble is not None
            assert pursued.trouble.condition is Condition.OTHER_CHAIN
            assert len(pursued.topup.attempts) == 1
        with pytest.raises(TopupRefused, match="other_chain"):
            await chain.topups.cancel(pursued.topup.id, chain.now)
        assert raw_sent(chain) == []


async def test_one_that_was_planned_for_another_chain_is_not_signed_for_this_one(chain: Funding) -> None:
    topup = await chain.begin(BOTH)
    chain.rewrite(f"UPDATE topup SET chain_id = {OTHER_CHAIN}")
    pursued = await chain.pursue()
    assert (pursued.topup.state, pursued.topup.attempts) == (State.PLANNED, ())
    assert pursued.trouble is not None
    assert pursued.trouble.condition is Condition.OTHER_CHAIN
    assert (await chain.topups.cancel(topup.id, chain.now)).state is State.ABANDONED


async def test_what_another_chain_confirmed_is_not_missed_on_this_one(chain: Funding) -> None:
    await chain.send(BOTH)
    chain.mine(1 + CONFIRMATIONS)
    assert (await chain.pursue()).topup.state is State.CONFIRMED
    chain.rewrite(f"UPDATE topup SET chain_id = {OTHER_CHAIN}")
    chain.devnet.rpc("anvil_rollback", 1 + CONFIRMATIONS)
    chain.mine()
    assert await chain.topups.revisit(chain.now) == 0
    assert await chain.store.in_flight() is None


# --- deeper than it is confirmed ---


async def test_a_lost_one_is_found_while_the_next_is_in_flight_and_both_arrive(auto: Automatic) -> None:
    """The next has the nonce after it, and can never be mined without it."""
    chain = auto.funding
    with without_blocks(chain.devnet):
        auto.advise(BOTH)
        await auto.turn()
        chain.mine(1 + CONFIRMATIONS)
        assert "confirmed" in await auto.turn()
        chain.later(1)
        auto.advise(Amounts(ETHER, 0))
        assert "sent" in await auto.turn()
        chain.devnet.rpc("anvil_rollback", 1 + CONFIRMATIONS)
        chain.devnet.rpc("anvil_dropAllTransactions")
        chain.mine()
        for _ in range(3):
            await auto.turn()
            chain.mine(1 + CONFIRMATIONS)
        await auto.turn()
    assert chain.query("SELECT state FROM topup") == [("confirmed",), ("confirmed",)]
    assert chain.escrow() == Amounts(3 * ETHER, ETHER)


async def test_a_cancelled_one_that_is_paid_after_all_is_known_to_be_paid(chain: Funding) -> None:
    """The chain was reorganised below its depth, and took the payment in place of the cancellation."""
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        cancelled = await chain.topups.cancel(topup.id, chain.now)
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CANCELLED
        chain.devnet.rpc("anvil_rollback", 1 + CONFIRMATIONS)
        chain.devnet.rpc("anvil_dropAllTransactions")
        chain.devnet.rpc("eth_sendRawTransaction", f"0x{cancelled.attempts[0].raw.hex()}")
        chain.mine(1 + CONFIRMATIONS)
        await chain.topups.revisit(chain.now)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
    assert await chain.store.day_wei(chain.now) == BOTH.total_wei


async def test_a_displaced_one_that_is_paid_after_all_is_known_to_be_paid(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.devnet.rpc("anvil_dropAllTransactions")
        chain.foreign(nonce=0)
        await chain.pursue()
        chain.mine(CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.DISPLACED
        assert await chain.topups.revisit(chain.now) == 0
        chain.devnet.rpc("anvil_rollback", 1 + CONFIRMATIONS)
        chain.devnet.rpc("anvil_dropAllTransactions")
        with pytest.raises(TopupRefused, match="nonce_behind"):
            await chain.begin(BOTH)
        chain.devnet.rpc("eth_sendRawTransaction", f"0x{topup.newest.raw.hex()}")
        chain.mine(1 + CONFIRMATIONS)
        await chain.topups.revisit(chain.now)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH


# --- a cancellation that comes too late ---


class Meanwhile:
    """Does something once, the moment a point is reached."""

    def __init__(self, at: Point, what: Any) -> None:
        self._at, self._what = at, what

    def reached(self, point: Point) -> None:
        if point is self._at and self._what is not None:
            what, self._what = self._what, None
            what()


async def test_a_cancellation_that_another_process_was_quicker_than_is_made_all_the_same(chain: Funding) -> None:
    """It was signed as the second transaction, and a worker's replacement is the second by now."""
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)

        def replaced() -> None:
            chain.query(
                "SELECT store_topup_transaction(id, 2, 'fund', nonce, sha256('x'), '\\x02', 1, 1, 1, now(), 'worker')"
                " FROM topup"
            )

        slow = chain.other(observer=Meanwhile(Point.SIGNED, replaced))
        cancelled = await slow.topups.cancel(topup.id, chain.now)
    assert cancelled.is_cancelling
    assert cancelled.newest.purpose is Purpose.CANCEL


# --- what waits for ever ---


async def test_endpoints_that_never_agree_what_became_of_it_are_told_of(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.mine(1 + CONFIRMATIONS)
        chain.proxies[0].fault = changed("eth_getTransactionReceipt", lambda _result, _parameters: None)
        assert (await chain.pursue()).trouble is None
        chain.later(STUCK_AFTER_S)
        pursued = await chain.pursue()
        assert pursued.trouble is not None
        assert pursued.trouble.condition is Condition.CHAIN_UNDECIDED
        assert pursued.topup.state is State.SENT


# --- whose escrow ---


async def test_what_was_planned_for_one_contract_is_not_signed_for_another(chain: Funding) -> None:
    await chain.begin(BOTH)
    chain.rewrite("UPDATE topup SET ticket_broker = substr(sha256('x'), 1, 20)")
    pursued = await chain.pursue()
    assert pursued.topup.state is State.ABANDONED
    assert raw_sent(chain) == []


async def test_a_payment_into_an_escrow_that_is_being_unlocked_by_now_is_not_offered_for_more(chain: Funding) -> None:
    chain.devnet.fund(SENDER.address, deposit_wei=1)
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.devnet.rpc("anvil_dropAllTransactions")
        with chain.devnet.acting_as(SENDER.address):
            transaction = {"from": f"0x{SENDER.address.hex()}", "to": broker(chain), "data": "0xa69df4b5"}  # unlock()
            chain.devnet.rpc("eth_sendTransaction", transaction)
        chain.mine()
        chain.later(STUCK_AFTER_S)
        pursued = await chain.pursue()
    assert pursued.trouble is not None
    assert pursued.trouble.condition is Condition.STUCK
    assert "unlocked" in pursued.trouble.message
    assert len(pursued.topup.attempts) == 1


def broker(chain: Funding) -> str:
    return "0x" + bytes(chain.query("SELECT ticket_broker FROM topup")[0][0]).hex()


async def test_money_goes_to_no_escrow_that_the_settings_do_not_name(auto: Automatic) -> None:
    """Coverage is written by the service that signs: whoever has it may not choose where the money goes."""
    del auto.settings["topups"]["sender"]
    auto.advise(BOTH, sender=b"\x0c" * 20)
    await auto.turn()
    assert (await auto.stands()).condition is Condition.SENDER_UNKNOWN
    assert auto.funding.query("SELECT count(*) FROM topup") == [(0,)]
    auto.settings["topups"]["sender"] = f"0x{SENDER.address.hex()}"
    await auto.turn()
    assert (await auto.stands()).condition is Condition.NO_ADVICE
