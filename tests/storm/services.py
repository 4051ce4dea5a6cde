"""The services of a storm, and what breaks around them: two processes of one deployment in this process, on real ports.

In profile "broken" they have two remote signers with moods, and each its own way to the database that can be cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from chain.pb import lp_rpc_pb2 as net
from clearinghouse.errors import SignerFailed
from clearinghouse.requests import PaymentRequest
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.server import signer_served
from tests.parts.database_link import DatabaseLink
from tests.parts.lying_signer import Lie, LyingSigner, with_payment, with_state
from tests.parts.service import Service, running
from tests.parts.stack import SIGNER_KEY, USD_PER_ETH
from tests.storm import covers
from tests.storm.schedule import SERVICES, SIGNERS, Kill, Profile
from tests.storm.wire import Line

#: Of a request, where things break: shorter than usual, so that a storm does not wait for broken things all the time.
BROKEN_DEADLINE_S = 2.5
CALM_DEADLINE_S = 4.0
#: After a mend, until everything is expected to work as if nothing had been: a silent connection is given up after 4 s.
AFTER_CUT_S, AFTER_SILENCE_S = 3.0, 8.0
#: A signer that was ejected is looked at again after half a second, then twice that, up to ten seconds.
AFTER_SIGNER_S = 12.0
_FROM_SIGNERS = frozenset({"signers_unavailable", "signer_answer_invalid", "signer_failed", "deadline_exceeded"})
_FROM_DATABASE = frozenset({"database_unavailable", "deadline_exceeded", "account_busy", "unavailable", "no answer"})


def _one_more(payment: net.Payment) -> None:
    last = payment.ticket_sender_params[-1]
    payment.ticket_sender_params.add(sender_nonce=last.sender_nonce + 1, sig=last.sig)


def _other_nonce(payment: net.Payment) -> None:
    payment.ticket_sender_params[0].sender_nonce += 1


LIES: dict[str, Lie] = {
    "another nonce": with_payment(_other_nonce),
    "a ticket more": with_payment(_one_more),
    "a balance one wei too high": with_state(balance=lambda state: (state.balance or Fraction(0)) + 1),
    "another AuthID": with_state(auth_id="gw_0/ses_0"),
    "another sender": with_payment(lambda payment: setattr(payment, "sender", b"\x07" * 20)),
    "garbage": lambda body: body[:-9],
}


class MoodySigner(LyingSigner):
    """Honest, unless it refuses, hangs, lies, or is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._refuses = False
        self._served: AsyncExitStack | None = None

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        if self._refuses:
            raise SignerFailed("in no mood")
        return await super().generate_payment(request, auth_id=auth_id)

    async def set_mood(self, mood: str) -> None:
        """ "" is honest."""
        self._refuses = mood == "refuses"
        self.lie = LIES.get(mood, lambda body: body)
        if mood == "hangs":
            self.may_answer.clear()
        else:
            self.may_answer.set()
        if mood == "gone":
            await self.stop()
        else:
            await self.start()

    async def start(self) -> None:
        if self._served is None:
            self._served = AsyncExitStack()
            self.url = await self._served.enter_async_context(signer_served(self, port=self.port))
            self.port = int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        served, self._served = self._served, None
        if served is not None:
            await served.aclose()


@dataclass
class Services:
    """Use `open_services`."""

    profile: Profile
    conninfo: str
    folder: Path
    lines: list[Line] = field(default_factory=list)
    #: At each service.
    usd_per_eth: list[Fraction] = field(default_factory=lambda: [Fraction(USD_PER_ETH)] * SERVICES)
    signers: list[MoodySigner] = field(default_factory=list)
    links: list[DatabaseLink] = field(default_factory=list)
    #: When things that were broken are expected to work again; time.monotonic().
    signers_well_at_s: float = 0.0
    database_well_at_s: float = 0.0
    _stacks: list[AsyncExitStack] = field(default_factory=list)
    #: Where coverage is enforced: nobody else evaluates it.
    _lead: ExitStack = field(default_factory=ExitStack)
    _running: list[Service] = field(default_factory=list)
    #: Signers and links out of order, and for how many more steps.
    _moods: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def sender(self) -> bytes:
        return SIGNER_KEY.address

    @property
    def deadline_s(self) -> float:
        return BROKEN_DEADLINE_S if self.profile is Profile.BROKEN else CALM_DEADLINE_S

    def excuses(self) -> frozenset[str]:
        """Codes that what is broken explains at present."""
        now_s = time.monotonic()
        kinds = {kind for kind, _ in self._moods}
        signers = _FROM_SIGNERS if "signer" in kinds or now_s < self.signers_well_at_s else frozenset[str]()
        database = _FROM_DATABASE if "database" in kinds or now_s < self.database_well_at_s else frozenset[str]()
        return signers | database

    async def restart(self, number: int, price_usd: int) -> None:
        await self.lines[number].close()
        await self._stacks[number].aclose()
        self.usd_per_eth[number] = Fraction(price_usd)
        await self._start(number)

    async def set_signer_mood(self, number: int, mood: str, steps: int) -> None:
        if self.signers:
            self._moods["signer", number] = steps
            await self.signers[number].set_mood(mood)

    async def set_database_mood(self, number: int, mood: str, steps: int) -> None:
        if not self.links:
            return
        self._moods["database", number] = steps
        if mood == "cut":
            self.links[number].cut()
            self.database_well_at_s = max(self.database_well_at_s, time.monotonic() + AFTER_CUT_S)
        else:
            self.links[number].partition()
            self.database_well_at_s = time.monotonic() + AFTER_SILENCE_S

    async def kill(self, event: Kill) -> bool:
        """Whether there was something alive to be killed."""
        raise NotImplementedError("these are no processes of their own")

    @property
    def paid_at_signer(self) -> int:
        """Payments that did not come through a service itself."""
        return 0

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Nobody calls a service but the schedule while the block runs; then the books of whoever does agree."""
        yield

    async def step_is_over(self) -> None:
        """Moods pass."""
        for what, steps in list(self._moods.items()):
            self._moods[what] = steps - 1
            if steps <= 1:
                await self._mend(*what)

    async def mend(self) -> None:
        """Everything, now; returns when nothing that was broken can still have an effect."""
        for what in list(self._moods):
            await self._mend(*what)
        if (wait_s := self.database_well_at_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    async def _mend(self, kind: str, number: int) -> None:
        del self._moods[kind, number]
        now_s = time.monotonic()
        if kind == "signer":
            await self.signers[number].set_mood("")
            self.signers_well_at_s = now_s + AFTER_SIGNER_S
        else:
            await self.links[number].mend()
            self.database_well_at_s = max(self.database_well_at_s, now_s + AFTER_CUT_S)

    async def open(self) -> None:
        if self.profile is Profile.COVERED:
            self._lead.enter_context(covers.leading(self.conninfo, self.sender))
        if self.profile is Profile.BROKEN:
            self.signers = [MoodySigner() for _ in range(SIGNERS)]
            for signer in self.signers:
                await signer.start()
        for number in range(SERVICES):
            self._stacks.append(AsyncExitStack())
            self.lines.append(Line(0, 0))
            if self.profile is Profile.BROKEN:
                folder = self.folder / str(number)
                folder.mkdir()
                self.links.append(DatabaseLink(self.conninfo, folder))
                await self.links[-1].mend()
            await self._start(number)

    async def _start(self, number: int) -> None:
        service = await self._stacks[number].enter_async_context(
            running(
                self.conninfo,
                signer_urls=[signer.url for signer in self.signers],
                serve_conninfo=self.links[number].conninfo if self.links else None,
                request_deadline_s=self.deadline_s,
                usd_per_eth=Decimal(int(self.usd_per_eth[number])),
                coverage=covers.SETTINGS if self.profile is Profile.COVERED else None,
            )
        )
        self.lines[number] = Line(service.running.http_port, service.running.grpc_port)

    async def close(self) -> None:
        for signer in self.signers:
            signer.may_answer.set()
        for link in self.links:
            link.cut()  # what is still silent must not keep a service from ending
        for line, stack in zip(self.lines, self._stacks, strict=True):
            await line.close()
            await stack.aclose()
        for link in self.links:
            await link.close()
        for signer in self.signers:
            await signer.stop()
        self._lead.close()


@asynccontextmanager
async def opened(services: Services) -> AsyncIterator[Services]:
    try:
        await services.open()
        yield services
    finally:
        await services.close()
