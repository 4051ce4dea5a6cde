"""Promise 1 where it is tightest: many callers on accounts with credit for a call or none, at two services at once.

The services are `clearinghouse serve`, processes of their own on one database. The callers come both ways, through the
services to a signer and through signers that ask the services' webhooks. Credit comes and goes meanwhile. What was
released is what was debited, to the last digit, and never more than there was; and what is left in the end does not pay
for the cheapest call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest

from chain.messages import decode_payment
from clearinghouse.api.answers import read_answer
from clearinghouse.errors import OutOfCredit
from clearinghouse.ledger import transfers
from tests.parts.asking import Signer, asking
from tests.parts.service import House, Served
from tests.parts.service_process import serving
from tests.parts.stack import TICKET_CHARGE_USD, USD_PER_ETH, Stream, TestGateway
from tests.storm.campaign import wanted
from tests.storm.mutate import storm_seed

ASKED = wanted(seconds=15)
CALLERS = 64
ACCOUNTS = 40
TICKETS_MAX = 7
CERTAIN = 2**256 - 1


@dataclass
class Account:
    """A gateway, what it was given, and what the tickets in its hands are worth."""

    gateway: TestGateway
    credit: Fraction
    #: n·EV in wei of every payment, as whoever holds the tickets computes it, by its first ticket.
    released: dict[tuple[bytes, int], Fraction] = field(default_factory=dict)
    #: Streams to go on with, by whether they are paid through a signer that asks.
    streams: dict[bool, list[Stream]] = field(default_factory=lambda: {False: [], True: []})

    @property
    def worth(self) -> Fraction:
        """What its tickets cost, each call's rounded up once to a wei."""
        return sum((ceil(ev_wei) * Fraction(USD_PER_ETH) / 10**18 for ev_wei in self.released.values()), Fraction(0))

    def take(self, payment: str) -> None:
        tickets = decode_payment(payment)
        first = tickets.recipient_rand_hash, tickets.nonces[0]
        assert first not in self.released, "one nonce in two payments"
        self.released[first] = len(tickets.nonces) * Fraction(tickets.face_value_wei * tickets.win_prob, CERTAIN)


@dataclass
class Race:
    services: Sequence[Served]
    #: One that asks each of the services.
    signers: Sequence[Signer]
    accounts: list[Account]
    dice: random.Random
    calls: int = 0

    async def caller(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            await self.call(self.dice.choice(self.accounts), tickets=self.dice.randint(1, TICKETS_MAX))

    async def call(self, account: Account, *, tickets: int) -> int:
        """A new stream's payment, or the next of one that goes on. Returns the status."""
        asks = self.dice.random() < 0.4
        waiting = account.streams[asks]
        goes_on = bool(waiting) and self.dice.random() < 0.5
        stream = waiting.pop() if goes_on else self.services[0].new_stream(tickets=tickets)
        self.calls += 1
        if asks:
            answer = await self.dice.choice(self.signers).sign(account.gateway, stream.body())
        else:
            answer = await self.dice.choice(self.services).sign(account.gateway, stream.body())
        assert answer.status in {200, 402}, (answer.status, answer.body)
        if answer.status == 200:
            account.take(read_answer(answer.body).payment)
            stream.learn(answer.body)
            waiting.append(stream)
        return answer.status

    async def operator(self, until_s: float) -> None:
        """Gives and takes, a ticket's worth or a part of one."""
        house = self.services[0].house
        while time.monotonic() < until_s:
            account = self.dice.choice(self.accounts)
            amount = TICKET_CHARGE_USD * self.dice.randint(1, 40) / 8
            if self.dice.random() < 0.85:
                await house.grant(account.gateway, amount)
                account.credit += Fraction(amount)
            elif await _withdraw(house, account.gateway, amount):
                account.credit -= Fraction(amount)

    async def spend_the_rest(self, account: Account) -> None:
        """The cheapest call again and again, until it is refused, every way."""
        ways: list[Served | Signer] = [*self.services, *self.signers]
        for way in ways:
            while (answer := await way.sign(account.gateway, self.services[0].new_stream().body())).status == 200:
                account.take(read_answer(answer.body).payment)
            assert answer.status == 402, (answer.status, answer.body)


@pytest.mark.slow
@pytest.mark.timeout(240 + 2 * ASKED.seconds)
async def test_64_callers_on_accounts_near_zero_spend_all_of_the_credit_and_not_a_digit_more(database: str) -> None:
    seed = storm_seed()
    print(f"STORM_SEED={seed}: the same sizes and accounts; the races are their own")
    dice = random.Random(seed)
    async with (
        serving(database, processes_count=2) as (first, second),
        asking(first) as asks_first,
        asking(second) as asks_second,
    ):
        accounts = [await _account(first.house, dice.randint(0, 20)) for _ in range(ACCOUNTS)]
        race = Race((first, second), (asks_first, asks_second), accounts, dice)
        until_s = time.monotonic() + ASKED.seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(race.caller(until_s))
            for _ in range(2):
                tasks.create_task(race.operator(until_s))
        for account in accounts:
            await race.spend_the_rest(account)
        ((asked,),) = first.house.fetch("SELECT count(*) FROM issuance WHERE ev_numerator IS NOT NULL")
        released = sum(len(account.released) for account in accounts)
        print(f"{race.calls} calls, {released} payments released, {asked} of them by signers that asked")
        assert min(asked, released - asked) > ACCOUNTS // 2
        for account in accounts:
            require_exactly_spent(first.house, account)
        await first.house.require_sound_books()


def require_exactly_spent(house: House, account: Account) -> None:
    sums = house.sums(account.gateway)
    assert account.worth <= account.credit, "overspent"
    assert (sums.issuances, Fraction(sums.issued)) == (len(account.released), account.worth), (
        "released and debited differ"
    )
    assert Fraction(sums.balance) == account.credit - account.worth
    assert 0 <= sums.balance < TICKET_CHARGE_USD, "what is left would pay for one more ticket"


async def _account(house: House, eighths: int) -> Account:
    credit = TICKET_CHARGE_USD * eighths / 8
    return Account(await house.new_gateway(credit=credit), Fraction(credit))


async def _withdraw(house: House, gateway: TestGateway, amount: Decimal) -> bool:
    try:
        async with house.engine.begin() as connection:
            await transfers.withdraw(connection, gateway.id, amount, reason="back", actor="test")
    except OutOfCredit:
        return False
    return True
