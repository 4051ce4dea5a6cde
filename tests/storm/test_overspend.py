"""Promise 1 where it is tightest: many callers on accounts with credit for a call or none, at two services at once.

Credit comes and goes meanwhile. What was released is what was debited, to the last digit, and never more than there
was; and what is left in the end does not pay for the cheapest call.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
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
from tests.parts.service import OURS, House, Service, our_body, running
from tests.parts.stack import TICKET_CHARGE_USD, USD_PER_ETH, Stream, TestGateway
from tests.storm.campaign import wanted

ASKED = wanted(seconds=15)
CALLERS = 64
ACCOUNTS = 40
TICKETS_MAX = 7
CERTAIN = 2**256 - 1


@dataclass
class Account:
    """A gateway, what it was given, and the expected value in wei of the tickets that left for it."""

    gateway: TestGateway
    credit: Fraction
    #: By receipt: what its tickets are worth, as whoever holds them computes it, and what it was told to cost.
    released: dict[str, tuple[Fraction, Fraction]] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)

    @property
    def spent(self) -> Fraction:
        return sum((charge for _, charge in self.released.values()), Fraction(0))


@dataclass
class Race:
    services: Sequence[Service]
    accounts: list[Account]
    dice: random.Random
    calls: int = 0

    async def caller(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            await self.call(self.dice.choice(self.accounts), tickets=self.dice.randint(1, TICKETS_MAX))

    async def call(self, account: Account, *, tickets: int) -> int:
        """A new stream's payment, or the next of one that goes on. Returns the status."""
        service = self.dice.choice(self.services)
        goes_on = bool(account.streams) and self.dice.random() < 0.5
        stream = account.streams.pop() if goes_on else service.new_stream(tickets=tickets)
        is_ours = self.dice.random() < 0.3
        document = stream.document()
        answer = await service.sign(
            account.gateway,
            json.dumps(our_body(document) if is_ours else document).encode(),
            path=OURS if is_ours else "/generate-live-payment",
        )
        self.calls += 1
        assert answer.status in {200, 402}, (answer.status, answer.body)
        if answer.status == 402:
            return 402
        if is_ours:
            receipt, payment = answer.json["receipt"]["issuance_id"], answer.json["payment"]
            charge = answer.json["receipt"]["charge"]
        else:
            receipt, payment = answer.header("clearinghouse-receipt"), read_answer(answer.body).payment
            charge = (answer.header("clearinghouse-charge") or "").removesuffix(" USD")
            stream.learn(answer.body)
            account.streams.append(stream)
        assert receipt not in account.released, "one receipt for two requests"
        account.released[receipt] = _ev_wei(payment), Fraction(charge)
        return 200

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
        """The cheapest call again and again, until it is refused by both services."""
        for service in self.services:
            while True:
                stream = service.new_stream()
                answer = await service.sign(account.gateway, stream.body())
                if answer.status == 402:
                    break
                assert answer.status == 200, (answer.status, answer.body)
                charge = Fraction((answer.header("clearinghouse-charge") or "").removesuffix(" USD"))
                receipt = answer.header("clearinghouse-receipt") or ""
                account.released[receipt] = _ev_wei(read_answer(answer.body).payment), charge


@pytest.mark.slow
@pytest.mark.timeout(240 + 2 * ASKED.seconds)
async def test_64_callers_on_accounts_near_zero_spend_all_of_the_credit_and_not_a_digit_more(database: str) -> None:
    seed = ASKED.seed if ASKED.seed is not None else secrets.randbits(32)
    print(f"STORM_SEED={seed}: the same sizes and accounts; the races are their own")
    dice = random.Random(seed)
    async with running(database) as first, running(database) as second:
        accounts = [await _account(first.house, dice.randint(0, 20)) for _ in range(ACCOUNTS)]
        race = Race((first, second), accounts, dice)
        until_s = time.monotonic() + ASKED.seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(race.caller(until_s))
            for _ in range(2):
                tasks.create_task(race.operator(until_s))
        for account in accounts:
            await race.spend_the_rest(account)
        released = sum(len(account.released) for account in accounts)
        print(f"{race.calls} calls, {released} payments released")
        assert released > ACCOUNTS
        for account in accounts:
            require_exactly_spent(first.house, account)
        await first.house.require_sound_books()


def require_exactly_spent(house: House, account: Account) -> None:
    sums = house.sums(account.gateway)
    worth = [ceil(ev_wei) * Fraction(USD_PER_ETH) / 10**18 for ev_wei, _ in account.released.values()]
    assert sum(worth, Fraction(0)) == account.spent <= account.credit, "overspent"
    assert Fraction(sums.issued) == account.spent, "released is not what was debited"
    assert sums.issuances == len(account.released)
    assert Fraction(sums.balance) == account.credit - account.spent
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


def _ev_wei(payment: str) -> Fraction:
    tickets = decode_payment(payment)
    return len(tickets.nonces) * Fraction(tickets.face_value_wei * tickets.win_prob, CERTAIN)
