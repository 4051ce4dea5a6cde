"""Messages out of the data that arrives: cut anywhere, compressed, too large; and the memory that they may take."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.connections import SMALL_BODY_BYTES, Connections
from clearinghouse.rpc.inbox import MESSAGE_BYTES, Inbox, is_readable
from clearinghouse.rpc.message import PREFIX_BYTES
from clearinghouse.rpc.status import Aborted
from tests.clearinghouse.rpc.http2_parts import cut

MESSAGE_MAX_BYTES = 50_000
COMPRESSED: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"deflate": zlib.compress}
SIZES = st.sampled_from([0, 1, 5, 1000, SMALL_BODY_BYTES, SMALL_BODY_BYTES + 1, MESSAGE_MAX_BYTES]) | st.integers(
    0, 200
)
PLACES = st.lists(st.integers(0, 100_000) | st.integers(0, 20), max_size=10)


def prefixed(message: bytes, *, is_compressed: bool = False) -> bytes:
    return bytes([is_compressed]) + len(message).to_bytes(4) + message


def inbox_for(memory: Connections, encoding: bytes = b"identity") -> Inbox:
    return Inbox(memory, message_max_bytes=MESSAGE_MAX_BYTES, encoding=encoding)


def refusal(*pieces: bytes, encoding: bytes = b"identity", memory: Connections | None = None) -> grpc.StatusCode:
    """What these end with; whatever was held by then is given back."""
    memory = memory or Connections(1)
    inbox = inbox_for(memory, encoding)
    try:
        for piece in pieces:
            inbox.add(piece)
            inbox.to_let_in_bytes()
    except Aborted as aborted:
        return aborted.status.code
    finally:
        inbox.empty()
    raise AssertionError("nothing is refused")


@given(st.lists(st.tuples(SIZES, st.booleans()), max_size=8), PLACES, st.sampled_from([b"gzip", b"deflate"]))
def test_messages_are_as_they_were_sent_wherever_they_are_cut_and_as_much_is_let_in_as_came(
    sizes: list[tuple[int, bool]], places: list[int], encoding: bytes
) -> None:
    """What is let in too little would stop a stream after some messages; what is too much would have no bound."""
    memory = Connections(1)
    inbox = inbox_for(memory, encoding)
    messages = [bytes([number]) * size for number, (size, _) in enumerate(sizes)]
    sent = b"".join(
        prefixed(COMPRESSED[encoding](message) if is_compressed else message, is_compressed=is_compressed)
        for message, (_, is_compressed) in zip(messages, sizes, strict=True)
    )
    taken, let_in_bytes = [], 0
    for piece in cut(sent, places) if sent else []:
        inbox.add(piece)
        let_in_bytes += inbox.to_let_in_bytes()
        while inbox.messages:
            message, freed_bytes = inbox.take()
            taken.append(message)
            inbox.unpack_first()
            let_in_bytes += freed_bytes + inbox.to_let_in_bytes()
    assert taken == messages
    assert let_in_bytes == len(sent)
    assert not inbox.is_in_the_middle()
    assert memory.large_bodies_bytes == 0


def test_a_message_that_is_larger_than_the_window_is_let_in_as_soon_as_its_length_is_known_and_once() -> None:
    inbox = inbox_for(Connections(1))
    inbox.add(prefixed(bytes(MESSAGE_MAX_BYTES))[:4])
    assert inbox.to_let_in_bytes() == 0
    inbox.add(prefixed(bytes(MESSAGE_MAX_BYTES))[4:5])
    assert inbox.to_let_in_bytes() == PREFIX_BYTES + MESSAGE_MAX_BYTES
    inbox.add(bytes(MESSAGE_MAX_BYTES - 1))
    assert inbox.to_let_in_bytes() == 0
    assert inbox.is_in_the_middle()
    inbox.add(b"\0")
    assert inbox.take() == (bytes(MESSAGE_MAX_BYTES), 0)


@pytest.mark.parametrize("size", [MESSAGE_MAX_BYTES + 1, 2**32 - 1])
def test_a_message_that_is_too_large_is_refused_by_its_prefix(size: int) -> None:
    assert refusal(b"\0" + size.to_bytes(4)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal(prefixed(b"hello") + b"\0" + size.to_bytes(4)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal(b"\0", size.to_bytes(4)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_comes_in_one_piece_is_too_large_too() -> None:
    inbox = Inbox(Connections(1), message_max_bytes=1000, encoding=b"identity")
    inbox.add(prefixed(bytes(1000)))
    with pytest.raises(Aborted):
        inbox.add(prefixed(bytes(1001)))


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_what_swells_stops_at_what_a_message_may_have(encoding: bytes) -> None:
    compressed = COMPRESSED[encoding](bytes(MESSAGE_MAX_BYTES + 1))
    assert refusal(prefixed(compressed, is_compressed=True), encoding=encoding) is grpc.StatusCode.RESOURCE_EXHAUSTED
    bomb = COMPRESSED[encoding](bytes(40_000_000))
    assert len(bomb) < MESSAGE_MAX_BYTES
    assert refusal(prefixed(bomb, is_compressed=True), encoding=encoding) is grpc.StatusCode.RESOURCE_EXHAUSTED


GZIP, DEFLATED = gzip.compress(b"hello", mtime=0), zlib.compress(b"hello")
NOT_COMPRESSED = {
    "not at all, for gzip": (b"hello", b"gzip"),
    "not at all, for deflate": (b"hello", b"deflate"),
    "gzip for deflate": (GZIP, b"deflate"),
    "deflate for gzip": (DEFLATED, b"gzip"),
    "gzip that is cut off": (GZIP[:-1], b"gzip"),
    "deflate that is cut off": (DEFLATED[:-1], b"deflate"),
    "gzip of another length": (GZIP[:-8] + bytes(8), b"gzip"),
    "nothing": (b"", b"gzip"),
    "no way of it": (GZIP, b"identity"),
}


@pytest.mark.parametrize("how", NOT_COMPRESSED)
def test_what_is_not_compressed_as_the_call_says_is_refused(how: str) -> None:
    message, encoding = NOT_COMPRESSED[how]
    assert refusal(prefixed(message, is_compressed=True), encoding=encoding) is grpc.StatusCode.INTERNAL


def test_only_what_can_be_read_is_said_to_be() -> None:
    assert [is_readable(name) for name in (b"identity", b"gzip", b"deflate")] == [True] * 3
    assert [is_readable(name) for name in (b"", b"br", b"GZIP", b"snappy")] == [False] * 4


def test_a_message_without_room_for_it_is_refused_and_small_ones_need_none() -> None:
    memory = Connections(1, large_bodies_max_bytes=30_000)
    first, second = inbox_for(memory), inbox_for(memory)
    first.add(prefixed(bytes(MESSAGE_MAX_BYTES))[:40_000])
    assert memory.large_bodies_bytes == 40_000 - SMALL_BODY_BYTES
    large = [prefixed(bytes(MESSAGE_MAX_BYTES))[:30_000], bytes(10_000)]
    assert refusal(*large, memory=memory) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert memory.large_bodies_bytes == 40_000 - SMALL_BODY_BYTES, "of the refused one nothing is left"
    second.add(prefixed(b"hello"))
    assert second.take()[0] == b"hello"
    first.empty()
    assert memory.large_bodies_bytes == 0


PIECES = st.builds(
    lambda message, start, length: prefixed(message)[start : start + length],
    SIZES.map(bytes),
    st.sampled_from([0, 0, 1, 5]),
    st.integers(1, 60_000),
) | st.builds(
    lambda message, compress: prefixed(compress(message), is_compressed=True),
    SIZES.map(bytes),
    st.sampled_from([gzip.compress, zlib.compress, bytes]),
)


def can_go_on(act: Callable[[], object]) -> bool:
    """False when the call ends with it."""
    with suppress(Aborted):
        act()
        return True
    return False


ACTS = st.tuples(st.integers(0, 2), st.sampled_from(["take", "empty"]) | PIECES)


@given(st.lists(ACTS, max_size=30), st.sampled_from([20_000, 70_000, 1_000_000]))
def test_the_room_of_large_messages_is_counted_exactly_and_all_is_given_back(
    acts: list[tuple[int, str | bytes]], room_bytes: int
) -> None:
    """Also of calls that were refused in the middle, or hold messages that nobody takes any more."""
    memory = Connections(1, large_bodies_max_bytes=room_bytes)
    inboxes = [inbox_for(memory, encoding) for encoding in (b"identity", b"gzip", b"deflate")]
    has_ended = [False] * 3
    for number, act in acts:
        inbox = inboxes[number]
        if act == "empty":
            has_ended[number] = True
        elif act == "take" and inbox.messages:
            inbox.take()
            has_ended[number] = not can_go_on(inbox.unpack_first)
        elif isinstance(act, bytes) and act and not has_ended[number]:
            has_ended[number] = not (can_go_on(partial(inbox.add, act)) and can_go_on(inbox.to_let_in_bytes))
        if has_ended[number]:
            inbox.empty()
        held = [
            sum(MESSAGE_BYTES + len(message) for message, _ in each.messages) + len(each._arriving) for each in inboxes
        ]
        assert memory.large_bodies_bytes == sum(max(0, held_bytes - SMALL_BODY_BYTES) for held_bytes in held)
        assert memory.large_bodies_bytes <= room_bytes
    for inbox in inboxes:
        inbox.empty()
    assert memory.large_bodies_bytes == 0
