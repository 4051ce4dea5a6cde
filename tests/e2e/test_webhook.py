"""The webhook way in: gateways pay through `clearinghouse signer`, which asks `clearinghouse serve` over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.signatures import checksum_address
from clearinghouse.identity.webhook_signers import SECRETS_REMEMBER_S, WEBHOOK_PATH
from tests.parts import client
from tests.parts.orchestrator import Orchestrator
from tests.parts.payer import ROUTE, calm, delivered, flow, paying
from tests.parts.ports import free_port
from tests.parts.program import Home, Serving, new_home
from tests.parts.signer_payer import SignerPayer, with_receipts
from tests.parts.signer_process import Keystore, SignerProcess, new_keystore, new_signer
from tests.parts.storm import require_books_to_agree

pytestmark = pytest.mark.slow

#: Every kill may cost each payer an answer, which it then gets for nothing.
WEBHOOK = {
    "CLEARINGHOUSE_WEBHOOK__ENABLED": "true",
    "CLEARINGHOUSE_WEBHOOK__REPEATS_PER_HOUR_COUNT": "1000",
}
KILLS = 3


@dataclass
class Field:
    """A service that agrees, signers that ask it, and gateways that pay through these."""

    home: Home
    orchestrator: Orchestrator
    keystore: Keystore
    serving: Serving
    gateways: dict[str, dict[str, Any]] = field(default_factory=dict)

    def new_gateway(self, name: str, *, credit: str) -> None:
        self.home.json("gateway", "create", name)
        self.home.json("credit", "grant", name, credit, "--reason", "for a test")
        self.gateways[name] = self.home.json("key", "create", name)

    def secret_of(self, command: str, *further: str) -> str:
        """From `webhook-signer create` or `rotate`."""
        secret: str = self.home.json("webhook-signer", command, "signer-1", *further)["webhook_secret"]
        return secret

    def new_signer(self, name: str, secret: str) -> SignerProcess:
        headers_file = self.home.folder / f"{name}.headers"
        headers_file.write_text(f"Authorization: Bearer {secret}\n", encoding="utf-8")
        headers_file.chmod(0o600)
        settings = {
            "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_URL": f"{self.serving.http_url}{WEBHOOK_PATH}",
            "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_HEADERS_FILE": str(headers_file),
        }
        return new_signer(self.home, self.keystore, name, settings)

    def payers(self, gateway: str, count: int, at: list[SignerProcess]) -> list[SignerPayer]:
        """They call the last of the signers in `at`, whichever that is by then."""
        return [
            SignerPayer(
                port=lambda: at[-1].port,
                api_key=self.gateways[gateway]["api_key"],
                orchestrator=self.orchestrator,
                sender=self.keystore.address,
                dice=random.Random(number),
            )
            for number in range(count)
        ]

    def restart_service(self) -> None:
        """Where it listened before: signers go on asking there."""
        self.serving = served(self.home, self.serving.http_port)

    async def require_sound_books(self, gateway: str, payers: Sequence[SignerPayer]) -> int:
        """For idle payers. Returns how many payments were charged."""
        assert self.orchestrator.books.refused == []
        gateway_id = self.gateways[gateway]["gateway_id"]
        told = await asyncio.to_thread(with_receipts, self.home.conninfo, gateway_id, payers)
        return await asyncio.to_thread(require_books_to_agree, self.home.conninfo, gateway_id, told)

    def require_clean_ledger(self) -> None:
        report = self.home.json("ledger", "verify")
        assert report["is_clean"] is True, report["findings"]


def served(home: Home, port: int) -> Serving:
    return home.serve(WEBHOOK, http_port=port)


@pytest.fixture
def in_the_field(orchestrator: Orchestrator) -> Iterator[Field]:
    with new_home() as home:
        keystore = new_keystore(home, "tickets")
        home.json("webhook-signer", "list")  # makes the database
        yield Field(home, orchestrator, keystore, served(home, free_port()))


def created(here: Field) -> SignerProcess:
    """The first signer, registered and started."""
    secret = here.secret_of("create", "--sender", checksum_address(here.keystore.address))
    return here.new_signer("one", secret)


@pytest.mark.timeout(600)
async def test_every_ticket_is_accepted_and_the_books_are_worth_what_the_tickets_in_hand_are(
    in_the_field: Field,
) -> None:
    here = in_the_field
    here.new_gateway("rich", credit="10")
    here.new_gateway("poor", credit="0.002")
    signers = [created(here)]
    rich, poor = here.payers("rich", 4, signers), here.payers("poor", 1, signers)
    async with paying([*rich, *poor]):
        await flow(rich, 200)
        while not poor[0].is_broke:
            await flow(rich, 1)
    assert delivered(poor) > 0
    assert len(here.orchestrator.books.payments) == delivered(rich) + delivered(poor)
    for name, payers in (("rich", rich), ("poor", poor)):
        assert await here.require_sound_books(name, payers) == delivered(payers)
        assert not any(payer.counts.lost or payer.counts.refreshed for payer in payers)
    here.require_clean_ledger()


async def test_a_gateway_without_credit_is_told_so_by_the_signer_and_gets_no_ticket(in_the_field: Field) -> None:
    here = in_the_field
    here.home.json("gateway", "create", "penniless")
    here.gateways["penniless"] = here.home.json("key", "create", "penniless")
    (payer,) = here.payers("penniless", 1, [created(here)])
    credentials = {"Bearer " + payer.api_key: 402, "Bearer lpch_nonsense": 403, "": 403}
    for authorization, status in credentials.items():
        headers = [("Authorization", authorization)] if authorization else []
        answer = await client.post(payer.port(), ROUTE, payer.stream.body(), *headers)
        assert answer.status == status, answer
        assert set(answer.json) == {"error"}
    assert await here.require_sound_books("penniless", []) == 0


@pytest.mark.timeout(600)
async def test_the_service_is_killed_in_mid_load_and_no_debit_of_a_released_ticket_is_lost(in_the_field: Field) -> None:
    here = in_the_field
    here.new_gateway("acme", credit="10")
    payers = here.payers("acme", 4, [created(here)])
    async with paying(payers):
        for _ in range(KILLS):
            await flow(payers, 40)
            here.serving.program.kill()
            await asyncio.sleep(0.3)  # signers ask, and nobody answers
            await asyncio.to_thread(here.restart_service)
            await flow(payers, 40)
            async with calm(payers):
                await here.require_sound_books("acme", payers)
    await here.require_sound_books("acme", payers)
    here.require_clean_ledger()
    assert any(payer.counts.lost for payer in payers), "nobody noticed a kill: they missed the load"
    assert len(here.orchestrator.books.payments) == delivered(payers)


@pytest.mark.timeout(600)
async def test_a_secret_is_replaced_without_a_lost_payment_and_the_old_one_ends(in_the_field: Field) -> None:
    here = in_the_field
    here.new_gateway("acme", credit="10")
    old_secret = here.secret_of("create", "--sender", checksum_address(here.keystore.address))
    signers = [here.new_signer("one", old_secret)]
    payers = here.payers("acme", 4, signers)
    async with paying(payers):
        await flow(payers, 40)
        new_secret = await asyncio.to_thread(here.secret_of, "rotate", "--grace", "1h")
        await flow(payers, 40)  # still with the old one
        signers.append(await asyncio.to_thread(here.new_signer, "two", new_secret))
        await flow(payers, 40)
        public_id = old_secret.split("_")[1]
        await asyncio.to_thread(here.home.json, "webhook-signer", "revoke", "signer-1", "--secret", public_id)
        async with asyncio.timeout(SECRETS_REMEMBER_S + 10):
            while await status_of_secret(here, old_secret) != 401:
                await asyncio.sleep(0.5)
        await flow(payers, 40)
    assert not any(payer.counts.lost or payer.counts.given_up for payer in payers)
    assert await here.require_sound_books("acme", payers) == delivered(payers)
    refused = await client.post(signers[0].port, ROUTE, payers[0].stream.body(), ("Authorization", "Bearer x"))
    assert refused.status == 500, "the signer that kept the old secret signs no more"


async def status_of_secret(here: Field, secret: str) -> int:
    """HTTP's own: 401 for the secret, and otherwise about a question that cannot be read."""
    body = json.dumps({"nothing": "of use"}).encode()
    answer = await client.post(here.serving.http_port, WEBHOOK_PATH, body, ("Authorization", f"Bearer {secret}"))
    return answer.status
