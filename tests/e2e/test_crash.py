"""Promise 9: kill -9 of the service and of its database in mid-load, again and again; afterwards the books are right.

CRASH_TEST_SEED=N replays a run's plan (the seed of a failed one is printed); CRASH_TEST_SECONDS=N makes it longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from chain.signatures import parse_address
from tests.parts import processes
from tests.parts.orchestrator import Orchestrator
from tests.parts.payer import Payer, calm, delivered, flow, paying
from tests.parts.program import ONLY_LINUX, PATIENCE_S, Home, Serving, new_home, wait_until
from tests.parts.storm import require_books_to_agree

pytestmark = [ONLY_LINUX, pytest.mark.slow]

SECONDS = int(os.environ.get("CRASH_TEST_SECONDS", "30"))
SEED = int(os.environ.get("CRASH_TEST_SEED", secrets.randbits(32)))
RICH_PAYERS = 6
POOR_PAYERS = 2
#: A few hundred payments: it runs dry in the middle of everything.
POOR_CREDIT = "0.02"


@dataclass
class Storm:
    """A service under load, and the one who kills it."""

    home: Home
    dice: random.Random
    serving: Serving
    payers_of: dict[str, list[Payer]] = field(default_factory=dict)

    @property
    def payers(self) -> list[Payer]:
        return list(itertools.chain.from_iterable(self.payers_of.values()))

    async def crash(self, kind: str) -> None:
        """At a random point of the load; returns when what was killed is at work again, or soon will be."""
        await flow(self.payers, self.dice.randint(20, 120))
        await asyncio.sleep(self.dice.uniform(0, 0.02))  # not always just after an answer
        await asyncio.to_thread(getattr(self, f"_kill_{kind}"))
        await flow(self.payers, 1)

    def _kill_service(self) -> None:
        self.serving.program.kill()
        self._start()

    def _kill_both(self) -> None:
        killers: list[Callable[[], None]] = [self.serving.program.kill, self.home.kill_database]
        self.dice.shuffle(killers)
        for kill in killers:
            kill()
        self._start()

    def _kill_database(self) -> None:
        """The service stays up, and brings it back."""
        killed = self.home.postmaster_pid
        self.home.kill_database()
        wait_until(lambda: self.home.postmaster_pid not in {None, killed}, "the service to start its database again")
        assert self.serving.program.is_running, self.serving.program.story

    def _kill_backend(self) -> None:
        """One process of the server, as the system does when memory runs out: the server restarts all the others."""
        wait_until(lambda: bool(self._backends()), "a connection to the database")
        with suppress(ProcessLookupError):  # a connection of the moment
            os.kill(self.dice.choice(self._backends()), signal.SIGKILL)

    def _backends(self) -> list[int]:
        server = self.home.postmaster_pid
        return [p.pid for p in processes.running() if p.parent_pid == server and "clearinghouse" in p.arguments]

    def _start(self) -> None:
        """Sometimes not even the start is left in peace."""
        if self.dice.random() < 0.3:
            unlucky = self.home.start_dev()
            time.sleep(self.dice.uniform(0, 2.5))  # a point in time is what is wanted here
            unlucky.kill()
        self.serving = self.home.dev()

    async def require_sound_books(self) -> None:
        """With every payer idle: repeated requests get their recorded answers, and the books agree with all payers."""
        async with calm(self.payers):
            await asyncio.gather(*(payer.ask_again() for payer in self.payers))
            for gateway_id, payers in self.payers_of.items():
                await asyncio.to_thread(require_books_to_agree, self.home.conninfo, gateway_id, payers)
            report = await asyncio.to_thread(self.home.json, "ledger", "verify")
            assert report["is_clean"] is True, report["findings"]


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


@pytest.mark.timeout(300 + 4 * SECONDS + PATIENCE_S)
async def test_whatever_is_killed_in_mid_load_no_debit_of_a_released_ticket_is_lost_and_the_books_are_clean(
    home: Home, orchestrator: Orchestrator
) -> None:
    print(f"CRASH_TEST_SEED={SEED} replays this")
    storm = await asyncio.to_thread(new_storm, home, orchestrator)
    crashes: list[str] = []
    began_s = time.monotonic()
    async with paying(storm.payers):
        for kind in plan(storm.dice):
            if time.monotonic() - began_s > SECONDS and len(crashes) >= len(KINDS):
                break
            await storm.crash(kind)
            crashes.append(kind)
            await storm.require_sound_books()
    await storm.require_sound_books()
    print(crashes, delivered(storm.payers), [payer.counts for payer in storm.payers])

    assert orchestrator.books.refused == []
    assert len(orchestrator.books.payments) == delivered(storm.payers)
    assert any(payer.counts.lost for payer in storm.payers), "nobody noticed a crash: they missed the load"
    assert not any(payer.counts.refreshed for payer in storm.payers), "a crash must not cost a stream its session"
    assert sum(payer.is_broke for payer in storm.payers) <= POOR_PAYERS
    storm.serving.program.interrupt()
    assert storm.serving.program.wait() == 0
    assert home.postmaster_pid is None


KINDS = ("service", "database", "both", "backend")


def plan(dice: random.Random) -> Iterator[str]:
    """Every kind of crash once, in any order, then any of them for ever."""
    yield from dice.sample(KINDS, len(KINDS))
    while True:
        yield dice.choice(KINDS)


def new_storm(home: Home, orchestrator: Orchestrator) -> Storm:
    """A service with a rich gateway and a poor one, and their payers: some use idempotency keys."""
    dice = random.Random(SEED)
    serving = home.dev()
    storm = Storm(home, dice, serving)
    home.json("gateway", "create", "poor")
    home.json("credit", "grant", "poor", POOR_CREDIT, "--reason", "a little")
    poor = home.json("key", "create", "poor")
    rich = serving.facts
    for gateway, count in ((rich, RICH_PAYERS), (poor, POOR_PAYERS)):
        storm.payers_of[gateway["gateway_id"]] = [
            Payer(
                port=lambda: storm.serving.http_port,
                api_key=gateway["api_key"],
                orchestrator=orchestrator,
                sender=parse_address(serving.facts["sender"]),
                dice=random.Random(dice.getrandbits(64)),
                is_keyed=number % 2 == 1,
            )
            for number in range(count)
        ]
    return storm
