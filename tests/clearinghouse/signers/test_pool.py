"""The pool against real signers on real sockets, good and bad: what a caller gets, and how long it takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest

from chain.signatures import SigningKey, checksum_address
from clearinghouse.errors import SignersUnavailable
from clearinghouse.requests import PaymentRequest
from clearinghouse.signers.base import Signer, SignerAnswer
from clearinghouse.signers.go_livepeer import Failure, SignerEndpoint
from clearinghouse.signers.health import HealthPolicy, Standing
from clearinghouse.signers.pool import Budget, Route, SignerPool, SignerPoolError
from tests.parts import faulty_signer as faulty
from tests.parts.faulty_signer import FaultySigner

KEY = SigningKey(b"\x01" * 32)
OTHER_KEY = SigningKey(b"\x02" * 32)
#: Scaled down so that the suite is quick; the shape is that of the defaults.
BUDGET = Budget(total_s=4.0, attempt_s=1.6)
#: More than a machine stands still, and less than a signer that hangs.
SLACK_S = 10.0
QUICK = HealthPolicy(probe_interval_s=0.2, failures_to_eject=3, backoff_first_s=0.1, backoff_max_s=0.4)
#: An attempt at a signer that hangs takes longer than a machine stands still.
LONG = Budget(total_s=60.0, attempt_s=SLACK_S)
#: No probe or back-off comes to its end during a test.
STILL = HealthPolicy(probe_interval_s=600.0, failures_to_eject=3, backoff_first_s=600.0, backoff_max_s=600.0)


@dataclass(frozen=True, slots=True)
class Canonical:
    """All that a pool reads of a PaymentRequest."""

    canonical: bytes


REQUEST = cast(PaymentRequest, Canonical(b'{"orchestrator":"AA=="}'))


@asynccontextmanager
async def signers(*keys: SigningKey) -> AsyncIterator[list[FaultySigner]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FaultySigner(key)) for key in keys]


@asynccontextmanager
async def pool_of(*members: FaultySigner, policy: HealthPolicy = STILL, **settings: Any) -> AsyncIterator[SignerPool]:
    scaled: dict[str, Any] = {"payment_budget": BUDGET, "discovery_budget": BUDGET, "probe_timeout_s": 2.0, **settings}
    pool = SignerPool([SignerEndpoint(member.url) for member in members], health_policy=policy, **scaled)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def pay(pool: SignerPool) -> SignerAnswer:
    return await pool.generate_payment(REQUEST, auth_id="tenant-1")


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def standings(pool: SignerPool) -> list[Standing]:
    return [member.standing for member in pool.members()]


# --- one answer -------------------------------------------------------------------------------------------------------


async def test_a_pool_is_a_signer_and_hands_the_answer_through() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        signer: Signer = pool
        assert signer.address == KEY.address
        answer = await signer.generate_payment(REQUEST, auth_id="tenant-1")
        (request,) = a.payments + b.payments
    assert (answer.status, answer.body) == (200, faulty.PAYMENT_ANSWER)
    assert request.body == REQUEST.canonical
    assert request.values("Signer-Auth-Id") == ["tenant-1"]


@pytest.mark.parametrize("status", [400, 402, 403, 404, 429, 480, 481, 482])
async def test_an_answer_about_the_request_is_final_and_asked_for_once(status: int) -> None:
    body = b'{"error":{"message":"about the request"}}\n'
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        a.on_payment = b.on_payment = faulty.answers(status, body, ("Livepeer-Orchestrator-URL", "https://o:1"))
        answer = await pay(pool)
        assert (answer.status, answer.body, answer.orchestrator_url) == (status, body, "https://o:1")
        assert len(a.payments) + len(b.payments) == 1
        assert [member.consecutive_failures for member in pool.members()] == [0, 0]


async def test_calls_take_turns_and_avoid_the_busy() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        for _ in range(10):
            await pay(pool)
        assert (len(a.payments), len(b.payments)) == (5, 5)
        a.on_payment = faulty.is_slow(0.3, a.on_payment)
        slow = [asyncio.create_task(pay(pool)) for _ in range(2)]
        await until(lambda: len(a.payments) == 6)
        for _ in range(10):
            await pay(pool)
        assert len(a.payments) == 6
        assert sorted(member.in_flight for member in pool.members()) == [0, 1]
        await asyncio.gather(*slow)
        assert [member.in_flight for member in pool.members()] == [0, 0]


# --- fail-over --------------------------------------------------------------------------------------------------------

INCOMPLETE = {
    "hangs before headers": faulty.hangs_before_headers(),
    "hangs in the body": faulty.hangs_mid_body(),
    "trickles": faulty.trickles(),
    "closes at once": faulty.closes_without_answer(),
    "closes in the body": faulty.closes_mid_body(),
    "closes in a chunk": faulty.closes_mid_chunk(),
    "is not HTTP": faulty.talks_garbage(),
    "declares a huge body": faulty.declares_huge_body(),
    "streams a huge body": faulty.streams_huge_body(),
    "redirects": faulty.redirects("http://127.0.0.1:9/"),
    "is slower than an attempt": faulty.is_slow(3.0, faulty.answers(200, b"too late")),
}


@pytest.mark.parametrize("behaviour", INCOMPLETE.values(), ids=INCOMPLETE.keys())
async def test_without_a_complete_answer_the_other_member_answers_within_the_budget(
    behaviour: faulty.Behaviour,
) -> None:
    async with signers(KEY, KEY) as (bad, good), pool_of(bad, good) as pool:
        bad.on_payment = behaviour
        for _ in range(2):  # at least one of them begins with the bad one
            began_s = time.monotonic()
            answer = await pay(pool)
            assert answer.body == faulty.PAYMENT_ANSWER
            assert time.monotonic() - began_s < BUDGET.attempt_s + SLACK_S
        assert len(bad.payments) == 1
        assert len(good.payments) == 2


async def test_a_member_that_has_gone_is_passed_over() -> None:
    async with signers(KEY, KEY) as (gone, good), pool_of(gone, good) as pool:
        await gone.stop()
        answers = [await pay(pool) for _ in range(8)]
        assert [answer.status for answer in answers] == [200] * 8
        assert pool.members()[0].last_error is Failure.CONNECTION_FAILED


async def test_two_hung_members_of_three_leave_time_for_the_third() -> None:
    async with signers(KEY, KEY, KEY) as (a, b, c), pool_of(a, b, c) as pool:
        a.on_payment = b.on_payment = faulty.hangs_before_headers()
        answers = await asyncio.gather(*(pay(pool) for _ in range(3)))
        assert [answer.status for answer in answers] == [200, 200, 200]


@pytest.mark.parametrize("behaviour", INCOMPLETE.values(), ids=INCOMPLETE.keys())
async def test_when_no_member_answers_completely_the_refusal_comes_within_the_budget(
    behaviour: faulty.Behaviour,
) -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        a.on_payment = b.on_payment = behaviour
        began_s = time.monotonic()
        with pytest.raises(SignersUnavailable) as refused:
            await pay(pool)
        assert time.monotonic() - began_s < BUDGET.total_s + SLACK_S
        assert len(a.payments) == len(b.payments) == 1
    assert refused.value.facts == {"signers_asked": 2, "signers": 2}
    assert refused.value.retry_after_s == 1
    assert str(a.port) not in refused.value.message


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_complete_5xx_is_tried_on_one_other_member(status: int) -> None:
    async with signers(KEY, KEY) as (bad, good), pool_of(bad, good) as pool:
        bad.on_payment = faulty.answers(status)
        assert [(await pay(pool)).status for _ in range(4)] == [200] * 4
        assert bad.payments
        assert len(good.payments) == 4


async def test_a_5xx_from_everyone_asked_is_the_answer_and_not_everyone_is_asked() -> None:
    async with signers(KEY, KEY, KEY) as members, pool_of(*members) as pool:
        for number, member in enumerate(members):
            member.on_payment = faulty.answers(500 + number, b"%d" % number)
        answer = await pay(pool)
        assert answer.body == b"%d" % (answer.status - 500)
        assert sum(len(member.payments) for member in members) == 2


async def test_a_5xx_is_the_answer_when_the_other_member_gives_none() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        a.on_payment = faulty.answers(500, b"sorry")
        b.on_payment = faulty.closes_mid_body()
        for _ in range(2):
            assert (await pay(pool)).body == b"sorry"


async def test_a_caller_cannot_eject_members_with_requests_that_end_in_a_500() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        a.on_payment = b.on_payment = faulty.answers(500)
        for _ in range(10):
            assert (await pay(pool)).status == 500
        assert standings(pool) == [Standing.HEALTHY, Standing.HEALTHY]


async def test_a_cancelled_call_is_not_held_against_the_member() -> None:
    async with signers(KEY) as (a,), pool_of(a) as pool:
        a.on_payment = faulty.hangs_before_headers()
        for _ in range(5):
            call = asyncio.create_task(pay(pool))
            await until(lambda: pool.members()[0].in_flight == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        (member,) = pool.members()
        assert (member.healthy, member.in_flight, member.consecutive_failures) == (True, 0, 0)


# --- health -----------------------------------------------------------------------------------------------------------


async def test_a_member_that_hangs_is_ejected_and_no_longer_costs_anyone_time() -> None:
    async with signers(KEY, KEY) as (bad, good), pool_of(bad, good) as pool:
        bad.on_payment = faulty.hangs_before_headers()
        await asyncio.gather(*(pay(pool) for _ in range(8)))
        assert standings(pool) == [Standing.EJECTED, Standing.HEALTHY]
        asked = len(bad.payments)
        pool._payment_budget = LONG
        began_s = time.monotonic()
        for _ in range(10):
            await pay(pool)
        assert time.monotonic() - began_s < SLACK_S, "else each second one would cost an attempt"
        assert len(bad.payments) == asked


async def test_an_ejected_member_comes_back_after_a_probe_and_is_used_again() -> None:
    async with signers(KEY, KEY) as (flaky, good), pool_of(flaky, good, policy=QUICK) as pool:
        await flaky.stop()
        for _ in range(10):
            assert (await pay(pool)).status == 200
        await until(lambda: standings(pool)[0] is Standing.EJECTED)
        await flaky.start()
        await until(lambda: standings(pool)[0] is Standing.HEALTHY)
        for _ in range(2):
            await pay(pool)
        assert flaky.payments


async def test_an_ejection_is_looked_into_after_its_back_off_not_at_the_next_regular_probe() -> None:
    policy = HealthPolicy(probe_interval_s=600.0, failures_to_eject=2, backoff_first_s=0.1, backoff_max_s=0.1)
    async with signers(KEY) as (a,), pool_of(a, policy=policy) as pool:
        a.on_payment = faulty.closes_mid_body()
        for _ in range(2):
            with pytest.raises(SignersUnavailable):
                await pay(pool)
        assert standings(pool) == [Standing.EJECTED]
        await until(lambda: standings(pool) == [Standing.HEALTHY])


async def test_an_answer_between_failures_keeps_a_member_in() -> None:
    async with signers(KEY) as (a,), pool_of(a) as pool:
        good = a.on_payment
        for _ in range(STILL.failures_to_eject):
            a.on_payment = faulty.closes_mid_body()
            with pytest.raises(SignersUnavailable):
                await pay(pool)
            a.on_payment = good
            await pay(pool)
        assert standings(pool) == [Standing.HEALTHY]


async def test_a_member_that_dies_while_nobody_calls_is_noticed() -> None:
    async with signers(KEY, KEY) as (dying, good), pool_of(dying, good, policy=QUICK) as pool:
        await dying.stop()
        await until(lambda: standings(pool) == [Standing.EJECTED, Standing.HEALTHY])
        dead = pool.members()[0]
        assert not dead.healthy
        assert dead.last_error is Failure.CONNECTION_FAILED
        assert dead.consecutive_failures >= QUICK.failures_to_eject


async def test_with_all_members_down_a_call_is_refused_at_once_and_served_as_soon_as_one_is_back() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b, payment_budget=LONG) as pool:
        await a.stop()
        await b.stop()
        for _ in range(5):
            began_s = time.monotonic()
            with pytest.raises(SignersUnavailable):
                await pay(pool)
            assert time.monotonic() - began_s < SLACK_S
        assert standings(pool) == [Standing.EJECTED, Standing.EJECTED]
        await b.start()
        assert (
            await pay(pool)
        ).status == 200  # no probe is due for ten minutes: a refusal costs no time, so it was asked


async def test_members_that_hang_are_not_asked_while_ejected() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        a.on_payment = b.on_payment = faulty.hangs_before_headers()
        await asyncio.gather(*(pay(pool) for _ in range(4)), return_exceptions=True)
        assert standings(pool) == [Standing.EJECTED, Standing.EJECTED]
        asked = [len(a.payments), len(b.payments)]
        pool._payment_budget = LONG
        began_s = time.monotonic()
        with pytest.raises(SignersUnavailable) as refused:
            await pay(pool)
        assert time.monotonic() - began_s < SLACK_S
        assert [len(a.payments), len(b.payments)] == asked
    assert refused.value.facts == {"signers_asked": 0, "signers": 2}


# --- the key ----------------------------------------------------------------------------------------------------------


async def test_a_member_that_changes_its_key_is_excluded_loudly_until_it_shows_the_right_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with signers(KEY, KEY) as (turned, good), pool_of(turned, good, policy=QUICK) as pool:
        turned.on_identity = faulty.shows_key(OTHER_KEY)
        await until(lambda: standings(pool)[0] is Standing.WRONG_KEY)
        for _ in range(6):
            await pay(pool)
        assert turned.payments == []
        probes = len(turned.seen)
        await until(lambda: len(turned.seen) > probes + 1)
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert checksum_address(OTHER_KEY.address) in errors[0]
        assert checksum_address(KEY.address) in errors[0]
        turned.on_identity = faulty.shows_key(KEY)
        await until(lambda: standings(pool)[0] is Standing.HEALTHY)
        assert pool.address == KEY.address


async def test_a_member_that_lies_about_its_address_is_ejected() -> None:
    forged = "0x" + OTHER_KEY.bsign(checksum_address(KEY.address).encode()).hex()
    async with signers(KEY, KEY) as (liar, good), pool_of(liar, good, policy=QUICK) as pool:
        liar.on_identity = faulty.claims(checksum_address(KEY.address), forged)
        await until(lambda: standings(pool)[0] is Standing.EJECTED)
        assert pool.members()[0].last_error is Failure.IDENTITY_INVALID


async def test_with_an_expected_address_a_member_with_another_key_is_excluded_from_the_start() -> None:
    async with (
        signers(OTHER_KEY, KEY) as (wrong, right),
        pool_of(wrong, right, expected_address=KEY.address) as pool,
    ):
        assert standings(pool) == [Standing.WRONG_KEY, Standing.HEALTHY]
        for _ in range(4):
            await pay(pool)
        assert wrong.payments == []


async def start_error(*members: FaultySigner, **settings: Any) -> str:
    with pytest.raises(SignerPoolError) as refused:
        async with pool_of(*members, **settings):
            pass
    return str(refused.value)


async def test_members_with_different_addresses_do_not_start_unless_one_is_expected() -> None:
    async with signers(KEY, OTHER_KEY) as (a, b):
        message = await start_error(a, b)
        for member in (a, b):
            assert f"127.0.0.1:{member.port}: {checksum_address(member.key.address)}" in message
        assert "none is configured as the expected one" in message


async def test_a_pool_whose_members_all_sign_as_somebody_else_does_not_start() -> None:
    async with signers(OTHER_KEY, OTHER_KEY) as (a, b):
        message = await start_error(a, b, expected_address=KEY.address)
    assert checksum_address(KEY.address) in message
    assert checksum_address(OTHER_KEY.address) in message


async def test_a_pool_without_a_reachable_member_does_not_start_and_says_why() -> None:
    async with signers(KEY, KEY, KEY) as (down, hung, broken):
        await down.stop()
        hung.on_identity = faulty.hangs_before_headers()
        broken.on_identity = faulty.answers(500)
        message = await start_error(down, hung, broken)
    assert f"127.0.0.1:{down.port}: connection_failed" in message
    assert f"127.0.0.1:{hung.port}: timed_out" in message
    assert f"127.0.0.1:{broken.port}: identity_refused" in message


async def test_a_member_that_was_down_at_the_start_joins_when_it_proves_the_key() -> None:
    async with signers(KEY, KEY) as (late, early):
        await late.stop()
        async with pool_of(late, early, policy=QUICK) as pool:
            assert standings(pool) == [Standing.UNVERIFIED, Standing.HEALTHY]
            await late.start()
            await until(lambda: standings(pool) == [Standing.HEALTHY, Standing.HEALTHY])


async def test_a_member_that_was_down_at_the_start_never_joins_with_another_key() -> None:
    async with signers(OTHER_KEY, KEY) as (late, early):
        await late.stop()
        async with pool_of(late, early, policy=QUICK) as pool:
            await late.start()
            await until(lambda: standings(pool) == [Standing.WRONG_KEY, Standing.HEALTHY])


# --- the other routes -------------------------------------------------------------------------------------------------


async def test_the_identity_is_answered_from_memory_even_with_every_member_down() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        await a.stop()
        await b.stop()
        answer = await pool.sign_orchestrator_info()
    address = checksum_address(KEY.address)
    expected = faulty.identity_body(address, "0x" + KEY.bsign(address.encode()).hex())
    assert (answer.status, answer.body) == (200, expected)


async def test_discovery_passes_the_query_and_the_answer_through() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        a.on_discovery = b.on_discovery = faulty.answers(200, b"[]\n")
        answer = await pool.discover_orchestrators("caps=live%2Fx&caps=y/z")
        (request,) = a.requests_to(faulty.DISCOVERY_PATH) + b.requests_to(faulty.DISCOVERY_PATH)
    assert (answer.status, answer.body) == (200, b"[]\n")
    assert request.target == "/discover-orchestrators?caps=live%2Fx&caps=y/z"


async def test_a_signer_without_discovery_answers_404_through_the_pool() -> None:
    async with signers(KEY, KEY) as (a, b), pool_of(a, b) as pool:
        assert (await pool.discover_orchestrators("")).status == 404


async def test_a_hung_discovery_ends_within_its_own_budget_and_does_not_stop_payments() -> None:
    budget = Budget(total_s=0.3, attempt_s=0.15)
    async with signers(KEY, KEY) as (a, b), pool_of(a, b, discovery_budget=budget) as pool:
        a.on_discovery = b.on_discovery = faulty.hangs_before_headers()
        for _ in range(4):
            began_s = time.monotonic()
            with pytest.raises(SignersUnavailable):
                await pool.discover_orchestrators("")
            assert time.monotonic() - began_s < SLACK_S
        assert standings(pool) == [Standing.HEALTHY, Standing.HEALTHY]
        assert (await pay(pool)).status == 200


# --- secrets, metrics, life cycle -------------------------------------------------------------------------------------


async def test_credentials_appear_in_no_log_error_or_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with signers(KEY, KEY) as (a, b):
        endpoints = [
            SignerEndpoint(a.url.replace("://", "://ops:s3cret@")),
            SignerEndpoint(b.url, headers={"Authorization": "Bearer s3cret"}),
        ]
        pool = SignerPool(endpoints, payment_budget=BUDGET, probe_timeout_s=0.3, health_policy=QUICK)
        await pool.start()
        try:
            a.on_identity = faulty.shows_key(OTHER_KEY)
            await until(lambda: standings(pool)[0] is Standing.WRONG_KEY)
            b.on_payment = faulty.talks_garbage()
            refusals = await asyncio.gather(*(pay(pool) for _ in range(5)), return_exceptions=True)
            await b.stop()
            refusals += await asyncio.gather(*(pay(pool) for _ in range(5)), return_exceptions=True)
            shown = [repr(pool.members()), repr(endpoints)]
        finally:
            await pool.close()
        await a.stop()
        with pytest.raises(SignerPoolError) as refused:
            await SignerPool(endpoints, probe_timeout_s=0.3).start()
        assert all(request.values("Authorization") for request in a.seen + b.seen)
    assert all(isinstance(refusal, SignersUnavailable) for refusal in refusals)
    told = [*shown, str(refused.value), *(f"{r!r}{vars(r)}" for r in refusals), caplog.text]
    told += [str(record.__dict__) for record in caplog.records]
    assert caplog.records
    assert not any(secret in text for text in told for secret in ("s3cret", "b3BzOnMzY3JldA", "ops:"))


class Hearing:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, Route, str]] = []
        self.standings: list[tuple[str, Standing]] = []

    def attempt_ended(self, member: str, route: Route, outcome: str, elapsed_s: float) -> None:
        assert elapsed_s >= 0
        self.attempts.append((member, route, outcome))

    def standing_changed(self, member: str, standing: Standing) -> None:
        self.standings.append((member, standing))


async def test_metrics_hear_of_every_attempt_and_every_change_of_standing() -> None:
    hearing = Hearing()
    async with signers(KEY) as (a,), pool_of(a, observer=hearing) as pool:
        for behaviour in (a.on_payment, faulty.answers(482), faulty.answers(500), *[faulty.closes_mid_body()] * 3):
            a.on_payment = behaviour
            await asyncio.gather(pay(pool), return_exceptions=True)
    name = f"127.0.0.1:{a.port}"
    assert hearing.standings == [(name, Standing.HEALTHY), (name, Standing.EJECTED)]
    assert hearing.attempts == [
        (name, Route.IDENTITY, "2xx"),
        *((name, Route.PAYMENT, outcome) for outcome in ("2xx", "4xx", "5xx", *["answer_truncated"] * 3)),
    ]


async def test_closing_ends_calls_and_leaves_no_task_behind() -> None:
    async with signers(KEY, KEY) as (a, b):
        before = asyncio.all_tasks()
        async with pool_of(a, b, policy=QUICK, payment_budget=Budget(total_s=3.0, attempt_s=2.0)) as pool:
            a.on_payment = b.on_payment = faulty.hangs_before_headers()
            call = asyncio.create_task(pay(pool))
            await until(lambda: bool(a.payments or b.payments))
            await pool.close()
            with pytest.raises(SignersUnavailable):
                await call
            with pytest.raises(SignersUnavailable):
                await pay(pool)
        conversations = a.conversations | b.conversations
        assert asyncio.all_tasks() - before - conversations == set()


async def test_a_pool_that_was_not_started_knows_no_address_and_signs_nothing() -> None:
    pool = SignerPool([SignerEndpoint("http://127.0.0.1:9")])
    with pytest.raises(RuntimeError, match="not been started"):
        _ = pool.address
    with pytest.raises(RuntimeError, match="not been started"):
        await pool.sign_orchestrator_info()
    with pytest.raises(SignersUnavailable):
        await pay(pool)
    await pool.close()


def test_a_pool_needs_members_with_different_names_and_budgets_that_fit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SignerPool([])
    with pytest.raises(ValueError, match=r"used twice: 127\.0\.0\.1:9"):
        SignerPool([SignerEndpoint("http://127.0.0.1:9"), SignerEndpoint("http://u:p@127.0.0.1:9/")])
    with pytest.raises(ValueError, match="does not fit"):
        Budget(total_s=1.0, attempt_s=1.2)
