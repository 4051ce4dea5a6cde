"""The programs as operators start them, over a chain: what they say, and what they never say."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.clearinghouse.signers.calls import body, info
from tests.parts import client
from tests.parts.chained import ETHER, ORCHESTRATOR
from tests.parts.devnet import Devnet, FaultProxy, fault_proxy, round_hash
from tests.parts.devnet.fault_proxy import API_KEY, status
from tests.parts.program import Home, new_home

pytestmark = pytest.mark.slow


def environment_of(home: Home, *proxies: FaultProxy) -> dict[str, str]:
    urls = home.folder / "rpc_urls"
    urls.write_text("\n".join(proxy.url for proxy in proxies), encoding="utf-8")
    urls.chmod(0o600)
    return {
        "CLEARINGHOUSE_CHAIN__NETWORK": "dev",
        "CLEARINGHOUSE_CHAIN__RPC_URLS_FILE": str(urls),
        "CLEARINGHOUSE_CHAIN__POLL_S": "0.1",
        "CLEARINGHOUSE_CHAIN__STALE_MAX_S": "3",
    }


async def test_a_signer_signs_over_the_escrow_that_its_key_has_on_the_chain(devnet: Devnet) -> None:
    async with fault_proxy(devnet.url) as first, fault_proxy(devnet.url) as second:
        with new_home() as home:
            environment = environment_of(home, first, second)
            program = await asyncio.to_thread(home.start, "signer", "--port", 0, environment=environment)
            said = r"^signing for (0x\w+) \(escrow on dev\) at http://\S+:(\d+)$"
            found = await asyncio.to_thread(program.wait_for, said)
            port = int(found[2])
            refused = await payment(port, devnet)
            assert (refused.status, "no sender reserve" in refused.body.decode()) == (400, True)
            devnet.fund(bytes.fromhex(found[1][2:]), deposit_wei=ETHER, reserve_wei=ETHER)
            async with asyncio.timeout(60):
                while (await payment(port, devnet)).status != 200:
                    await asyncio.sleep(0.1)
            first.fault = status(401, body=API_KEY.encode())
            async with asyncio.timeout(60):
                while (stale := await payment(port, devnet)).status != 503:
                    await asyncio.sleep(0.1)
            assert "rpc-1 http_status" in program.log
            assert API_KEY not in program.log + program.out + stale.body.decode()


async def payment(port: int, devnet: Devnet) -> client.Answer:
    offer = info()
    offer.auth_token.expiration = 2**62
    offer.ticket_params.expiration_params.creation_round = devnet.round
    offer.ticket_params.expiration_params.creation_round_block_hash = round_hash(devnet.round)
    return await client.post(port, "/generate-live-payment", body(offer, type="fixed"))


async def test_dev_over_a_chain_says_so_and_is_ready_when_it_was_read(devnet: Devnet) -> None:
    devnet.join(ORCHESTRATOR)
    devnet.next_round()
    async with fault_proxy(devnet.url) as first, fault_proxy(devnet.url) as second:
        with new_home() as home:
            dev = await asyncio.to_thread(home.dev, environment=environment_of(home, first, second))
            async with asyncio.timeout(60):  # a reading is old for a moment where the machine is busy
                while (ready := await client.call(dev.http_port, "GET", "/readyz")).status != 200:
                    await asyncio.sleep(0.1)
            checks = {check["name"]: check["detail"] for check in json.loads(ready.body)["checks"]}
            assert "round 3501, 1 active orchestrators, escrow locked" in checks["chain"]
            assert "over the escrow that is read from the chain" in checks["signer"]
            assert API_KEY not in dev.program.log + dev.program.out
