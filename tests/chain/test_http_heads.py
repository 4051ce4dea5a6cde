"""Heads that are remembered say what the parser says, byte by byte, of the same answer; others are left to it."""

from __future__ import annotations

import random

import pytest
from httptools import HttpResponseParser

from chain.http_heads import REMEMBERED_HEAD_BYTES_MAX, split_answer

USUAL = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 18:24:49 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\nok"
)
STATUS_LINES = (b"HTTP/1.1 200 OK", b"HTTP/1.1 480 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 100 Continue", b"HTTP/1.1 204 No",
                b"HTTP/1.1 304 Not", b"HTTP/1.1 101 Switching", b"HTTP/1.1 20 OK", b"GET / HTTP/1.1", b"")  # fmt: skip
LINES = (b"Content-Type: text/plain", b"content-type:  a/b ", b"Connection: close", b"Connection: keep-alive",
         b"Transfer-Encoding: chunked", b"Upgrade: x", b"Connection: upgrade", b"X: y", b" folded", b"no colon", b"x:",
         b"Content-Length: 2", b"Content-Length: +2", b"content-length: 02", b"Content-Length: 1\x00")  # fmt: skip


class Reader:
    """What the parser says where it cannot see how an answer goes on."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.ended_after_bytes: list[int] = []
        self.should_keep_alive = False
        self._read_bytes = 0
        self.parser = HttpResponseParser(self)
        for place in range(len(data)):
            self._read_bytes = place + 1
            self.parser.feed_data(data[place : place + 1])

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.lower(), value)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended_after_bytes.append(self._read_bytes)
        self.should_keep_alive = self.parser.should_keep_alive()


def random_answer(dice: random.Random) -> bytes:
    length = dice.choice((b"0", b"1", b"2", b"5"))
    lines = [b"Content-Length: " + length, *dice.choices(LINES, k=dice.randrange(3))]
    dice.shuffle(lines)
    lines = [STATUS_LINES[0] if dice.random() < 0.5 else dice.choice(STATUS_LINES), *lines, b""]
    ends = [b"\r\n" if dice.random() < 0.95 else dice.choice((b"\n", b"\r", b"\r\n\r\n")) for _ in lines]
    head = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    return head + dice.choice((b"x" * int(length), b"ok", b"1\r\nx\r\n0\r\n\r\n", b"\r\n\r\n", USUAL))


def test_what_is_read_at_once_is_what_is_read_byte_by_byte() -> None:
    dice, read_count = random.Random(7), 0
    for _ in range(4000):
        data = random_answer(dice)
        if (whole := split_answer(data)) is None:
            continue
        head, body = whole
        reader = Reader(data)
        assert reader.ended_after_bytes == [len(data)], data
        assert (head.headers, body) == (reader.headers, reader.body), data
        assert head.status == reader.parser.get_status_code(), data
        assert head.should_keep_alive is reader.should_keep_alive, data
        read_count += 1
    assert read_count > 200


def test_a_usual_answer_is_read_at_once_and_its_head_only_the_first_time() -> None:
    first, again = split_answer(USUAL), split_answer(USUAL[:-2] + b"no")
    assert first is not None
    assert again is not None
    assert (first[1], again[1]) == (b"ok", b"no")
    assert first[0] is again[0]


@pytest.mark.parametrize(
    "data",
    [
        USUAL[:-1],
        USUAL + b"!",
        USUAL + USUAL,
        USUAL.replace(b"Content-Length", b"X-Content-Length"),
        USUAL.replace(b"Date: ", b"Date: " + b"x" * REMEMBERED_HEAD_BYTES_MAX),
        USUAL.replace(b"\r\nDate", b"\nDate"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\n\nX\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["less", "more", "two", "endless", "large", "line feed", "early end", "chunks", "length twice"],
)
def test_what_is_not_exactly_one_answer_of_known_length_is_left_to_the_parser(data: bytes) -> None:
    assert split_answer(data) is None
