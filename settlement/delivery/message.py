"""A message: what is told, in the words and in the fields that every channel makes its own form of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from clearinghouse.instants import parse_rfc3339, rfc3339

Document = dict[str, Any]
Level = Literal["info", "warning", "critical"]


@dataclass(frozen=True, slots=True)
class Message:
    """`dedup_key` is the same for everything that is told of one thing; `is_end` for the last of it.

    `group`: what begins together comes together where people read it. `document` is what machines are sent.
    """

    type: str
    dedup_key: str
    level: Level
    is_end: bool
    group: str
    title: str
    body: str
    said_at: datetime
    document: Document
    link: str | None = None

    def as_json(self) -> Document:
        return {
            "type": self.type, "dedup_key": self.dedup_key, "level": self.level, "is_end": self.is_end,
            "group": self.group, "title": self.title, "body": self.body, "said_at": rfc3339(self.said_at),
            "document": self.document, "link": self.link,
        }  # fmt: skip


def message_from(document: Document) -> Message:
    """The reverse of `as_json`."""
    return Message(**{**document, "said_at": parse_rfc3339(document["said_at"])})


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on its way to a channel. `id` is what the receiver knows it by, however often it is sent.

    `attempt` counts from 1, and is the fence: only the newest attempt may say how it ended. `attempts_before` of them
    were made before somebody put the message back.
    """

    id: UUID
    channel: str
    subject: UUID
    attempt: int
    message: Message
    created_at: datetime
    attempts_before: int = 0


class NotAccepted(Exception):
    """A channel did not take a message, or nobody knows whether it did. The text is for the log and for operators: it
    holds no secret. `is_final`: it never will."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final
