"""The head of an HTTP/1 answer, read once.

One server's answers have the same few heads: what differs is the length of the body and, with some, the second. To read
a head costs more than all else about an answer that comes in one piece, and what it says follows from its bytes alone.
So it is remembered by them. Heads are read by the parser that reads answers in pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

#: With as much again for what was read from it, all of them are below a megabyte.
REMEMBERED_HEADS_MAX_COUNT: Final = 256
REMEMBERED_HEAD_BYTES_MAX: Final = 1024
_END: Final = b"\r\n\r\n"
#: Answers that end with their head, whatever length it speaks of.
_WITHOUT_BODY: Final = (204, 304)


class AnswerHead(NamedTuple):
    """Header names are lower case; of a repeated header the first value is kept."""

    status: int
    headers: Mapping[bytes, bytes]
    body_bytes: int
    should_keep_alive: bool


def split_answer(data: bytes) -> tuple[AnswerHead, bytes] | None:
    """Head and body, where `data` is one whole answer of the usual kind. None: the parser must say what it is."""
    end = data.find(_END, 0, REMEMBERED_HEAD_BYTES_MAX) + len(_END)
    if end < len(_END):
        return None
    head = _read(data[:end])
    return (head, data[end:]) if head is not None and head.body_bytes == len(data) - end else None


@lru_cache(REMEMBERED_HEADS_MAX_COUNT)
def _read(head: bytes) -> AnswerHead | None:
    """None for what is no head of an answer, and where Content-Length does not say how many bytes follow."""
    reader = _Reader()
    try:
        reader.parser.feed_data(head)  # strict: a lone line feed ends nothing, and no answer has a length told twice
    except (HttpParserError, HttpParserUpgrade):
        return None
    status, length = reader.parser.get_status_code(), reader.headers.get(b"content-length")
    if status < 200 or status in _WITHOUT_BODY or length is None:
        return None
    return AnswerHead(status, reader.headers, int(length), reader.should_keep_alive)


class _Reader:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.should_keep_alive = False
        self.parser: Final = HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        self.should_keep_alive = self.parser.should_keep_alive()
