"""What a whole service asks of its endpoints: at most two requests a poll, and no more than an operator allows."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from typing import Any

from chain.functions import CLAIMED_RESERVE
from chain.signatures import keccak
from chain.tickets import WIN_PROB_CERTAIN, Ticket, ticket_hash
from tests.abuses.attack import metrics_page
from tests.parts.chained import ETHER, ORCHESTRATOR, PATIENCE_S, Chained, chained
from tests.parts.devnet import Devnet, round_hash
from tests.parts.devnet.price_feeds import PriceFeeds
from tests.parts.service import house_of
from tests.parts.stack import SIGNER_KEY

POLL_S = 0.5
LOOK_S = 5
OTHERS = [bytes([7, number]) * 10 for number in range(12)]
RAND = 77
PER_S = 8


def from_the_chain(feeds: PriceFeeds, *, poll_s: float) -> dict[str, Any]:
    return {
        "source": "chainlink", "poll_s": poll_s, "eth_usd_feed": feeds.eth_usd.address,
        "sequencer_feed": feeds.sequencer.address, "currency_feeds": {"EUR": feeds.eur_usd.address},
    }  # fmt: skip


async def metric(over: Chained, name: str) -> float:
    found = re.search(rf"^clearinghouse_{re.escape(name)} (\S+)$", (await metrics_page(over.service)).decode(), re.M)
    assert found is not None, name
    return float(found[1])


async def polls_begun(over: Chained, kind: str) -> int:
    """However they ended."""
    page = (await metrics_page(over.service)).decode()
    found = re.findall(rf"^clearinghouse_{kind}_polls_total{{.*}} (\S+)$", page, re.M)
    assert found, kind
    return int(sum(map(float, found)))


async def polls(over: Chained) -> Counter[str]:
    """That ended well."""
    return Counter(
        chain=int(await metric(over, 'chain_polls_total{outcome="read"}')),
        prices=int(await metric(over, 'price_polls_total{outcome="read"}')),
        evaluations=int(await metric(over, 'coverage_evaluations_total{outcome="done"}')),
    )


def claim(devnet: Devnet, face_value_wei: int) -> None:
    """All of the deposit, and some of the reserve."""
    ticket = Ticket(
        recipient=ORCHESTRATOR, sender=SIGNER_KEY.address, face_value_wei=face_value_wei, win_prob=WIN_PROB_CERTAIN,
        sender_nonce=1, recipient_rand_hash=keccak(RAND.to_bytes(32, "big")), creation_round=devnet.round,
        creation_round_block_hash=round_hash(devnet.round),
    )  # fmt: skip
    devnet.redeem(ticket, SIGNER_KEY.eth_sign(ticket_hash(ticket)), RAND)


async def test_a_poll_is_two_requests_to_each_endpoint_whatever_is_switched_on(database: str, devnet: Devnet) -> None:
    """Payments, several senders, coverage evaluated ten times a poll, claims of a reserve, an indexer; and prices,
    whose own polls are one request each."""
    feeds = PriceFeeds.deployed_on(devnet)
    async with house_of(database) as house:
        for sender in OTHERS:
            await house.new_webhook_secret(sender)
    coverage = {"evaluate_s": POLL_S / 10}
    async with chained(
        database, devnet, chain={"poll_s": POLL_S, "timeout_s": 3}, coverage=coverage,
        price=from_the_chain(feeds, poll_s=3 * POLL_S), deposit_wei=ETHER // 100,
    ) as over:  # fmt: skip
        gateway = await over.service.house.new_gateway()
        stream = over.new_stream()
        await over.service.pay(gateway, stream)
        claim(devnet, ETHER // 10)
        devnet.fund(SIGNER_KEY.address, deposit_wei=ETHER)
        await over.caught_up()
        await over.until_level("ok")
        async with asyncio.timeout(PATIENCE_S):
            while await metric(over, "coverage_senders_led") < 1 + len(OTHERS):
                await asyncio.sleep(0.1)
        await asyncio.sleep(2 * POLL_S)
        before = await polls(over)
        begun_before = [await polls_begun(over, kind) for kind in ("chain", "price")]
        began_s, asked_before = time.monotonic(), [len(proxy.requests) for proxy in over.proxies]
        async with asyncio.timeout(10 * LOOK_S):
            while (await polls(over) - before)["chain"] < LOOK_S / POLL_S / 2 or time.monotonic() < began_s + LOOK_S:
                await over.service.pay(gateway, stream)
                await asyncio.sleep(POLL_S / 5)
        asked = [len(proxy.requests) - count for proxy, count in zip(over.proxies, asked_before, strict=True)]
        begun = [await polls_begun(over, kind) for kind in ("chain", "price")]
        # The indexer looks for itself, after pauses as long as a poll's.
        turns_most = (time.monotonic() - began_s) / POLL_S + 1
        done = await polls(over) - before
    claims = [sum(CLAIMED_RESERVE.hex() in str(body) for body in proxy.requests) for proxy in over.proxies]
    assert all(1 <= count <= 2 for count in claims), "who claimed is asked when there is a claim, and not at every poll"
    assert done["evaluations"] > 10 * done["chain"], "of thirteen senders"
    chain_polls, price_polls = (now - then + 1 for now, then in zip(begun, begun_before, strict=True))
    for count in asked:
        assert count <= chain_polls + turns_most + price_polls, (asked, begun_before, begun, turns_most)


async def test_all_that_asks_an_endpoint_shares_its_budget(database: str, devnet: Devnet) -> None:
    """The watch, the indexer and the prices would each ask ten times a second, together more than three times as often
    as they may."""
    feeds = PriceFeeds.deployed_on(devnet)
    async with chained(
        database, devnet, chain={"rpc_requests_per_s": PER_S, "timeout_s": 3}, price=from_the_chain(feeds, poll_s=0.1)
    ) as over:
        await over.caught_up()
        before, began_s = [len(proxy.requests) for proxy in over.proxies], time.monotonic()
        polled = await polls(over)
        await asyncio.sleep(LOOK_S)
        polled = await polls(over) - polled
        most = PER_S * (time.monotonic() - began_s) + PER_S
        asked = [len(proxy.requests) - count for proxy, count in zip(over.proxies, before, strict=True)]
    assert all(count <= most for count in asked), (asked, most)
    assert min(polled["chain"], polled["prices"]) > 0, "everybody gets a turn"
