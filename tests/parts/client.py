"""A plain HTTP/1.1 client on sockets of its own: it can send what no library would, and hang up when it likes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

#: The field's clients wait this long for an answer; one that takes longer is lost.
CLIENT_TIMEOUT_S = 5.0
ANSWER_MAX_BYTES = 4 << 20

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came off the wire; header names in lower case, repeated headers kept."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header, None when it is absent."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) < 2, f"{name} is repeated: {values}"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The sentence of a refusal, in either format."""
        document = self.json
        return str(document["error"]["message"] if "error" in document else document["detail"])

    @property
    def code(self) -> str:
        """Why it was refused, "" on success."""
        return self.header("clearinghouse-error") or ""


async def call(
    port: int,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: Headers = (),
    timeout_s: float = CLIENT_TIMEOUT_S,
) -> Answer:
    """One request on a connection of its own. TimeoutError when the answer is not complete in time."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=ANSWER_MAX_BYTES)
        try:
            await _write(writer, request_bytes(method, path, body, headers))
            return await _read(reader)
        finally:
            writer.transport.abort()


async def post(port: int, path: str, body: bytes, *headers: tuple[str, str], **how: Any) -> Answer:
    return await call(port, "POST", path, body=body, headers=headers, **how)


@asynccontextmanager
async def unheard(port: int, path: str, body: bytes, *headers: tuple[str, str]) -> AsyncIterator[None]:
    """Sends a whole request and never reads the answer; the connection is reset when the block ends."""
    async with unheard_by(port, path, body, *headers):
        yield


@asynccontextmanager
async def unheard_by(
    port: int, path: str, body: bytes, *headers: tuple[str, str]
) -> AsyncIterator[asyncio.StreamReader]:
    """The same, for a caller that reads some of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await _write(writer, request_bytes("POST", path, body, headers))
        yield reader
    finally:
        writer.transport.abort()


async def abandoned(port: int, path: str, body: bytes, *headers: tuple[str, str], after_bytes: int) -> bytes:
    """Sends a whole request and hangs up once so many bytes of the answer have come. Returns what was heard of it."""
    heard, closes = b"", ("Connection", "close")  # so that a shorter answer has an end
    async with asyncio.timeout(CLIENT_TIMEOUT_S), unheard_by(port, path, body, *headers, closes) as reader:
        while len(heard) < after_bytes and (chunk := await reader.read(after_bytes - len(heard))):
            heard += chunk
    return heard


def request_bytes(method: str, path: str, body: bytes, headers: Headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: clearinghouse.test", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def _write(writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    with contextlib.suppress(ConnectionError):  # answered before all of it was read: the answer is what counts
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip("\r\n").split("\r\n")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    lengths = [int(value) for name, value in headers if name == "content-length"]
    assert len(lengths) == 1, f"an answer declares its length once: {headers}"
    return Answer(int(status_line.split(" ")[1]), headers, await reader.readexactly(lengths[0]))
