"""What a wallet does on the chain, and what becomes of it: readings that the quorum agrees on, and transactions that go
to every endpoint.

A reading of money is of one block, as everywhere (quorum.py). What became of a transaction is not pinned to a block:
one endpoint may know a block before another does, and that is no disagreement. It counts when all that were asked say
the same, and until then it is undecided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from chain import abi
from chain.contracts import resolve
from chain.functions import GET_SENDER_INFO
from chain.networks import Network
from chain.quorum import Block, Quorum, read_data, read_known_block, read_uint
from chain.rpc import Failure, MemberFailed, RpcCall, RpcEndpoint, RpcError

Said = TypeVar("Said")


class SimulationRefused(Exception):
    """The contract, or the balance, would refuse the transaction: sent, it would only cost gas."""


@dataclass(frozen=True, slots=True)
class WalletReading:
    """A wallet and an escrow at one block. `nonce` is the next one that the chain expects of the wallet;
    `pending_nonce` counts what nodes know of beyond it and has not been mined."""

    block: Block
    ticket_broker: bytes
    base_fee_wei: int
    balance_wei: int
    nonce: int
    pending_nonce: int
    deposit_wei: int
    reserve_wei: int
    withdraw_round: int


class Mined(NamedTuple):
    """A transaction in a block. `fee_wei` is what its gas cost in all."""

    hash: bytes
    block_number: int
    block_hash: bytes
    has_succeeded: bool
    fee_wei: int


class Fate(StrEnum):
    """What became of transactions with one nonce."""

    MINED = "mined"
    #: Some node has the last of them, and waits.
    PENDING = "pending"
    #: No node that was asked knows the last of them.
    UNKNOWN = "unknown"
    #: Another transaction of the wallet has the nonce.
    OVERTAKEN = "overtaken"
    #: Nodes say different things, as they do for a moment.
    UNDECIDED = "undecided"


class Followed(NamedTuple):
    """`head_number` is the lowest of the newest blocks; `mined` is there where the fate is MINED."""

    fate: Fate
    head_number: int
    mined: Mined | None = None


class Sent(NamedTuple):
    """By endpoint: "taken", "refused" (which is also said of what is known already), or how it failed."""

    answers: Mapping[str, str]


class _Told(NamedTuple):
    """By one endpoint: the wallet's count, the receipts, and whether it knows the last transaction."""

    head_number: int
    nonce: int
    receipts: tuple[Mined | None, ...]
    is_known: bool


class WalletChain:
    """Belongs to one event loop, and serves one caller at a time. `endpoints` are those of the quorum."""

    def __init__(self, quorum: Quorum, endpoints: Sequence[RpcEndpoint], network: Network, *, timeout_s: float) -> None:
        self._quorum, self._endpoints, self._network, self._timeout_s = quorum, endpoints, network, timeout_s

    @property
    def chain_id(self) -> int:
        return self._network.chain_id

    async def standing(self, wallet: bytes, sender: bytes) -> WalletReading:
        """At the newest block that all of the quorum know by now. Raises NoDecision."""
        block_hash = await self._quorum.newest_block_hash(of_now=True)
        contracts = await resolve(self._quorum, block_hash, self._network)
        pin, account = {"blockHash": f"0x{block_hash.hex()}"}, f"0x{wallet.hex()}"
        info = {"to": f"0x{contracts.ticket_broker.hex()}", "data": _hex(abi.calldata(GET_SENDER_INFO, sender))}
        calls = [
            RpcCall("eth_getBlockByHash", [pin["blockHash"], False]),
            RpcCall("eth_getBalance", [account, pin]),
            RpcCall("eth_getTransactionCount", [account, pin]),
            RpcCall("eth_call", [info, pin]),
            RpcCall("eth_getTransactionCount", [account, "pending"]),
        ]

        def read(_: Block, results: Sequence[Any]) -> tuple[WalletReading, int]:
            return _standing(results, contracts.ticket_broker, block_hash)

        answers = await self._quorum.ask(calls, read)
        agreed = self._same({name: said for name, (said, _) in answers.items()}, "the wallet and the escrow")
        return replace(agreed, pending_nonce=max(agreed.nonce, *(pending for _, pending in answers.values())))

    async def simulate(self, payer: bytes, to: bytes, value_wei: int, data: bytes, at: Block) -> int:
        """The gas that the call needs at this block, the most that an endpoint says; on Arbitrum the price of L1 is in
        it. Raises SimulationRefused, NoDecision."""
        call = {"from": f"0x{payer.hex()}", "to": f"0x{to.hex()}", "value": hex(value_wei), "data": _hex(data)}
        calls = [
            RpcCall("eth_call", [call, {"blockHash": f"0x{at.hash.hex()}"}]),
            RpcCall("eth_estimateGas", [call, hex(at.number)]),
        ]
        answers = await self._quorum.ask(calls, lambda _, results: _simulated(results))
        returned = self._same({name: said for name, (said, _) in answers.items()}, "whether a top-up would succeed")
        estimates = [estimate for _, estimate in answers.values() if estimate is not None]
        if returned is None or len(estimates) != len(answers):
            raise SimulationRefused("the TicketBroker would refuse it")
        return max(estimates)

    async def follow(self, wallet: bytes, nonce: int, hashes: Sequence[bytes]) -> Followed:
        """What became of the wallet's transactions of these hashes, which all have this nonce; a later one is to
        replace those before it. Raises NoDecision."""
        shown = [f"0x{hash_.hex()}" for hash_ in hashes]
        # The count comes first: what is mined between two answers then looks undecided, and not overtaken.
        calls = [RpcCall("eth_getTransactionCount", [f"0x{wallet.hex()}", "latest"])]
        calls += [RpcCall("eth_getTransactionReceipt", [hash_]) for hash_ in shown]
        calls.append(RpcCall("eth_getTransactionByHash", [shown[-1]]))
        answers = await self._quorum.ask(calls, lambda head, results: _told(head, results, hashes))
        outcomes: dict[tuple[bytes, bytes], set[Mined]] = {}
        for mined in (receipt for told in answers.values() for receipt in told.receipts if receipt is not None):
            outcomes.setdefault((mined.hash, mined.block_hash), set()).add(mined)
        if any(len(said) > 1 for said in outcomes.values()):
            raise self._quorum.disagreed("what became of a top-up", list(answers))
        return _followed(list(answers.values()), nonce)

    async def send(self, raw: bytes) -> Sent:
        """To every endpoint at once. Nobody's word decides anything: what became of it is read from the chain."""
        names = [endpoint.name for endpoint in self._endpoints]
        outcomes = await asyncio.gather(*(self._send_to(endpoint, raw) for endpoint in self._endpoints))
        return Sent(dict(zip(names, outcomes, strict=True)))

    async def close(self) -> None:
        """May be called twice."""
        await self._quorum.close()

    async def _send_to(self, endpoint: RpcEndpoint, raw: bytes) -> str:
        try:
            (result,) = await endpoint.batch(
                [RpcCall("eth_sendRawTransaction", [_hex(raw)])], timeout_s=self._timeout_s
            )
        except RpcError as error:
            return error.failure.value
        return "refused" if isinstance(result, MemberFailed) else "taken"

    def _same(self, said: Mapping[str, Said], about: str) -> Said:
        """What all of them say. Raises Disagreement."""
        first, *others = said.values()
        if any(other != first for other in others):
            raise self._quorum.disagreed(about, list(said))
        return first


def _standing(results: Sequence[Any], ticket_broker: bytes, block_hash: bytes) -> tuple[WalletReading, int]:
    """And how many transactions of the wallet this endpoint knows of, pending ones too. Raises RpcError."""
    header, balance, nonce, info, pending = results
    block = read_known_block(header)
    if block.hash != block_hash:
        raise RpcError(Failure.MALFORMED)
    try:
        deposit_wei, withdraw_round, reserve_wei, _ = abi.uints(read_data(info), 4)
    except abi.AbiError:
        raise RpcError(Failure.MALFORMED) from None
    standing = WalletReading(
        block=block,
        ticket_broker=ticket_broker,
        base_fee_wei=read_uint(header.get("baseFeePerGas")),
        balance_wei=read_uint(balance),
        nonce=read_uint(nonce),
        pending_nonce=0,
        deposit_wei=deposit_wei,
        reserve_wei=reserve_wei,
        withdraw_round=withdraw_round,
    )
    return standing, read_uint(pending)


def _simulated(results: Sequence[Any]) -> tuple[bytes | None, int | None]:
    """What the call returns and the gas it needs; None where the node says that it fails."""
    returned, estimate = results
    return (
        None if isinstance(returned, MemberFailed) else read_data(returned),
        None if isinstance(estimate, MemberFailed) else read_uint(estimate),
    )


def _told(head: Block, results: Sequence[Any], hashes: Sequence[bytes]) -> _Told:
    count, *receipts, last = results
    found = tuple(_receipt(receipt, hash_) for receipt, hash_ in zip(receipts, hashes, strict=True))
    return _Told(head.number, read_uint(count), found, isinstance(last, dict))


def _receipt(result: Any, hash_: bytes) -> Mined | None:
    """Raises RpcError, also for the receipt of another transaction."""
    if result is None:
        return None
    if not isinstance(result, dict) or read_data(result.get("transactionHash")) != hash_:
        raise RpcError(Failure.CALL_FAILED if isinstance(result, MemberFailed) else Failure.MALFORMED)
    return Mined(
        hash=hash_,
        block_number=read_uint(result.get("blockNumber")),
        block_hash=read_data(result.get("blockHash")),
        has_succeeded=read_uint(result.get("status")) == 1,
        fee_wei=read_uint(result.get("gasUsed")) * read_uint(result.get("effectiveGasPrice")),
    )


def _followed(told: Sequence[_Told], nonce: int) -> Followed:
    head_number = min(each.head_number for each in told)
    found = {receipt for each in told for receipt in each.receipts if receipt is not None}
    if found:
        # Of one nonce and one chain there is one; two are two chains, and one that some do not know is too new.
        is_agreed = len(found) == 1 and all(any(each.receipts) for each in told)
        return Followed(Fate.MINED, head_number, found.pop()) if is_agreed else Followed(Fate.UNDECIDED, head_number)
    if all(each.nonce > nonce for each in told):
        return Followed(Fate.OVERTAKEN, head_number)
    if any(each.nonce > nonce for each in told):
        return Followed(Fate.UNDECIDED, head_number)
    return Followed(Fate.PENDING if any(each.is_known for each in told) else Fate.UNKNOWN, head_number)


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"
