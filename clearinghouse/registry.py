"""Whom tickets may be paid to. Only the recipient of the ticket parameters is looked up: it is who redeems.

The address in an OrchestratorInfo is its orchestrator's hot key and rightly differs from the recipient.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Protocol


class Registration(Enum):
    """What a registry knows of a recipient."""

    ALLOWED = "allowed"
    NOT_ALLOWED = "not allowed"
    #: There is nothing to tell by, or it is too old: nobody is paid on a guess.
    UNKNOWN = "unknown"


class Recipients(Protocol):
    """A registry of those who may be paid."""

    def find(self, recipient: bytes) -> Registration:
        """`recipient` has 20 bytes. Never waits: every payment asks."""
        ...


class DeclaredRecipients:
    """A list from the configuration. An empty one allows everybody."""

    def __init__(self, addresses: Iterable[bytes]) -> None:
        self._addresses = frozenset(addresses)

    def find(self, recipient: bytes) -> Registration:
        allowed = not self._addresses or recipient in self._addresses
        return Registration.ALLOWED if allowed else Registration.NOT_ALLOWED
