"""The orchestrator is what our payments are judged by, so its own judgement is tested against published values."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import coincurve
import grpc
import pytest

from chain.pb import lp_rpc_pb2 as pb
from chain.pb import lp_rpc_pb2_grpc as pb_grpc
from chain.signatures import checksum_address, keccak
from tests.parts.orchestrator import Orchestrator, PaymentRefused, Reason, Settings, lottery, running_orchestrator

MANIFEST = "deadbeef"


@dataclass(frozen=True, slots=True)
class Broadcaster:
    """A sender that signs with the library alone: nothing here comes from our own signer."""

    key: coincurve.PrivateKey

    @property
    def address(self) -> bytes:
        return keccak(self.key.public_key.format(compressed=False)[1:])[-20:]

    def sign(self, message: bytes) -> bytes:
        digest = keccak(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)
        signature = self.key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([signature[64] + 27])

    def payment(self, info: pb.OrchestratorInfo, nonces: range) -> pb.Payment:
        params = info.ticket_params
        payment = pb.Payment(
            ticket_params=params,
            sender=self.address,
            expiration_params=params.expiration_params,
            expected_price=info.price_info,
        )
        payment.ticket_params.ClearField("expiration_params")
        for nonce in nonces:
            payment.ticket_sender_params.add(sender_nonce=nonce, sig=self.sign(keccak(ticket_bytes(payment, nonce))))
        return payment

    def segment(self, info: pb.OrchestratorInfo, manifest_id: str = MANIFEST) -> pb.SegData:
        manifest, empty = manifest_id.encode(), keccak(b"")
        return pb.SegData(
            manifestId=manifest,
            hash=empty,
            profiles=b"invalid",
            sig=self.sign(keccak(manifest + bytes(32) + empty)),
            auth_token=info.auth_token,
        )


def ticket_bytes(payment: pb.Payment, nonce: int) -> bytes:
    params, expiration = payment.ticket_params, payment.expiration_params
    return b"".join(
        (
            params.recipient,
            payment.sender,
            params.face_value.rjust(32, b"\0"),
            params.win_prob.rjust(32, b"\0"),
            nonce.to_bytes(32, "big"),
            params.recipient_rand_hash,
            expiration.creation_round.to_bytes(32, "big"),
            expiration.creation_round_block_hash,
        )
    )


def header(message: pb.Payment | pb.SegData) -> str:
    return base64.b64encode(message.SerializeToString()).decode()


@pytest.fixture
def sender() -> Broadcaster:
    return Broadcaster(coincurve.PrivateKey())


@pytest.fixture
def orchestrator() -> Orchestrator:
    return Orchestrator("https://127.0.0.1:1")


@pytest.fixture
def info(orchestrator: Orchestrator, sender: Broadcaster) -> pb.OrchestratorInfo:
    return orchestrator.quote(sender.address, job_type="lv2v", session_id="session", route="test")


@pytest.mark.parametrize(
    ("gas_price_wei", "max_float_wei", "face_value_wei", "win_prob"),
    [
        (100, 10**30, 100000000, 5789604461865809771178549250434395392663499233282028201972879200395660),
        (777, 10**30, 777000000, 745122839364969082519761808292714979750772102095499125093034646125570),
        (1, 10001, 10001, 57890255593098787833002192285115442382396752657554526567072084795477017120),
        (0, 10**30, 500, None),
    ],
)
def test_quoted_face_value_and_win_probability_are_the_published_ones(
    gas_price_wei: int, max_float_wei: int, face_value_wei: int, win_prob: int | None
) -> None:
    quoted = lottery.quoted_face_value_wei(
        ticket_ev_wei=5,
        max_float_wei=max_float_wei,
        gas_price_wei=gas_price_wei,
        face_value_per_cost=100,
        redeem_gas=10000,
    )
    assert quoted == face_value_wei
    if win_prob is not None:
        assert lottery.quoted_win_prob(face_value_wei=quoted, ticket_ev_wei=5) == win_prob


def test_a_reserve_below_one_ticket_gets_no_quote() -> None:
    with pytest.raises(lottery.NoTicketFits, match="insufficient sender reserve"):
        lottery.quoted_face_value_wei(ticket_ev_wei=5, max_float_wei=4, gas_price_wei=1, face_value_per_cost=100)


def test_ticket_hash_is_the_published_one() -> None:
    block_hash = bytes.fromhex("7624778dedc75f8b322b9fa1632a610d40b85e106c7d9bf0e743a9ce291b9c6f")
    terms = lottery.Terms(
        sender=bytes.fromhex("2c7536E3605D9C16a7a3D7b1898e529396a65c23"),
        face_value_wei=10**16,
        win_prob=92633671389852956338856788006950326282615987732512451231566072000000000,
        expiration_block=20_000_040,
        price_wei_per_unit=Fraction(150, 175),
        creation_round=3500,
        creation_round_block_hash=block_hash,
        seed=7777,
    )
    rand_hash = lottery.commitment(10)
    assert rand_hash.hex() == "c65a7bb8d6351c1cf70c95a316cc6a92839c986682d98bc35f958f4883f9d2a8"
    recipient = bytes.fromhex("73AEd7b5dEb30222fa896f399d46cC99c7BEe57F")
    signed = lottery.ticket_hash(terms, recipient=recipient, rand_hash=rand_hash, nonce=1)
    assert signed.hex() == "a157e017b0866ead5f340e390b7ae9536a4dc08cacb8b5c4373d23148089ae9d"


def test_an_honest_payment_is_credited_with_the_value_of_its_tickets(
    orchestrator: Orchestrator, sender: Broadcaster, info: pb.OrchestratorInfo
) -> None:
    accepted = orchestrator.receive(header(sender.payment(info, range(1, 6))), header(sender.segment(info)))
    ev_wei = accepted.tickets[0].terms.ev_wei
    assert 0 <= ev_wei - 8 * 10**9 < Fraction(1, 10**20)  # what the quote asked for, but for its own rounding
    assert orchestrator.books.credit_wei[sender.address, MANIFEST] == 5 * ev_wei == accepted.ev_wei
    assert [ticket.nonce for ticket in orchestrator.books.tickets] == [1, 2, 3, 4, 5]
    assert orchestrator.books.refused == []


def another_recipient(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.ticket_params.recipient = bytes(20)


def another_face_value(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.ticket_params.face_value = b"\x01"


def another_price(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.expected_price.pricePerUnit -= 1


def another_round(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.expiration_params.creation_round -= 1


def a_later_expiration(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.ticket_params.expiration_block = b"\xff\xff\xff\xff"


def another_nonce(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.ticket_sender_params[0].sender_nonce += 1


def no_price(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.ClearField("expected_price")


def no_tickets(payment: pb.Payment, _segment: pb.SegData) -> None:
    payment.ClearField("ticket_sender_params")


def another_manifest(_payment: pb.Payment, segment: pb.SegData) -> None:
    segment.manifestId = b"somebody else's"


def another_token(_payment: pb.Payment, segment: pb.SegData) -> None:
    segment.auth_token.session_id = "another"


def a_longer_token(_payment: pb.Payment, segment: pb.SegData) -> None:
    segment.auth_token.expiration += 1


@pytest.mark.parametrize(
    ("tamper", "http_status_and_reason"),
    [
        (another_recipient, (400, Reason.FOREIGN_RECIPIENT)),
        (another_face_value, (400, Reason.BAD_RECIPIENT_RAND)),
        (another_price, (400, Reason.BAD_RECIPIENT_RAND)),
        (another_round, (400, Reason.BAD_RECIPIENT_RAND)),
        (a_later_expiration, (400, Reason.BAD_RECIPIENT_RAND)),
        (another_nonce, (400, Reason.BAD_TICKET_SIGNATURE)),
        (no_price, (400, Reason.NO_PRICE)),
        (no_tickets, (400, Reason.NO_TICKETS)),
        (another_manifest, (403, Reason.BAD_SEGMENT_SIGNATURE)),
        (another_token, (403, Reason.BAD_AUTH_TOKEN)),
        (a_longer_token, (403, Reason.BAD_AUTH_TOKEN)),
    ],
)
def test_a_payment_with_one_changed_value_is_refused_and_credits_nothing(
    orchestrator: Orchestrator,
    sender: Broadcaster,
    info: pb.OrchestratorInfo,
    tamper: Callable[[pb.Payment, pb.SegData], None],
    http_status_and_reason: tuple[int, Reason],
) -> None:
    payment, segment = sender.payment(info, range(1, 2)), sender.segment(info)
    tamper(payment, segment)
    with pytest.raises(PaymentRefused) as refused:
        orchestrator.receive(header(payment), header(segment))
    assert (refused.value.http_status, refused.value.reason) == http_status_and_reason
    assert [entry.reason for entry in orchestrator.books.refused] == [refused.value.reason]
    assert not any(orchestrator.books.credit_wei.values())
    assert orchestrator.books.tickets == []


def test_a_nonce_is_accepted_once(orchestrator: Orchestrator, sender: Broadcaster, info: pb.OrchestratorInfo) -> None:
    payment, segment = header(sender.payment(info, range(1, 3))), header(sender.segment(info))
    orchestrator.receive(payment, segment)
    with pytest.raises(PaymentRefused, match=Reason.NONCE_SEEN):
        orchestrator.receive(payment, segment)
    assert [ticket.nonce for ticket in orchestrator.books.tickets] == [1, 2]


def test_no_more_than_600_nonces_are_accepted_for_one_commitment(
    orchestrator: Orchestrator, sender: Broadcaster, info: pb.OrchestratorInfo
) -> None:
    with pytest.raises(PaymentRefused, match=Reason.TOO_MANY_NONCES):
        orchestrator.receive(header(sender.payment(info, range(1, 602))), header(sender.segment(info)))
    assert len(orchestrator.books.tickets) == 600


def test_a_payment_is_refused_once_its_parameters_or_its_token_expire(
    orchestrator: Orchestrator, sender: Broadcaster, info: pb.OrchestratorInfo
) -> None:
    orchestrator.settings.last_seen_l1_block += orchestrator.settings.params_valid_blocks
    with pytest.raises(PaymentRefused, match=Reason.PARAMS_EXPIRED):
        orchestrator.receive(header(sender.payment(info, range(1, 2))), header(sender.segment(info)))
    orchestrator.settings.auth_token_valid_s = -1
    late = orchestrator.quote(sender.address, job_type="lv2v", session_id="late", route="test")
    assert late.auth_token.expiration < time.time()
    with pytest.raises(PaymentRefused, match=Reason.EXPIRED_AUTH_TOKEN):
        orchestrator.receive(header(sender.payment(late, range(1, 2))), header(sender.segment(late)))


def test_a_sender_that_unlocks_its_deposit_is_refused(
    orchestrator: Orchestrator, sender: Broadcaster, info: pb.OrchestratorInfo
) -> None:
    orchestrator.settings.unlocking_senders.add(sender.address)
    with pytest.raises(PaymentRefused, match=Reason.SENDER_UNLOCKING):
        orchestrator.receive(header(sender.payment(info, range(1, 2))), header(sender.segment(info)))


@pytest.mark.parametrize("garbage", ["", "%%%", "AAA", base64.b64encode(b"\xff\xff\xff").decode()])
def test_garbage_in_the_payment_header_is_402_and_in_the_segment_header_403(
    orchestrator: Orchestrator, sender: Broadcaster, info: pb.OrchestratorInfo, garbage: str
) -> None:
    honest = header(sender.payment(info, range(1, 2)))
    if garbage:  # an empty header is a valid, empty message
        with pytest.raises(PaymentRefused, match=Reason.UNDECODABLE) as undecodable:
            orchestrator.receive(garbage, header(sender.segment(info)))
        assert undecodable.value.http_status == 402
    with pytest.raises(PaymentRefused) as refused:
        orchestrator.receive(honest, garbage)
    assert refused.value.http_status == 403


def test_tickets_win_as_often_as_they_were_quoted_to(sender: Broadcaster) -> None:
    """One in four over 400 tickets: the chance to end outside 50 to 150 is below one in ten million."""
    settings = Settings(gas_price_wei=0, ticket_ev_wei=10**9, face_value_per_cost=4)
    orchestrator = Orchestrator("https://127.0.0.1:1", settings)
    info = orchestrator.quote(sender.address, job_type="lv2v", session_id="session", route="test")
    orchestrator.receive(header(sender.payment(info, range(1, 401))), header(sender.segment(info)))
    winners = orchestrator.books.winners
    assert 50 <= len(winners) <= 150
    assert all(lottery.commitment(winner.recipient_rand) == winner.recipient_rand_hash for winner in winners)


def test_one_port_answers_grpc_to_whoever_proves_its_address_and_http_to_whoever_pays(sender: Broadcaster) -> None:
    proof = sender.sign(keccak(checksum_address(sender.address).encode()))
    with running_orchestrator() as orchestrator:
        host, port = orchestrator.url.removeprefix("https://").split(":")
        certificate = ssl.get_server_certificate((host, int(port))).encode()
        with grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(certificate)) as channel:
            stub = pb_grpc.OrchestratorStub(channel)
            info = stub.GetOrchestrator(pb.OrchestratorRequest(address=sender.address, sig=proof), timeout=10)
            with pytest.raises(grpc.RpcError, match="sig check failed"):
                stub.GetOrchestrator(pb.OrchestratorRequest(address=bytes(20), sig=proof), timeout=10)
        payment = {
            "Livepeer-Payment": header(sender.payment(info, range(1, 3))),
            "Livepeer-Segment": header(sender.segment(info)),
        }
        result = pb.PaymentResult.FromString(post(f"{info.transcoder}/payment", payment))
        assert result.info.ticket_params.recipient_rand_hash != info.ticket_params.recipient_rand_hash
        assert len(orchestrator.books.tickets) == 2


def test_an_unpaid_call_is_answered_with_a_challenge_that_can_be_paid(sender: Broadcaster) -> None:
    with running_orchestrator() as orchestrator:
        url = f"{orchestrator.url}/apps/fixed"
        with pytest.raises(urllib.error.HTTPError) as unpaid:
            post(url, {"Livepeer-Payer-Address": checksum_address(sender.address)})
        with unpaid.value as answer:
            assert answer.code == 402
            challenge = json.load(answer)
        info = pb.OrchestratorInfo.FromString(base64.b64decode(challenge["payment_params"]))
        segment = header(sender.segment(info, challenge["manifest_id"]))
        paid = {"Livepeer-Payment": header(sender.payment(info, range(1, 4))), "Livepeer-Segment": segment}
        assert json.loads(post(url, paid, b"{}"))["session_id"] == challenge["manifest_id"]
        with pytest.raises(urllib.error.HTTPError, match="402"):  # one ticket of three does not cover the price
            post(url, {**paid, "Livepeer-Payment": header(sender.payment(info, range(4, 5)))}, b"{}")


def post(url: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nobody vouches for an orchestrator
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        content: bytes = answer.read()
        return content
