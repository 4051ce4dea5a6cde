"""Whom tickets may be paid to. Only the recipient of the ticket parameters is looked up: it is who redeems.

The address in an OrchestratorInfo is its orchestrator's hot key and rightly differs from the recipient.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from chain.chain_reading import ChainReading
from chain.escrow import EscrowUnknown
from chain.escrow_reader import EscrowReader
from chain.orchestrators import Orchestrators


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


class ActiveOrchestrators:
    """The orchestrators that are active on the chain in the round it is in.

    When a round begins, its list is a moment away. Until it is read, for `stale_max_s` of the chain's time at most,
    those who were active are still paid, and of everybody else nothing is known.
    """

    def __init__(self, reader: EscrowReader, *, stale_max_s: int) -> None:
        self._reader = reader
        self._stale_max_s = stale_max_s
        self.listed: Orchestrators | None = None
        #: Time of the newest block that was of the list's round.
        self._confirmed_unix_s = 0

    def learn(self, listed: Orchestrators) -> None:
        """A new list, as of the reading that is confirmed next."""
        self.listed = listed

    def confirm(self, reading: ChainReading) -> None:
        """The list is of this reading's round."""
        self._confirmed_unix_s = reading.block.time_unix_s

    def find(self, recipient: bytes) -> Registration:
        try:
            reading = self._reader.newest()
        except EscrowUnknown:
            return Registration.UNKNOWN
        if self.listed is None:
            return Registration.UNKNOWN
        is_active = self.listed.is_active(recipient)
        if self.listed.round == reading.rounds.current:
            return Registration.ALLOWED if is_active else Registration.NOT_ALLOWED
        is_recent = reading.block.time_unix_s - self._confirmed_unix_s <= self._stale_max_s
        return Registration.ALLOWED if is_active and is_recent else Registration.UNKNOWN


class EveryRegistry:
    """Whom all of these registries allow. One that does not is enough to refuse; one that cannot tell, to wait."""

    def __init__(self, *registries: Recipients) -> None:
        self._registries = registries

    def find(self, recipient: bytes) -> Registration:
        together = Registration.ALLOWED
        for registry in self._registries:
            found = registry.find(recipient)
            if found is Registration.NOT_ALLOWED:
                return found
            if found is Registration.UNKNOWN:
                together = found
        return together
