"""Chains that change their mind about redemptions: what is undone is open again, and redeemed once in the end."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.quorum import NoDecision
from chain.tickets import ticket_hash
from clearinghouse.indexer import Turn
from tests.parts.books import Connection
from tests.parts.devnet import Devnet
from tests.parts.indexed import FACE_VALUE_WEI, Indexed, indexed, issued, prepared, ticket

COUNT = 12
PATIENCE_S = 60


def head(devnet: Devnet) -> int:
    return int(devnet.rpc("eth_blockNumber"), 16)


def used(devnet: Devnet) -> set[int]:
    """The nonces that the contract has paid: what the books are compared with, past all of our own code."""
    of = {nonce: ticket_hash(ticket(nonce)) for nonce in range(1, COUNT + 1)}
    return {nonce for nonce, hash_ in of.items() if any(devnet.call("TicketBroker", "usedTickets(bytes32)", hash_))}


def open_count(chain: Indexed) -> int:
    """Of the exposure book, which must be what the issuances and redemptions say."""
    assert chain.query("SELECT * FROM exposure_difference()") == []
    ((count,),) = chain.query("SELECT coalesce(sum(num_tickets), 0)::bigint FROM exposure_book")
    return int(count)


async def test_a_redemption_that_is_reorganised_away_leaves_its_ticket_open_until_it_is_redeemed_again(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Connection
) -> None:
    prepared(devnet)
    await issued(admin, owner, count=3)
    async with indexed(database, devnet) as chain:
        before = head(devnet)
        chain.redeem(ticket(1))
        chain.redeem(ticket(3))
        await chain.catch_up()
        assert (chain.redeemed(), open_count(chain)) == ([(1, "matched"), (3, "matched")], 1)
        devnet.rpc("anvil_reorg", head(devnet) - before, [])
        devnet.mine()
        assert used(devnet) == set()
        await chain.catch_up()
        assert (chain.redeemed(), open_count(chain)) == ([], 3)
        chain.redeem(ticket(3))  # the other way round, in other blocks
        chain.redeem(ticket(1))
        await chain.catch_up()
        assert (chain.redeemed(), open_count(chain)) == ([(3, "matched"), (1, "matched")], 1)
        assert chain.query("SELECT sum(amount_wei)::bigint FROM escrow_event WHERE kind = 'ticket_paid'") == [
            (2 * FACE_VALUE_WEI,)
        ]


async def test_a_chain_that_was_rolled_back_is_waited_for_and_then_undone(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Connection
) -> None:
    """While it is shorter than what was read nothing is known to be wrong: it may be an endpoint that is behind."""
    prepared(devnet)
    await issued(admin, owner, count=3)
    async with indexed(database, devnet) as chain:
        chain.redeem(ticket(1))
        chain.redeem(ticket(2))
        await chain.catch_up()
        at = chain.at()
        devnet.rpc("anvil_rollback", 2)
        await chain.turns(3)
        assert (chain.at(), chain.redeemed()) == (at, [(1, "matched"), (2, "matched")])
        chain.redeem(ticket(2))
        while head(devnet) <= at:
            devnet.mine()
        await chain.catch_up()
        assert (chain.redeemed(), open_count(chain)) == ([(2, "matched")], 2)
        assert used(devnet) == {2}


async def caught_up(chain: Indexed) -> None:
    """Asks again as the service does: endpoints that had no answer are left alone for a while."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(NoDecision):
                if await chain.indexer.turn() is Turn.CAUGHT_UP and chain.at() == head(chain.devnet):
                    return
            await asyncio.sleep(0.05)


@dataclass
class Chance:
    """One history: redemptions, reorganisations, rollbacks, readings, and roll-ups of the book, in any order."""

    chain: Indexed
    first: int
    dice: random.Random
    said: list[str] = field(default_factory=list)

    async def step(self) -> None:
        step = self.dice.choice([self.redeem, self.redeem, self.redeem, self.reorganise, self.roll_back, self.mine])
        step()
        if self.dice.random() < 0.5:
            with suppress(NoDecision):  # blocks that were there a moment ago are not
                await self.chain.turns(self.dice.randint(1, 3))
        if self.dice.random() < 0.2:
            self.chain.query("SELECT roll_up_exposure(100)")

    def redeem(self) -> None:
        waiting = sorted(set(range(1, COUNT + 1)) - used(self.chain.devnet))
        for nonce in self.dice.sample(waiting, k=min(len(waiting), self.dice.randint(1, 2))):
            self.say(f"redeem {nonce}")
            self.chain.redeem(ticket(nonce))

    def reorganise(self) -> None:
        if depth := self.depth():
            self.say(f"reorganise {depth}")
            self.chain.devnet.rpc("anvil_reorg", depth, [])

    def roll_back(self) -> None:
        if depth := self.depth():
            self.say(f"roll back {depth}")
            self.chain.devnet.rpc("anvil_rollback", depth)

    def mine(self) -> None:
        self.say("mine")
        self.chain.devnet.mine()

    def depth(self) -> int:
        return min(self.dice.randint(1, 6), head(self.chain.devnet) - self.first)

    def say(self, what: str) -> None:
        self.said.append(what)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_whatever_the_chain_takes_back_the_books_end_as_the_contract_does(
    database: str, devnet: Devnet, admin: AsyncEngine, owner: Connection, seed: int
) -> None:
    prepared(devnet)
    await issued(admin, owner, count=COUNT)
    async with indexed(database, devnet, width=5) as chain:
        await chain.catch_up()
        chance = Chance(chain, head(devnet), random.Random(seed))
        highest = 0
        for _ in range(30):
            await chance.step()
            highest = max(highest, head(devnet), chain.at())
        while head(devnet) <= highest:
            devnet.mine()
        await caught_up(chain)
        paid = used(devnet)
        assert sorted(chain.redeemed()) == [(nonce, "matched") for nonce in sorted(paid)], chance.said
        assert open_count(chain) == COUNT - len(paid), chance.said
        assert chain.heard.reorganisations > 0, "a history that undoes nothing shows nothing: choose another seed"
