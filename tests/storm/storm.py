"""One storm: event by event against the real service, the twin asked after each, the books every now and then.

    story = await storm(conninfo, folder, seed=17, profile=Profile.MEAN, steps=240)

Raises StormFailed, which says how to replay it. `shortest` then finds a schedule of few events that still fails.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.ledger.verify import verify
from tests.parts.storm import require_books_to_agree
from tests.storm import schedule
from tests.storm.books import BookReader, book_reader
from tests.storm.covers import set_at_random
from tests.storm.facts import Call, Released, Unheard
from tests.storm.judge import Judge, Sent
from tests.storm.killed import KilledServices
from tests.storm.operators import Operators
from tests.storm.schedule import Event, Profile
from tests.storm.services import Services, opened
from tests.storm.twin import Broken, Terms, Twin
from tests.storm.world import World

EUR_PER_ETH = Fraction(2800)
#: The books are compared with everything every so many steps; where things break, that means waiting for the mend.
CALM_EVERY_STEPS = {
    Profile.CALM: 100,
    Profile.MEAN: 100,
    Profile.COVERED: 100,
    Profile.BROKEN: 250,
    Profile.KILLED: 150,
}
TOLD_EVENTS_COUNT = 20
RECOVERY_S = 30.0
#: Looks in a row that must find nothing under way.
QUIET_MIN_COUNT = 3
_ACTIVE = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'clearinghouse-hot' AND state <> 'idle'
"""
#: Without what the webhook approved: it is not paid at a service, and the twin does not have it.
_EXPOSURE = "SELECT sum(num_tickets), sum(ev_numerator) FROM exposure_book WHERE face_value_wei IS NOT NULL"


@dataclass
class Story:
    """What a storm went through."""

    seed: int
    profile: Profile
    steps: int = 0
    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    elapsed_s: float = 0.0

    def __str__(self) -> str:
        rate = self.calls / self.elapsed_s if self.elapsed_s else 0
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return f"{self.profile} {self.seed}: {self.steps} steps, {self.calls} calls, {rate:.0f} calls/s: {outcomes}"


class StormFailed(AssertionError):
    """With what it takes to see it again."""

    def __init__(self, story: Story, why: str, told: Sequence[str]) -> None:
        last = "\n".join(f"    {line}" for line in told)
        super().__init__(
            f"{why}\n  STORM_SEED={story.seed} STORM_STEPS={story.steps} STORM_PROFILE={story.profile} replays it\n"
            f"  the last events:\n{last}"
        )
        self.story = story
        self.why = why


async def storm(
    conninfo: str,
    folder: Path,
    *,
    seed: int,
    profile: Profile,
    steps: int,
    seconds: float | None = None,
    skipped: frozenset[int] = frozenset(),
) -> Story:
    """`conninfo` is of an empty database. Ends after so many steps, or so many seconds. Raises StormFailed."""
    story, told, began_s = Story(seed, profile), deque[str](maxlen=TOLD_EVENTS_COUNT), time.monotonic()
    try:
        async with _open(conninfo, folder, profile, story) as run:
            began_s = time.monotonic()
            for number, event in enumerate(schedule.events(seed, steps, profile)):
                if number in skipped:
                    continue
                if seconds is not None and time.monotonic() - began_s > seconds:
                    break
                story.steps = number + 1
                told.append(f"{number}: {event}")
                await run.step(number, event)
                if number % CALM_EVERY_STEPS[profile] == CALM_EVERY_STEPS[profile] - 1:
                    await run.calm()
            await run.calm()
    except Exception as error:
        story.elapsed_s = time.monotonic() - began_s
        raise StormFailed(story, f"{type(error).__name__}: {error}", list(told)) from error
    story.elapsed_s = time.monotonic() - began_s
    return story


@asynccontextmanager
async def _open(conninfo: str, folder: Path, profile: Profile, story: Story) -> AsyncIterator[Run]:
    engine, serving = (async_engine(in_role(conninfo, role)) for role in (ADMIN_ROLE, SERVE_ROLE))
    try:
        async with opened(_services(profile, conninfo, folder, story.seed)) as services:
            with book_reader(conninfo) as books:
                twin, world = Twin(), World(services.sender)
                operators = Operators(
                    twin,
                    engine,
                    [node.address for node in world.orchestrators],
                    cover=partial(set_at_random, serving, services.sender),
                )
                await operators.open_tenants()
                world.tenants = operators.tenants
                yield Run(story, twin, world, operators, services, books, engine, conninfo)
    finally:
        await engine.dispose()
        await serving.dispose()


def _services(profile: Profile, conninfo: str, folder: Path, seed: int) -> Services:
    """`folder` is short: it holds Unix sockets."""
    if profile is Profile.KILLED:
        return KilledServices(profile, conninfo, folder, seed=seed)
    return Services(profile, conninfo, folder)


@dataclass
class Run:
    """The parts of one storm, put together. `engine` is the operators'."""

    story: Story
    twin: Twin
    world: World
    operators: Operators
    services: Services
    books: BookReader
    engine: AsyncEngine
    conninfo: str

    def __post_init__(self) -> None:
        self.judge = Judge(self.twin)

    async def step(self, number: int, event: Event) -> None:
        before = {gateway.id: gateway.terms for gateway in self.twin.gateways.values()}
        excuses = self.services.excuses()
        match event:
            case schedule.Begin():
                self.world.begin(event)
            case schedule.MovePrice():
                self.world.move_price(event)
            case schedule.Change():
                await self.operators.change(event)
                self._judge([], before, excuses)
            case schedule.Sweep():
                self._sweep(event)
            case schedule.Restart():
                await self.services.restart(event.service, event.price_usd)
            case schedule.SignerMood():
                await self.services.set_signer_mood(event.signer, event.mood, event.steps)
            case schedule.DatabaseMood():
                await self.services.set_database_mood(event.service, event.mood, event.steps)
            case schedule.Kill():
                await self._kill(event)
            case schedule.Burst():
                await self._burst(number, event, before)
            case _:
                await self._calls(number, [event], before, excuses)
        await self.services.step_is_over()

    async def _burst(self, number: int, event: schedule.Burst, before: Mapping[str, Terms]) -> None:
        excuses = self.services.excuses()
        if event.meanwhile is None:
            await self._calls(number, event.calls, before, excuses)
            return
        act = (
            self._kill(event.meanwhile)
            if isinstance(event.meanwhile, schedule.Kill)
            else self.operators.change(event.meanwhile)
        )
        await self._calls(number, event.calls, before, excuses | {"account_busy"}, also=asyncio.create_task(act))

    async def _kill(self, event: schedule.Kill) -> None:
        self.story.outcomes["killed"] += await self.services.kill(event)

    async def _calls(
        self,
        number: int,
        events: Sequence[schedule.CallEvent],
        before: Mapping[str, Terms],
        excuses: frozenset[str],
        also: asyncio.Task[None] | None = None,
    ) -> None:
        """All at once, judged together."""
        sent = [self._sent(event, number) for event in events]
        await asyncio.gather(*(self._send(event, one) for event, one in zip(events, sent, strict=True)))
        if also is not None:
            await also
        self._judge(sent, before, excuses | self.services.excuses())
        for event, one in zip(events, sent, strict=True):
            assert one.answer is not None
            self.world.learn(event, one.call, one.answer)

    def _sent(self, event: schedule.CallEvent, number: int) -> Sent:
        call = self.world.call_of(event, number)
        return Sent(call, self._price(call), hangs_up=isinstance(event, schedule.Lose))

    def _price(self, call: Call) -> Fraction:
        """Of an ETH, at that service and for that gateway."""
        is_euro = self.twin.gateways[call.gateway].terms.currency == "EUR"
        return EUR_PER_ETH if is_euro else self.services.usd_per_eth[call.service]

    async def _send(self, event: schedule.CallEvent, one: Sent) -> None:
        line, authorization = self.services.lines[one.call.service], self._authorization(one.call)
        if isinstance(event, schedule.Lose):
            one.answer = await line.send_and_hang_up(one.call, authorization, after_bytes=event.after_bytes)
        else:
            one.answer = await line.send(one.call, authorization)

    def _authorization(self, call: Call) -> str:
        tenant = next(tenant for tenant in self.operators.tenants if tenant.id == call.gateway)
        return f"Bearer {tenant.api_keys[call.key]}"

    def _judge(self, sent: Sequence[Sent], before: Mapping[str, Terms], excuses: frozenset[str]) -> None:
        payments = self.judge.step(sent, self.books.read(), before, excuses=excuses)
        by_receipt = {one.answer.receipt: one.answer for one in sent if isinstance(one.answer, Released)}
        for payment in payments:
            self.world.deliver(payment, by_receipt[payment.entry.receipt])
        self.story.calls += len(sent)
        self.story.outcomes.update(_outcome(one) for one in sent)

    def _sweep(self, event: schedule.Sweep) -> None:
        """Skipped while something is under way: the account may be held, and is then left for the next time."""
        tenant = self.operators.tenants[event.gateway]
        if not self.judge.under_way:
            self.books.fetch("SELECT close_idle_sessions(%s, interval '0')", tenant.uuid)
            self.twin.close_sessions(tenant.id)

    # --- in calm ------------------------------------------------------------------------------------------------------

    async def calm(self) -> None:
        """Everything is mended and nothing under way; then every book agrees with every other."""
        await self.services.mend()
        async with self.services.quiet():
            await self._require_all_books()
        if self.services.paid_at_signer:
            self.story.outcomes["paid at the signer"] = self.services.paid_at_signer

    async def _require_all_books(self) -> None:
        await self._until_nothing_is_under_way()
        self._judge([], {}, frozenset())
        self.judge.settle()
        for tenant in self.operators.tenants:
            hands = [self.judge.hands[tenant.id]] if tenant.id in self.judge.hands else []
            for hand in hands:
                hand.counts.given_up = self._unheard(tenant.id, len(hand.received))
            await asyncio.to_thread(require_books_to_agree, self.conninfo, tenant.id, hands, usd_per_eth=None)
        report = await verify(self.engine)
        assert report.is_clean, report.findings
        self._require_exposure()

    async def _until_nothing_is_under_way(self) -> None:
        """Neither in a service nor, sent by one that nobody waits for any more, in the database."""
        quiet_count = 0
        async with asyncio.timeout(RECOVERY_S):
            while quiet_count < QUIET_MIN_COUNT:
                await asyncio.sleep(0.01)
                in_flight = [await line.calls_in_flight() for line in self.services.lines]
                ((active,),) = self.books.fetch(_ACTIVE)
                quiet_count = 0 if any(in_flight) or active else quiet_count + 1

    def _unheard(self, gateway: str, received: int) -> int:
        return sum(payment.entry.gateway == gateway for payment in self.twin.payments.values()) - received

    def _require_exposure(self) -> None:
        """Promise 8: the book is the twin's sum, to the digit. (That it equals the issuances, `verify` has seen.)"""
        ((tickets, numerator),) = self.books.fetch(_EXPOSURE)
        if (int(tickets or 0), int(numerator or 0)) != self.twin.exposure():
            raise Broken(f"exposure {tickets}, {numerator}; right is {self.twin.exposure()}")


def _outcome(one: Sent) -> str:
    answer = one.answer
    if isinstance(answer, Released):
        return "replayed" if answer.is_replay else "paid"
    if isinstance(answer, Unheard):
        return "unheard"
    return answer.limit or answer.code if answer is not None else "none"
