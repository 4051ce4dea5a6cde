"""A node that only remembers: blocks without end, and in some of them logs that were recorded for them.

It answers what an indexer and an escrow's reader ask, batch by batch, from memory, so that a long history costs no time
to make.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode

from chain.events import REDEEMED
from chain.functions import GET_SENDER_INFO
from chain.signatures import keccak
from chain.tickets import WIN_PROB_CERTAIN
from tests.parts.devnet import DEV_CHAIN_ID
from tests.parts.devnet.fault_proxy import _request_body
from tests.parts.listening import listening

CONTRACT = b"\xc0" * 20  # every contract is the same here
API_PATH = "/v2/k3y-of-the-rpc-provider?token=k3y-of-the-rpc-provider"


def block_hash(number: int) -> bytes:
    return keccak(b"block %d" % number)


def redeemed_log(number: int, nonce: int, rand: int, sender: bytes) -> dict[str, Any]:
    """A redemption of nonce `nonce`, alone in its block."""
    data = encode(
        ["uint256", "uint256", "uint256", "uint256", "bytes"], [10**15, WIN_PROB_CERTAIN, nonce, rand, bytes(64)]
    )
    topics = [REDEEMED, sender.rjust(32, b"\0"), (b"\x0a" * 20).rjust(32, b"\0")]
    return {
        "address": "0x" + CONTRACT.hex(), "topics": ["0x" + topic.hex() for topic in topics], "data": "0x" + data.hex(),
        "blockNumber": hex(number), "logIndex": "0x0", "blockHash": "0x" + block_hash(number).hex(),
        "transactionHash": "0x" + block_hash(number).hex(), "removed": False, "transactionIndex": "0x0",
    }  # fmt: skip


@dataclass
class RecordedChain:
    """`logs` by block number, ascending. `unix_s` is the time of every block. While it `is_away` it hangs up."""

    head_number: int
    logs: list[tuple[int, dict[str, Any]]]
    url: str = ""
    is_away: bool = False
    unix_s: Callable[[], int] = lambda: int(time.time())
    requests_count: int = 0

    def answer(self, call: dict[str, Any]) -> Any:
        method, parameters = call["method"], call["params"]
        if method == "eth_chainId":
            return hex(DEV_CHAIN_ID)
        if method == "eth_call":
            words = 4 if parameters[0]["data"].startswith(f"0x{GET_SENDER_INFO.hex()}") else 1
            return "0x" + CONTRACT.rjust(32, b"\0").hex() * words
        if method == "eth_getLogs":
            return self._logs(parameters[0])
        if method == "eth_getBlockByHash":
            return {**self._block(self.head_number), "hash": parameters[0]}
        assert method == "eth_getBlockByNumber", method
        return self._block(self.head_number if parameters[0] == "latest" else int(parameters[0], 16))

    def _block(self, number: int) -> dict[str, Any]:
        return {"number": hex(number), "hash": "0x" + block_hash(number).hex(), "timestamp": hex(self.unix_s())}

    def _logs(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        if isinstance(asked["topics"][0], str):
            return []  # no rounds
        begin = bisect.bisect_left(self.logs, int(asked["fromBlock"], 16), key=lambda log: log[0])
        end = bisect.bisect_right(self.logs, int(asked["toBlock"], 16), key=lambda log: log[0])
        return [log for _, log in self.logs[begin:end]]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (body := await _request_body(reader)) is not None and not self.is_away:
            self.requests_count += 1
            answers = [{"jsonrpc": "2.0", "id": c["id"], "result": self.answer(c)} for c in json.loads(body)]
            content = json.dumps(answers).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
        writer.close()


@asynccontextmanager
async def recorded_chain(head_number: int, logs: list[tuple[int, dict[str, Any]]]) -> AsyncIterator[RecordedChain]:
    chain = RecordedChain(head_number, logs)
    async with listening(chain.serve) as port:
        chain.url = f"http://127.0.0.1:{port}{API_PATH}"
        yield chain
