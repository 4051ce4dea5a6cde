"""Promise 7 on a chain: what is read there decides, and while nothing can be read for certain nothing is signed."""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

import pytest

from chain.messages import decode_base64
from chain.pb import lp_rpc_pb2 as net
from chain.signatures import keccak
from chain.tickets import Ticket, ticket_hash
from tests.abuses.attack import OURS, metrics_page
from tests.parts import client
from tests.parts.chained import ETHER, ORCHESTRATOR, Chained, chained
from tests.parts.client import Answer
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import API_KEY, Fault, changed, hanging, honest, status, wrong_chain_id
from tests.parts.devnet.network import ChainRefused
from tests.parts.service import our_body
from tests.parts.stack import SIGNER_KEY, TICKET_EV_WEI, TestGateway

STALE_MAX_S = 3


def other_deposit(result: str, parameters: list[Any]) -> str:
    return "0x" + "0" * 63 + "1" + result[66:] if parameters[0]["data"].startswith("0xe1a589da") else result


FAULTS: dict[str, Fault] = {
    "hangs": hanging(),
    "is away": status(0),
    "is limited": status(429, ("Retry-After", "1")),
    "is of another chain": wrong_chain_id(),
    "lies": changed("eth_call", other_deposit),
}


async def refused(chained: Chained, gateway: TestGateway) -> Answer:
    stream = chained.new_stream()
    answer = await chained.service.sign(gateway, json.dumps(our_body(stream.document())).encode(), path=OURS)
    assert answer.status == 503, answer.body
    return answer


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_while_the_quorum_cannot_be_had_nothing_is_signed_and_it_recovers_by_itself(
    database: str, devnet: Devnet, fault: Fault
) -> None:
    async with chained(database, devnet, chain={"stale_max_s": STALE_MAX_S}) as over:
        gateway = await over.service.house.new_gateway()
        await over.service.pay(gateway, over.new_stream())
        over.proxies[1].fault = fault
        check = await over.until_unready()
        assert "rpc-2" in check.detail
        books = over.service.house.fingerprint()
        answer = await refused(over, gateway)
        assert answer.code == "registry_unknown"
        assert answer.header("retry-after") is not None
        assert over.service.house.fingerprint() == books
        over.proxies[1].fault = honest
        await over.caught_up()
        await over.service.pay(gateway, over.new_stream())


async def test_with_a_third_endpoint_the_loss_of_one_is_not_noticed(database: str, devnet: Devnet) -> None:
    async with chained(database, devnet, endpoints=3) as over:
        gateway = await over.service.house.new_gateway()
        for fault in (status(0), hanging()):
            over.proxies[0].fault = fault
            devnet.next_round()
            await over.caught_up()
            await over.service.pay(gateway, over.new_stream())


@pytest.mark.parametrize("fault", [FAULTS["is away"], FAULTS["is of another chain"]], ids=["away", "another chain"])
async def test_a_service_starts_without_its_chain_and_signs_once_it_is_there(
    database: str, devnet: Devnet, fault: Fault
) -> None:
    async with chained(database, devnet, fault=fault) as over:
        gateway = await over.service.house.new_gateway()
        ready = await client.call(over.service.port, "GET", "/readyz")
        assert ready.status == 503
        assert b"rpc-1" in ready.body
        assert (await refused(over, gateway)).code == "registry_unknown"
        for proxy in over.proxies:
            proxy.fault = honest
        await over.caught_up()
        await over.service.pay(gateway, over.new_stream())


async def test_disagreement_is_counted_and_polls_and_endpoints_have_their_metrics(
    database: str, devnet: Devnet
) -> None:
    async with chained(database, devnet, chain={"stale_max_s": STALE_MAX_S}) as over:
        over.proxies[0].fault = FAULTS["lies"]
        await over.until_unready()
        page = (await metrics_page(over.service)).decode()
    values = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in page.splitlines() if line[0] != "#"}
    assert float(values["clearinghouse_chain_disagreements_total"]) >= 1
    assert (
        values['clearinghouse_chain_polls_total{outcome="disagreement"}']
        == values["clearinghouse_chain_disagreements_total"]
    )
    assert float(values['clearinghouse_rpc_requests_total{endpoint="rpc-1",outcome="ok"}']) >= 2
    assert float(values['clearinghouse_rpc_request_seconds_count{endpoint="rpc-2"}']) >= 2
    assert float(values['clearinghouse_chain_reading_age_seconds{network="dev"}']) > STALE_MAX_S
    assert (values["clearinghouse_chain_round"], values["clearinghouse_active_orchestrators"]) == ("3501.0", "1.0")


async def test_the_keys_in_the_urls_are_in_no_log_answer_or_metric(
    database: str, devnet: Devnet, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    async with chained(database, devnet, chain={"stale_max_s": STALE_MAX_S}) as over:
        gateway = await over.service.house.new_gateway()
        for proxy, fault in ((0, status(401, body=API_KEY.encode())), (1, hanging())):
            over.proxies[proxy].fault = fault
        check = await over.until_unready()
        shown += [check.detail, (await refused(over, gateway)).body.decode()]
        shown += [(await client.call(over.service.port, "GET", path)).body.decode() for path in ("/readyz", "/metrics")]
    shown += [caplog.text, *capfd.readouterr()]
    assert "rpc-1" in "".join(shown)
    assert API_KEY not in "".join(shown)


async def test_a_ticket_that_was_signed_and_wins_is_paid_on_the_chain_and_the_service_sees_the_deposit_fall(
    database: str, devnet: Devnet
) -> None:
    rand = secrets.token_bytes(32)
    async with chained(database, devnet) as over:
        gateway = await over.service.house.new_gateway()
        stream = over.new_stream()
        stream.offer.ticket_params.recipient_rand_hash = keccak(rand)
        while not redeemed(devnet, await over.service.pay(gateway, stream), rand):
            pass  # one ticket in five wins
        left_wei = ETHER - 5 * TICKET_EV_WEI
        assert int.from_bytes(devnet.call("BondingManager", "fees(address)", ORCHESTRATOR), "big") == 5 * TICKET_EV_WEI
        await over.caught_up()
        too_large = over.new_stream()
        too_large.offer.ticket_params.face_value = (left_wei // 50 + 1).to_bytes(32, "big")
        answer = await over.service.sign(gateway, too_large.body())
        assert (answer.status, answer.code) == (403, "ticket_not_allowed")
        assert str(left_wei // 50) in answer.message


def redeemed(devnet: Devnet, answer: Answer, rand: bytes) -> bool:
    """Whether the first ticket of the payment won. Any other reason not to pay it fails the test."""
    payment = net.Payment.FromString(decode_base64(answer.json["payment"]))
    params, sent = payment.ticket_params, payment.ticket_sender_params[0]
    ticket = Ticket(
        params.recipient, payment.sender, int.from_bytes(params.face_value, "big"),
        int.from_bytes(params.win_prob, "big"), sent.sender_nonce, params.recipient_rand_hash,
        payment.expiration_params.creation_round, payment.expiration_params.creation_round_block_hash,
    )  # fmt: skip
    assert payment.sender == SIGNER_KEY.address
    assert SIGNER_KEY.eth_sign(ticket_hash(ticket)) == sent.sig
    if int.from_bytes(keccak(sent.sig + rand), "big") < ticket.win_prob:
        devnet.redeem(ticket, sent.sig, int.from_bytes(rand, "big"))
        return True
    with pytest.raises(ChainRefused, match="did not win"):
        devnet.redeem(ticket, sent.sig, int.from_bytes(rand, "big"))
    return False
