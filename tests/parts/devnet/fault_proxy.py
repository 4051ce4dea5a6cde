"""A JSON-RPC endpoint that passes calls on to a node, and breaks on the way what a test tells it to.

async with fault_proxy(devnet.url) as proxy:
    proxy.fault = hanging()           # from the next request on
    proxy.requests                    # the bodies that came, in order
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.parts.listening import listening

FOREVER_S = 3600
#: What providers put into their URLs. It must never come out again.
API_KEY = "k3y-of-the-rpc-provider"

#: Of the node's answers to a batch (or to one call, as a list of one): what goes to the caller.
Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """What the proxy answers with. `status` 0 closes the connection without a word."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


#: Gets the calls and a way to have them answered by the node.
Fault = Callable[[list[dict[str, Any]], Callable[[], Awaitable[Answers]]], Awaitable[Reply]]


def _json(answers: Any) -> Reply:
    return Reply(200, json.dumps(answers).encode())


async def honest(_calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
    return _json(await ask())


def status(number: int, *headers: tuple[str, str], body: bytes = b'{"error":"no"}') -> Fault:
    async def fault(_calls: list[dict[str, Any]], _ask: Callable[[], Awaitable[Answers]]) -> Reply:
        return Reply(number, body, headers)

    return fault


def hanging(seconds: float = FOREVER_S) -> Fault:
    async def fault(calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        await asyncio.sleep(seconds)
        return await honest(calls, ask)

    return fault


def changed(method: str, change: Callable[[Any, list[Any]], Any]) -> Fault:
    """Every result of `method` becomes `change(result, parameters)`."""

    async def fault(calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        answers = await ask()
        by_id = {answer["id"]: answer for answer in answers}
        for call in calls:
            answer = by_id[call["id"]]
            if call["method"] == method and answer.get("result") is not None:
                answer["result"] = change(answer["result"], call["params"])
        return _json(answers)

    return fault


def half_a_batch() -> Fault:
    async def fault(_calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        answers = await ask()
        return _json(answers[: len(answers) // 2])

    return fault


def one_of_the_batch_fails() -> Fault:
    async def fault(_calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        *answers, last = await ask()
        return _json([*answers, {"jsonrpc": "2.0", "id": last["id"], "error": {"code": -32000, "message": "timeout"}}])

    return fault


def wrong_chain_id(chain_id: int = 1) -> Fault:
    return changed("eth_chainId", lambda _result, _parameters: hex(chain_id))


def lying_l1_block(ahead: int) -> Fault:
    """The node does not say an L1 block of its own: without the field, `number` stands for it."""

    def lie(block: dict[str, Any], _parameters: list[Any]) -> dict[str, Any]:
        told = int(block.get("l1BlockNumber", block["number"]), 16)
        return {**block, "l1BlockNumber": hex(told + ahead)}

    async def fault(calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        methods = {call["id"]: call["method"] for call in calls}
        answers = await ask()
        for answer in answers:
            if methods[answer["id"]].startswith("eth_getBlockBy") and answer.get("result"):
                answer["result"] = lie(answer["result"], [])
        return _json(answers)

    return fault


def after_requests(count: int, fault: Fault) -> Fault:
    """Honest so many times, and then `fault` for ever."""
    answered = itertools.count()

    async def counting(calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        return await (honest if next(answered) < count else fault)(calls, ask)

    return counting


def behind(head: list[dict[str, Any]]) -> Fault:
    """The newest block is `head[0]`, and what came after it is not known yet."""

    async def fault(calls: list[dict[str, Any]], ask: Callable[[], Awaitable[Answers]]) -> Reply:
        methods = {call["id"]: call["method"] for call in calls}
        answers = await ask()
        for answer in answers:
            if methods[answer["id"]] == "eth_getBlockByNumber":
                answer["result"] = head[0]
            elif methods[answer["id"]] == "eth_getBlockByHash" and answer["result"] is not None:
                is_known = int(answer["result"]["number"], 16) <= int(head[0]["number"], 16)
                answer["result"] = answer["result"] if is_known else None
        return _json(answers)

    return fault


def stale_head(block: dict[str, Any]) -> Fault:
    """The newest block stays `block` for ever."""
    return changed("eth_getBlockByNumber", lambda result, parameters: block if parameters[0] == "latest" else result)


@dataclass
class FaultProxy:
    """`url` has a key in its path and another in its query, as providers' have."""

    upstream: str
    fault: Fault = honest
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (body := await _request_body(reader)) is not None:
                reply = await self._reply(body)
                if reply.status == 0:
                    break
                writer.write(_http(reply))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller gave up: its right
        finally:
            writer.close()

    async def _reply(self, body: bytes) -> Reply:
        calls = json.loads(body)
        assert isinstance(calls, list), "batches only"
        self.requests.append(calls)

        async def ask() -> Answers:
            answers: Answers = json.loads(await _post(self.upstream, body))
            return answers

        return await self.fault(calls, ask)


@asynccontextmanager
async def fault_proxy(upstream: str) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(upstream)
    async with listening(proxy.serve) as port:
        proxy.url = f"http://127.0.0.1:{port}/v2/{API_KEY}?token={API_KEY}"
        yield proxy


async def _request_body(reader: asyncio.StreamReader) -> bytes | None:
    """None at the end of the connection. The key must have come in the target, and nowhere else."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head.split("\r\n")
    assert request_line.startswith(f"POST /v2/{API_KEY}?token={API_KEY} "), request_line
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return await reader.readexactly(int(headers["content-length"]))


async def _post(url: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        answered = await reader.read()
    finally:
        writer.close()
    return answered.partition(b"\r\n\r\n")[2]


def _http(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} Whatever", f"Content-Length: {len(reply.body)}"]
    lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in reply.headers)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body
