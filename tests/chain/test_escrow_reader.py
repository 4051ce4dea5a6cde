"""Escrow, rounds and orchestrators as read from a real node, over ways that break: what is known, and what is not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.chain_reading import Lock, SenderEscrow, claimed_at_most_wei
from chain.escrow import EscrowUnknown
from chain.escrow_reader import EscrowReader
from chain.networks import ARBITRUM_ONE, DEV, Network
from chain.orchestrators import OrchestratorReader, Orchestrators
from chain.quorum import Disagreement, NoDecision, Quorum
from chain.rpc import Failure, RpcEndpoint
from chain.tickets import ticket_hash
from tests.parts.devnet import FIRST_ROUND, Devnet, FaultProxy, fault_proxy, round_hash
from tests.parts.devnet.fault_proxy import (
    API_KEY,
    Fault,
    after_requests,
    behind,
    changed,
    half_a_batch,
    hanging,
    honest,
    lying_l1_block,
    one_of_the_batch_fails,
    stale_head,
    status,
    wrong_chain_id,
)
from tests.parts.indexed import RAND, ticket
from tests.parts.indexed import SENDER as TICKET_SENDER

SENDER, OTHER = b"\x51" * 20, b"\x52" * 20
ETHER = 10**18
TIMEOUT_S = 0.4
STALE_MAX_S = 60


@dataclass
class Heard:
    """What the metrics would be told."""

    ended: list[tuple[str, str]] = field(default_factory=list)
    disagreements: int = 0

    def rpc_ended(self, endpoint: str, outcome: str, elapsed_s: float) -> None:
        assert elapsed_s >= 0
        self.ended.append((endpoint, outcome))

    def rpc_disagreed(self) -> None:
        self.disagreements += 1


@dataclass
class Watched:
    """A reader over three ways to one node, of which two must agree."""

    devnet: Devnet
    proxies: list[FaultProxy]
    quorum: Quorum
    reader: EscrowReader
    heard: Heard

    async def poll_twice(self) -> None:
        """The second poll reads a block that the first has seen."""
        await self.reader.poll()
        await self.reader.poll()

    def requests(self) -> int:
        return sum(len(proxy.requests) for proxy in self.proxies)


Make = Callable[..., Any]


@pytest.fixture
async def make(devnet: Devnet) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        async def made(count: int = 2, *, quorum: int = 2, network: Network = DEV, **how: Any) -> Watched:
            proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(count)]
            heard = Heard()
            of_chain = Quorum(
                [RpcEndpoint(proxy.url, name=f"rpc-{number}") for number, proxy in enumerate(proxies, 1)],
                chain_id=how.pop("chain_id", network.chain_id),
                count=quorum,
                timeout_s=TIMEOUT_S,
                head_age_max_s=STALE_MAX_S,
                observer=heard,
            )
            stack.push_async_callback(of_chain.close)
            sender = how.pop("sender", SENDER)
            reader = EscrowReader(of_chain, network, sender, stale_max_s=STALE_MAX_S, **how)
            return Watched(devnet, proxies, of_chain, reader, heard)

        yield made


# --- what is read ---------------------------------------------------------------------------------------------------


async def test_a_reading_has_the_escrow_the_rounds_and_the_block_it_is_of(make: Make, devnet: Devnet) -> None:
    devnet.fund(SENDER, deposit_wei=3 * ETHER, reserve_wei=2 * ETHER)
    devnet.join(b"\x0a" * 20)
    devnet.next_round()
    watched = await make()
    reading = await watched.reader.poll()
    view = watched.reader.read()
    assert (view.sender, view.deposit_wei, view.reserve_wei) == (SENDER, 3 * ETHER, 2 * ETHER)
    assert (view.claimed_in_round_wei, view.withdraw_round, view.simulated) == (0, 0, False)
    assert (view.last_initialized_round, view.last_initialized_round_block_hash) == (3501, round_hash(3501))
    assert (view.previous_initialized_round, view.previous_initialized_round_block_hash) == (3500, round_hash(3500))
    block = devnet.rpc("eth_getBlockByHash", "0x" + reading.block.hash.hex(), False)
    assert (reading.block.number, reading.block.time_unix_s) == (int(block["number"], 16), int(block["timestamp"], 16))
    assert view.last_seen_l1_block == reading.block.l1_number == reading.block.number
    assert (reading.pool_size, reading.rounds.validity_rounds, reading.rounds.unlock_period_rounds) == (1, 2, 2)
    assert reading.contracts.ticket_broker == devnet.contracts["TicketBroker"]
    assert reading.escrows[SENDER].lock is Lock.LOCKED


async def test_the_escrow_is_followed_and_a_poll_is_one_request_to_each_of_the_quorum(
    make: Make, devnet: Devnet
) -> None:
    watched = await make()
    await watched.poll_twice()
    requests = watched.requests()
    for _ in range(5):
        await watched.reader.poll()
    assert watched.requests() == requests + 5 * 2
    devnet.fund(SENDER, deposit_wei=ETHER)
    await watched.poll_twice()
    assert watched.reader.read().deposit_wei == ETHER
    devnet.next_round()
    await watched.poll_twice()
    assert watched.reader.read().last_initialized_round == FIRST_ROUND + 1


async def test_escrows_of_all_senders_are_read_in_the_same_request_as_soon_as_they_are_known(
    make: Make, devnet: Devnet
) -> None:
    devnet.fund(SENDER, deposit_wei=5, reserve_wei=7)
    devnet.fund(OTHER, deposit_wei=11, reserve_wei=13)
    watched = await make()
    await watched.poll_twice()
    assert set(watched.reader.newest().escrows) == {SENDER}
    watched.reader.follow([OTHER, SENDER])
    requests = watched.requests()
    escrows = (await watched.reader.poll()).escrows
    assert watched.requests() == requests + 2
    found = {sender: (escrow.deposit_wei, escrow.reserve_wei) for sender, escrow in escrows.items()}
    assert found == {SENDER: (5, 7), OTHER: (11, 13)}
    assert watched.reader.read().deposit_wei == 5, "signing goes by its own sender's escrow"
    with devnet.acting_as(OTHER):
        devnet.send("TicketBroker", "unlock()", sender=OTHER)
    await watched.poll_twice()
    locks = {sender: escrow.lock for sender, escrow in watched.reader.newest().escrows.items()}
    assert locks == {SENDER: Lock.LOCKED, OTHER: Lock.UNLOCKING}


async def test_more_senders_than_fit_one_request_are_all_read(make: Make, devnet: Devnet) -> None:
    senders = [bytes([9, number]) * 10 for number in range(120)]
    devnet.fund(senders[-1], deposit_wei=3)
    watched = await make()
    watched.reader.follow(senders)
    await watched.poll_twice()
    requests = watched.requests()
    escrows = (await watched.reader.poll()).escrows
    assert watched.requests() == requests + 2 * 2
    assert [escrows[sender].deposit_wei for sender in senders] == [0] * 119 + [3]


# --- what orchestrators have claimed --------------------------------------------------------------------------------


def claim(devnet: Devnet, orchestrator: bytes, amount_wei: int, *, nonce: int = 1) -> None:
    """A winner that the empty deposit does not pay, from the reserve."""
    won = ticket(nonce, recipient=orchestrator, face_value_wei=amount_wei)
    devnet.redeem(won, TICKET_SENDER.eth_sign(ticket_hash(won)), RAND)


def at_most_wei(escrow: SenderEscrow, claimant: bytes) -> int:
    return claimed_at_most_wei(claimant, escrow.claimed_by_wei, escrow.claimed_in_round_wei)


async def test_what_an_orchestrator_claimed_is_asked_only_when_claims_were_added(make: Make, devnet: Devnet) -> None:
    devnet.join(*POOL[:2])
    devnet.next_round()
    devnet.fund(TICKET_SENDER.address, reserve_wei=100)
    watched = await make(sender=TICKET_SENDER.address)
    watched.reader.want_claims({TICKET_SENDER.address: POOL[:2], OTHER: POOL})
    await watched.poll_twice()
    nobody = watched.reader.newest().escrows[TICKET_SENDER.address]
    assert [at_most_wei(nobody, each) for each in POOL[:2]] == [0, 0]

    claim(devnet, POOL[0], 30)
    await watched.reader.poll()
    requests = watched.requests()
    escrow = (await watched.reader.poll()).escrows[TICKET_SENDER.address]
    assert (escrow.claimed_in_round_wei, escrow.claimed_by_wei) == (30, {POOL[0]: 30, POOL[1]: 0})
    assert watched.requests() == requests + 2 * 2, "a claim costs one request more"
    assert (await watched.reader.poll()).escrows[TICKET_SENDER.address] == escrow
    assert watched.requests() == requests + 3 * 2, "and then it is known"
    assert at_most_wei(escrow, POOL[2]) == 30, "whoever was not asked about may have claimed all of it"

    devnet.next_round()
    await watched.poll_twice()
    assert watched.reader.newest().escrows[TICKET_SENDER.address].claimed_by_wei == {POOL[0]: 0, POOL[1]: 0}


async def test_where_claims_cannot_be_read_the_escrow_is_read_all_the_same(make: Make, devnet: Devnet) -> None:
    devnet.join(POOL[0])
    devnet.next_round()
    devnet.fund(TICKET_SENDER.address, reserve_wei=100)
    watched = await make(sender=TICKET_SENDER.address)
    watched.reader.want_claims({TICKET_SENDER.address: POOL[:1]})
    await watched.poll_twice()
    claim(devnet, POOL[0], 30)
    await watched.reader.poll()
    watched.proxies[0].fault = after_requests(1, status(500))
    escrow = (await watched.reader.poll()).escrows[TICKET_SENDER.address]
    assert (escrow.claimed_in_round_wei, dict(escrow.claimed_by_wei)) == (30, {})
    assert at_most_wei(escrow, POOL[0]) == 30
    watched.proxies[0].fault = honest
    watched.quorum._members[0].asked_again_from_s = 0  # its pause is over
    escrow = (await watched.reader.poll()).escrows[TICKET_SENDER.address]
    assert escrow.claimed_by_wei == {POOL[0]: 30}


async def test_everything_is_read_at_one_block_named_by_its_hash(make: Make) -> None:
    watched = await make()
    await watched.poll_twice()
    for proxy in watched.proxies:
        calls = proxy.requests[-1]
        asked = [call["params"][0] for call in calls if call["method"] == "eth_getBlockByHash"]
        pins = {call["params"][1]["blockHash"] for call in calls if call["method"] == "eth_call"}
        assert pins == set(asked)
        assert len(pins) == 1


async def test_the_lock_is_shown_while_the_sender_unlocks_and_after_a_withdrawal(make: Make, devnet: Devnet) -> None:
    devnet.fund(SENDER, deposit_wei=ETHER, reserve_wei=ETHER)
    watched = await make()
    with devnet.acting_as(SENDER):
        devnet.send("TicketBroker", "unlock()", sender=SENDER)
        await watched.poll_twice()
        assert (watched.reader.newest().escrows[SENDER].lock, watched.reader.read().withdraw_round) == (
            Lock.UNLOCKING,
            3502,
        )
        devnet.next_round()
        devnet.next_round()
        devnet.send("TicketBroker", "withdraw()", sender=SENDER)
    await watched.poll_twice()
    assert (watched.reader.newest().escrows[SENDER].lock, watched.reader.read().deposit_wei) == (Lock.UNLOCKED, 0)


@pytest.mark.parametrize("has_begun", [False, True])
async def test_the_round_before_counts_only_while_its_tickets_can_be_redeemed(
    make: Make, devnet: Devnet, has_begun: bool
) -> None:
    devnet.next_round()
    if has_begun:
        devnet.begin_round()
    watched = await make()
    await watched.reader.poll()
    view = watched.reader.read()
    assert view.last_initialized_round == FIRST_ROUND + 1
    assert view.previous_initialized_round == (None if has_begun else FIRST_ROUND)


async def test_a_round_that_was_skipped_or_has_no_hash_is_no_previous_round(make: Make, devnet: Devnet) -> None:
    devnet.round += 1
    devnet.next_round()
    watched = await make()
    await watched.reader.poll()
    assert watched.reader.read().previous_initialized_round is None


async def test_rounds_are_read_and_not_computed_from_block_numbers(make: Make, devnet: Devnet) -> None:
    """Arbitrum's headers have the L1 block beside their own number, and the two drift apart."""
    watched = await make()
    for proxy in watched.proxies:
        proxy.fault = lying_l1_block(20_000_000)
    reading = await watched.reader.poll()
    assert reading.block.l1_number == reading.block.number + 20_000_000
    assert watched.reader.read().last_seen_l1_block == reading.block.l1_number
    assert reading.rounds.current == FIRST_ROUND


# --- what is not known ----------------------------------------------------------------------------------------------


def another_deposit(result: str, parameters: list[Any]) -> str:
    """The first word of getSenderInfo's answer is one wei more."""
    if not parameters[0]["data"].startswith("0xe1a589da"):
        return result
    return "0x" + format(int(result[2:66], 16) + 1, "064x") + result[66:]


LIES: dict[str, Fault] = {
    "deposit": changed("eth_call", another_deposit),
    "l1 block": lying_l1_block(7),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_endpoints_that_disagree_about_a_block_make_no_decision(
    make: Make, lie: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    watched = await make()
    await watched.reader.poll()
    before = watched.reader.read()
    watched.proxies[1].fault = lie
    for count in (1, 2):
        with pytest.raises(Disagreement, match=r"rpc-1.*rpc-2|rpc-2.*rpc-1"):
            await watched.reader.poll()
        assert watched.heard.disagreements == count
    assert watched.reader.read() == before, "what was agreed before holds until it is too old"
    assert "disagree" in caplog.text
    watched.proxies[1].fault = honest
    await watched.reader.poll()


async def test_a_liar_among_three_is_met_and_does_not_hide_the_other_two(make: Make, devnet: Devnet) -> None:
    watched = await make(3)
    watched.proxies[2].fault = LIES["deposit"]
    devnet.fund(SENDER, deposit_wei=5)
    outcomes = []
    for _ in range(6):
        try:
            outcomes.append((await watched.reader.poll()).escrows[SENDER].deposit_wei)
        except Disagreement:
            outcomes.append(None)
    assert outcomes.count(5) >= 2, "the two honest ones agree whenever they meet"
    assert set(outcomes) == {5, None}, "and the lie is never agreed upon"
    assert watched.heard.disagreements == outcomes.count(None)


FAULTS: dict[str, tuple[Fault, Failure]] = {
    "429": (status(429, ("Retry-After", "1")), Failure.RATE_LIMITED),
    "limit in the answer": (status(200, body=b'{"error":{"code":-32005,"message":"slow down"}}'), Failure.RATE_LIMITED),
    "wrong key": (status(401), Failure.HTTP_STATUS),
    "error page": (status(200, body=b"<html>"), Failure.MALFORMED),
    "hangs": (hanging(), Failure.TIMED_OUT),
    "no answer": (status(0), Failure.CONNECTION_FAILED),
    "half a batch": (half_a_batch(), Failure.MALFORMED),
    "a member fails": (one_of_the_batch_fails(), Failure.CALL_FAILED),
    "another chain": (wrong_chain_id(), Failure.WRONG_CHAIN),
    "no number": (changed("eth_chainId", lambda _result, _parameters: "0xnone"), Failure.MALFORMED),
    "a negative number": (changed("eth_chainId", lambda _result, _parameters: "0x-1"), Failure.MALFORMED),
    "a number with a gap": (changed("eth_chainId", lambda _result, _parameters: "0x7a_69"), Failure.MALFORMED),
    "bytes with a gap": (changed("eth_call", lambda result, _parameters: "0x " + result[2:]), Failure.MALFORMED),
    "another block": (
        changed("eth_getBlockByHash", lambda block, _parameters: block | {"hash": "0x" + "77" * 32}),
        Failure.MALFORMED,
    ),
    "block unknown": (changed("eth_getBlockByHash", lambda _result, _parameters: None), Failure.UNKNOWN_BLOCK),
}


@pytest.mark.parametrize(("fault", "failure"), FAULTS.values(), ids=FAULTS)
async def test_an_endpoint_that_fails_is_replaced_by_another(make: Make, fault: Fault, failure: Failure) -> None:
    watched = await make(3)
    watched.proxies[0].fault = fault
    for _ in range(3):
        await watched.reader.poll()
    assert ("rpc-1", failure.value) in watched.heard.ended
    assert ("rpc-1", "ok") not in watched.heard.ended or failure is Failure.UNKNOWN_BLOCK


@pytest.mark.parametrize(("fault", "failure"), FAULTS.values(), ids=FAULTS)
async def test_without_another_nothing_is_decided_and_it_recovers(make: Make, fault: Fault, failure: Failure) -> None:
    watched = await make()
    await watched.reader.poll()
    watched.proxies[0].fault = fault
    with pytest.raises(NoDecision, match=rf"rpc-1 {failure.value}"):
        await watched.poll_twice()
    watched.proxies[0].fault = honest
    async with asyncio.timeout(60):
        while not await recovered(watched):
            await asyncio.sleep(0.1)


async def recovered(watched: Watched) -> bool:
    try:
        await watched.reader.poll()
    except NoDecision:
        return False
    return True


async def test_an_endpoint_that_stands_still_is_not_counted(make: Make, devnet: Devnet) -> None:
    watched = await make(3)
    old = devnet.rpc("eth_getBlockByNumber", "0x1", False)
    old["timestamp"] = hex(int(old["timestamp"], 16) - 2 * STALE_MAX_S)
    watched.proxies[0].fault = stale_head(old)
    for _ in range(3):
        await watched.reader.poll()
    assert ("rpc-1", "stale_head") in watched.heard.ended


async def test_an_endpoint_that_is_always_a_block_behind_is_no_hindrance(make: Make, devnet: Devnet) -> None:
    watched = await make()
    head = [devnet.rpc("eth_getBlockByNumber", "latest", False)]
    watched.proxies[0].fault = behind(head)
    for _ in range(5):
        head[0] = devnet.rpc("eth_getBlockByNumber", "latest", False)
        devnet.mine()
        await watched.reader.poll()
    assert {outcome for _, outcome in watched.heard.ended} == {"ok"}


async def test_an_endpoint_that_asks_for_patience_is_left_alone_for_so_long(make: Make) -> None:
    watched = await make(3)
    watched.proxies[0].fault = status(429, ("Retry-After", "30"))
    for _ in range(6):
        await watched.reader.poll()
    assert len(watched.proxies[0].requests) == 1
    left_alone_s = watched.quorum._members[0].asked_again_from_s - time.monotonic()
    assert 25 < left_alone_s <= 30


async def test_a_made_up_newest_block_holds_nobody_up_for_long(make: Make, devnet: Devnet) -> None:
    watched = await make(3)
    made_up = devnet.rpc("eth_getBlockByNumber", "latest", False) | {"hash": "0x" + "77" * 32, "number": "0x1"}
    watched.proxies[0].fault = stale_head(made_up)
    decided = [await recovered(watched) for _ in range(6)]
    assert decided.count(True) >= 2


async def test_an_old_block_that_is_called_the_newest_does_not_bring_back_what_was_withdrawn(
    make: Make, devnet: Devnet
) -> None:
    devnet.fund(SENDER, deposit_wei=3 * ETHER, reserve_wei=2 * ETHER)
    watched = await make(3)
    old = devnet.rpc("eth_getBlockByNumber", "latest", False)
    with devnet.acting_as(SENDER):
        devnet.send("TicketBroker", "unlock()", sender=SENDER)
    await watched.poll_twice()
    assert watched.reader.newest().escrows[SENDER].lock is Lock.UNLOCKING
    watched.proxies[0].fault = stale_head(old)
    for _ in range(6):
        await watched.reader.poll()
        assert watched.reader.newest().escrows[SENDER].lock is Lock.UNLOCKING
    assert {outcome for _, outcome in watched.heard.ended} == {"ok"}, "nobody was caught"


async def test_an_older_block_is_read_where_the_newest_reading_is_too_old_to_sign_by(
    make: Make, devnet: Devnet
) -> None:
    clock = [0]
    watched = await make(3, unix_s=lambda: clock[0])
    old = devnet.rpc("eth_getBlockByNumber", "latest", False)
    devnet.mine()
    await watched.reader.poll()
    newest = (await watched.reader.poll()).block
    watched.proxies[0].fault = stale_head(old)
    for late_s, is_older in ((STALE_MAX_S, False), (STALE_MAX_S + 1, True)):
        clock[0] = newest.time_unix_s + late_s
        read = [(await watched.reader.poll()).block.number for _ in range(6)]
        assert (min(read) < newest.number) is is_older


async def test_after_a_reorganisation_the_new_chain_is_read(make: Make, devnet: Devnet) -> None:
    watched = await make()
    with devnet.undone():
        devnet.fund(SENDER, deposit_wei=5)
        await watched.poll_twice()
        assert watched.reader.read().deposit_wei == 5
    devnet.fund(SENDER, deposit_wei=7)  # in the place of the block that never was
    outcomes = [await recovered(watched) for _ in range(3)]
    assert outcomes == [False, True, True], "the block to be read next is gone, and another is chosen"
    assert watched.reader.read().deposit_wei == 7


async def test_a_reading_that_grows_old_is_no_reading(make: Make) -> None:
    clock = [0]
    watched = await make(unix_s=lambda: clock[0])
    with pytest.raises(EscrowUnknown, match="not read yet"):
        watched.reader.read()
    block_time = (await watched.reader.poll()).block.time_unix_s
    for late_s in (STALE_MAX_S, -STALE_MAX_S, STALE_MAX_S + 1, -STALE_MAX_S - 1):
        clock[0] = block_time + late_s
        assert watched.reader.age_s() == late_s
        if abs(late_s) <= STALE_MAX_S:
            watched.reader.read()
            continue
        with pytest.raises(EscrowUnknown, match="s old"):
            watched.reader.read()


async def test_contracts_elsewhere_than_known_or_nowhere_are_not_believed(make: Make, devnet: Devnet) -> None:
    known = Network(DEV.name, DEV.chain_id, DEV.controller, ARBITRUM_ONE.known)
    with pytest.raises(NoDecision, match="known is 0xa8bB618B1520E284046F3dFc448851A1Ff26e41B"):
        await (await make(network=known)).reader.poll()
    nowhere = Network(DEV.name, DEV.chain_id, b"\x01\x02" * 10)
    with pytest.raises(NoDecision, match="there is no Controller of dev"):
        await (await make(network=nowhere)).reader.poll()
    devnet.send("Controller", "setContract(string,address)", "BondingManager", bytes(20))
    with pytest.raises(NoDecision, match="knows no BondingManager"):
        await (await make()).reader.poll()


async def test_a_key_in_a_url_is_in_no_error_log_or_repr(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    watched = await make(2)
    said = []
    for fault in (status(401, body=API_KEY.encode()), status(0), hanging(), LIES["deposit"]):
        watched.proxies[0].fault = fault
        watched.quorum._members[0].asked_again_from_s = 0  # not after its pause
        with pytest.raises(NoDecision) as caught:
            await watched.poll_twice()
        said += [repr(caught.value), str(caught.value.__context__), str(caught.value.__cause__)]
    said += [caplog.text, repr(watched.quorum._members[0])]
    for wrong in (f"ftp://{API_KEY}", f"http://host:x/{API_KEY}", f"https://ho st/{API_KEY}", f"https:///{API_KEY}é"):
        with pytest.raises(ValueError) as refused:
            RpcEndpoint(wrong, name="rpc-9")
        said += [str(refused.value), str(refused.value.__cause__)]
    assert caplog.text
    assert API_KEY not in "\n".join(said)


# --- orchestrators --------------------------------------------------------------------------------------------------

POOL = [bytes([number]) * 20 for number in range(1, 6)]


async def listed(watched: Watched, orchestrators: OrchestratorReader) -> Orchestrators:
    """As of the newest block: the first poll sees it."""
    await watched.reader.poll()
    reading = await watched.reader.poll()
    return await orchestrators.read(reading.contracts, reading.block.hash)


async def test_who_joined_is_active_from_the_next_round_with_its_uri(make: Make, devnet: Devnet) -> None:
    devnet.join(*POOL[:3], uri="https://one.test:8935")
    watched = await make()
    orchestrators = OrchestratorReader(watched.quorum)
    found = await listed(watched, orchestrators)
    assert (found.round, found.active_count(), set(found.by_address)) == (FIRST_ROUND, 0, set(POOL[:3]))
    devnet.next_round()
    found = await listed(watched, orchestrators)
    assert (found.round, found.active_count()) == (FIRST_ROUND + 1, 3)
    assert found.is_active(POOL[0])
    assert not found.is_active(POOL[4])
    assert {each.uri for each in found.by_address.values()} == {"https://one.test:8935"}
    assert all(each.is_registered for each in found.by_address.values())


async def test_who_leaves_is_active_until_the_round_ends_and_is_then_forgotten(make: Make, devnet: Devnet) -> None:
    devnet.join(*POOL)
    devnet.next_round()
    watched = await make()
    orchestrators = OrchestratorReader(watched.quorum)
    await listed(watched, orchestrators)
    devnet.leave(POOL[2])
    assert (await listed(watched, orchestrators)).is_active(POOL[2])
    devnet.next_round()
    assert set((await listed(watched, orchestrators)).by_address) == {*POOL} - {POOL[2]}


async def test_a_list_that_is_known_takes_two_requests_and_a_new_one_a_request_more_for_each(
    make: Make, devnet: Devnet
) -> None:
    devnet.join(*POOL)
    watched = await make()
    orchestrators = OrchestratorReader(watched.quorum)
    reading = await watched.reader.poll()
    for requests in (2 + len(POOL), 2):
        asked = watched.requests()
        await orchestrators.read(reading.contracts, reading.block.hash)
        assert watched.requests() == asked + 2 * requests


async def test_a_walk_that_broke_off_goes_on_where_it_was(make: Make, devnet: Devnet) -> None:
    devnet.join(*POOL)
    watched = await make()
    orchestrators = OrchestratorReader(watched.quorum)
    reading = await watched.reader.poll()
    watched.proxies[0].fault = after_requests(4, status(429, ("Retry-After", "1")))
    with pytest.raises(NoDecision):
        await orchestrators.read(reading.contracts, reading.block.hash)
    watched.proxies[0].fault = honest
    watched.quorum._members[0].asked_again_from_s = 0  # its pause is over
    asked = watched.requests()
    assert set((await orchestrators.read(reading.contracts, reading.block.hash)).by_address) == set(POOL)
    assert watched.requests() < asked + 2 * (2 + len(POOL))


async def test_a_list_that_bites_its_tail_is_no_list(make: Make, devnet: Devnet) -> None:
    devnet.join(*POOL[:2])
    devnet.join(POOL[0])
    watched = await make()
    with pytest.raises(NoDecision, match="no end"):
        await listed(watched, OrchestratorReader(watched.quorum))
