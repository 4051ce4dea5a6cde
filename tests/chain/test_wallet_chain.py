"""A wallet's transactions on a real chain: read by a quorum, simulated, sent everywhere, followed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from chain import abi
from chain.funding import Amounts, funding_call
from chain.quorum import Disagreement, TooFewAnswers
from chain.signatures import SigningKey, keccak
from chain.transactions import Fees, SignedTransaction, Transaction, sign
from chain.wallet_chain import Fate, SimulationRefused, WalletReading
from tests.parts.devnet import DEV_CHAIN_ID, Devnet
from tests.parts.devnet.fault_proxy import changed, hanging
from tests.parts.wallet import ETHER, GWEI, TREASURY, WayToChain, give, quiet_afterwards, way_to_chain, without_blocks

SENDER = SigningKey(keccak(b"a sender that is topped up"))


@pytest.fixture
async def way(devnet: Devnet) -> AsyncIterator[WayToChain]:
    give(devnet, TREASURY.address, 100 * ETHER)
    give(devnet, SENDER.address, 100 * ETHER)
    devnet.mine()
    with quiet_afterwards(devnet):
        async with way_to_chain(devnet) as way:
            yield way


async def funding(way: WayToChain, key: SigningKey, amounts: Amounts, *, nonce: int | None = None) -> SignedTransaction:
    standing = await way.chain.standing(key.address, SENDER.address)
    data = funding_call(key.address, SENDER.address, amounts)
    gas = await way.chain.simulate(key.address, standing.ticket_broker, amounts.total_wei, data, standing.block)
    transaction = Transaction(
        DEV_CHAIN_ID, standing.nonce if nonce is None else nonce, standing.ticket_broker, amounts.total_wei, data,
        gas * 5 // 4, Fees(20 * GWEI, GWEI),
    )  # fmt: skip
    return sign(transaction, key)


async def standing_of(way: WayToChain, key: SigningKey = TREASURY) -> WalletReading:
    return await way.chain.standing(key.address, SENDER.address)


@pytest.mark.parametrize("key", [TREASURY, SENDER], ids=["by the treasury", "by its owner"])
@pytest.mark.parametrize("amounts", [Amounts(3 * ETHER, 0), Amounts(0, 2 * ETHER), Amounts(ETHER, 2 * ETHER)])
async def test_an_escrow_is_funded_by_its_owner_and_by_anybody_else(
    way: WayToChain, devnet: Devnet, key: SigningKey, amounts: Amounts
) -> None:
    signed = await funding(way, key, amounts)
    assert "taken" in (await way.chain.send(signed.raw)).answers.values()
    devnet.mine()
    followed = await way.chain.follow(key.address, signed.transaction.nonce, [signed.hash])
    assert followed.fate is Fate.MINED
    assert followed.mined is not None
    assert followed.mined.has_succeeded
    standing = await standing_of(way, key)
    assert (standing.deposit_wei, standing.reserve_wei) == amounts
    assert standing.nonce == standing.pending_nonce == 1
    assert standing.balance_wei == 100 * ETHER - amounts.total_wei - followed.mined.fee_wei


async def test_the_same_bytes_sent_again_and_everywhere_pay_once(way: WayToChain, devnet: Devnet) -> None:
    signed = await funding(way, TREASURY, Amounts(ETHER, 0))
    for _ in range(3):
        await way.chain.send(signed.raw)
        devnet.mine()
    assert (await standing_of(way)).deposit_wei == ETHER


async def test_what_waits_is_seen_as_pending_and_what_was_dropped_as_unknown(way: WayToChain, devnet: Devnet) -> None:
    signed = await funding(way, TREASURY, Amounts(ETHER, 0))
    with without_blocks(devnet):
        await way.chain.send(signed.raw)
        assert (await way.chain.follow(TREASURY.address, 0, [signed.hash])).fate is Fate.PENDING
        standing = await way.chain.standing(TREASURY.address, SENDER.address)
        assert (standing.nonce, standing.pending_nonce) == (0, 1)
        devnet.rpc("anvil_dropTransaction", f"0x{signed.hash.hex()}")
        assert (await way.chain.follow(TREASURY.address, 0, [signed.hash])).fate is Fate.UNKNOWN


async def test_a_nonce_that_another_transaction_took_is_noticed(way: WayToChain, devnet: Devnet) -> None:
    ours = await funding(way, TREASURY, Amounts(ETHER, 0))
    foreign = sign(Transaction(DEV_CHAIN_ID, 0, b"\x0b" * 20, 1, b"", 21_000, Fees(20 * GWEI, GWEI)), TREASURY)
    await way.chain.send(foreign.raw)
    devnet.mine()
    assert (await way.chain.follow(TREASURY.address, 0, [ours.hash])).fate is Fate.OVERTAKEN
    assert (await way.chain.follow(TREASURY.address, 0, [ours.hash, foreign.hash])).fate is Fate.MINED


async def test_a_receipt_that_one_endpoint_does_not_have_yet_decides_nothing(way: WayToChain, devnet: Devnet) -> None:
    signed = await funding(way, TREASURY, Amounts(ETHER, 0))
    await way.chain.send(signed.raw)
    devnet.mine()
    way.proxies[1].fault = changed("eth_getTransactionReceipt", lambda _result, _parameters: None)
    assert (await way.chain.follow(TREASURY.address, 0, [signed.hash])).fate is Fate.UNDECIDED


async def test_endpoints_that_tell_two_outcomes_of_one_transaction_decide_nothing(
    way: WayToChain, devnet: Devnet
) -> None:
    def failed(receipt: Any, _parameters: list[Any]) -> Any:
        return {**receipt, "status": "0x0"}

    signed = await funding(way, TREASURY, Amounts(ETHER, 0))
    await way.chain.send(signed.raw)
    devnet.mine()
    way.proxies[0].fault = changed("eth_getTransactionReceipt", failed)
    with pytest.raises(Disagreement, match=r"rpc-1, rpc-2|rpc-2, rpc-1"):
        await way.chain.follow(TREASURY.address, 0, [signed.hash])


@pytest.mark.parametrize("method", ["eth_getBalance", "eth_call", "eth_getTransactionCount"])
async def test_endpoints_that_disagree_about_the_wallet_or_the_escrow_decide_nothing(
    way: WayToChain, method: str
) -> None:
    way.proxies[0].fault = changed(method, lambda result, _: f"{result[:-1]}{'1' if result[-1] != '1' else '2'}")
    with pytest.raises((Disagreement, TooFewAnswers)):
        await way.chain.standing(TREASURY.address, SENDER.address)


async def test_a_transaction_goes_to_every_endpoint_and_one_that_hangs_does_not_stop_it(
    way: WayToChain, devnet: Devnet
) -> None:
    signed = await funding(way, TREASURY, Amounts(ETHER, 0))
    way.proxies[0].fault = hanging()
    sent = await way.chain.send(signed.raw)
    assert sent.answers == {"rpc-1": "timed_out", "rpc-2": "taken"}


async def test_what_the_contract_would_refuse_is_known_before_it_is_sent(way: WayToChain) -> None:
    standing = await way.chain.standing(TREASURY.address, SENDER.address)
    data = funding_call(TREASURY.address, SENDER.address, Amounts(ETHER, 0))
    for value_wei in (2 * ETHER, 0, 1000 * ETHER):  # not the sum, and more than the wallet has
        with pytest.raises(SimulationRefused):
            await way.chain.simulate(TREASURY.address, standing.ticket_broker, value_wei, data, standing.block)


async def test_endpoints_that_disagree_about_a_simulation_decide_nothing(way: WayToChain) -> None:
    standing = await way.chain.standing(TREASURY.address, SENDER.address)
    data = funding_call(TREASURY.address, SENDER.address, Amounts(ETHER, 0))
    way.proxies[1].fault = changed("eth_call", lambda _result, _parameters: "0x01")
    with pytest.raises(Disagreement):
        await way.chain.simulate(TREASURY.address, standing.ticket_broker, ETHER, data, standing.block)


async def test_the_gas_is_estimated_at_the_block_that_was_agreed_on(way: WayToChain) -> None:
    standing = await way.chain.standing(TREASURY.address, SENDER.address)
    data = funding_call(TREASURY.address, SENDER.address, Amounts(ETHER, 0))
    for proxy in way.proxies:
        proxy.requests.clear()
    way.proxies[0].fault = changed("eth_estimateGas", lambda _result, _parameters: hex(777_777))
    gas = await way.chain.simulate(TREASURY.address, standing.ticket_broker, ETHER, data, standing.block)
    assert gas == 777_777  # the most that one says
    calls = {call["method"]: call["params"] for call in way.proxies[0].requests[-1]}
    assert calls["eth_call"][1] == {"blockHash": f"0x{standing.block.hash.hex()}"}
    assert calls["eth_estimateGas"][1] == hex(standing.block.number)


def test_funding_calls_are_those_of_the_published_contract() -> None:
    """Selectors of the remote-signer protocol, section 8.2."""
    both, deposit, reserve = Amounts(1, 2), Amounts(1, 0), Amounts(0, 2)
    me, other = b"\x01" * 20, b"\x02" * 20
    calls = [funding_call(me, me, each)[:4].hex() for each in (deposit, reserve, both)]
    assert calls == ["6caa736b", "6f9c3c8f", "511f4073"]
    assert funding_call(other, me, deposit) == abi.calldata(bytes.fromhex("989f789c"), me, 1, 0)
