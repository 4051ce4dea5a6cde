"""The chain: every endpoint is of it and up to date, enough of them agree, and the sender has something there."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from chain.chain_reading import ChainReading, Lock
from chain.escrow_reader import EscrowReader
from chain.networks import NETWORKS
from chain.quorum import NoDecision, Quorum
from chain.rpc import RpcEndpoint
from chain.signatures import checksum_address, parse_address
from clearinghouse.chain_watch import endpoints_of, quorum_of
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import Settings
from clearinghouse.config_chain import ChainSettings

NAME: Final = "chain"
_NOBODY: Final = bytes(20)


async def check(settings: Settings) -> list[Finding]:
    """Nothing where no chain is configured."""
    chain = settings.chain
    if not chain.is_configured:
        return []
    each = await asyncio.gather(*(_endpoint(endpoint, chain) for endpoint in endpoints_of(chain)))
    return [*each, await _agreement(chain, settings.signer.go_livepeer.expected_address)]


async def _endpoint(endpoint: RpcEndpoint, chain: ChainSettings) -> Finding:
    alone = Quorum(
        [endpoint],
        chain_id=NETWORKS[chain.network].chain_id,
        count=1,
        timeout_s=chain.timeout_s,
        head_age_max_s=chain.stale_max_s,
    )
    name = f"{NAME} {endpoint.name}"
    try:
        await alone.newest_block_hash()
    except NoDecision as reason:
        said = str(reason).rpartition(f"{endpoint.name} ")[2]
        return error(name, f"is of no use: {said}", "Check its URL, its key, and what the network lets through.")
    finally:
        await alone.close()
    return ok(name, f"is of {chain.network} and up to date")


async def _agreement(chain: ChainSettings, sender: str | None) -> Finding:
    quorum = quorum_of(chain)
    address = parse_address(sender) if sender is not None else _NOBODY
    try:
        reading = await EscrowReader(quorum, NETWORKS[chain.network], address, stale_max_s=chain.stale_max_s).poll()
    except NoDecision as reason:
        return error(NAME, f"cannot be read: {reason}", "Until it can, every call is refused.")
    finally:
        await quorum.close()
    return _about(reading, address)


def _about(reading: ChainReading, sender: bytes) -> Finding:
    age_s = int(time.time()) - reading.block.time_unix_s
    detail = f"block {reading.block.number}, {age_s} s old, round {reading.rounds.current}"
    if sender == _NOBODY:
        return ok(NAME, detail)
    shown, escrow = checksum_address(sender), reading.escrows[sender]
    if escrow.lock is not Lock.LOCKED:
        return error(
            NAME,
            f"the escrow of {shown} is {escrow.lock.value} (withdraw round {escrow.withdraw_round})",
            "Cancel the unlock, or fund it from its own address: orchestrators refuse tickets of this sender.",
        )
    if escrow.deposit_wei == 0 or escrow.reserve_wei == 0:
        return warning(
            NAME,
            f"{shown} has a deposit of {escrow.deposit_wei} wei and a reserve of {escrow.reserve_wei} wei",
            "Fund both in the TicketBroker: without them no ticket is signed or taken.",
        )
    return ok(NAME, f"{detail}; {shown} has a deposit of {escrow.deposit_wei} wei")
