"""A remote signer that misbehaves on purpose, on a real socket.

It speaks just enough HTTP/1.1 by hand to be able to break it: a web framework would refuse to send half an answer.
What it does is a `Behaviour` per path, and can be changed while it runs:

    async with FaultySigner(key) as signer:          # answers like a good signer
        signer.on_payment = hangs_mid_body()         # from the next request on

Left alone it shows its key with a true signature and answers payments with `PAYMENT_ANSWER`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

from chain.signatures import SigningKey, checksum_address
from tests.parts.listening import Listener

PAYMENT_ANSWER = b'{"payment":"cGF5","segCreds":"c2Vn","state":{"State":"qg==","Sig":"uw=="}}\n'
PAYMENT_PATH = "/generate-live-payment"
IDENTITY_PATH = "/sign-orchestrator-info"
DISCOVERY_PATH = "/discover-orchestrators"
#: Longer than any budget under test: whoever waits for it fails.
FOREVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it came off the wire: header names as sent, repeated headers kept."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


#: Writes whatever it likes. Returning True keeps the connection alive, False closes it.
Behaviour = Callable[[asyncio.StreamWriter], Awaitable[bool]]


def http_answer(status: int, body: bytes, *headers: tuple[str, str], declared_bytes: int | None = None) -> bytes:
    """The bytes of an answer; `declared_bytes` lies about the length of the body."""
    length = len(body) if declared_bytes is None else declared_bytes
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {length}", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def answers(status: int, body: bytes = b'{"error":{"message":"no"}}\n', *headers: tuple[str, str]) -> Behaviour:
    """A complete answer."""
    return sends(http_answer(status, body, ("Content-Type", "application/json"), *headers), keep_alive=True)


def sends(raw: bytes, *, keep_alive: bool = False) -> Behaviour:
    """Exactly these bytes, HTTP or not."""

    async def behave(writer: asyncio.StreamWriter) -> bool:
        writer.write(raw)
        await writer.drain()
        return keep_alive

    return behave


def hangs_before_headers() -> Behaviour:
    async def behave(_writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(FOREVER_S)
        return False

    return behave


def hangs_mid_body() -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> bool:
        writer.write(http_answer(200, PAYMENT_ANSWER[:20], declared_bytes=len(PAYMENT_ANSWER)))
        await writer.drain()
        await asyncio.sleep(FOREVER_S)
        return False

    return behave


def trickles(interval_s: float = 0.05) -> Behaviour:
    """One byte at a time, for ever: never idle, never complete."""

    async def behave(writer: asyncio.StreamWriter) -> bool:
        writer.write(http_answer(200, b"{", declared_bytes=1_000_000))
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(interval_s)

    return behave


def closes_without_answer() -> Behaviour:
    return sends(b"")


def closes_mid_body() -> Behaviour:
    return sends(http_answer(200, PAYMENT_ANSWER[:20], declared_bytes=len(PAYMENT_ANSWER)))


def closes_mid_chunk() -> Behaviour:
    return sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + PAYMENT_ANSWER[:20])


def talks_garbage() -> Behaviour:
    return sends(b"\x16\x03\x01 this was never HTTP\r\n\r\n\x00\xff")


def declares_huge_body(size_bytes: int = 64 << 20) -> Behaviour:
    """Says how much it will send, and sends it."""
    return sends(http_answer(200, b"x" * size_bytes), keep_alive=True)


def streams_huge_body(size_bytes: int = 64 << 20) -> Behaviour:
    """Sends chunks up to `size_bytes` without telling the length first."""

    async def behave(writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(size_bytes // 0x10000):
            writer.write(chunk)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return True

    return behave


def redirects(location: str) -> Behaviour:
    return answers(307, b"", ("Location", location))


def is_slow(delay_s: float, then: Behaviour) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(delay_s)
        return await then(writer)

    return behave


def shows_key(key: SigningKey) -> Behaviour:
    """The true answer of /sign-orchestrator-info."""
    address = checksum_address(key.address)
    return claims(address, "0x" + key.bsign(address.encode()).hex())


def claims(address: str, signature: str) -> Behaviour:
    """An answer of /sign-orchestrator-info that may be a lie."""
    return answers(200, identity_body(address, signature))


def identity_body(address: str, signature: str) -> bytes:
    return json.dumps({"address": address, "signature": signature}, separators=(",", ":")).encode() + b"\n"


class FaultySigner:
    """A signer on a loopback port. It keeps its port when stopped and started again."""

    def __init__(self, key: SigningKey, *, tls: ssl.SSLContext | None = None) -> None:
        self.key = key
        self.on_payment: Behaviour = answers(200, PAYMENT_ANSWER)
        self.on_identity: Behaviour = shows_key(key)
        self.on_discovery: Behaviour = answers(404)
        self.seen: list[SeenRequest] = []
        self._readers: set[asyncio.StreamReader] = set()
        self.port = 0
        self._tls = tls
        self._listener = Listener(self._converse, tls=tls)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def requests_to(self, path: str) -> list[SeenRequest]:
        return [request for request in self.seen if request.target.split("?")[0] == path]

    @property
    def payments(self) -> list[SeenRequest]:
        return self.requests_to(PAYMENT_PATH)

    @property
    def connections(self) -> int:
        """How many are open, seen from here: the other side has neither closed nor reset them."""
        return sum(not reader.at_eof() and reader.exception() is None for reader in self._readers)

    @property
    def conversations(self) -> frozenset[asyncio.Task[None]]:
        return self._listener.conversations

    async def start(self) -> None:
        self.port = self._listener.start(port=self.port)

    async def stop(self) -> None:
        """Closes the port and drops every conversation, as a killed process does."""
        await self._listener.stop()

    async def __aenter__(self) -> FaultySigner:
        await self.start()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers.add(reader)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has gone, or never spoke TLS
        finally:
            self._readers.discard(reader)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *header_lines = head.rstrip("\r\n").split("\r\n")
        method, target, _version = request_line.split(" ")
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in header_lines))
        declared = [int(value) for name, value in headers if name.lower() == "content-length"]
        body = await reader.readexactly(declared[0]) if declared else b""
        self.seen.append(SeenRequest(method, target, headers, body))
        return await self._behaviour_for(target.split("?")[0])(writer)

    def _behaviour_for(self, path: str) -> Behaviour:
        known = {PAYMENT_PATH: self.on_payment, IDENTITY_PATH: self.on_identity, DISCOVERY_PATH: self.on_discovery}
        return known.get(path, answers(404, b"404 page not found\n"))
