"""The services of profile "killed": two `clearinghouse serve` over one database, and a `clearinghouse signer`.

They are real processes, and end by kill -9. What is paid at the services themselves is the storm's schedule. Meanwhile
two gateways more pay without a pause through the signer, which asks the first service; their books are compared
whenever it is calm.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain

from clearinghouse.identity.webhook_signers import WEBHOOK_PATH
from clearinghouse.ids import show
from tests.parts.orchestrator import Orchestrator
from tests.parts.payer import calm, delivered, paying
from tests.parts.ports import free_port
from tests.parts.program import Home, Serving
from tests.parts.service import house_of
from tests.parts.service_process import serve_settings
from tests.parts.signer_payer import SignerPayer, with_receipts
from tests.parts.signer_process import Keystore, SignerProcess, new_keystore, new_signer
from tests.parts.storm import require_books_to_agree
from tests.storm.schedule import SERVICES, Kill
from tests.storm.services import Services
from tests.storm.wire import Line

#: Of the two gateways that pay through the signer, in tickets, and how many streams each has: one runs dry on the way.
CREDITS_TICKETS, STREAMS = (10**6, 400), (2, 1)
#: A server process whose client was killed may hold an account for a moment more.
AFTER_KILL_S = 1.0


@dataclass
class KilledServices(Services):
    """`seed` is for what the gateways at the signer decide."""

    seed: int = 0
    _programs: dict[int, Serving] = field(default_factory=dict)
    _old_lines: list[Line] = field(default_factory=list)
    _well_at_s: float = 0.0
    _starting: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    #: Those that pay through the signer, by gateway.
    _payers_of: dict[str, list[SignerPayer]] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _dice: random.Random = field(init=False)
    _home: Home = field(init=False)
    _keystore: Keystore = field(init=False)
    _signer: SignerProcess = field(init=False)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._home = Home(self.folder, self.folder / "data")
        self._keystore = new_keystore(self._home, "tickets")

    @property
    def sender(self) -> bytes:
        return self._keystore.address

    @property
    def paid_at_signer(self) -> int:
        return delivered(self._payers)

    @property
    def _payers(self) -> list[SignerPayer]:
        return list(chain.from_iterable(self._payers_of.values()))

    def excuses(self) -> frozenset[str]:
        if not self._moods and time.monotonic() > self._well_at_s:
            return frozenset()
        return frozenset({"account_busy", *(f"no answer at {number}" for _, number in self._moods)})

    async def kill(self, event: Kill) -> bool:
        await asyncio.sleep(event.after_ms / 1000)
        if ("killed", event.process) in self._moods:
            return False
        self._moods["killed", event.process] = event.steps
        victim = self._programs[event.process].program if event.process < SERVICES else self._signer
        await asyncio.to_thread(victim.kill)
        return True

    async def step_is_over(self) -> None:
        """What is due to start does so beside the storm, which only waits where no service is left."""
        for (_, number), steps in list(self._moods.items()):
            self._moods["killed", number] = steps - 1
            if steps <= 1 and number not in self._starting:
                self._starting[number] = asyncio.create_task(self._start_again(number))
        for number in [number for number, task in self._starting.items() if task.done()]:
            await self._starting.pop(number)
        services = [number for number in self._starting if number < SERVICES]
        if len(services) == SERVICES:
            await asyncio.wait([self._starting[number] for number in services], return_when=asyncio.FIRST_COMPLETED)

    async def mend(self) -> None:
        while self._starting or self._moods:
            for number in list(self._starting):
                await self._starting.pop(number)
            for _, number in self._moods:
                self._starting[number] = asyncio.create_task(self._start_again(number))
        await asyncio.sleep(max(0.0, self._well_at_s - time.monotonic()))

    async def _start_again(self, number: int) -> None:
        """Each where it listened before."""
        if number < SERVICES:
            await self._start(number)
        else:
            await asyncio.to_thread(self._signer.start)
        del self._moods["killed", number]
        self._well_at_s = time.monotonic() + AFTER_KILL_S

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        async with calm(self._payers):
            yield
            for gateway, payers in self._payers_of.items():
                told = await asyncio.to_thread(with_receipts, self.conninfo, gateway, payers)
                await asyncio.to_thread(require_books_to_agree, self.conninfo, gateway, told)

    async def open(self) -> None:
        self.lines = [Line(0, 0) for _ in range(SERVICES)]
        await asyncio.gather(*map(self._start, range(SERVICES)))
        async with house_of(self.conninfo) as house:
            webhook_secret = await house.new_webhook_secret(self.sender)
            gateways = [await house.new_gateway(tickets=tickets) for tickets in CREDITS_TICKETS]
        await asyncio.to_thread(self._start_signer, webhook_secret)
        orchestrator = Orchestrator("https://orchestrator-at-signer.example:8935")
        for gateway, streams in zip(gateways, STREAMS, strict=True):
            self._payers_of[show("gw", gateway.id)] = [
                SignerPayer(
                    port=lambda: self._signer.port,
                    api_key=gateway.api_key,
                    orchestrator=orchestrator,
                    sender=self.sender,
                    dice=random.Random(self._dice.getrandbits(64)),
                )
                for _ in range(streams)
            ]
        await self._stack.enter_async_context(paying(self._payers))

    async def close(self) -> None:
        try:
            await self.mend()
            await self._stack.aclose()
            for line in [*self.lines, *self._old_lines]:
                await line.close()
        finally:
            await asyncio.to_thread(self._home.close)

    async def _start(self, number: int) -> None:
        environment = {
            **serve_settings(self._home, self.conninfo, self._keystore),
            "CLEARINGHOUSE_WEBHOOK__REPEATS_PER_HOUR_COUNT": "1000",
        }
        port = self.lines[number].http_port or free_port()  # which nobody is given by chance while it is down
        serving = await asyncio.to_thread(self._home.serve, environment, http_port=port)
        self._old_lines.append(self.lines[number])  # closed later: a call on it may not have ended yet
        self._programs[number], self.lines[number] = serving, Line(serving.http_port, serving.grpc_port)

    def _start_signer(self, secret: str) -> None:
        settings = {
            "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_URL": f"{self._programs[0].http_url}{WEBHOOK_PATH}",
            "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_HEADERS_FILE": self._home.secret_file(
                "headers", f"Authorization: Bearer {secret}\n"
            ),
        }
        self._signer = new_signer(self._home, self._keystore, "signer", settings)
