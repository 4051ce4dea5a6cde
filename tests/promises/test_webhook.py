"""The promises, kept through the webhook: a signer of its own asks before it releases, over real ports.

What is in a caller's hands is counted there, with fractions of our own: the tickets as an orchestrator will read them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import text

from chain.messages import decode_base64, decode_payment
from chain.payment_state import decode_state
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.approved_states import Kind
from clearinghouse.approving import Approving, Question
from clearinghouse.charging import Charging
from clearinghouse.identity import limits, webhook_signers
from clearinghouse.identity.webhook_signers import WebhookSigner
from clearinghouse.ids import show, uuid7
from clearinghouse.policy import Policy
from clearinghouse.pricing import EXACT
from tests.clearinghouse.histories import PLANS, Plan, history_of
from tests.parts import client
from tests.parts.asking import Signer, ask, asking, first_state, question
from tests.parts.client import Answer
from tests.parts.service import Service, running
from tests.parts.stack import (
    PEPPER,
    SIGNER_KEY,
    TICKET_CHARGE_USD,
    TICKET_EV_WEI,
    USD_PER_ETH,
    Stack,
    TestGateway,
    running_stack,
)
from tests.promises.overtaking import overtaking

ON = {"enabled": True}
CALLERS = 64


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database, webhook=ON) as service:
        yield service
        await service.house.require_sound_books()


@pytest.fixture
async def signer(service: Service) -> AsyncIterator[Signer]:
    async with asking(service) as signer:
        yield signer


def tickets_in(*answers: Answer) -> dict[tuple[bytes, int], int]:
    """Expected value of each ticket, times 2^256 - 1, by recipientRandHash and nonce."""
    found = {}
    for answer in answers:
        payment = decode_payment(answer.json["payment"])
        for nonce in payment.nonces:
            found[payment.recipient_rand_hash, nonce] = payment.face_value_wei * payment.win_prob
    return found


def require_charged(service: Service, gateway: TestGateway, *answers: Answer) -> None:
    """For the tickets that were released, and for no others."""
    sums = service.house.sums(gateway)
    worth = tickets_in(*answers)
    assert sums.issued == sums.debited == len(worth) * TICKET_CHARGE_USD
    assert sums.tickets == len(worth)
    assert sums.ev_wei == len(worth) * TICKET_EV_WEI
    assert sums.balance >= -sums.credit_limit


# --- debit before release ---------------------------------------------------------------------------------------------


async def test_a_stream_pays_through_a_signer_that_asks_and_the_books_say_so(service: Service, signer: Signer) -> None:
    gateway, stream = await service.house.new_gateway(tickets=8), service.new_stream(tickets=2)
    answers = [await signer.pay(gateway, stream, ("Clearinghouse-End-User", "user 7")) for _ in range(4)]
    require_charged(service, gateway, *answers)
    broke = await signer.sign(gateway, stream.body())
    assert broke.status == 402
    assert broke.message.startswith("out_of_credit: This call costs 0.000048 USD; 0 USD are available.")
    assert service.house.fetch("SELECT sequence, first_nonce, num_tickets, end_user FROM issuance ORDER BY id") == [
        (number, 1 + 2 * number, 2, "user 7") for number in range(4)
    ]
    ((ev_numerator, face_value_wei),) = service.house.fetch("SELECT ev_numerator, face_value_wei FROM exposure_book")
    assert int(ev_numerator) == sum(tickets_in(*answers).values())
    assert face_value_wei is None, "the webhook is shown no ticket"


async def test_without_an_answer_of_the_webhook_no_ticket_leaves(service: Service, signer: Signer) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    async with asking(service, url="http://127.0.0.1:9/") as cut_off, asking(service, secret="lpws_wrong") as stranger:
        for alone in (cut_off, stranger):
            answer = await alone.sign(gateway, stream.body())
            assert answer.status == 500
            assert b"payment" not in answer.body
    assert service.house.sums(gateway).issuances == 0
    await signer.pay(gateway, stream)


@pytest.mark.parametrize("affordable", [0, 1, 37])
async def test_64_callers_at_once_get_exactly_the_tickets_the_credit_covers(
    service: Service, signer: Signer, affordable: int
) -> None:
    gateway = await service.house.new_gateway(tickets=affordable)
    answers = await asyncio.gather(*(signer.sign(gateway, service.new_stream().body()) for _ in range(CALLERS)))
    released = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} <= {200, 402}
    assert len(released) == affordable
    require_charged(service, gateway, *released)


async def test_two_services_and_both_ways_in_never_release_more_than_the_credit(database: str) -> None:
    async with running(database, webhook=ON) as first, running(database, webhook=ON) as second:
        gateway = await first.house.new_gateway(tickets=37)
        async with asking(first) as one, asking(second) as other:
            released: list[Answer] = []
            while True:
                answers = await asyncio.gather(
                    *((one, other, first)[i % 3].sign(gateway, first.new_stream().body()) for i in range(CALLERS))
                )
                got = [answer for answer in answers if answer.status == 200]
                released += got
                if not got:
                    break
        assert len(released) == 37
        require_charged(first, gateway, *released)
        await first.house.require_sound_books()


@pytest.fixture
async def stack(database: str) -> AsyncIterator[Stack]:
    wide = Policy(ticket_ev_max_wei=10**18, call_ev_max_wei=10**20)
    async with running_stack(database, policy=wide) as stack:
        yield stack


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=PLANS.filter(lambda plan: plan.job_type != ""))
async def test_whatever_a_correct_signer_shows_is_charged_as_its_tickets(stack: Stack, plan: Plan) -> None:
    """For any price, expected value, time between payments and type: to the wei, each payment rounded up once."""
    gateway = await stack.new_gateway(credit=str(10**9))
    asked = WebhookSigner(uuid7(), "signer", SIGNER_KEY.address, None)
    now_ns, auth_id = 0, ""
    numerators = []
    approving = approving_of(stack, lambda: now_ns)
    for number, call in enumerate(await asyncio.to_thread(lambda: list(history_of(plan)))):
        document = json.loads(call.body)
        state = decode_state(decode_base64(document["state"]["State"]))
        payment = decode_payment(document["payment"])
        rand = hashlib.sha256(gateway.id.bytes + payment.recipient_rand_hash).digest()  # used by no earlier plan
        now_ns = state.last_update_unix_ns or 0
        shown = state._replace(auth_id=auth_id, pm_session_id=rand)
        approval = await approving.approve(Question(asked, gateway.authorization, "", shown))
        assert approval.kind is Kind.NEXT, number
        auth_id = json.loads(approval.body)["auth_id"]
        numerators.append(len(payment.nonces) * payment.face_value_wei * payment.win_prob)
    async with stack.engine.connect() as connection:
        query = text("SELECT ev_numerator, ev_wei, charge FROM issuance WHERE gateway_id = :id ORDER BY id")
        rows = (await connection.execute(query, {"id": gateway.id})).all()
    wei = [-(-numerator // WIN_PROB_CERTAIN) for numerator in numerators]
    assert [(int(row[0]), int(row[1])) for row in rows] == list(zip(numerators, wei, strict=True))
    assert [row[2] for row in rows] == [EXACT.divide(ev_wei * USD_PER_ETH, Decimal(10**18)) for ev_wei in wei]


def approving_of(stack: Stack, unix_ns: Callable[[], int]) -> Approving:
    charging = Charging(
        authenticator=stack.authenticator, prices=stack.prices, commits=stack.commits, usage=stack.lookups
    )
    return Approving(
        authenticator=stack.authenticator,
        lookups=stack.lookups,
        sessions=stack.sessions,
        gates=stack.gates,
        charging=charging,
        metrics=stack.metrics,
        deadline_s=4,
        repeats_max_count=12,
        unix_ns=unix_ns,
    )


# --- exactly once, and no nonce twice ---------------------------------------------------------------------------------


async def test_a_lost_answer_is_charged_once_and_the_stream_goes_on(service: Service, signer: Signer) -> None:
    gateway, stream = await service.house.new_gateway(tickets=6), service.new_stream(tickets=2)
    first = await signer.pay(gateway, stream)
    lost = [await signer.sign(gateway, stream.body()) for _ in range(3)]
    again = await signer.pay(gateway, stream)
    last = await signer.pay(gateway, stream)
    assert tickets_in(*lost) == tickets_in(again)
    require_charged(service, gateway, first, again, last)
    assert service.house.sums(gateway).balance == 0


async def test_a_lost_answer_costs_nothing_again_even_with_nothing_left(service: Service, signer: Signer) -> None:
    gateway, stream = await service.house.new_gateway(tickets=2), service.new_stream(tickets=2)
    lost = await signer.sign(gateway, stream.body())
    again = await signer.pay(gateway, stream)
    assert tickets_in(lost) == tickets_in(again)
    require_charged(service, gateway, again)


async def test_a_rejected_payment_leaves_nothing_and_the_same_one_goes_through_after_a_top_up(
    service: Service, signer: Signer
) -> None:
    gateway, stream = await service.house.new_gateway(tickets=3), service.new_stream(tickets=2)
    first = await signer.pay(gateway, stream)
    for _ in range(3):
        assert (await signer.sign(gateway, stream.body())).status == 402
    await service.house.grant(gateway, TICKET_CHARGE_USD)
    second = await signer.pay(gateway, stream)
    require_charged(service, gateway, first, second)


async def test_two_first_answers_of_one_offer_are_one_charge_and_either_may_go_on(
    service: Service, signer: Signer
) -> None:
    """The signer draws a StateID for each, and the AuthID went with the lost answer."""
    for chosen in (0, 1):
        gateway, stream = await service.house.new_gateway(), service.new_stream()
        firsts = await asyncio.gather(*(signer.sign(gateway, stream.body()) for _ in range(2)))
        stream.learn(firsts[chosen].body)
        after = await signer.pay(gateway, stream)
        require_charged(service, gateway, *firsts, after)
        assert len(service.house.fetch("SELECT id FROM session WHERE gateway_id = %s", gateway.id)) == 1


async def test_time_that_passed_until_the_retry_is_charged_and_no_more(service: Service, signer: Signer) -> None:
    gateway = await service.house.new_gateway()
    stream = service.new_stream(job_type="live")
    first = await signer.pay(gateway, stream)
    signer.clock.advance(2)
    lost = await signer.sign(gateway, stream.body())
    signer.clock.advance(3)
    again = await signer.pay(gateway, stream)
    assert 0 < len(tickets_in(lost)) < len(tickets_in(again))
    last_nonce = max(nonce for _, nonce in tickets_in(again))
    signer.clock.advance(2)
    last = await signer.pay(gateway, stream)
    assert min(nonce for _, nonce in tickets_in(last)) == last_nonce + 1
    require_charged(service, gateway, first, again, last)


async def test_a_fork_with_fresh_parameters_is_charged_in_full_and_both_branches_end_there(
    service: Service, signer: Signer
) -> None:
    gateway, stream = await service.house.new_gateway(tickets=20), service.new_stream(tickets=2)
    first = await signer.pay(gateway, stream)
    lost = await signer.sign(gateway, stream.body())
    stream.refresh()
    forked = await signer.pay(gateway, stream)
    last = await signer.pay(gateway, stream)
    require_charged(service, gateway, first, lost, forked, last)
    stream.learn(lost.body)
    stream.refresh()
    other_branch = await signer.sign(gateway, stream.body())  # a fork of the newest payment: charged as well
    assert other_branch.status == 200
    require_charged(service, gateway, first, lost, forked, last, other_branch)


async def test_an_older_state_is_in_conflict_with_old_and_with_fresh_parameters(
    service: Service, signer: Signer
) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    await signer.pay(gateway, stream)
    old = stream.state
    for _ in range(2):
        await signer.pay(gateway, stream)
    stream.state = old
    charged = service.house.sums(gateway)
    for refreshes in (False, True):
        if refreshes:
            stream.refresh()
        answer = await signer.sign(gateway, stream.body())
        assert (answer.status, answer.message.partition(":")[0]) == (409, "state_conflict")
    assert service.house.sums(gateway) == charged


async def test_a_payment_that_was_never_shown_leaves_a_gap_that_is_seen(service: Service, signer: Signer) -> None:
    """As with a signer that is asked by somebody else in between, or remembers an approval."""
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    await signer.pay(gateway, stream)
    assert stream.state is not None
    shown = decode_state(stream.state.state)
    secret = await service.house.new_webhook_secret()
    skipped = shown._replace(sequence_number=shown.sequence_number + 2, sender_nonce=shown.sender_nonce + 2)
    verdict = (await ask(service, secret, question(gateway, skipped))).json
    assert verdict == {"status": 409, "reason": "state_conflict: The payment before this one was not approved here."}


async def test_one_offer_in_two_sessions_and_by_two_gateways_is_in_conflict(service: Service, signer: Signer) -> None:
    one, other = await service.house.new_gateway(), await service.house.new_gateway()
    stream, second = service.new_stream(), service.new_stream()
    await signer.pay(one, stream)
    await signer.pay(one, stream)
    second.offer.ticket_params.recipient_rand_hash = stream.offer.ticket_params.recipient_rand_hash
    for gateway in (one, other):
        answer = await signer.sign(gateway, second.body())
        assert answer.status == 409, answer.body
    answer = await service.sign(one, second.body())
    assert answer.status == 480, "whichever way in"


async def test_repeats_are_counted_over_all_processes_and_end_when_they_are_used_up(database: str) -> None:
    few = {"enabled": True, "repeats_per_hour_count": 3}
    async with running(database, webhook=few) as first, running(database, webhook=few) as second:
        async with asking(first) as one, asking(second) as other:
            gateway, stream = await first.house.new_gateway(), first.new_stream()
            await one.pay(gateway, stream)
            answers = [await (one, other)[i % 2].sign(gateway, stream.body()) for i in range(5)]
            assert [answer.status for answer in answers] == [200] * 4 + [429]
            assert "limit_reached: 3 payments were shown again within an hour" in answers[-1].message
            assert "Try again in " in answers[-1].message
            stream.learn(answers[3].body)
            after = await one.pay(gateway, stream)
            assert after.status == 200
            assert first.house.sums(gateway).tickets == 3
        await first.house.require_sound_books()


async def test_both_ways_in_refuse_each_others_sessions(service: Service, signer: Signer) -> None:
    gateway, through, front = await service.house.new_gateway(), service.new_stream(), service.new_stream()
    await signer.pay(gateway, through)
    await service.pay(gateway, front)
    for fresh in (False, True):
        if fresh:
            through.refresh()
            front.refresh()
        at_front = await service.sign(gateway, through.body())
        assert at_front.status in {403, 480}, at_front.body
        at_webhook = await signer.sign(gateway, front.body())
        assert at_webhook.status in {403, 409}, at_webhook.body
    assert service.house.sums(gateway).tickets == 2


# --- whose payment it is, and what it may be --------------------------------------------------------------------------


async def test_no_verdict_ever_has_an_expiry_and_each_payment_is_asked_about(service: Service, signer: Signer) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    for number in range(4):
        await signer.pay(gateway, stream)
        assert stream.state is not None
        assert decode_state(stream.state.state).auth_expiry_unix_s == 0
        assert service.house.sums(gateway).issuances == number + 1
    ((answer,),) = service.house.fetch("SELECT answer FROM session")
    assert b"expiry" not in answer


async def test_no_header_but_the_key_decides_whose_payment_it_is(service: Service, signer: Signer) -> None:
    payer, victim = await service.house.new_gateway(), await service.house.new_gateway()
    stream = service.new_stream()
    spoofed = [("Signer-Auth-Id", show("gw", victim.id)), ("Signer-Anything", "x"), ("X-Forwarded-For", "10.0.0.1")]
    for _ in range(2):
        await signer.pay(payer, stream, *spoofed)
    assert stream.state is not None
    assert decode_state(stream.state.state).auth_id.startswith(show("gw", payer.id))
    assert service.house.sums(victim).issuances == 0
    stolen = await signer.sign(victim, stream.body())
    assert (stolen.status, stolen.message) == (403, "session_not_yours: The state belongs to another gateway.")


async def test_two_keys_none_and_a_wrong_one_are_refused_in_words_that_reach_the_caller(
    service: Service, signer: Signer
) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    body = stream.body()
    other = ("Authorization", gateway.authorization)
    assert (await signer.sign(gateway, body, other)).status == 403
    assert (await client.post(signer.port, "/generate-live-payment", body)).status == 403
    unknown = TestGateway(gateway.id, gateway.api_key[:-1] + ("0" if gateway.api_key[-1] != "0" else "1"))
    answer = await signer.sign(unknown, body)
    assert (answer.status, answer.message.partition(":")[0]) == (403, "unauthenticated")
    assert service.house.sums(gateway).issuances == 0


async def test_a_suspended_gateway_and_a_revoked_key_get_nothing_from_the_next_payment_on(
    service: Service, signer: Signer
) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream()
    await signer.pay(gateway, stream)
    await service.house.suspend(gateway)
    answer = await signer.sign(gateway, stream.body())
    assert (answer.status, answer.message.partition(":")[0]) == (403, "gateway_suspended")
    await service.house.resume(gateway)
    await asyncio.sleep(1.1)
    await signer.pay(gateway, stream)
    await service.house.revoke(gateway)
    assert (await signer.sign(gateway, stream.body())).status == 403


async def test_limits_and_rates_hold_at_the_webhook_to_the_last_call(service: Service, signer: Signer) -> None:
    gateway = await service.house.new_gateway()
    async with service.house.engine.begin() as connection:
        await limits.set_gateway_limits(connection, gateway.id, {"calls_per_day": 3})
    streams = [service.new_stream() for _ in range(12)]
    answers = await asyncio.gather(*(signer.sign(gateway, stream.body()) for stream in streams))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 9
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.message.startswith("limit_reached: The limit calls_per_day is reached: 3 of 3 calls are used")
    paid = next(stream for stream, answer in zip(streams, answers, strict=True) if answer.status == 200)
    assert (await signer.sign(gateway, paid.body())).status == 200, "its answer was lost, and it is paid for"


@pytest.mark.parametrize(("name", "most"), [("sessions_open", 3), ("ev_open", 3 * TICKET_EV_WEI)])
async def test_what_one_key_may_have_open_is_kept_at_the_webhook_to_the_last_call(
    service: Service, signer: Signer, name: str, most: int
) -> None:
    gateway = await service.house.new_gateway()
    await service.house.limit_key(gateway, **{name: most})
    streams = [service.new_stream() for _ in range(12)]
    answers = await asyncio.gather(*(signer.sign(gateway, stream.body()) for stream in streams))
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 9
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.message.startswith(f"limit_reached: The limit key_{name} is reached: {most} of {most}")
    await signer.pay(await service.house.new_key(gateway.id), service.new_stream())


async def test_a_price_above_the_ceiling_is_refused_and_below_it_the_signer_is_told(database: str) -> None:
    policy = {"price_fixed_max_wei_per_unit": f"{3 * TICKET_EV_WEI}"}
    async with running(database, webhook=ON, policy=policy) as service, asking(service) as signer:
        gateway = await service.house.new_gateway()
        dear = await signer.sign(gateway, service.new_stream(tickets=4).body())
        assert (dear.status, dear.message.partition(":")[0]) == (403, "price_exceeded")
        await signer.pay(gateway, service.new_stream(tickets=3))
        ((answer,),) = service.house.fetch("SELECT answer FROM session")
        assert json.loads(answer)["maxPrice"] == {"price": "24000000000", "currency": "wei", "unit": "fixed"}


@pytest.mark.parametrize("rule", ["ticket_ev", "call_ev"])
async def test_a_ticket_or_a_call_that_is_worth_too_much_is_refused(database: str, rule: str) -> None:
    policy = {f"{rule}_max_wei": str(TICKET_EV_WEI * (2 if rule == "call_ev" else 1) - 1)}
    async with running(database, webhook=ON, policy=policy) as service, asking(service) as signer:
        gateway = await service.house.new_gateway()
        answer = await signer.sign(gateway, service.new_stream(tickets=2).body())
        assert (answer.status, answer.message.partition(":")[0]) == (403, "ticket_not_allowed")
        assert service.house.sums(gateway).issuances == 0


async def test_an_untyped_job_is_refused_with_the_reason(service: Service, signer: Signer) -> None:
    gateway, stream = await service.house.new_gateway(), service.new_stream(job_type="", in_pixels=1)
    answer = await signer.sign(gateway, stream.body())
    assert answer.status == 403
    assert answer.message.startswith("ticket_not_allowed: A job without a type is billed by pixels")


async def test_a_revoked_signer_asks_in_vain(service: Service) -> None:
    gateway = await service.house.new_gateway()
    async with service.house.engine.begin() as connection:
        new = await webhook_signers.create(connection, "gone", sender=b"\x01" * 20, pepper=PEPPER)
        await webhook_signers.revoke(connection, "gone")
    async with asking(service, secret=new.webhook_secret) as signer:
        assert (await signer.sign(gateway, service.new_stream().body())).status == 500


@dataclass(frozen=True)
class Overtaken:
    """Two services, and a question that the second would have refused for want of credit; by now there is some."""

    first: Service
    second: Service
    gateway: TestGateway
    secret: str
    asked: dict[str, Any]

    async def ask(self, service: Service) -> Answer:
        return await ask(service, self.secret, self.asked)


@pytest.fixture
async def overtaken(database: str) -> AsyncIterator[Overtaken]:
    async with running(database, webhook=ON) as first, running(database, webhook=ON) as second:
        gateway = await first.house.new_gateway(tickets=0)
        secret = await first.house.new_webhook_secret()
        both = Overtaken(first, second, gateway, secret, question(gateway, first_state()))
        assert (await both.ask(second)).json["status"] == 402
        await first.house.grant(gateway, TICKET_CHARGE_USD)
        yield both
        await first.house.require_sound_books()


async def test_a_payment_approved_elsewhere_between_the_lookup_and_the_look_at_the_credit_is_shown_again(
    overtaken: Overtaken, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = overtaking(monkeypatch, lambda: overtaken.ask(overtaken.first))
    answer = await overtaken.ask(overtaken.second)
    assert (answer.json["status"], answer.body) == (200, given[0].body)
    assert overtaken.first.house.sums(overtaken.gateway).tickets == 1


async def test_a_gateway_that_is_found_to_be_suspended_is_shown_nothing_that_was_approved(
    overtaken: Overtaken, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_and_suspend() -> Answer:
        answer = await overtaken.ask(overtaken.first)
        await overtaken.first.house.suspend(overtaken.gateway)
        return answer

    given = overtaking(monkeypatch, ask_and_suspend)
    assert (await overtaken.ask(overtaken.second)).json["status"] == 403
    assert given[0].json["status"] == 200


async def test_a_payment_approved_elsewhere_with_the_last_credit_is_shown_again_where_the_session_was_remembered(
    database: str,
) -> None:
    async with running(database, webhook=ON) as first, running(database, webhook=ON) as second:
        async with asking(first) as one, asking(second) as other:
            gateway, stream = await first.house.new_gateway(tickets=2), first.new_stream()
            await other.pay(gateway, stream)
            assert (await one.sign(gateway, stream.body())).status == 200
            assert (await other.sign(gateway, second.new_stream().body())).status == 402
            again = await other.sign(gateway, stream.body())
            assert again.status == 200, again.body
            assert first.house.sums(gateway).tickets == 2
        await first.house.require_sound_books()
