"""Livepeer's contracts, as far as tests need them, on a node; and everything that may happen to them.

Calls go straight to the node and wait for it. What changes something is mined at once, in a block of its own.
"""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from eth_abi.abi import encode
from eth_abi.grammar import parse

from chain.signatures import checksum_address, keccak
from chain.tickets import Ticket
from tests.parts.devnet.artifacts import bytecodes

DEV_CHAIN_ID = 31337
#: Where the first contract of anvil's first account is.
CONTROLLER = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")
FIRST_ROUND = 3500
#: In the order of their deployment, which their addresses depend on.
CONTRACTS = ("Controller", "RoundsManager", "BondingManager", "ServiceRegistry", "TicketBroker")
CALL_TIMEOUT_S = 20
REDEEM = "redeemWinningTicket((address,address,uint256,uint256,uint256,bytes32,bytes),bytes,uint256)"


class ChainRefused(Exception):
    """The node answered with an error, or a transaction failed. The text has the contract's reason."""


def round_hash(round_: int) -> bytes:
    return keccak(b"round %d" % round_)


class Devnet:
    """The contracts on one node. `deployed_on` puts them there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._operator = ""
        self._ids = itertools.count(1)
        self.contracts: dict[str, bytes] = {}
        self.round = FIRST_ROUND

    @classmethod
    def deployed_on(cls, url: str) -> Devnet:
        """On a node that nobody has used yet."""
        devnet = cls(url)
        devnet._operator = devnet.rpc("eth_accounts")[0]
        devnet._deploy()
        return devnet

    # --- the contracts ---

    def call(self, contract: str, signature: str, *arguments: Any) -> bytes:
        """Reads the newest block."""
        query = {"to": _hex(self.contracts[contract]), "data": _hex(calldata(signature, *arguments))}
        return bytes.fromhex(self.rpc("eth_call", query, "latest")[2:])

    def send(
        self, contract: str, signature: str, *arguments: Any, value_wei: int = 0, sender: bytes | None = None
    ) -> None:
        """A transaction, mined. `sender` is any account: the node signs for everybody here. Raises ChainRefused."""
        transaction = {
            "from": _hex(sender) if sender is not None else self._operator,
            "to": _hex(self.contracts[contract]),
            "data": _hex(calldata(signature, *arguments)),
            "value": hex(value_wei),
            "gas": hex(3_000_000),
        }
        self._mined([transaction])

    # --- the sender's funds ---

    def fund(self, sender: bytes, *, deposit_wei: int = 0, reserve_wei: int = 0) -> None:
        """By somebody else."""
        fund = "fundDepositAndReserveFor(address,uint256,uint256)"
        self.send("TicketBroker", fund, sender, deposit_wei, reserve_wei, value_wei=deposit_wei + reserve_wei)

    @contextmanager
    def acting_as(self, account: bytes) -> Iterator[None]:
        """The node signs for this account, and it has what gas costs."""
        self.rpc("anvil_setBalance", _hex(account), hex(10**20))
        self.rpc("anvil_impersonateAccount", _hex(account))
        try:
            yield
        finally:
            self.rpc("anvil_stopImpersonatingAccount", _hex(account))

    def withdraw_everything(self, sender: bytes) -> None:
        """Unlocks, waits for two rounds and takes all of it: deposit and reserve are 0 afterwards."""
        with self.acting_as(sender):
            self.send("TicketBroker", "unlock()", sender=sender)
            self.next_round()
            self.next_round()
            self.send("TicketBroker", "withdraw()", sender=sender)

    def redeem(self, ticket: Ticket, sig: bytes, recipient_rand: int) -> None:
        """As its recipient would. Raises ChainRefused with the contract's reason."""
        aux = ticket.creation_round.to_bytes(32, "big") + ticket.creation_round_block_hash
        fields = (_hex(ticket.recipient), _hex(ticket.sender), ticket.face_value_wei, ticket.win_prob,
                  ticket.sender_nonce, ticket.recipient_rand_hash, aux)  # fmt: skip
        self.send("TicketBroker", REDEEM, fields, sig, recipient_rand)

    # --- rounds and orchestrators ---

    def next_round(self, *, block_hash: bytes | None = None) -> int:
        """Begins and initialises it. Its hash follows from its number unless one is given."""
        self.round += 1
        new_hash = round_hash(self.round) if block_hash is None else block_hash
        self.send("RoundsManager", "initializeRound(uint256,bytes32)", self.round, new_hash)
        return self.round

    def begin_round(self) -> int:
        """A round that nobody has initialised yet."""
        self.round += 1
        self.send("RoundsManager", "beginRound(uint256)", self.round)
        return self.round

    def join(self, *orchestrators: bytes, uri: str = "https://orchestrator.test:8935") -> None:
        """Into the pool, active from the next round."""
        for each in orchestrators:
            self.send("BondingManager", "join(address)", each)
            self.send("ServiceRegistry", "setServiceURIOf(address,string)", each, uri)

    def leave(self, orchestrator: bytes) -> None:
        """Out of the pool, active until this round ends."""
        self.send("BondingManager", "leave(address)", orchestrator)

    # --- the node ---

    def mine(self) -> None:
        self.rpc("evm_mine")

    def pause(self) -> None:
        """No block comes by itself, until `undone` begins or ends."""
        self.rpc("evm_setIntervalMining", 0)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Whatever happens to the chain within the block has never happened after it."""
        with self._at_rest():
            snapshot, round_, number = self.rpc("evm_snapshot"), self.round, self.rpc("eth_blockNumber")
        try:
            yield
        finally:
            with self._at_rest():
                assert self.rpc("evm_revert", snapshot) is True
                assert self.rpc("eth_blockNumber") == number, "the chain is where it was"
                self.round = round_
                self.rpc("evm_setTime", int(time.time()))  # the clock was put back too

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """No block comes by itself: one that is made while the chain is put back would be of both chains."""
        self.pause()
        try:
            yield
        finally:
            self.rpc("evm_setIntervalMining", 1)

    def rpc(self, method: str, *parameters: Any) -> Any:
        """Raises ChainRefused."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), int(parts.port or 80), timeout=CALL_TIMEOUT_S)
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": parameters}
        try:
            connection.request("POST", "/", json.dumps(body), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise ChainRefused(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _deploy(self) -> None:
        arguments = {
            "RoundsManager": encode(["uint256", "bytes32"], [FIRST_ROUND, round_hash(FIRST_ROUND)]),
            "BondingManager": encode(["address"], [CONTROLLER]),
            "TicketBroker": encode(["address"], [CONTROLLER]),
        }
        codes = bytecodes()
        creations = [
            {"from": self._operator, "data": _hex(codes[name] + arguments.get(name, b"")), "gas": hex(8_000_000)}
            for name in CONTRACTS
        ]
        receipts = self._mined(creations)
        self.contracts = {
            name: bytes.fromhex(receipt["contractAddress"][2:])
            for name, receipt in zip(CONTRACTS, receipts, strict=True)
        }
        assert self.contracts["Controller"] == CONTROLLER, "the node was used before"
        for name in CONTRACTS[1:]:
            self.send("Controller", "setContract(string,address)", name, self.contracts[name])

    def _mined(self, transactions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All of them in one block."""
        hashes = [self.rpc("eth_sendTransaction", transaction) for transaction in transactions]
        self.mine()
        receipts = [self.rpc("eth_getTransactionReceipt", hash_) for hash_ in hashes]
        for transaction, receipt in zip(transactions, receipts, strict=True):
            if receipt["status"] != "0x1":
                self.rpc("eth_call", transaction, "latest")  # raises with the reason
                raise ChainRefused("the transaction failed")
        return receipts


def calldata(signature: str, *arguments: Any) -> bytes:
    """A selector and its arguments; addresses are bytes."""
    listed = signature.partition("(")[2]
    types = [component.to_type_str() for component in parse(f"({listed}").components] if listed != ")" else []
    shown = [checksum_address(a) if t == "address" else a for t, a in zip(types, arguments, strict=True)]
    return keccak(signature.encode())[:4] + encode(types, shown)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
