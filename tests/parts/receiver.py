"""A receiver of HTTP posts and one of mail, real sockets, which answer as a test wants and keep what came."""

from __future__ import annotations

import asyncio
import email
import email.message
import email.policy
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.parts.listening import listening


@dataclass(frozen=True)
class Post:
    """One request as it came. Header names are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpReceiver:
    """`answers` are given in turn, the last one for ever: a status, raw bytes, or None for silence."""

    port: int = 0
    answers: list[int | bytes | None] = field(default_factory=lambda: [200])
    posts: list[Post] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await self._answer(line.split()[1].decode(), reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers: dict[str, str] = {}
        while (line := await reader.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.posts.append(Post(path, headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.sleep(60)
        elif isinstance(answer, bytes):
            writer.write(answer)
        else:
            # As Slack does it: 200 and "ok".
            writer.write(f"HTTP/1.1 {answer} As wanted\r\nContent-Length: 2\r\n\r\nok".encode())
        await writer.drain()


@asynccontextmanager
async def http_receiver(*answers: int | bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpReceiver]:
    receiver = HttpReceiver(answers=list(answers) or [200])
    async with listening(receiver._serve, tls=tls) as receiver.port:
        yield receiver


@dataclass
class MailReceiver:
    """An SMTP server that takes what comes, or refuses every recipient with `refuses_with`."""

    port: int = 0
    refuses_with: str = ""
    mails: list[email.message.EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].upper().strip()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                await writer.drain()
                raw = await reader.readuntil(b"\r\n.\r\n")
                self.mails.append(email.message_from_bytes(raw[:-5], policy=email.policy.default))  # type: ignore[arg-type]
                writer.write(b"250 taken\r\n")
            elif verb == b"RCPT" and self.refuses_with:
                writer.write(f"{self.refuses_with}\r\n".encode())
            else:
                if verb == b"RCPT":
                    self.recipients.append(line.decode().partition("<")[2].partition(">")[0])
                writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 mail.test\r\n")
            await writer.drain()
            if verb == b"QUIT":
                break
        writer.close()


@asynccontextmanager
async def mail_receiver(refuses_with: str = "") -> AsyncIterator[MailReceiver]:
    receiver = MailReceiver(refuses_with=refuses_with)
    async with listening(receiver._serve) as receiver.port:
        yield receiver
