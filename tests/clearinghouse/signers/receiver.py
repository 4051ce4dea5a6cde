"""A webhook's receiver on a real socket: it keeps what it was asked, and answers what the test wrote."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.parts.listening import listening


@dataclass
class Question:
    """One request of the signer."""

    head: str
    body: bytes

    @property
    def request_line(self) -> str:
        return self.head.splitlines()[0]

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; a repeated one would be an error."""
        lines = [line.split(": ", 1) for line in self.head.splitlines()[1:] if line]
        headers = {name.lower(): value for name, value in lines}
        assert len(headers) == len(lines)
        return headers

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def http_answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def says(**members: Any) -> bytes:
    return http_answer(json.dumps(members).encode())


AGREES = says(status=200)


@dataclass
class Receiver:
    """Answers each question with the next of `answers`, the last one for ever; None never answers."""

    answers: list[bytes | None] = field(default_factory=lambda: [AGREES])
    questions: list[Question] = field(default_factory=list)
    connections: int = 0
    #: Set when a signer hung up on a question that had no answer yet.
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    origin: str = ""

    @property
    def url(self) -> str:
        return f"{self.origin}/authorize?tenant=a%20b"

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                question = Question(head, b"")
                question.body = await reader.readexactly(int(question.headers.get("content-length", 0)))
                self.questions.append(question)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    await reader.read()
                    self.abandoned.set()
                    break
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the signer hung up
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*answers: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(answers) or [AGREES])
    async with listening(receiver.converse, tls=tls) as port:
        receiver.origin = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        yield receiver
