"""A channel that apprise knows: e-mail, Slack, Telegram, Matrix and a hundred others, each named by a URL.

Apprise sends once, and tells only whether that went well; pauses, further attempts and dead letters are the outbox's.
It works in a thread, because it blocks; what it logs about a failure is the reason that is recorded, without what its
URL holds.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from settlement.delivery.message import Delivery, NotAccepted

if TYPE_CHECKING:
    from apprise import NotifyBase, NotifyType

_LOGGER: Final = "apprise"
_LOGGERS_BELOW: Final = ("urllib3", "requests_oauthlib", "oauthlib")
_SECRET_CHARS_MIN: Final = 4


class AppriseChannel:
    """Of one apprise URL. ValueError where apprise does not know it: it is not repeated."""

    takes_many = True

    def __init__(self, url: str) -> None:
        from apprise import Apprise  # noqa: PLC0415 - takes long to import, and only the worker needs it

        # At lower levels it logs what it sends and where to, and what it sends with logs paths, which hold tokens.
        for name in (_LOGGER, *_LOGGERS_BELOW):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(_LOGGER).propagate = False
        plugin = Apprise.instantiate(url, suppress_exceptions=True)
        if plugin is None:
            raise ValueError("this is none of the clearinghouse's schemes, and no URL that apprise knows")
        self._plugin: NotifyBase = plugin
        self._secrets = _secret_parts(url)

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        await self.notify(*joined(deliveries), kind=_kind(deliveries))

    async def notify(self, title: str, body: str, *, kind: str = "info") -> None:
        """Raises NotAccepted. A thread that hangs cannot be stopped: apprise gives its own sockets some seconds."""
        await asyncio.to_thread(self._notify, title, body, kind)

    def _notify(self, title: str, body: str, kind: str) -> None:
        from apprise import NotifyFormat, NotifyType  # noqa: PLC0415

        notify_type: NotifyType = NotifyType(kind)
        with _warnings() as said:
            went_well = self._plugin.notify(
                title=title, body=body, notify_type=notify_type, body_format=NotifyFormat.TEXT
            )
        if not went_well:  # an object: its truth is the answer
            raise NotAccepted(self._without_secrets("; ".join(said)) or "apprise could not send it, and says not why")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def joined(deliveries: Sequence[Delivery]) -> tuple[str, str]:
    """Title and text of one message, or of several in one."""
    messages = [delivery.message for delivery in deliveries]
    if len(messages) == 1:
        return messages[0].title, messages[0].body
    begun, ended = sum(not message.is_end for message in messages), sum(message.is_end for message in messages)
    parts = [f"{count} {word}" for count, word in ((begun, "firing"), (ended, "resolved")) if count]
    title = f"[{messages[0].group}] {len(messages)} alerts: {', '.join(parts)}"
    return title, "\n\n".join(f"{message.title}\n{message.body}" for message in messages)


def _kind(deliveries: Sequence[Delivery]) -> str:
    messages = [delivery.message for delivery in deliveries]
    if all(message.is_end for message in messages):
        return "success"
    levels = {message.level for message in messages if not message.is_end}
    return "failure" if "critical" in levels else "warning" if "warning" in levels else "info"


def _secret_parts(url: str) -> list[str]:
    """All words of the URL but its scheme and host, the longest first."""
    parts = urlsplit(url)
    rest = f"{parts.netloc.rpartition('@')[0]} {parts.path} {parts.query} {parts.fragment}"
    words = {*re.split(r"[/\s?&=:,]+", rest), *re.split(r"[/\s?&=:,]+", unquote(rest))}
    if "@" not in parts.netloc and not re.search(r"[.:]", parts.netloc):
        words.add(parts.netloc)  # of slack://TOKEN/… and its kin the host is a token too
    return sorted((word for word in words if len(word) >= _SECRET_CHARS_MIN), key=len, reverse=True)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What apprise warns of in this thread."""
    said: list[str] = []
    handler = _Listener(said, threading.get_ident())
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


class _Listener(logging.Handler):
    def __init__(self, said: list[str], thread: int) -> None:
        super().__init__(logging.WARNING)
        self._said, self._thread = said, thread

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._said.append(record.getMessage())
