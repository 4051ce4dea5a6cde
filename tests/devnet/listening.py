"""Who is told: a mail server and a receiver of signed webhooks, which show what came in the order in which it came.

The mail server is aiosmtpd. The webhook does what any receiver has to: without a signature that fits it takes nothing.
"""

from __future__ import annotations

import asyncio
import email
import email.message
import email.policy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aiosmtpd.smtp import SMTP, Envelope, Session

from settlement.delivery.signatures import HEADER, is_signed

MAIL_PORT: Final = 8025
WEBHOOK_PORT: Final = 8026
WEBHOOK_SECRET: Final = "webhook_secret"
_BODY_MAX_BYTES: Final = 1 << 20

#: What is done with a message, as fields: of mail {"by": "mail", "to", "subject", "text"}; of webhooks {"by":
#: "webhook", "event", "attempt"}, or {"by": "webhook", "refused": why}; each with "at", when it came, in Unix time.
Tell = Callable[[dict[str, Any]], None]


class _Postbox:
    """aiosmtpd's handler."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        mail = email.message_from_bytes(bytes(envelope.content or b""), policy=email.policy.default)
        assert isinstance(mail, email.message.EmailMessage), "the policy makes these"
        part = mail.get_body(("plain",))
        text = "\n".join(line.strip() for line in part.get_content().splitlines()) if part is not None else ""
        self._tell({"by": "mail", "to": envelope.rcpt_tos, "subject": mail["Subject"], "text": text.strip()})
        return "250 taken"


class _Hook:
    def __init__(self, tell: Tell, secret: bytes) -> None:
        self._tell, self._secret = tell, secret

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            headers: dict[str, str] = {}
            while line := (await reader.readline()).strip().decode():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(min(int(headers.get("content-length", "0")), _BODY_MAX_BYTES))
            status = self._take(body, headers)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._tell({"by": "webhook", "refused": f"no whole request came: {type(error).__name__}"})
        finally:
            writer.close()

    def _take(self, body: bytes, headers: dict[str, str]) -> str:
        if not is_signed(body, headers.get(HEADER.lower(), ""), self._secret, now_unix_s=int(time.time())):
            self._tell({"by": "webhook", "refused": "the signature does not fit"})
            return "401 Unauthorized"
        attempt = headers.get("clearinghouse-attempt", "")
        self._tell({"by": "webhook", "event": json.loads(body), "attempt": attempt})
        return "204 No Content"


async def listen(
    secret_file: Path, *, mail_port: int, webhook_port: int, tell: Tell, ready: Callable[[int, int], None]
) -> None:
    """Until it is cancelled. Port 0 takes a free one; `ready` hears which, of mail and of the webhook."""
    secret = secret_file.read_text(encoding="utf-8").strip().encode()
    loop = asyncio.get_running_loop()
    mail = await loop.create_server(lambda: SMTP(_Postbox(tell), hostname="devnet.example"), "127.0.0.1", mail_port)
    hook = await asyncio.start_server(_Hook(tell, secret).serve, "127.0.0.1", webhook_port)
    async with mail, hook:
        ready(mail.sockets[0].getsockname()[1], hook.sockets[0].getsockname()[1])
        await asyncio.gather(mail.serve_forever(), hook.serve_forever())


def in_words(message: dict[str, Any]) -> str:
    """For people, with an empty line behind it."""
    if message["by"] == "mail":
        return f"MAIL to {', '.join(message['to'])}\n{message['subject']}\n{message['text']}\n"
    if "refused" in message:
        return f"WEBHOOK, refused: {message['refused']}\n"
    event = message["event"]
    return f"WEBHOOK, signed: {event['type']} {event['data']['rule']} ({event['id']})\n"
