"""A message of gRPC's as a call's data has it: `compressed:1 length:4 bytes`, in either direction."""

from __future__ import annotations

from typing import Final

PREFIX_BYTES: Final = 5


def prefixed(message: bytes) -> bytes:
    """Uncompressed: we never compress."""
    return b"\0" + len(message).to_bytes(4) + message


def length_bytes(data: bytes | bytearray) -> int:
    """Of the message that `data` begins with, by its prefix, which must be there."""
    return int.from_bytes(data[1:PREFIX_BYTES])
