"""Workers end by `kill -9`, at every step of an invoice and of a top-up, and at any moment: afterwards there is one
invoice, one charge, one grant, and the books are in order.

Each is a process of its own, and so is Stripe. STORM_SEED chooses the steps and the moments, STORM_KILLS=all takes
every step: `make storm` does.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

import pytest

from clearinghouse import payments, stripe_events
from clearinghouse.ledger.verify import verify
from tests.parts.invoiced import Debtor, Invoiced, invoiced
from tests.parts.killed import KILLED, Ended, Workers, killable
from tests.settlement.invoices.owing import owing, require_one_of_each
from tests.storm.mutate import storm_seed

pytestmark = pytest.mark.slow

_IS_THOROUGH = os.environ.get("STORM_KILLS") == "all"
_FURTHER_STEPS_COUNT = 3
_CHANGES = ("create_async", "finalize_invoice_async", "pay_async", "send_invoice_async")
_TOPUP = Decimal(25)
_TOPUP_MINOR = 2_500
_GATEWAYS_COUNT = 20 if _IS_THOROUGH else 8
_KILLS_COUNT = 20 if _IS_THOROUGH else 4
#: Of each worker: the batch takes several seconds.
_WRITES_PER_S = 15
_LONGEST_LIFE_S = 0.8
_DONE_WITHIN_S = 120
_NOT_DONE = (
    "SELECT id, state, collection, problem, claimed_until, claims_count FROM invoice WHERE state <> 'paid'",
    "SELECT id, method, state, said, next_attempt_at, attempts_count FROM payment WHERE state <> 'succeeded'",
    "SELECT object_type, object_id, state, said FROM stripe_event WHERE state <> 'done'",
)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with killable(tmp_path_factory.mktemp("killed")) as found:
        yield found


@pytest.fixture
async def house(database: str, workers: Workers) -> AsyncIterator[Invoiced]:
    async with invoiced(database, stripe_url=workers.stripe_url) as made:
        yield made


def dice() -> random.Random:
    seed = storm_seed()
    print(f"STORM_SEED={seed}")
    return random.Random(seed)


def steps_of(passed: list[str]) -> list[int]:
    """Where workers are killed, in their order. Always where Stripe has done what the books know nothing of yet."""
    every = range(1, len(passed) + 1)
    if _IS_THOROUGH:
        return list(every)
    done = {name: step for step, name in enumerate(passed, 1) if name.startswith("after ") and name.endswith(_CHANGES)}
    return sorted({*done.values(), *dice().sample(every, _FURTHER_STEPS_COUNT)})


async def topping_up(house: Invoiced, name: str, card: str | None) -> Debtor:
    """It asked for a top-up: by its saved card, or by a page of Stripe's."""
    debtor = await house.gateway(name, card=card)
    await ask(house, debtor, card)
    return debtor


async def ask(house: Invoiced, debtor: Debtor, card: str | None) -> None:
    async with house.admin.begin() as connection:
        await payments.request(connection, debtor.id, "card" if card else "checkout", _TOPUP, actor="test")


async def require_one_topup(house: Invoiced, debtor: Debtor) -> None:
    ((method, state, customer_id),) = house.owner.execute(
        "SELECT method, state, stripe_customer_id FROM payment WHERE gateway_id = %s", [debtor.id]
    )
    assert state == "succeeded"
    assert [charge.amount for charge in await house.charges(customer=customer_id)] == [_TOPUP_MINOR]
    pages = await house.stripe.running.client.v1.checkout.sessions.list_async({"customer": customer_id})
    assert len(pages.data) == int(method == "checkout")
    assert (house.entries(debtor, "payment"), house.balance(debtor)) == ([_TOPUP], _TOPUP)


async def require_sound_books(house: Invoiced) -> None:
    report = await verify(house.admin)
    assert report.is_clean, report.findings


def time_passes(house: Invoiced) -> None:
    """What somebody had taken on who is no more is anybody's again."""
    house.owner.execute("UPDATE invoice SET claimed_until = NULL WHERE claimed_until IS NOT NULL")
    house.owner.execute("UPDATE payment SET next_attempt_at = now() WHERE state = 'requested'")


async def killed_at_steps(
    house: Invoiced, workers: Workers, what: str, new: Callable[[str], Awaitable[Debtor]]
) -> tuple[list[str], list[Debtor]]:
    """The steps that there are, and gateways: at one nothing happened, each other one's worker was killed at a step.
    Then there was one that went on with all of them."""
    whole = await new("gateway-0")
    passed = workers.run(house, what, gateway=whole.id)
    assert passed.code == 0, workers.log
    made = [whole]
    for step in steps_of(passed.steps):
        made.append(await new(f"gateway-{step}"))
        killed = workers.run(house, what, gateway=made[-1].id, dies_at=step)
        assert killed == Ended(KILLED, passed.steps[:step]), workers.log
        house.owner.execute("UPDATE payment SET next_attempt_at = 'infinity' WHERE state = 'requested'")
    time_passes(house)
    assert workers.run(house, what, "sweep").code == 0, workers.log
    return passed.steps, made


@pytest.mark.parametrize("card", ["pm_card_visa", None])
async def test_killed_at_any_step_of_an_invoice_another_asks_once_and_charges_once(
    house: Invoiced, workers: Workers, card: str | None
) -> None:
    steps, debtors = await killed_at_steps(house, workers, "invoices", lambda name: owing(house, name, card))
    for debtor in debtors:
        await require_one_of_each(house, debtor, card)
    await require_sound_books(house)
    assert (await house.walk()).invoices == [], "there is nothing left to do"
    assert ("before InvoiceService.pay_async" in steps) == (card is not None)
    assert len(steps) > 25, steps


@pytest.mark.parametrize("card", ["pm_card_visa", None])
async def test_killed_at_any_step_of_a_topup_another_charges_once_and_grants_once(
    house: Invoiced, workers: Workers, card: str | None
) -> None:
    steps, debtors = await killed_at_steps(house, workers, "payments", lambda name: topping_up(house, name, card))
    for debtor in debtors:
        await require_one_topup(house, debtor)
    await require_sound_books(house)
    assert "after a commit" in steps
    assert len(steps) > 8, steps


async def test_killed_at_any_moment_two_workers_leave_one_invoice_one_charge_and_one_grant_of_each(
    house: Invoiced, workers: Workers
) -> None:
    chance = dice()
    cards = [None, "pm_card_visa"] * (_GATEWAYS_COUNT // 2)
    debtors = [await owing(house, f"gateway-{number}", card) for number, card in enumerate(cards)]
    for debtor, card in zip(debtors, cards, strict=True):
        await ask(house, debtor, card)
    world = World(house, {event.id for event in await house.news(())})
    at_work = [workers.begin_everything(house, writes_per_s=_WRITES_PER_S) for _ in range(2)]
    at_work_count = 0
    for _ in range(_KILLS_COUNT):
        await asyncio.sleep(chance.random() * _LONGEST_LIFE_S)
        at_work_count += not world.is_done()
        victim = chance.randrange(2)
        workers.kill(at_work[victim])
        at_work[victim] = workers.begin_everything(house, writes_per_s=_WRITES_PER_S)
        await world.goes_on()
    assert at_work_count > 0, "the first was killed at work, and most of the others"
    until_s = time.monotonic() + _DONE_WITHIN_S
    while not world.is_done():
        assert time.monotonic() < until_s, f"{world.story()}\n{workers.log[-8000:]}"
        await world.goes_on()
        await asyncio.sleep(0.1)
    for pid in at_work:
        workers.kill(pid)
    for debtor, card in zip(debtors, cards, strict=True):
        await require_one_of_each(house, debtor, card, topup=_TOPUP)
    await require_sound_books(house)


@dataclass
class World:
    """What goes on around the workers: people pay, Stripe tells, and leases run out, those of payments in 3 s, too."""

    house: Invoiced
    heard: set[str]

    async def goes_on(self) -> None:
        pages = "SELECT stripe_session_id FROM payment WHERE state = 'open' AND stripe_session_id IS NOT NULL"
        for (page,) in self.house.owner.execute(pages).fetchall():
            with suppress(AssertionError):  # it was paid, and nobody here knows yet
                await self.house.stripe.control(f"checkout/{page}/pay", card="pm_card_visa")
        news = await self.house.news(self.heard)
        async with self.house.engine.begin() as connection:
            await stripe_events.store(connection, [stripe_events.event_of(str(one).encode()) for one in news], "listed")
        self.heard |= {event.id for event in news}
        self.house.owner.execute(
            "UPDATE payment SET next_attempt_at = now()"
            " WHERE state = 'requested' AND next_attempt_at BETWEEN now() AND now() + interval '177 s'"
        )

    def story(self) -> str:
        """For a failure's message: what is not done, and what keeps it."""
        return "\n".join(str(row) for query in _NOT_DONE for row in self.house.owner.execute(query))

    def is_done(self) -> bool:
        query = """
            SELECT NOT EXISTS (SELECT FROM payment WHERE state <> 'succeeded')
               AND (SELECT count(*) FROM invoice
                     WHERE state = 'paid' OR state = 'open' AND collection = 'send_invoice') = %(count)s
        """
        return bool(self.house.value(query, count=_GATEWAYS_COUNT))
