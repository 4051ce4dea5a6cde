"""The webhook in a storm: payments through signers that ask, lost, shown again and forked, at two services at once.

On the same accounts, payments through the services themselves. After each call exactly what the twin expects is
answered, charged and counted; after a lost one, exactly that or nothing. STORM_SEED replays; the fault is printed with
the last events.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction

import pytest

from chain.messages import decode_base64
from clearinghouse.api.answers import read_answer
from tests.parts import client
from tests.parts.asking import Signer, asking
from tests.parts.client import Answer
from tests.parts.service import GO_LIVEPEER, Service, running
from tests.parts.stack import SIGNER_KEY, TICKET_CHARGE_USD, USD_PER_ETH, TestGateway
from tests.storm.asked import AskedGateway, AskedStream, Expected
from tests.storm.campaign import STEPS_MAX, wanted
from tests.storm.facts import Call, State, Way, read_state
from tests.storm.mutate import storm_seed
from tests.storm.wire import body_of
from tests.storm.world import World

ASKED = wanted(seconds=15)
PRICE = Fraction(USD_PER_ETH)
#: Whole tickets a call; and a price that leaves a rest.
ORCHESTRATORS = (0, 2)
STREAMS, GATEWAYS, REPEATS_MAX = 9, 3, 40
ACTS = {"next": 40, "lose": 14, "again": 10, "fork": 8, "older": 5, "refresh": 8, "begin": 4, "front": 10, "grant": 6}


@dataclass
class Teller:
    """A stream as the test holds it. `last` is the call that led to the newest heads."""

    gateway: int
    orchestrator: int
    call: Call
    twin: AskedStream = field(default_factory=AskedStream)
    last: Call | None = None
    older: State | None = None


@dataclass
class AskingStorm:
    services: Sequence[Service]
    signers: Sequence[Signer]
    gateways: list[TestGateway]
    twins: list[AskedGateway]
    world: World
    dice: random.Random
    streams: list[Teller] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    #: The stream of the last step.
    at: int = 0

    def new_stream(self) -> Teller:
        orchestrator = self.dice.choice(ORCHESTRATORS)
        gateway = self.dice.randrange(GATEWAYS)
        offer = self.world.quote(orchestrator, "fixed")
        call = Call(f"gw_{self.gateways[gateway].id.hex}", "", offer, None, "fixed", "stream", way=Way.GO)
        return Teller(gateway, orchestrator, call)

    async def step(self, act: str) -> str:
        """Does it and requires what must come of it. Returns what happened."""
        number = self.dice.randrange(STREAMS)
        stream, self.at = self.streams[number], number
        if act == "grant":
            return await self._grant(self.dice.randrange(GATEWAYS))
        if act == "begin":
            self.streams[number] = self.new_stream()
            return "begun"
        if act == "front":
            return await self._pay_in_front(stream)
        call = self._call(stream, act)
        signer = self.dice.choice(self.signers)
        expected = stream.twin.expected(call, self.twins[stream.gateway], price=PRICE)
        if act == "lose":
            return await self._lose(stream, call, signer, expected)
        answer = await signer.sign(self.gateways[stream.gateway], body_of(call, Way.GO))
        why = f"stream {number}, {call}: {expected}, not {answer.status} {answer.body!r}"
        assert answer.status == expected.status, why
        if answer.status == 200:
            self._approved(stream, call, expected)
            self._receive(stream, answer)
        return f"{'repeated' if expected.is_repeat else answer.status}"

    def _call(self, stream: Teller, act: str) -> Call:
        twin, refreshed = stream.twin, self.world.quote(stream.orchestrator, "fixed")
        if act == "again" and stream.last is not None:
            return stream.last
        if act == "fork" and twin.bases:
            return replace(stream.call, state=self.dice.choice(twin.bases), offer=refreshed)
        if act == "older" and stream.older is not None:
            return replace(stream.call, state=stream.older, offer=self.dice.choice([stream.call.offer, refreshed]))
        if not twin.heads and stream.last is not None:
            return stream.last  # its answer was lost
        state = self.dice.choice(twin.heads) if twin.heads else None
        # Nobody goes on from one branch with the ticket parameters of another: what that takes, the states do not say.
        is_other_branchs = state is not None and stream.call.offer.rand in twin.head_rands - {state.rand}
        offer = refreshed if act == "refresh" or is_other_branchs else stream.call.offer
        return replace(stream.call, state=state, offer=offer)

    async def _lose(self, stream: Teller, call: Call, signer: Signer, expected: Expected) -> str:
        """The caller hangs up: afterwards it was approved as expected, or not at all."""
        after_bytes = self.dice.choice([0, 0, 1, 20, 400])
        authorization = ("Authorization", self.gateways[stream.gateway].authorization)
        body = body_of(call, Way.GO)
        heard = await client.abandoned(signer.port, GO_LIVEPEER, body, authorization, after_bytes=after_bytes)
        await self._until_nothing_is_under_way()
        twin = self.twins[stream.gateway]
        payments, repeats = self._recorded(stream.gateway)
        if expected.status == 200 and (payments, repeats) == (
            twin.payments + (not expected.is_repeat), twin.repeats_used() + expected.is_repeat,
        ):  # fmt: skip
            self._approved(stream, call, expected)
            return "lost"
        assert (payments, repeats) == (twin.payments, twin.repeats_used()), (call, expected)
        assert not heard.startswith(b"HTTP/1.1 200"), "released before its debit"
        return "not heard"

    def _approved(self, stream: Teller, call: Call, expected: Expected) -> None:
        twin = stream.twin
        if call.state is not None and call.state.sequence + 1 > twin.sequence:
            stream.older = twin.bases[0] if twin.bases else None
        twin.approved(call, self.twins[stream.gateway], expected, price=PRICE)
        stream.last, stream.call = call, replace(stream.call, offer=call.offer)

    def _receive(self, stream: Teller, answer: Answer) -> None:
        parts = read_answer(answer.body)
        state = read_state(decode_base64(parts.state), decode_base64(parts.sig), "")
        assert state.gateway == stream.call.gateway
        stream.twin.received(state)

    async def _pay_in_front(self, stream: Teller) -> str:
        """A new session through the service itself, on the same account."""
        twin, tickets = self.twins[stream.gateway], self.dice.randint(1, 5)
        service = self.dice.choice(self.services)
        answer = await service.sign(self.gateways[stream.gateway], service.new_stream(tickets=tickets).body())
        charge = Fraction(TICKET_CHARGE_USD) * tickets
        assert answer.status == (200 if charge <= twin.credit - twin.spent else 402), (answer.status, answer.body)
        if answer.status == 200:
            twin.spent, twin.tickets, twin.payments = twin.spent + charge, twin.tickets + tickets, twin.payments + 1
        return f"in front {answer.status}"

    async def _grant(self, gateway: int) -> str:
        amount = TICKET_CHARGE_USD * Decimal(self.dice.randint(1, 30))
        await self.services[0].house.grant(self.gateways[gateway], amount)
        self.twins[gateway].credit += Fraction(amount)
        return "granted"

    def require_books(self) -> None:
        """Every account is the twin's, to the digit and to the ticket."""
        for gateway, twin in zip(self.gateways, self.twins, strict=True):
            sums = self.services[0].house.sums(gateway)
            assert (sums.issuances, sums.tickets) == (twin.payments, twin.tickets)
            assert (Fraction(sums.issued), Fraction(sums.balance)) == (twin.spent, twin.credit - twin.spent)

    def _recorded(self, gateway: int) -> tuple[int, int]:
        """Payments, and the repeats of this hour."""
        ((payments, repeats),) = self.services[0].house.fetch(
            """SELECT (SELECT count(*) FROM issuance WHERE gateway_id = a.id),
                      CASE WHEN repeats_hour = date_trunc('hour', now(), 'UTC') THEN repeats_count ELSE 0 END
                 FROM account AS a WHERE id = %s""",
            self.gateways[gateway].id,
        )
        return payments, repeats

    async def _until_nothing_is_under_way(self) -> None:
        quiet_count = 0
        while quiet_count < 3:
            await asyncio.sleep(0.01)
            texts = [(await client.call(service.port, "GET", "/metrics")).body.decode() for service in self.services]
            idle = all(re.search(r"^clearinghouse_calls_in_flight 0", text, re.MULTILINE) for text in texts)
            ((active,),) = self.services[0].house.fetch(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' "
                "AND application_name = 'clearinghouse-hot'"
            )
            quiet_count = quiet_count + 1 if idle and not active else 0


@pytest.mark.slow
@pytest.mark.timeout(240 + 2 * ASKED.seconds)
async def test_payments_through_signers_that_ask_are_charged_as_the_states_say_whatever_is_lost_or_forked(
    database: str,
) -> None:
    seed = storm_seed()
    print(f"STORM_SEED={seed} replays this")
    settings = {"enabled": True, "repeats_per_hour_count": REPEATS_MAX}
    told = deque[str](maxlen=60)
    async with (
        running(database, webhook=settings) as first,
        running(database, webhook=settings) as second,
        asking(first) as asks_first,
        asking(second) as asks_second,
    ):
        given = [TICKET_CHARGE_USD * tickets for tickets in (10**5, 200, 20)]
        gateways = [await first.house.new_gateway(credit=credit) for credit in given]
        twins = [AskedGateway(Fraction(credit), REPEATS_MAX) for credit in given]
        world = World(SIGNER_KEY.address)
        storm = AskingStorm((first, second), (asks_first, asks_second), gateways, twins, world, random.Random(seed))
        storm.streams = [storm.new_stream() for _ in range(STREAMS)]
        until_s = time.monotonic() + ASKED.seconds
        for number in range(min(ASKED.steps, STEPS_MAX)):
            if time.monotonic() > until_s:
                break
            (act,) = storm.dice.choices(list(ACTS), weights=list(ACTS.values()))
            try:
                outcome = await storm.step(act)
                told.append(f"{number}: {act} {storm.at} {outcome}")
            except AssertionError as error:
                error.add_note(f"STORM_SEED={seed}; the last events: {', '.join(told)}")
                raise
            storm.outcomes[outcome] += 1
            if number % 10 == 0:
                storm.require_books()
        storm.require_books()
        await first.house.require_sound_books()
    print(sum(storm.outcomes.values()), storm.outcomes)
    assert storm.outcomes["200"] > 20, storm.outcomes
