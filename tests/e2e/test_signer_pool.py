"""`clearinghouse serve` over a pool of `clearinghouse signer` processes that are killed, hang, or hold another key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chain.signatures import checksum_address
from tests.parts import client
from tests.parts.orchestrator import Orchestrator
from tests.parts.payer import ROUTE, Payer, calm, flow, paying
from tests.parts.program import PATIENCE_S, Home, Program, Serving, new_home
from tests.parts.signer_process import SignerProcess, new_keystore, new_signer
from tests.parts.storm import require_books_to_agree

pytestmark = pytest.mark.slow


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def pool_of(*signers: SignerProcess, expected: bytes) -> dict[str, str]:
    return {
        "CLEARINGHOUSE_SIGNER__KIND": "go_livepeer",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": ",".join(signer.url for signer in signers),
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__EXPECTED_ADDRESS": checksum_address(expected),
    }


@dataclass(frozen=True)
class Gateway:
    gateway_id: str
    api_key: str


def new_gateway(home: Home) -> Gateway:
    gateway_id = home.json("gateway", "create", "acme")["gateway_id"]
    home.json("credit", "grant", "acme", "10", "--reason", "for a test")
    return Gateway(gateway_id, home.json("key", "create", "acme")["api_key"])


def new_payer(serving: Serving, gateway: Gateway, orchestrator: Orchestrator, sender: bytes) -> Payer:
    return Payer(
        port=lambda: serving.http_port, api_key=gateway.api_key, orchestrator=orchestrator, sender=sender,
        dice=random.Random(0),
    )  # fmt: skip


async def until_signers_are(serving: Serving, detail: str) -> None:
    """What /readyz says of the pool."""
    async with asyncio.timeout(PATIENCE_S):
        while detail not in (answer := await client.call(serving.http_port, "GET", "/readyz")).body.decode():
            await asyncio.sleep(0.05)
    assert answer.status == (503 if detail == "no signer is healthy" else 200)


@pytest.mark.timeout(600)
async def test_signers_are_killed_and_hang_in_mid_load_and_nothing_is_lost(
    home: Home, orchestrator: Orchestrator
) -> None:
    keystore = new_keystore(home, "tickets")
    signers = [new_signer(home, keystore, name) for name in ("one", "two")]
    gateway = new_gateway(home)
    serving = home.serve(pool_of(*signers, expected=keystore.address))
    payers = [new_payer(serving, gateway, orchestrator, keystore.address) for _ in range(4)]

    async def require_sound_books() -> None:
        assert orchestrator.books.refused == []
        await asyncio.to_thread(require_books_to_agree, home.conninfo, gateway.gateway_id, payers)

    async with paying(payers):
        await flow(payers, 50)

        signers[0].kill()
        await flow(payers, 50)
        await until_signers_are(serving, "1 of 2 signers healthy")
        assert not any(payer.counts.lost for payer in payers), "a call was lost with the signer that was killed"
        await asyncio.to_thread(signers[0].start)
        await until_signers_are(serving, "2 of 2 signers healthy")

        signers[1].hang()
        await flow(payers, 50)
        await until_signers_are(serving, "1 of 2 signers healthy")
        await flow(payers, 50)

        async with calm(payers):
            await require_sound_books()
            signers[0].kill()
            await require_refusal(serving, payers[0])
        await until_signers_are(serving, "no signer is healthy")
        for signer in signers:
            signer.kill()
            await asyncio.to_thread(signer.start)
        await flow(payers, 50)
        await until_signers_are(serving, "2 of 2 signers healthy")

    await require_sound_books()
    assert not any(payer.counts.refreshed for payer in payers)
    assert home.json("ledger", "verify")["is_clean"] is True
    serving.program.terminate()
    assert serving.program.wait() == 0


async def require_refusal(serving: Serving, payer: Payer) -> None:
    """With no signer left: 503, in time for a client that waits five seconds, and worth trying again."""
    headers = ("Authorization", f"Bearer {payer.api_key}")
    refused = await client.post(serving.http_port, ROUTE, payer.stream.body(), headers)
    assert (refused.status, refused.code) == (503, "signers_unavailable"), refused
    assert refused.header("retry-after") is not None


async def test_a_signer_with_another_key_gets_no_calls_and_is_named_in_the_log(
    home: Home, orchestrator: Orchestrator
) -> None:
    ours, other = new_keystore(home, "ours"), new_keystore(home, "other")
    right, wrong = new_signer(home, ours, "right"), new_signer(home, other, "wrong")
    gateway = new_gateway(home)
    serving = home.serve(pool_of(wrong, right, expected=ours.address))
    said = serving.program.wait_for(r"signer \S+ signs as \S+, but the pool signs as [^\"]+")[0]
    for expected in (
        wrong.url.removeprefix("http://"),
        checksum_address(other.address),
        checksum_address(ours.address),
    ):
        assert expected in said
    await until_signers_are(serving, "1 of 2 signers healthy")
    payer = new_payer(serving, gateway, orchestrator, ours.address)
    for _ in range(6):
        await payer.pay()
    assert payer.counts.lost == payer.counts.refreshed == 0
    assert {payment.sender for payment in orchestrator.books.payments} == {ours.address}


def test_a_service_does_not_start_where_every_signer_has_another_key(home: Home) -> None:
    ours, other = new_keystore(home, "ours"), new_keystore(home, "other")
    signers = [new_signer(home, other, name) for name in ("one", "two")]
    program = start_serve(home, pool_of(*signers, expected=ours.address))
    assert program.wait() == 1, program.story
    (line,) = [line for line in program.log.splitlines() if line.startswith("bad_configuration: ")]
    assert f"no signer proved the expected address {checksum_address(ours.address)}" in line
    for signer in signers:
        assert f"{signer.url.removeprefix('http://')}: {checksum_address(other.address)}" in line
    assert "Traceback" not in program.log
    assert home.postmaster_pid is None


def test_a_service_does_not_start_without_being_told_whose_tickets_it_sells(home: Home) -> None:
    signer = new_signer(home, new_keystore(home, "ours"), "one")
    environment = pool_of(signer, expected=bytes(20))
    del environment["CLEARINGHOUSE_SIGNER__GO_LIVEPEER__EXPECTED_ADDRESS"]
    program = start_serve(home, environment)
    assert program.wait() == 1, program.story
    assert "signer.go_livepeer.expected_address is needed" in program.log


def test_a_signer_with_a_wrong_password_says_so_and_not_the_password(home: Home) -> None:
    keystore = new_keystore(home, "ours")
    keystore.password_file.write_text("not the password", encoding="utf-8")
    program = home.start("signer", "--port", 0, "--data-dir", home.data_dir, environment=keystore.environment)
    assert program.wait() == 1, program.story
    assert str(keystore.file) in program.log
    assert "not the password" not in program.log
    assert "Traceback" not in program.log


def start_serve(home: Home, environment: dict[str, str]) -> Program:
    ports = ("--http-port", 0, "--grpc-port", 0)
    return home.start("serve", "--data-dir", home.data_dir, *ports, environment=environment)
