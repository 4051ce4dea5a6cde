"""A wallet on the devnet, and the ways to the chain that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from chain.networks import DEV
from chain.quorum import Quorum
from chain.rpc import RpcEndpoint
from chain.signatures import SigningKey, keccak
from chain.wallet_chain import WalletChain
from tests.parts.devnet import DEV_CHAIN_ID, Devnet, FaultProxy, fault_proxy

TREASURY = SigningKey(keccak(b"a treasury wallet"))
ETHER = 10**18
GWEI = 10**9


@dataclass
class WayToChain:
    """A chain as a wallet sees it, and the proxies between."""

    chain: WalletChain
    proxies: list[FaultProxy]


@asynccontextmanager
async def way_to_chain(devnet: Devnet, *, endpoints: int = 2) -> AsyncIterator[WayToChain]:
    """Two endpoints must agree."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(endpoints)]
        reached = [RpcEndpoint(proxy.url, name=f"rpc-{number}") for number, proxy in enumerate(proxies, 1)]
        quorum = Quorum(reached, chain_id=DEV_CHAIN_ID, count=2, timeout_s=2, head_age_max_s=3600)
        chain = WalletChain(quorum, reached, DEV, timeout_s=2)
        stack.push_async_callback(chain.close)
        yield WayToChain(chain, proxies)


def give(devnet: Devnet, address: bytes, wei: int) -> None:
    devnet.rpc("anvil_setBalance", f"0x{address.hex()}", hex(wei))


@contextmanager
def quiet_afterwards(devnet: Devnet) -> Iterator[None]:
    """What the node keeps although the chain is put back: transactions that wait, and what gas costs next."""
    base_fee = devnet.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"]
    try:
        yield
    finally:
        devnet.rpc("anvil_dropAllTransactions")
        devnet.rpc("anvil_setNextBlockBaseFeePerGas", base_fee)


@contextmanager
def without_blocks(devnet: Devnet) -> Iterator[None]:
    """What is sent waits for `devnet.mine`."""
    devnet.rpc("evm_setIntervalMining", 0)
    devnet.rpc("evm_setAutomine", False)
    try:
        yield
    finally:
        devnet.rpc("anvil_dropAllTransactions")
        devnet.rpc("evm_setIntervalMining", 1)
