"""Listening to a node: what is heard, how a silent or lying endpoint is left, and how little its word can cost."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection, serve

from chain.contracts import Contracts
from clearinghouse.chain_feed import ChainFeed, Subject
from tests.abuses.attack import metrics_page
from tests.parts.chained import Chained, chained
from tests.parts.devnet import DEV_CHAIN_ID, Devnet, running_anvil
from tests.parts.stack import SIGNER_KEY
from tests.parts.tcp_link import tcp_link

SENDER, OTHER, STRANGER = b"\x51" * 20, b"\x52" * 20, b"\x53" * 20
API_KEY = "k3y-of-the-ws-provider"
SILENT_MAX_S = 2.0
PATIENCE_S = 30


@dataclass
class Heard:
    """What metrics and readers would be told."""

    subject: Subject | None
    blocks: list[int] = field(default_factory=list)
    listens: bool = False
    listened_count: int = 0
    endings: list[tuple[str, str]] = field(default_factory=list)
    words: int = 0

    def feed_listens(self, *, listens: bool) -> None:
        self.listened_count += listens and not self.listens
        self.listens = listens

    def feed_ended(self, endpoint: str, reason: str) -> None:
        self.endings.append((endpoint, reason))

    def feed_heard(self) -> None:
        self.words += 1

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await asyncio.sleep(0.02)

    async def until_listening(self) -> None:
        await self.until(lambda: self.listens)


def contracts_of(devnet: Devnet) -> Contracts:
    names = ("TicketBroker", "RoundsManager", "BondingManager", "ServiceRegistry")
    return Contracts(*(devnet.contracts[name] for name in names))


def ws_url(url: str) -> str:
    return url.replace("http://", "ws://")


@asynccontextmanager
async def listening(*urls: str, devnet: Devnet | None = None) -> AsyncIterator[Heard]:
    contracts = contracts_of(devnet) if devnet is not None else Contracts(*[b"\xc0" * 20] * 4)
    heard = Heard((contracts, (SENDER,)))
    feed = ChainFeed(
        urls, chain_id=DEV_CHAIN_ID, subject=lambda: heard.subject, wake=heard.blocks.append,
        silent_max_s=SILENT_MAX_S, observer=heard,
    )  # fmt: skip
    feed.start()
    try:
        yield heard
    finally:
        await feed.stop()


def head(devnet: Devnet) -> int:
    return int(devnet.rpc("eth_blockNumber"), 16)


# --- a real node ----------------------------------------------------------------------------------------------------


async def test_what_happens_to_our_escrows_and_a_new_round_are_heard_and_nothing_else(devnet: Devnet) -> None:
    async with listening(ws_url(devnet.url), devnet=devnet) as heard:
        await heard.until_listening()
        devnet.fund(STRANGER, deposit_wei=1)
        devnet.join(b"\x0a" * 20)
        devnet.fund(SENDER, deposit_wei=1)
        funded_at = head(devnet)
        devnet.next_round()
        round_at = head(devnet)
        await heard.until(lambda: len(heard.blocks) >= 2)
        assert heard.blocks[0] in range(funded_at - 1, funded_at + 1)
        assert heard.blocks[1] in range(round_at - 1, round_at + 1)
        assert (len(heard.blocks), heard.words, heard.endings) == (2, 2, [])


async def test_a_new_sender_is_listened_for_without_a_restart(devnet: Devnet) -> None:
    async with listening(ws_url(devnet.url), devnet=devnet) as heard:
        await heard.until_listening()
        heard.subject = (contracts_of(devnet), (SENDER, OTHER))
        await heard.until(lambda: heard.listened_count == 2 and heard.listens)
        devnet.fund(OTHER, deposit_wei=1)
        await heard.until(lambda: len(heard.blocks) == 1)
        assert heard.endings == []


@pytest.mark.usefixtures("anvil_is_there")
async def test_a_node_that_is_killed_is_listened_to_again_when_it_is_back(tmp_path: Path) -> None:
    with running_anvil(tmp_path / "one", chain_id=DEV_CHAIN_ID) as anvil:
        url, port = anvil.url, int(urlsplit(anvil.url).port or 0)
        devnet = Devnet.deployed_on(url)
        async with listening(ws_url(url), devnet=devnet) as heard:
            await heard.until_listening()
            anvil.halt()
            await heard.until(lambda: not heard.listens and len(heard.endings) >= 2)
            assert heard.endings[:2] == [("ws-1", "closed"), ("ws-1", "connection_failed")]
            with running_anvil(tmp_path / "two", chain_id=DEV_CHAIN_ID, port=port):
                again = Devnet.deployed_on(url)
                await heard.until_listening()
                again.fund(SENDER, deposit_wei=1)
                await heard.until(lambda: len(heard.blocks) >= 1)


async def test_a_connection_that_goes_silent_is_left_and_the_next_endpoint_is_listened_to(devnet: Devnet) -> None:
    parts = urlsplit(devnet.url)
    async with (
        tcp_link(str(parts.hostname), int(parts.port or 0)) as link,
        listening(f"ws://127.0.0.1:{link.port}", ws_url(devnet.url), devnet=devnet) as heard,
    ):
        await heard.until_listening()
        link.silence()
        await heard.until(lambda: heard.listened_count == 2 and heard.listens)
        assert heard.endings == [("ws-1", "silent")]
        devnet.fund(SENDER, deposit_wei=1)
        await heard.until(lambda: len(heard.blocks) == 1)


async def test_the_key_in_the_url_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refused = f"ws://127.0.0.1:1/v2/{API_KEY}"
    async with served(stands_still) as url:
        with capture_logs() as logs:
            async with listening(refused, f"{url}/v2/{API_KEY}?token={API_KEY}") as heard:
                await heard.until(lambda: len(heard.endings) >= 2)
        assert heard.endings[:2] == [("ws-1", "connection_failed"), ("ws-2", "silent")]
    ours = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    assert API_KEY not in "\n".join(ours)
    assert [entry["event"] for entry in logs] == ["chain_feed_ended", "chain_feed_listens", "chain_feed_ended"]
    assert API_KEY not in str(logs)


# --- servers that are not what they should be -----------------------------------------------------------------------

Answering = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


@asynccontextmanager
async def served(answer: Answering) -> AsyncIterator[str]:
    async def converse(connection: ServerConnection) -> None:
        async for message in connection:
            await answer(connection, json.loads(message))

    async with serve(converse, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def stands_still(connection: ServerConnection, question: dict[str, Any]) -> None:
    results = {"eth_chainId": hex(DEV_CHAIN_ID), "eth_blockNumber": "0x64"}
    result = results.get(question["method"], f"0x{question['id']}")
    await connection.send(json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": result}))


async def of_another_chain(connection: ServerConnection, question: dict[str, Any]) -> None:
    await connection.send(json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": "0x1"}))


async def refuses(connection: ServerConnection, question: dict[str, Any]) -> None:
    error = {"code": -32601, "message": "no subscriptions"}
    await connection.send(json.dumps({"jsonrpc": "2.0", "id": question["id"], "error": error}))


def sends(message: str | bytes) -> Answering:
    async def answer(connection: ServerConnection, question: dict[str, Any]) -> None:
        await stands_still(connection, question)
        if question["method"] == "eth_blockNumber":
            await connection.send(message)

    return answer


def log_of(number: Any) -> str:
    params = {"subscription": "0x2", "result": {"blockNumber": number}}
    return json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})


BAD: dict[str, tuple[Answering, str]] = {
    "a chain that stands still": (stands_still, "silent"),
    "no subscriptions": (refuses, "refused"),
    "no JSON": (sends("<html>"), "malformed"),
    "a list": (sends("[]"), "malformed"),
    "a deep list": (sends("[" * 100_000), "malformed"),
    "an answer to nothing": (sends('{"jsonrpc":"2.0","id":77,"result":"0x1"}'), "malformed"),
    "another chain": (of_another_chain, "wrong_chain"),
    "no log": (sends(log_of("0x66").replace('{"blockNumber": "0x66"}', "7")), "malformed"),
    "no name of a subscription": (sends(log_of("0x66").replace('"0x2"', '["0x2"]')), "silent"),
    "no number": (sends(log_of("0x-1")), "malformed"),
    "too much": (sends(b"x" * 300_000), "closed"),
}


@pytest.mark.parametrize(("answer", "ending"), BAD.values(), ids=BAD)
async def test_an_endpoint_that_is_not_what_it_should_be_is_left(answer: Answering, ending: str) -> None:
    async with served(answer) as url, listening(url) as heard:
        await heard.until(lambda: bool(heard.endings))
        assert heard.endings[0] == ("ws-1", ending)
        assert heard.blocks == []


async def test_logs_of_a_subscription_that_is_not_ours_are_not_heard() -> None:
    foreign = log_of("0x66").replace('"0x2"', '"0x9"')
    async with served(sends(foreign)) as url, listening(url) as heard:
        await heard.until(lambda: bool(heard.endings))
        assert (heard.blocks, heard.endings) == ([], [("ws-1", "silent")])


async def test_an_endpoint_that_does_not_stay_is_asked_less_and_less_often() -> None:
    async def hangs_up(connection: ServerConnection, _: dict[str, Any]) -> None:
        await connection.close()

    async with served(hangs_up) as url, listening(url) as heard:
        await asyncio.sleep(5)
        assert 2 <= len(heard.endings) <= 3, "after 1 s, after 2 s, and then after 4 s"


# --- what a word does -----------------------------------------------------------------------------------------------

NEVER_S = 20  # no poll by itself happens within a test's patience for what is heard


async def soon(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(NEVER_S / 2):
        while not is_so():
            await asyncio.sleep(0.05)


async def test_what_is_heard_is_read_at_once_by_the_watch_and_by_the_indexer(database: str, devnet: Devnet) -> None:
    settings = {"poll_s": NEVER_S, "ws_urls": [ws_url(devnet.url)], "index_from_block": 1}
    async with chained(database, devnet, chain=settings) as over:
        await until_listening(over)

        def deposits() -> list[int]:
            with psycopg.connect(database) as connection:
                rows = connection.execute("SELECT amount_wei FROM escrow_event WHERE kind = 'deposit_funded'")
                return [int(amount) for (amount,) in rows]

        before = await block_read(over)
        devnet.fund(SIGNER_KEY.address, deposit_wei=77)
        funded_at = head(devnet)
        async with asyncio.timeout(NEVER_S / 2):
            while await block_read(over) < funded_at - 1:
                await asyncio.sleep(0.05)
        assert before < funded_at
        await soon(lambda: 77 in deposits())


async def test_an_endpoint_that_talks_without_end_costs_two_requests_a_second_at_most(
    database: str, devnet: Devnet
) -> None:
    async def talks(connection: ServerConnection, question: dict[str, Any]) -> None:
        await stands_still(connection, question)
        if question["method"] == "eth_blockNumber":
            for _ in range(2000):
                await connection.send(log_of("0x" + "f" * 60))
                await asyncio.sleep(0.002)

    async with served(talks) as url:
        settings = {"poll_s": NEVER_S, "ws_urls": [url], "index_enabled": False}
        async with chained(database, devnet, chain=settings) as over:
            await until_listening(over)
            before = [len(proxy.requests) for proxy in over.proxies]
            await asyncio.sleep(4)
            spent = [len(proxy.requests) - count for proxy, count in zip(over.proxies, before, strict=True)]
            assert all(4 <= count <= 2 * 5 for count in spent), spent
            assert (await over.chain_check()).ok


async def test_where_nobody_is_heard_polling_goes_on(database: str, devnet: Devnet) -> None:
    settings = {"ws_urls": ["ws://127.0.0.1:1"]}
    async with chained(database, devnet, chain=settings) as over:
        devnet.fund(SIGNER_KEY.address, deposit_wei=77)
        await over.caught_up()
        page = await metrics_page(over.service)
        assert metric(page, "clearinghouse_chain_feed_listens") == 0


async def block_read(over: Chained) -> int:
    found = re.match(r"block (\d+),", (await over.chain_check()).detail)
    return int(found[1]) if found is not None else -1


async def until_listening(over: Chained) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while metric(await metrics_page(over.service), "clearinghouse_chain_feed_listens") != 1:
            await asyncio.sleep(0.05)


def metric(page: bytes, name: str) -> int:
    found = re.search(rf"^{name} (\S+)$", page.decode(), re.MULTILINE)
    assert found is not None, name
    return int(float(found[1]))
