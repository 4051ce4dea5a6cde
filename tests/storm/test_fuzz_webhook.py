"""Damaged questions to the webhook: refused, rejected or paid for; and what is not approved leaves no trace."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.parts.asking import ask, first_state, question
from tests.parts.client import CLIENT_TIMEOUT_S
from tests.parts.service import Service, running
from tests.storm.mutate import Mutator, storm_seconds, storm_seed, until_the_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(storm_seconds() * 2 + 120)]

#: What an answer may say inside its 200: a signer hands these on, and gateways know what they mean.
VERDICTS = {200, 402, 403, 409, 429}


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database, webhook={"enabled": True}) as service:
        yield service
        await service.house.require_sound_books()


async def test_damaged_questions_are_refused_rejected_or_paid_for(service: Service) -> None:
    number = storm_seed()
    print(f"STORM_SEED={number}")
    damage, seen = Mutator(number), Counter[int]()
    gateway, secret = await service.house.new_gateway(tickets=1_000_000), await service.house.new_webhook_secret()
    for _ in until_the_end():
        recorded, books = service.house.sums(gateway).issuances, service.house.fingerprint()
        asked, approved = [], 0
        for _ in range(20):  # each of a session of its own, so that none is the repetition of another
            asked.append(damage.json(question(gateway, first_state())))
            answer = await ask(service, secret, asked[-1])
            verdict = answer.json["status"] if answer.status == 200 else answer.status
            shown = base64.b64encode(asked[-1][:20_000])
            if answer.status == 200:
                assert verdict in VERDICTS, (shown, answer.body)
            else:
                assert 400 <= answer.status < 500, (shown, answer.body)
            approved += verdict == 200
            seen[verdict] += 1
        assert service.house.sums(gateway).issuances - recorded == approved, asked
        assert approved or service.house.fingerprint() == books, asked
    assert seen[400] > seen.total() // 10, "the damage is not seen"
    began_s = time.monotonic()
    assert (await ask(service, secret, question(gateway, first_state()))).json["status"] == 200
    assert time.monotonic() - began_s < CLIENT_TIMEOUT_S - 1
    print(f"verdicts: {dict(seen)}")
