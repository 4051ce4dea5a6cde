"""Top-ups on a real chain and a real database: paid once, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chain.funding import Amounts
from chain.gas import FeeCaps
from chain.signatures import SigningKey, parse_address
from chain.wallets import ExternalWallet
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.flow import Topups
from settlement.topups.pursuing import Purpose, State
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import changed, hanging, honest
from tests.parts.topups import (
    CAPS,
    CONFIRMATIONS,
    PATIENCE,
    RULES,
    SENDER,
    STUCK_AFTER_S,
    Funding,
    funding,
)
from tests.parts.wallet import ETHER, GWEI, TREASURY, give, without_blocks

BOTH = Amounts(deposit_wei=2 * ETHER, reserve_wei=ETHER)


@pytest.fixture
async def chain(database: str, devnet: Devnet) -> AsyncIterator[Funding]:
    async with funding(database, devnet) as funded:
        yield funded


@pytest.mark.parametrize("key", [TREASURY, SENDER], ids=["by a treasury", "by the sender itself"])
@pytest.mark.parametrize("amounts", [BOTH, Amounts(ETHER, 0), Amounts(0, ETHER)])
async def test_an_escrow_is_funded_and_every_step_is_on_record(
    chain: Funding, key: SigningKey, amounts: Amounts
) -> None:
    chain.key = key
    topup = await chain.send(amounts)
    assert topup.state is State.SENT
    chain.mine(1 + CONFIRMATIONS)
    ended = (await chain.pursue()).topup
    assert ended.state is State.CONFIRMED
    assert chain.escrow() == amounts
    assert await chain.kinds(ended) == ["planned", "signed", "sent", "confirmed"]
    (fee_wei,) = chain.query("SELECT fee_wei FROM topup")[0]
    assert (await chain.standing()).balance_wei == 100 * ETHER - amounts.total_wei - fee_wei


async def test_it_is_confirmed_only_at_its_depth(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.mine(CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.SENT
        chain.mine()
        assert (await chain.pursue()).topup.state is State.CONFIRMED


async def test_one_that_is_stuck_is_replaced_by_one_with_higher_fees_and_paid_once(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
        chain.mine()  # too dear for it
        chain.later(STUCK_AFTER_S - 1)
        assert len((await chain.pursue()).topup.attempts) == 1
        chain.later(1)
        stuck = (await chain.pursue()).topup
        first, second = stuck.attempts
        assert 8 * second.fees.max_per_gas_wei >= 9 * first.fees.max_per_gas_wei
        assert second.fees.max_per_gas_wei > 20 * GWEI
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
    assert await chain.kinds(stuck) == ["planned", "signed", "sent", "replacement_signed", "sent", "confirmed"]


async def test_one_that_is_stuck_at_the_cap_is_kept_alive_and_told_of(chain: Funding) -> None:
    chain.caps = CAPS._replace(max_per_gas_wei=5 * GWEI, priority_max_per_gas_wei=GWEI)
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
        chain.mine()
        chain.later(STUCK_AFTER_S)
        chain.devnet.rpc("anvil_dropTransaction", f"0x{topup.newest.hash.hex()}")
        chain.proxies[0].requests.clear()
        pursued = await chain.pursue()
        assert pursued.trouble is not None
        assert pursued.trouble.condition is Condition.STUCK
        assert len(pursued.topup.attempts) == 1
        asked = [call["params"] for batch in chain.proxies[0].requests for call in batch if "Raw" in call["method"]]
        assert asked == [[f"0x{topup.newest.raw.hex()}"]]


async def test_one_that_was_dropped_is_sent_again(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.devnet.rpc("anvil_dropTransaction", f"0x{topup.newest.hash.hex()}")
        assert (await chain.pursue()).topup.attempts == topup.attempts
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
    assert await chain.kinds(topup) == ["planned", "signed", "sent", "sent_again", "confirmed"]


async def test_one_that_a_reorganisation_took_out_is_sent_again_and_arrives_once(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.mine(2)
        assert (await chain.pursue()).topup.state is State.SENT
        assert chain.escrow() == BOTH
        chain.devnet.rpc("anvil_rollback", 2)
        assert chain.escrow() == Amounts(0, 0)
        chain.mine()
        await chain.pursue()
        chain.mine(1 + CONFIRMATIONS)
        ended = (await chain.pursue()).topup
    assert ended.state is State.CONFIRMED
    assert [attempt.hash for attempt in ended.attempts] == [topup.newest.hash]
    assert chain.escrow() == BOTH


async def test_one_that_was_confirmed_and_is_gone_all_the_same_is_sent_again_and_arrives_once(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.mine(1 + CONFIRMATIONS)
        topup = (await chain.pursue()).topup
        assert await chain.topups.revisit(chain.now) == 0
        chain.devnet.rpc("anvil_rollback", 1 + CONFIRMATIONS)
        chain.mine()
        with pytest.raises(TopupRefused) as refused:
            await chain.begin(BOTH)  # the wallet's nonce is behind our record
        assert refused.value.condition in {Condition.NONCE_BEHIND, Condition.WALLET_BUSY}
        for _ in range(2):
            await chain.topups.revisit(chain.now)
            await chain.topups.pursue(chain.now)
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
    assert "reorganised" in await chain.kinds(topup)


async def test_a_transaction_of_somebody_else_that_took_the_nonce_is_noticed_and_another_is_planned(
    chain: Funding,
) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.devnet.rpc("anvil_dropTransaction", f"0x{topup.newest.hash.hex()}")
        chain.foreign(nonce=0)
        assert (await chain.pursue()).topup.state is State.SENT
        chain.mine(CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.DISPLACED
        assert await chain.kinds(topup) == ["planned", "signed", "sent", "nonce_taken", "displaced"]
        again = await chain.send(BOTH)
        assert again.nonce == 1
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH


async def test_a_nonce_that_is_free_again_after_a_reorganisation_is_used_after_all(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.devnet.rpc("anvil_dropTransaction", f"0x{topup.newest.hash.hex()}")
        chain.foreign(nonce=0)
        await chain.pursue()
        chain.devnet.rpc("anvil_rollback", 1)
        chain.devnet.rpc("anvil_dropAllTransactions")
        chain.mine()
        await chain.pursue()
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
    assert "nonce_free_again" in await chain.kinds(topup)


async def test_nothing_is_planned_while_the_wallet_has_transactions_that_are_not_ours(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        for table in ("topup_event", "topup_transaction", "topup"):  # as if it had been sent by hand
            chain.rewrite(f"DELETE FROM {table}")
        with pytest.raises(TopupRefused) as refused:
            await chain.begin(BOTH)
    assert refused.value.condition is Condition.WALLET_BUSY


async def test_endpoints_that_disagree_mean_that_nothing_is_sent(chain: Funding) -> None:
    chain.proxies[0].fault = changed("eth_getBalance", lambda _result, _parameters: hex(ETHER))
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(BOTH)
    assert refused.value.condition is Condition.CHAIN_UNDECIDED
    assert chain.query("SELECT count(*) FROM topup") == [(0,)]


async def test_endpoints_that_disagree_after_it_was_planned_leave_it_unsigned_until_it_is_too_late(
    chain: Funding,
) -> None:
    topup = await chain.begin(BOTH)
    chain.proxies[0].fault = changed("eth_getBalance", lambda _result, _parameters: hex(ETHER))
    pursued = await chain.pursue()
    assert pursued.trouble is not None
    assert pursued.trouble.condition is Condition.CHAIN_UNDECIDED
    assert pursued.topup.state is State.PLANNED
    chain.later(121)
    assert (await chain.pursue()).topup.state is State.ABANDONED
    assert await chain.kinds(topup) == ["planned", "abandoned"]


async def test_an_endpoint_that_hangs_does_not_keep_a_transaction_from_the_others(
    database: str, devnet: Devnet
) -> None:
    async with funding(database, devnet, endpoints=3) as chain:
        chain.proxies[0].fault = hanging()
        await chain.send(BOTH)
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED


async def test_two_workers_that_race_send_one_transaction(chain: Funding) -> None:
    others = [chain.other() for _ in range(4)]
    outcomes = await asyncio.gather(*(each.begin(BOTH) for each in others[:1]), return_exceptions=True)
    outcomes += await asyncio.gather(*(chain.begin(BOTH) for _ in range(3)), return_exceptions=True)
    refusals = [each for each in outcomes if isinstance(each, TopupRefused)]
    assert {each.condition for each in refusals} == {Condition.IN_FLIGHT}
    assert len(refusals) == len(outcomes) - 1
    await asyncio.gather(*(chain.topups.pursue(chain.now) for _ in range(4)), return_exceptions=True)
    chain.mine(1 + CONFIRMATIONS)
    assert (await chain.pursue()).topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
    assert chain.query("SELECT count(*) FROM topup_transaction") == [(1,)]


async def test_a_worker_that_slept_while_another_topped_up_plans_nothing(chain: Funding) -> None:
    standing = await chain.standing()
    slow = await chain.topups.plan_named(SENDER.address, BOTH, standing, chain.now)
    await chain.send(BOTH)
    chain.mine(1 + CONFIRMATIONS)
    assert (await chain.pursue()).topup.state is State.CONFIRMED
    with pytest.raises(TopupRefused) as refused:
        await chain.topups.begin(slow, chain.now, reason="slow")
    assert refused.value.condition is Condition.ESCROW_CHANGED


async def test_a_plan_is_dropped_where_the_escrow_was_funded_meanwhile(chain: Funding) -> None:
    topup = await chain.begin(BOTH)
    chain.devnet.fund(SENDER.address, deposit_wei=1)
    pursued = await chain.pursue()
    assert pursued.topup.state is State.ABANDONED
    assert pursued.topup.id == topup.id
    assert chain.escrow() == Amounts(1, 0)


@pytest.mark.parametrize(
    ("amounts", "condition"),
    [
        (Amounts(5 * ETHER, 1), Condition.TRANSACTION_CAP),
        (Amounts(0, 0), Condition.NOTHING_DUE),
    ],
)
async def test_no_transaction_passes_the_cap(chain: Funding, amounts: Amounts, condition: Condition) -> None:
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(amounts)
    assert refused.value.condition is condition


async def test_no_day_passes_the_cap_and_the_next_day_has_its_own(chain: Funding) -> None:
    for _ in range(2):
        await chain.send(Amounts(4 * ETHER, 0))
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CONFIRMED
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(Amounts(ETHER // 10, 0))
    assert refused.value.condition is Condition.DAY_CAP
    chain.later(24 * 3600 + 1)
    await chain.begin(Amounts(ETHER // 10, 0))


async def test_two_that_were_allowed_each_are_not_allowed_together(chain: Funding) -> None:
    """The cap is judged again where it is written: a slow worker's plan may be of before another's top-up."""
    standing = await chain.standing()
    planned = await chain.topups.plan_named(SENDER.address, Amounts(5 * ETHER, 0), standing, chain.now)
    await chain.send(Amounts(4 * ETHER, 0))
    chain.mine(1 + CONFIRMATIONS)
    await chain.pursue()
    late = planned._replace(standing=await chain.standing())
    with pytest.raises(TopupRefused) as refused:
        await chain.topups.begin(late, chain.now, reason="late")
    assert refused.value.condition is Condition.DAY_CAP


async def test_a_wallet_without_money_is_told_by_how_much_it_is_short(chain: Funding) -> None:
    give(chain.devnet, TREASURY.address, ETHER)
    chain.mine()
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(BOTH)
    assert refused.value.condition is Condition.WALLET_SHORT
    assert "2 ETH are missing" in refused.value.message
    give(chain.devnet, TREASURY.address, 3 * ETHER)  # the amounts, and nothing for gas
    chain.mine()
    with pytest.raises(TopupRefused, match="with gas 3"):
        await chain.begin(BOTH)


async def test_gas_that_is_too_dear_is_waited_for(chain: Funding) -> None:
    chain.devnet.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))  # it falls by an eighth with every empty block
    chain.mine()
    chain.caps = FeeCaps(GWEI // 10**6, GWEI // 10**6, 0, 10**6)
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(BOTH)
    assert refused.value.condition is Condition.FEES_TOO_HIGH


async def test_an_escrow_that_is_being_unlocked_is_not_funded(chain: Funding) -> None:
    chain.devnet.fund(SENDER.address, deposit_wei=1)
    with chain.devnet.acting_as(SENDER.address):
        chain.devnet.send("TicketBroker", "unlock()", sender=SENDER.address)
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(BOTH)
    assert refused.value.condition is Condition.UNLOCKED


async def test_what_the_contract_would_refuse_is_not_sent(chain: Funding) -> None:
    for proxy in chain.proxies:
        proxy.fault = one_call_fails("eth_estimateGas")
    with pytest.raises(TopupRefused) as refused:
        await chain.begin(BOTH)
    assert refused.value.condition is Condition.REFUSED_BY_CONTRACT


def one_call_fails(method: str) -> Any:
    async def fault(calls: list[dict[str, Any]], ask: Any) -> Any:
        reply = await honest(calls, ask)
        import json

        answers = json.loads(reply.body)
        methods = {call["id"]: call["method"] for call in calls}
        for answer in answers:
            if methods[answer["id"]] == method:
                answer.pop("result", None)
                answer["error"] = {"code": 3, "message": "execution reverted"}
        return type(reply)(200, json.dumps(answers).encode())

    return fault


async def test_one_that_was_cancelled_pays_nothing(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        cancelled = await chain.topups.cancel(topup.id, chain.now)
        assert [attempt.purpose for attempt in cancelled.attempts] == [Purpose.FUND, Purpose.CANCEL]
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CANCELLED
    assert chain.escrow() == Amounts(0, 0)
    assert (await chain.standing()).nonce == 1


async def test_one_that_is_in_a_block_cannot_be_cancelled(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        chain.mine()
        with pytest.raises(TopupRefused, match="in a block"):
            await chain.topups.cancel(topup.id, chain.now)


async def test_one_that_is_planned_is_forgotten_without_a_transaction(chain: Funding) -> None:
    topup = await chain.begin(BOTH)
    assert (await chain.topups.cancel(topup.id, chain.now)).state is State.ABANDONED
    with pytest.raises(TopupRefused, match="abandoned") as refused:
        await chain.topups.cancel(topup.id, chain.now)
    assert refused.value.condition is Condition.ENDED
    assert "amounts" not in refused.value.what_next
    assert (await chain.standing()).pending_nonce == 0


async def test_after_a_cancellation_the_payment_is_not_sent_again(chain: Funding) -> None:
    """Also where the nodes have lost the cancellation: it is the one that is kept alive."""
    with without_blocks(chain.devnet):
        topup = await chain.send(BOTH)
        await chain.topups.cancel(topup.id, chain.now)
        chain.devnet.rpc("anvil_dropAllTransactions")
        chain.later(STUCK_AFTER_S)
        pursued = await chain.pursue()
        assert [attempt.purpose for attempt in pursued.topup.attempts][1:] == [Purpose.CANCEL] * 2
        chain.mine(1 + CONFIRMATIONS)
        assert (await chain.pursue()).topup.state is State.CANCELLED
    assert chain.escrow() == Amounts(0, 0)


async def test_another_wallet_does_not_replace_what_it_did_not_sign(chain: Funding) -> None:
    with without_blocks(chain.devnet):
        await chain.send(BOTH)
        chain.later(STUCK_AFTER_S)
        pursued = await chain.other(key=SENDER).pursue()
    assert pursued.trouble is not None
    assert pursued.trouble.condition is Condition.STUCK
    assert len(pursued.topup.attempts) == 1


async def test_the_rules_of_the_database_hold_for_whoever_writes(chain: Funding) -> None:
    """The signing role sees nothing of it, and the worker's changes nothing past the functions."""
    import psycopg

    from clearinghouse.database.connect import SERVE_ROLE, WORK_ROLE, in_role

    await chain.send(BOTH)
    statements = {
        WORK_ROLE: ["UPDATE topup SET deposit_wei = 0", "DELETE FROM topup_event", "DELETE FROM topup_transaction",
                    "INSERT INTO topup_event (at, kind, actor) VALUES (now(), 'x', 'x')"],
        SERVE_ROLE: ["SELECT * FROM topup", "SELECT raw FROM topup_transaction", "SELECT topup_day_wei(now())"],
    }  # fmt: skip
    for role, forbidden in statements.items():
        with psycopg.connect(in_role(chain.database, role), autocommit=True) as connection:
            for statement in forbidden:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_a_signer_elsewhere_pays_and_its_refusal_is_told(chain: Funding) -> None:
    """The node's own account: its key is nowhere but there."""
    address = parse_address(chain.devnet.rpc("eth_accounts")[1])

    def topups(url: str) -> Topups:
        wallet = ExternalWallet(address, url, method="eth_signTransaction", timeout_s=5)
        return Topups(chain.store, chain.way.chain, wallet, rules=RULES, caps=CAPS, patience=PATIENCE)

    away, there = topups("http://127.0.0.1:9"), topups(chain.devnet.url)
    planned = await there.plan_named(SENDER.address, BOTH, await there.standing(SENDER.address), chain.now)
    await there.begin(planned, chain.now, reason="a test")
    pursued = await away.pursue(chain.now)
    assert pursued is not None
    assert pursued.trouble is not None
    assert pursued.trouble.condition is Condition.WALLET_FAILED
    assert pursued.topup.state is State.PLANNED
    await there.pursue(chain.now)
    chain.mine(1 + CONFIRMATIONS)
    ended = await there.pursue(chain.now)
    assert ended is not None
    assert ended.topup.state is State.CONFIRMED
    assert chain.escrow() == BOTH
