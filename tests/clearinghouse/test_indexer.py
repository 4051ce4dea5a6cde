"""The chain's events in the database: from a real node, over ways that break, across reorganisations and deaths."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.quorum import Disagreement, NoDecision
from chain.signatures import keccak
from clearinghouse.chain_store import ChainStore
from clearinghouse.database.connect import SERVE_ROLE
from clearinghouse.indexer import ChainReplaced, IndexWatch, Turn
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import Fault, after_requests, changed, half_a_batch, honest, stale_head, status
from tests.parts.indexed import (
    ETHER,
    FACE_VALUE_WEI,
    ORCHESTRATOR,
    SENDER,
    Indexed,
    indexed,
    issued,
    prepared,
    ticket,
)  # fmt: skip

Owner = psycopg.Connection[tuple[Any, ...]]


async def test_redeemed_tickets_of_our_issuing_are_matched_with_their_issuance(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Owner
) -> None:
    prepared(devnet)
    call = await issued(admin, owner, count=3)
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(1))
        chain.redeem(ticket(3))
        await chain.catch_up()
        assert chain.redeemed() == [(1, "matched"), (3, "matched")]
        assert chain.heard.matched == {"matched": 2}
        found = chain.query("SELECT gateway_id, issuance_id FROM winning_ticket")
        assert found == [(call.gateway_id, call.issuance_id)] * 2


async def test_a_redeemed_ticket_leaves_the_book_of_open_tickets_and_is_back_after_a_reorganisation(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Owner
) -> None:
    prepared(devnet)
    await issued(admin, owner, count=3)
    async with indexed(database, devnet) as chain:
        await chain.catch_up()
        chain.redeem(ticket(2))
        await chain.catch_up()
        assert in_the_book(chain) == 2
        devnet.rpc("anvil_reorg", 1, [])
        devnet.mine()
        await chain.catch_up()
        await chain.catch_up()
        assert chain.heard.reorganisations == 1
        assert (chain.redeemed(), in_the_book(chain)) == ([], 3)
        chain.redeem(ticket(2))
        await chain.catch_up()
        assert (chain.redeemed(), in_the_book(chain)) == ([(2, "matched")], 2)


def in_the_book(chain: Indexed) -> int:
    assert chain.query("SELECT * FROM exposure_difference()") == []
    return int(chain.query("SELECT sum(num_tickets) FROM exposure_book")[0][0])


async def test_a_redemption_that_was_not_issued_as_it_is_is_found(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Owner
) -> None:
    prepared(devnet)
    await issued(admin, owner, count=2)
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(3))
        chain.redeem(ticket(2, face_value_wei=FACE_VALUE_WEI + 1))
        chain.redeem(replace(ticket(1), recipient_rand_hash=keccak((78).to_bytes(32, "big"))), rand=78)
        await chain.catch_up()
        assert chain.redeemed() == [(3, "foreign"), (2, "altered"), (1, "foreign")]
        assert chain.heard.foreign == 3


async def test_what_the_webhook_approved_is_matched_by_rand_and_nonce(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Owner
) -> None:
    prepared(devnet)
    await issued(admin, owner, count=2, approved=b"states")
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(2, face_value_wei=5))
        await chain.catch_up()
        assert chain.redeemed() == [(2, "matched")]


async def test_everything_that_happens_to_an_escrow_is_recorded(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(1, face_value_wei=2 * ETHER + 5))
        with devnet.acting_as(SENDER.address):
            devnet.send("TicketBroker", "unlock()", sender=SENDER.address)
            devnet.send("TicketBroker", "cancelUnlock()", sender=SENDER.address)
        devnet.withdraw_everything(SENDER.address)
        await chain.catch_up()
        rows = chain.query(
            "SELECT kind, amount_wei, reserve_wei, party FROM escrow_event ORDER BY block_number, log_index"
        )
        kinds = [kind for kind, *_ in rows]
        assert sorted(kinds[:2]) == ["deposit_funded", "reserve_funded"]
        assert sorted(kinds[2:4]) == ["reserve_claimed", "ticket_paid"]
        assert kinds[4:] == ["unlock", "unlock_cancelled", "unlock", "withdrawal"]
        assert {(row[1], row[3]) for row in rows[2:4]} == {(5, ORCHESTRATOR), (2 * ETHER + 5, ORCHESTRATOR)}
        assert rows[-1][1:3] == (0, 4 * ETHER - 5)
        assert [int(r) for (r,) in chain.query("SELECT round FROM protocol_round ORDER BY 1")] == [
            3500,
            3501,
            3502,
            3503,
        ]


async def test_winners_that_the_deposit_cannot_pay_are_matched_and_their_claims_recorded(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Owner
) -> None:
    devnet.join(ORCHESTRATOR, b"\x0b" * 20)
    devnet.next_round()
    devnet.fund(SENDER.address, deposit_wei=5 * FACE_VALUE_WEI // 2, reserve_wei=4 * FACE_VALUE_WEI)
    await issued(admin, owner, count=7)
    async with indexed(database, devnet) as chain:
        for nonce in range(1, 7):  # two of the deposit, one of both, and the share of one of two orchestrators
            chain.redeem(ticket(nonce))
        await chain.catch_up()
        assert chain.redeemed() == [(nonce, "matched") for nonce in range(1, 7)]

        def amounts(kind: str) -> list[int]:
            query = f"SELECT amount_wei FROM escrow_event WHERE kind = '{kind}' ORDER BY block_number"
            return [int(2 * amount / FACE_VALUE_WEI) for (amount,) in chain.query(query)]

        assert amounts("ticket_paid") == [2, 2, 2, 2, 1], "in halves; the sixth was redeemed and got nothing"
        assert amounts("reserve_claimed") == [1, 2, 1]
        assert chain.query("SELECT sum(num_tickets)::bigint FROM exposure_book") == [(1,)]


async def test_a_reorganisation_is_undone_and_read_again(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet) as chain:
        await chain.catch_up()
        chain.redeem(ticket(1))
        await chain.catch_up()
        assert chain.redeemed() == [(1, "foreign")]
        ((redeemed_at,),) = chain.query("SELECT block_number FROM winning_ticket")
        devnet.rpc("anvil_reorg", int(devnet.rpc("eth_blockNumber"), 16) - redeemed_at + 1, [])
        chain.redeem(ticket(2))
        await chain.catch_up()
        await chain.catch_up()
        rows = [(int(n),) for (n,) in chain.query("SELECT sender_nonce FROM winning_ticket")]
        assert rows == [(2,)]
        assert chain.heard.reorganisations >= 1
        for number, hash_ in chain.query("SELECT number, hash FROM chain_block"):
            assert devnet.rpc("eth_getBlockByNumber", hex(number), False)["hash"] == "0x" + hash_.hex()


async def test_a_chain_that_is_another_one_below_what_was_confirmed_undoes_nothing(
    database: str, devnet: Devnet
) -> None:
    prepared(devnet)
    async with indexed(database, devnet, confirmations=0) as chain:
        chain.redeem(ticket(1))
        await chain.catch_up()
        before = chain.recorded()
        devnet.rpc("anvil_reorg", 5, [])
        devnet.mine()
        with pytest.raises(ChainReplaced, match="nothing is"):
            await chain.turns(5)
        assert chain.recorded() == before
        await chain.indexer.begin_at(1)
        await chain.catch_up()
        assert chain.redeemed() == []


async def test_a_killed_indexer_is_followed_by_one_that_goes_on_where_it_was(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet, width=3) as chain, indexed(database, devnet, width=10_000) as second:
        chain.redeem(ticket(1))
        for _ in range(2):
            await chain.indexer.turn()
        at = chain.at()
        assert await second.indexer.turn() is Turn.STANDING_BY
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clearinghouse-indexer'"
        chain.query(kill)
        with pytest.raises(psycopg.OperationalError):
            await chain.indexer.turn()
        with pytest.raises(psycopg.OperationalError):
            await second.indexer.turn()
        await second.catch_up()
        first_ask = next(c for batch in second.proxies[0].requests for c in batch if c["method"] == "eth_getLogs")
        assert int(first_ask["params"][0]["fromBlock"], 16) == at + 1
        assert second.redeemed() == [(1, "foreign")]


async def test_two_indexers_at_once_record_everything_once(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet, width=2) as first, indexed(database, devnet, width=3) as second:
        watches = [IndexWatch(each.indexer, poll_s=0.05) for each in (first, second)]
        for watch in watches:
            watch.start()
        for nonce in (1, 2, 3):
            first.redeem(ticket(nonce))
        wanted = int(devnet.rpc("eth_blockNumber"), 16)
        async with asyncio.timeout(60):
            while first.at() < wanted:
                await asyncio.sleep(0.05)
        for watch in watches:
            await watch.stop()
        assert [nonce for nonce, _ in first.redeemed()] == [1, 2, 3]


async def test_a_range_is_recorded_only_from_where_the_reader_stands(database: str, devnet: Devnet) -> None:
    """Also by a process that believes to lead and does not."""
    prepared(devnet)
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(1))
        await chain.catch_up()
        store = await ChainStore.connected(database, role=SERVE_ROLE)
        try:
            (begin,) = await chain.reader.points([1])
            said = await chain.reader.read(1, chain.at(), [SENDER.address])
            assert len(said.events) > 1
            assert not await store.record(begin, said, confirmed_number=0)
        finally:
            await store.close()
        assert len(chain.redeemed()) == 1


def fewer(logs: list[Any], _parameters: list[Any]) -> list[Any]:
    return logs[:-1]


def more_worth(logs: list[Any], _parameters: list[Any]) -> list[Any]:
    return [{**log, "data": log["data"][:-1] + "7"} for log in logs]


@pytest.mark.parametrize("lie", [fewer, more_worth])
async def test_a_liar_about_logs_makes_nothing_known(database: str, devnet: Devnet, lie: Any) -> None:
    prepared(devnet)
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(1))
        chain.proxies[1].fault = changed("eth_getLogs", lie)
        with pytest.raises(Disagreement):
            await chain.catch_up()
        assert chain.recorded() == [[], [], []]
        assert chain.heard.disagreements == 1
        chain.proxies[1].fault = honest
        await chain.catch_up()
        assert len(chain.redeemed()) == 1


FAULTS: dict[str, Fault] = {
    "429": status(429, ("Retry-After", "1")),
    "half a batch": half_a_batch(),
    "taken back": changed("eth_getLogs", lambda logs, _: [{**log, "removed": True} for log in logs]),
    "of another block": changed("eth_getLogs", lambda logs, _: [{**log, "blockNumber": "0x1"} for log in logs]),
    "no list": changed("eth_getLogs", lambda _logs, _parameters: "0x"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_endpoint_that_fails_is_replaced_by_another(database: str, devnet: Devnet, name: str) -> None:
    prepared(devnet)
    async with indexed(database, devnet, endpoints=3) as chain:
        chain.redeem(ticket(1))
        chain.proxies[1].fault = FAULTS[name]
        await chain.catch_up()
        assert len(chain.redeemed()) == 1


async def test_without_a_quorum_nothing_is_recorded_and_afterwards_nothing_is_missing(
    database: str, devnet: Devnet
) -> None:
    prepared(devnet)
    old = devnet.rpc("eth_getBlockByNumber", "latest", False)
    async with indexed(database, devnet, width=4) as chain:
        chain.redeem(ticket(1))
        chain.proxies[0].fault = after_requests(4, status(503))
        with pytest.raises(NoDecision):
            await chain.catch_up()
        chain.redeem(ticket(2))
        chain.proxies[0].fault = stale_head(old)
        async with asyncio.timeout(60):
            while chain.at() < int(old["number"], 16):
                try:
                    await chain.indexer.turn()
                except NoDecision:
                    await asyncio.sleep(0.1)
        at = chain.at()
        await chain.turns(3)
        assert chain.at() == at, "an endpoint that is behind makes the reader wait, not go back"
        chain.proxies[0].fault = honest
        await chain.catch_up()
        assert [nonce for nonce, _ in chain.redeemed()] == [1, 2]


def refusing_more_than(count: int) -> Fault:
    """As providers do: an error for the member whose range is too wide."""

    async def fault(calls: Any, ask: Any) -> Any:
        from tests.parts.devnet.fault_proxy import _json

        answers = await ask()
        for call, answer in zip(calls, answers, strict=True):
            if call["method"] == "eth_getLogs":
                span = call["params"][0]
                if int(span["toBlock"], 16) - int(span["fromBlock"], 16) + 1 > count:
                    answer.pop("result", None)
                    answer["error"] = {"code": -32602, "message": "block range is too wide"}
        return _json(answers)

    return fault


async def test_ranges_shrink_as_far_as_an_endpoint_wants(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet, width=10_000) as chain:
        chain.redeem(ticket(1))
        chain.proxies[0].fault = refusing_more_than(3)
        await chain.catch_up()
        assert len(chain.redeemed()) == 1
        chain.proxies[0].fault = refusing_more_than(0)
        devnet.mine()
        with pytest.raises(NoDecision, match="alone are refused"):
            await chain.turns(3)


async def test_a_steady_poll_is_one_request_to_each_endpoint_of_the_quorum(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet) as chain:
        await chain.catch_up()
        devnet.mine()
        await chain.indexer.turn()
        before = [len(proxy.requests) for proxy in chain.proxies]
        for _ in range(3):
            devnet.mine()
            await chain.indexer.turn()
        assert [len(proxy.requests) for proxy in chain.proxies] == [count + 3 for count in before]


async def test_any_widths_of_ranges_give_the_same_rows(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet) as chain:
        for nonce in range(1, 5):
            chain.redeem(ticket(nonce))
        devnet.fund(SENDER.address, deposit_wei=7)
        await chain.catch_up()
        last = chain.recorded()[1][-1][0]

        def rows() -> list[list[tuple[Any, ...]]]:
            return [[row for row in table if row[0] <= last] for table in chain.recorded()]

        whole = rows()
        for width in (1, 2, 5, 7):
            chain.reader.width.max_count = chain.reader.width.count = width
            await chain.indexer.begin_at(1)
            assert not any(rows())
            await chain.catch_up()
            assert rows() == whole
