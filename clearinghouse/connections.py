"""The connections of one port: how many are open, and why the port closed some that their clients had not."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from clearinghouse.shares import Shares


class Cut(StrEnum):
    """Why a connection was closed, or not accepted."""

    ALL_TAKEN = "all_taken"  # as many are open as may be
    ADDRESS_SHARE = "address_share"  # this address has as many as are left for all others
    NO_FILES = "no_files"  # accepting failed: the process has no more files
    HANDSHAKE = "handshake"  # TLS did not come about, or not in time
    IDLE = "idle"
    HEAD_TOO_SLOW = "head_too_slow"
    HEAD_TOO_LARGE = "head_too_large"
    NOT_HTTP = "not_http"
    FRAMES_TOO_LARGE = "frames_too_large"  # what stands around a body: chunk sizes, trailers
    BODIES_TOO_LARGE = "bodies_too_large"  # all those together that are arriving
    ANSWER_NOT_TAKEN = "answer_not_taken"  # by a client that does not read
    RESTLESS = "restless"  # gRPC: frames that ask for nothing
    VANISHED = "vanished"  # gRPC: no answer to a ping


#: A body of this size costs its connection nothing more; a payment request has a few KiB.
SMALL_BODY_BYTES: Final = 16 * 1024
#: What larger bodies may take of the memory, all together, while they arrive and are worked on.
LARGE_BODIES_MAX_BYTES: Final = 64 * 1024 * 1024


class Connections:
    """`cut_counts` has every reason from the start."""

    def __init__(self, connections_max_count: int, *, large_bodies_max_bytes: int = LARGE_BODIES_MAX_BYTES) -> None:
        self.shares = Shares(connections_max_count)
        self.large_bodies_bytes = 0
        self._large_bodies_max_bytes = large_bodies_max_bytes
        self.cut_counts: dict[Cut, int] = dict.fromkeys(Cut, 0)

    @property
    def open_count(self) -> int:
        return self.shares.taken_count

    @property
    def max_count(self) -> int:
        return self.shares.places_max_count

    def has_room_for(self, body_bytes: int) -> bool:
        """Whether large bodies may take so much more; if so, they have."""
        if self.large_bodies_bytes + body_bytes > self._large_bodies_max_bytes:
            return False
        self.large_bodies_bytes += body_bytes
        return True

    def was_cut(self, reason: Cut) -> None:
        self.cut_counts[reason] += 1
