"""Whatever a client sends, and however it is cut: our HTTP/2 hears it, or says goodbye, and raises nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from clearinghouse.rpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PRIORITIZED,
    WINDOW_MAX_BYTES,
    Code,
    Kind,
    frame,
    header_block,
    settings,
)
from tests.clearinghouse.rpc.http2_parts import ASKED, HELLO, Client, Listening, Told, asked, cut, hear, said_by, server

FLAGS = st.sampled_from([0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS, PADDED, PRIORITIZED]) | st.integers(
    0, 255
)
STREAM_IDS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9, 11, 2**31 - 1])
NUMBERS = st.sampled_from([0, 1, 100, 65_535, WINDOW_MAX_BYTES, 2**32 - 1]) | st.integers(0, 2**32 - 1)
BLOCKS = st.sampled_from([header_block(ASKED), header_block([(b"x-late", b"1")]), b"\x20", b"\xbe", b"\x40\x01x\x01y"])
SETTINGS = st.dictionaries(st.integers(0, 7), NUMBERS, max_size=3).map(
    lambda values: settings(values)[9:]  # type: ignore[arg-type] # what nobody knows among them
)
PAYLOADS: dict[int, st.SearchStrategy[bytes]] = {
    Kind.DATA: st.binary(max_size=40) | st.integers(0, 16_384).map(bytes),
    Kind.HEADERS: BLOCKS | st.builds(lambda head, block: head + block, st.binary(max_size=6), BLOCKS),
    Kind.CONTINUATION: BLOCKS | st.just(b""),
    Kind.SETTINGS: SETTINGS | st.just(b""),
    Kind.PRIORITY: st.binary(min_size=5, max_size=5),
    Kind.PING: st.binary(min_size=8, max_size=8),
    Kind.GOAWAY: st.binary(min_size=8, max_size=12),
    Kind.RST_STREAM: NUMBERS.map(lambda number: number.to_bytes(4)),
    Kind.WINDOW_UPDATE: NUMBERS.map(lambda number: number.to_bytes(4)),
}


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame: mostly one that may be, of a few streams."""
    kind = draw(st.sampled_from([*PAYLOADS, Kind.HEADERS, Kind.DATA, Kind.DATA]) | st.integers(0, 255))
    of_no_stream = kind in {Kind.SETTINGS, Kind.PING, Kind.GOAWAY}
    stream_id = 0 if of_no_stream and draw(st.integers(0, 9)) else draw(STREAM_IDS)
    flags = draw(st.sampled_from([0, 0, ACK]) if of_no_stream else FLAGS)
    payload = draw(PAYLOADS.get(kind, st.binary(max_size=20)) | st.binary(max_size=20))
    return frame(kind, flags, stream_id, payload)


BEGUN = st.sampled_from([HELLO, HELLO + asked(1, flags=END_HEADERS), HELLO + asked(1) + asked(3, flags=END_HEADERS)])
CONVERSATIONS = st.builds(lambda begun, more: begun + b"".join(more), BEGUN, st.lists(frames(), max_size=20))
PLACES = st.lists(st.integers(0, 3000), max_size=12)


@st.composite
def sent_by_h2(draw: st.DrawFn) -> bytes:
    """What the h2 library sends in a random conversation with a server that has said nothing yet."""
    client = Client(Listening())
    open_ids: list[int] = []
    for act in draw(
        st.lists(st.sampled_from(["ask", "ask", "data", "data", "reset", "ping", "settings"]), max_size=12)
    ):
        if act == "ask":
            open_ids.append(client.ask(is_end=False))
        elif act == "data" and open_ids:
            stream_id, is_end = draw(st.sampled_from(open_ids)), draw(st.booleans())
            padding = draw(st.none() | st.integers(0, 255))
            client.h2.send_data(stream_id, draw(st.binary(max_size=50)), end_stream=is_end, pad_length=padding)
            if is_end:
                open_ids.remove(stream_id)
        elif act == "reset" and open_ids:
            client.h2.reset_stream(open_ids.pop())
        elif act == "ping":
            client.h2.ping(draw(st.binary(min_size=8, max_size=8)))
        elif act == "settings":
            client.h2.update_settings({4: draw(st.integers(0, 2**31 - 1))})
    return client.h2.data_to_send()


@given(sent_by_h2() | CONVERSATIONS, PLACES)
def test_however_the_bytes_are_cut_the_same_is_heard_and_said(sent: bytes, places: list[int]) -> None:
    heard: list[Any] = []
    for pieces in ([sent], cut(sent, places), [bytes([byte]) for byte in sent[:2000]] + [sent[2000:]]):
        listening = Listening()
        http2 = server(listening)
        heard.append((hear(http2, pieces), listening.told, http2.take_output(), http2.frames_count))
    assert heard[0] == heard[1] == heard[2]


@given(sent_by_h2())
def test_nothing_that_h2_sends_is_a_breach_but_too_many_streams(sent: bytes) -> None:
    http2 = server(Listening())
    assert hear(http2, [sent])
    resets = [payload for kind, _, _, payload in said_by(http2.take_output()) if kind == Kind.RST_STREAM]
    assert {int.from_bytes(payload) for payload in resets} <= {Code.REFUSED_STREAM, Code.STREAM_CLOSED}


def acting(acts: list[int]) -> Listening:
    """Does something at random whenever it is told something: it refuses, answers, resets, lets in, lets be."""
    todo = iter(acts)

    def act(told: Told) -> None:
        stream_id = told[1] if len(told) > 1 else 0
        if not isinstance(stream_id, int) or stream_id not in listening.http2.streams:
            return
        http2 = listening.http2
        match next(todo, 0):
            case 1:
                http2.send_headers(stream_id, header_block([(b"grpc-status", b"0")]), is_end=True)
            case 2:
                http2.send_data(stream_id, bytes(max(0, min(20_000, http2.sendable_bytes(stream_id)))))
            case 3:
                http2.reset(stream_id, Code.CANCEL)
            case 4:
                http2.let_in(stream_id, 1000)

    listening = Listening(act)
    return listening


@given(CONVERSATIONS, PLACES, st.lists(st.integers(0, 4), max_size=20))
@example(HELLO + asked(1, flags=END_HEADERS | PRIORITIZED), [], [1])
def test_a_listener_hears_nothing_that_cannot_be_whatever_frames_come_and_whatever_it_does(
    sent: bytes, places: list[int], acts: list[int]
) -> None:
    """`Listening` checks it."""
    http2 = server(acting(acts))
    is_heard = hear(http2, cut(sent, places))
    said = said_by(http2.take_output())
    assert (said[-1][0] == Kind.GOAWAY) == (not is_heard)
    assert [kind for kind, *_ in said].count(Kind.GOAWAY) == (not is_heard)


@given(
    sent_by_h2() | CONVERSATIONS,
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20), st.binary(max_size=20)), min_size=1, max_size=4),
    st.lists(st.integers(0, 4), max_size=20),
)
def test_bytes_that_are_lost_added_or_changed_end_in_a_goodbye_at_worst(
    sent: bytes, changes: list[tuple[int, int, bytes]], acts: list[int]
) -> None:
    for start, lost_count, added in changes:
        sent = sent[:start] + added + sent[start + lost_count :]
    hear(server(acting(acts)), [sent])


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_end_in_a_goodbye_at_worst(sent: bytes, has_begun: bool) -> None:
    hear(server(Listening()), [HELLO + sent if has_begun else sent])


@given(st.binary(max_size=200))
def test_random_header_fields_end_in_a_goodbye_at_worst(block: bytes) -> None:
    hear(server(Listening()), [HELLO, frame(Kind.HEADERS, END_HEADERS, 1, block), asked(3)])
