"""Promise 4: no nonce twice, and no state for strangers."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chain.messages import encode_base64
from chain.payment_state import SignedState, decode_state, encode_state
from chain.signatures import SigningKey, keccak
from clearinghouse.ids import show, uuid7
from clearinghouse.requests import decode_payment_request
from tests.parts.client import Answer
from tests.parts.service import GO_LIVEPEER, OURS, Service, our_body
from tests.parts.stack import SIGNER_KEY, TICKET_CHARGE_USD, Clock, Stream, TestGateway, native_signer, offer


def require_refresh(answer: Answer, stream: Stream) -> None:
    """480 as the field's clients act upon it: fetch a fresh OrchestratorInfo from there, then go on."""
    assert (answer.status, answer.code) == (480, "refresh_session"), answer.body
    assert answer.header("livepeer-orchestrator-url") == stream.offer.transcoder


class Refused:
    """Asserts that nothing at all was recorded between entering and leaving."""

    def __init__(self, service: Service) -> None:
        self._house = service.house

    def __enter__(self) -> None:
        self._before = self._house.fingerprint()

    def __exit__(self, *_error: object) -> None:
        assert self._house.fingerprint() == self._before


@pytest.fixture
async def gateway(service: Service) -> TestGateway:
    return await service.house.new_gateway(tickets=100)


async def paid_stream(service: Service, gateway: TestGateway, payments: int, **settings: Any) -> Stream:
    stream = service.new_stream(**settings)
    for _ in range(payments):
        await service.pay(gateway, stream)
    return stream


# --- stale and forked states ------------------------------------------------------------------------------------------


async def test_an_older_state_with_the_same_parameters_is_asked_to_refresh(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1)
    old = stream.state
    await service.pay(gateway, stream)
    await service.pay(gateway, stream)
    stream.state = old
    with Refused(service):
        require_refresh(await service.sign(gateway, stream.body()), stream)
        require_refresh(await service.sign(gateway, stream.body(app=None, inPixels=7)), stream)


async def test_a_call_without_state_cannot_use_the_parameters_of_a_running_session(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 2)
    stream.state = None
    with Refused(service):
        require_refresh(await service.sign(gateway, stream.body()), stream)
        require_refresh(await service.sign(gateway, stream.body(ManifestID="another")), stream)


async def test_a_fork_with_fresh_parameters_goes_on_in_full_and_the_abandoned_branch_ends(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1)
    fork = replace(stream, offer=type(stream.offer).FromString(stream.offer.SerializeToString()))
    await service.pay(gateway, stream)
    fork.refresh()
    before = service.house.sums(gateway).balance
    await service.pay(gateway, fork)
    assert before - service.house.sums(gateway).balance == TICKET_CHARGE_USD
    with Refused(service):
        require_refresh(await service.sign(gateway, stream.body()), stream)
    await service.pay(gateway, fork)
    with Refused(service):
        require_refresh(await service.sign(gateway, stream.body()), stream)
    stream.refresh()
    await service.pay(gateway, stream)  # the other branch may fork again, and pays again


async def test_the_newest_state_with_earlier_parameters_is_asked_to_refresh(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 2)
    earlier = type(stream.offer).FromString(stream.offer.SerializeToString())
    stream.refresh()
    await service.pay(gateway, stream)
    stream.offer = earlier
    with Refused(service):
        require_refresh(await service.sign(gateway, stream.body()), stream)


@pytest.mark.parametrize("other_gateway", [False, True])
async def test_parameters_used_by_one_session_are_refused_to_every_other(
    service: Service, gateway: TestGateway, other_gateway: bool
) -> None:
    first = await paid_stream(service, gateway, 1)
    payer = await service.house.new_gateway() if other_gateway else gateway
    second = await paid_stream(service, payer, 1)
    second.offer.ticket_params.recipient_rand_hash = first.offer.ticket_params.recipient_rand_hash
    second.offer.address = second.offer.ticket_params.recipient
    with Refused(service):
        require_refresh(await service.sign(payer, second.body()), second)
    await service.pay(gateway, first)


async def test_no_nonce_is_issued_twice_when_forks_race_for_one_session(twins: tuple[Service, Service]) -> None:
    gateway = await twins[0].house.new_gateway(tickets=500)
    stream = await paid_stream(twins[0], gateway, 1)
    forks = [
        stream.body(),
        *(stream.body(capabilities=encode_base64(b"\x22" + bytes([len(v)]) + v)) for v in (b"1", b"2", b"3")),
    ]
    answers = await asyncio.gather(*(twins[i % 2].sign(gateway, forks[i // 2 % 4]) for i in range(32)))
    assert {answer.status for answer in answers} <= {200, 480}
    assert len({answer.body for answer in answers if answer.status == 200}) == 1, "one branch won, and was repeated"
    assert twins[0].house.fetch("SELECT first_nonce FROM issuance ORDER BY id") == [(1,), (2,)]


# --- strangers --------------------------------------------------------------------------------------------------------


async def test_a_state_of_another_gateway_is_refused_with_old_and_with_fresh_parameters(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1)
    stranger = await service.house.new_gateway()
    with Refused(service):
        assert (await service.sign(stranger, stream.body())).code == "session_not_yours"
        stream.refresh()
        answer = await service.sign(stranger, stream.body())
    assert (answer.status, answer.code) == (403, "session_not_yours")


async def test_another_key_of_the_same_gateway_may_go_on(service: Service, gateway: TestGateway) -> None:
    stream = await paid_stream(service, gateway, 1)
    await service.pay(await service.house.new_key(gateway.id), stream)


async def test_a_state_made_by_the_signer_for_somebody_else_is_refused(service: Service, gateway: TestGateway) -> None:
    other_gateway = await service.house.new_gateway()
    theirs = decode_state((await paid_stream(service, other_gateway, 1)).state.state)  # type: ignore[union-attr]
    mine = show("gw", gateway.id)
    their_session = theirs.auth_id.partition("/")[2]
    for auth_id in ("", "webhook-tenant", mine, f"{mine}/", f"{mine}/{show('ses', uuid7())}", f"{mine}/{their_session}",
                    f"{mine}/{their_session}/", f" {mine}/{their_session}"):  # fmt: skip
        stream = service.new_stream()
        answer = await native_signer(Clock()).generate_payment(decode_payment_request(stream.body()), auth_id=auth_id)
        stream.learn(answer.body)
        stream.refresh()
        with Refused(service):
            refused = await service.sign(gateway, stream.body())
        assert (refused.status, refused.code) == (403, "session_not_yours"), auth_id


async def test_a_state_signed_by_another_key_is_refused(service: Service, gateway: TestGateway) -> None:
    stream = await paid_stream(service, gateway, 1)
    assert stream.state is not None
    stream.state = SignedState(stream.state.state, SigningKey(keccak(b"another")).eth_sign(stream.state.state))
    stream.refresh()
    with Refused(service):
        refused = await service.sign(gateway, stream.body())
    assert (refused.status, refused.message) == (400, "invalid sig")


def _richer(state: SignedState) -> SignedState:
    return SignedState(encode_state(decode_state(state.state)._replace(balance=10**18)), state.sig)  # type: ignore[arg-type]


def _cheaper(state: SignedState) -> SignedState:
    changed = decode_state(state.state)
    return SignedState(
        encode_state(changed._replace(initial_price=changed.initial_price._replace(price_per_unit=1))), state.sig
    )


def _without_price(state: SignedState) -> SignedState:
    """Nothing can be divided by these pixels; nobody has signed them either."""
    changed = decode_state(state.state)
    return SignedState(
        encode_state(changed._replace(initial_price=changed.initial_price._replace(pixels_per_unit=0))), state.sig
    )


def _earlier_nonce(state: SignedState) -> SignedState:
    return SignedState(encode_state(decode_state(state.state)._replace(sender_nonce=0)), state.sig)


def _malleable(state: SignedState) -> SignedState:
    """The other signature that ECDSA accepts for the same message."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(state.sig[32:64], "big")
    return SignedState(state.state, state.sig[:32] + s.to_bytes(32, "big") + bytes([55 - state.sig[64]]))


TAMPERED: list[Callable[[SignedState], SignedState]] = [
    _richer,
    _cheaper,
    _without_price,
    _earlier_nonce,
    _malleable,
    lambda state: SignedState(state.state + b" ", state.sig),
    lambda state: SignedState(state.state, state.sig[:64]),
    lambda state: SignedState(state.state, bytes(65)),
    lambda state: SignedState(state.state, b""),
    lambda state: SignedState(b"", state.sig),
    lambda state: SignedState(b"null", state.sig),
    lambda state: SignedState(b"{}", state.sig),
]


async def test_a_tampered_state_is_refused_and_costs_nothing(service: Service, gateway: TestGateway) -> None:
    stream = await paid_stream(service, gateway, 1)
    honest = stream.state
    assert honest is not None
    with Refused(service):
        for number, tamper in enumerate(TAMPERED):
            stream.state = tamper(honest)
            stream.refresh()
            for path in (GO_LIVEPEER, OURS):
                document = our_body(stream.document()) if path == OURS else stream.document()
                answer = await service.sign(gateway, json.dumps(document).encode(), path=path)
                assert answer.status in (400, 403), (number, answer.status, answer.body)


# --- what a session began with ----------------------------------------------------------------------------------------


def _swap_orchestrator(stream: Stream) -> None:
    stream.offer.address = b"\x0b" * 20


def _swap_app(stream: Stream) -> None:
    stream.app = "another app"


def _swap_type(stream: Stream) -> None:
    stream.job_type = "live"


async def test_orchestrator_app_and_type_cannot_be_swapped_and_the_words_are_go_livepeers(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1)
    for swap, words in (
        (_swap_orchestrator, "orchestratorAddress mismatch"),
        (_swap_app, "app mismatch"),
        (_swap_type, "job type mismatch"),
    ):
        swapped = copy.deepcopy(stream)
        swap(swapped)
        with Refused(service):
            same = await service.sign(gateway, swapped.body())
            swapped.refresh()
            fresh = await service.sign(gateway, swapped.body())
        assert (same.status, same.message) == (fresh.status, fresh.message) == (400, words)
    await service.pay(gateway, stream)


async def test_the_recipient_cannot_be_swapped_for_the_same_orchestrator(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1)
    stream.offer.ticket_params.recipient = b"\x0c" * 20
    for _ in range(2):
        with Refused(service):
            answer = await service.sign(gateway, stream.body())
        assert (answer.status, answer.code) == (403, "session_mismatch")
        stream.refresh()


async def test_the_manifest_cannot_be_swapped(service: Service, gateway: TestGateway) -> None:
    stream = await paid_stream(service, gateway, 1)
    with Refused(service):
        answer = await service.sign(gateway, stream.body(ManifestID="another"))
        assert (await service.sign(gateway, stream.body(ManifestID=None))).status == 400
    assert (answer.status, answer.code) == (403, "session_mismatch")
    await service.pay(gateway, stream)


async def test_a_session_begun_without_manifest_is_pinned_to_the_first_one_named(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1, manifest_id="")
    stream.manifest_id = "the-orchestrators"
    await service.pay(gateway, stream)
    await service.pay(gateway, stream)
    stream.manifest_id = "another"
    with Refused(service):
        answer = await service.sign(gateway, stream.body())
    assert (answer.status, answer.code) == (403, "session_mismatch")


async def test_a_manifest_named_at_one_process_binds_the_other(twins: tuple[Service, Service]) -> None:
    gateway = await twins[0].house.new_gateway()
    stream = await paid_stream(twins[1], gateway, 1, manifest_id="")
    stream.manifest_id = "one"
    await twins[0].pay(gateway, stream)
    stream.manifest_id = "two"
    stream.refresh()
    assert (await twins[1].sign(gateway, stream.body())).code == "session_mismatch"


async def test_the_price_of_a_session_may_not_rise_above_what_it_began_with(
    service: Service, gateway: TestGateway
) -> None:
    stream = await paid_stream(service, gateway, 1)
    stream.offer.price_info.pricePerUnit += 1
    with Refused(service):
        answer = await service.sign(gateway, stream.body())
    assert (answer.status, answer.code) == (481, "price_exceeded")


def test_the_signer_of_these_tests_is_the_one_of_the_service() -> None:
    """Otherwise a forged AuthID would be refused for its signature, and nothing said about the AuthID."""
    assert native_signer(Clock()).address == SIGNER_KEY.address
    assert offer(Clock()).ticket_params.recipient_rand_hash != offer(Clock()).ticket_params.recipient_rand_hash
