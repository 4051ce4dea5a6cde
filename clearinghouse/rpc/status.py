"""What a call ends with: gRPC's status and metadata, as HTTP/2 carries them after the last message."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import grpc

from clearinghouse.rpc.frames import Header

_OK_TRAILER: Final = (b"grpc-status", b"0")
#: Of a message, what may stand for itself; all else is percent-encoded.
_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
#: No field of HTTP/2 begins or ends with one (RFC 9113, 8.2.1).
_OUTER_SPACE: Final = re.compile("^ | $")


@dataclass(frozen=True, slots=True)
class Status:
    """`trailing_metadata` comes with it; the values of names that end in `-bin` are bytes."""

    code: grpc.StatusCode
    details: str = ""
    trailing_metadata: Sequence[tuple[str, str | bytes]] = ()

    def trailers(self) -> list[Header]:
        trailers = [(b"grpc-status", b"%d" % self.code.value[0])]
        if self.details:
            trailers.append((b"grpc-message", _OUTER_SPACE.sub("%20", quote(self.details, safe=_PLAIN)).encode()))
        return [*trailers, *metadata_headers(self.trailing_metadata)]


class Aborted(Exception):
    """Ends the call that it is raised in."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.details)
        self.status = status


def ok_trailers(metadata: Sequence[tuple[str, str | bytes]]) -> list[Header]:
    return [_OK_TRAILER, *metadata_headers(metadata)]


def metadata_headers(metadata: Sequence[tuple[str, str | bytes]]) -> list[Header]:
    return [(name.encode(), value.encode() if isinstance(value, str) else b64encode(value)) for name, value in metadata]
