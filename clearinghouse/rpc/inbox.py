"""The messages of one call, cut out of the data that arrives, and the memory that they take until they are taken."""

from __future__ import annotations

import zlib
from collections import deque
from typing import Final

import grpc

from clearinghouse.connections import SMALL_BODY_BYTES, Connections
from clearinghouse.rpc.message import PREFIX_BYTES, length_bytes
from clearinghouse.rpc.status import Aborted, Status

#: What we can read, for `grpc-accept-encoding`; zlib's windows by gRPC's names.
ACCEPTED_ENCODINGS: Final = b"identity,deflate,gzip"
#: What a message takes of the memory beside its bytes: tens of thousands of empty ones fit into one stream's window.
MESSAGE_BYTES: Final = 128
_WINDOW_BITS: Final = {b"deflate": zlib.MAX_WBITS, b"gzip": 16 + zlib.MAX_WBITS}


class Inbox:
    """Holds at most what flow control lets through and, of the message that is arriving, `message_max_bytes`.

    What is beyond a small body is counted in `memory`, with that of all calls of the port.
    """

    __slots__ = (
        "_arriving",
        "_compressed",
        "_encoding",
        "_held_bytes",
        "_is_let_in",
        "_large_bytes",
        "_memory",
        "_message_max_bytes",
        "messages",
    )

    def __init__(self, memory: Connections, *, message_max_bytes: int, encoding: bytes) -> None:
        """`encoding` is the call's `grpc-encoding`, b"identity" where it has none."""
        self._memory = memory
        self._message_max_bytes = message_max_bytes
        self._encoding = encoding
        self._arriving = bytearray()
        self._held_bytes = self._large_bytes = 0
        self._is_let_in = False  # the message that is arriving, beyond what flow control lets through
        self._compressed: deque[bool] = deque()  # of the messages, one each
        #: Each with the bytes that may arrive instead of it once it is taken.
        self.messages: deque[tuple[bytes, int]] = deque()

    def add(self, data: bytes) -> None:
        """Raises Aborted for what is no message of gRPC's, or too much."""
        if not self._arriving and data[0] == 0 and length_bytes(data) == len(data) - PREFIX_BYTES:
            if len(data) - PREFIX_BYTES > self._message_max_bytes:
                raise _too_large(self._message_max_bytes)
            self._hold(MESSAGE_BYTES + len(data) - PREFIX_BYTES)
            self._compressed.append(False)
            self.messages.append((data[PREFIX_BYTES:], len(data)))  # whole, and uncompressed: the rule
            return
        self._hold(len(data))
        self._arriving += data
        while (length := self._arriving_length()) is not None and len(self._arriving) >= PREFIX_BYTES + length:
            arrived_bytes = PREFIX_BYTES + length
            message = bytes(self._arriving[PREFIX_BYTES:arrived_bytes])
            is_compressed = bool(self._arriving[0])
            del self._arriving[:arrived_bytes]
            self._hold(MESSAGE_BYTES + len(message) - arrived_bytes)
            self.messages.append((message, 0 if self._is_let_in else arrived_bytes))
            self._compressed.append(is_compressed)
            self._is_let_in = False
        self.unpack_first()

    def unpack_first(self) -> None:
        """Decompresses the message that is taken next, and no other: a window of them could become 64 MB.

        Raises Aborted.
        """
        if self._compressed and self._compressed[0]:
            message, arrived_bytes = self.messages[0]
            plain = self._plain(message)
            self._hold(len(plain) - len(message))
            self.messages[0], self._compressed[0] = (plain, arrived_bytes), False

    def to_let_in_bytes(self) -> int:
        """What has to be let in beyond flow control for a message that is larger than that. Told once.

        Only once those before it are taken: who sends faster than is worked waits, and does not fill the memory.
        """
        length = self._arriving_length()
        if length is None or length <= SMALL_BODY_BYTES or self._is_let_in or self.messages:
            return 0
        self._is_let_in = True
        return PREFIX_BYTES + length

    def _arriving_length(self) -> int | None:
        if len(self._arriving) < PREFIX_BYTES:
            return None
        length = length_bytes(self._arriving)
        if length > self._message_max_bytes:
            raise _too_large(self._message_max_bytes)
        return length

    def take(self) -> tuple[bytes, int]:
        """The oldest message, and the bytes that may arrive instead of it."""
        message, arrived_bytes = self.messages.popleft()
        self._compressed.popleft()
        self._hold(-MESSAGE_BYTES - len(message))
        return message, arrived_bytes

    def is_in_the_middle(self) -> bool:
        return bool(self._arriving)

    def empty(self) -> None:
        """Of a call that has ended."""
        self.messages.clear()
        self._compressed.clear()
        self._arriving.clear()
        self._hold(-self._held_bytes)

    def _hold(self, more_bytes: int) -> None:
        self._held_bytes += more_bytes
        large_bytes = max(0, self._held_bytes - SMALL_BODY_BYTES)
        if large_bytes == self._large_bytes:
            return
        if not self._memory.has_room_for(large_bytes - self._large_bytes):
            raise Aborted(
                Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "Large messages take all the room that there is for them.")
            )
        self._large_bytes = large_bytes

    def _plain(self, message: bytes) -> bytes:
        """A compressed one as it was before. It is never longer than a message may be, whatever it promises."""
        window_bits = _WINDOW_BITS.get(self._encoding)
        if window_bits is None:
            raise Aborted(Status(grpc.StatusCode.INTERNAL, "A message is compressed, and the call names no way of it."))
        decompressor = zlib.decompressobj(window_bits)
        try:
            plain = decompressor.decompress(message, self._message_max_bytes + 1)
        except zlib.error:
            raise Aborted(Status(grpc.StatusCode.INTERNAL, "A message is not compressed as the call says.")) from None
        if len(plain) > self._message_max_bytes:
            raise _too_large(self._message_max_bytes)
        if not decompressor.eof:
            raise Aborted(Status(grpc.StatusCode.INTERNAL, "A compressed message is cut off."))
        return plain


def is_readable(encoding: bytes) -> bool:
    return encoding == b"identity" or encoding in _WINDOW_BITS


def _too_large(message_max_bytes: int) -> Aborted:
    return Aborted(Status(grpc.StatusCode.RESOURCE_EXHAUSTED, f"A message may have {message_max_bytes} bytes at most."))
