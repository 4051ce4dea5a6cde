"""What clients do to a gRPC port that gRPC's libraries would not: nothing, too much, half of it, or something else."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from dataclasses import replace

import grpc
import pytest

from clearinghouse.connections import SMALL_BODY_BYTES
from clearinghouse.rpc.frames import (
    END_HEADERS,
    END_STREAM,
    PADDED,
    PAYLOAD_MAX_BYTES,
    WINDOW_BYTES,
    Code,
    Header,
    Kind,
    Setting,
    frame,
    goaway,
    header_block,
    rst_stream,
    settings,
    window_update,
)
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.rpc.message import prefixed
from tests.clearinghouse.rpc.http2_parts import ASKED, HELLO
from tests.clearinghouse.rpc.port_parts import (
    DEAF,
    ECHO,
    FORSAKEN,
    LARGE,
    LARGE_BYTES,
    LATE_STREAM,
    NEVER,
    PATIENT,
    PIECES,
    STREAM,
    WIDE_OPEN,
    Answer,
    asked,
    running,
    until,
    visiting,
)

SHORT_S = 0.25
#: A message has to come in a short time.
HASTY = replace(PATIENT, read_timeout_s=SHORT_S)
#: Answers have to be taken in a short time.
TAKEN = replace(PATIENT, idle_timeout_s=SHORT_S)
PING = frame(Kind.PING, 0, 0, bytes(8))


async def test_who_never_speaks_is_cut_in_time() -> None:
    for hello in (b"", HELLO[:10], HELLO[:24], HELLO[:30]):
        async with running(HASTY) as port, visiting(port, hello=hello) as visitor:
            await visitor.hears_all()
            await until(port.is_empty)
            assert port.cuts() == {"head_too_slow": 1}


@pytest.mark.parametrize(
    "hello", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", HELLO * 2]
)
async def test_who_speaks_something_else_is_told_so_and_cut(hello: bytes) -> None:
    async with running() as port, visiting(port, hello=hello) as visitor:
        await visitor.hears_all()
        assert visitor.goodbyes in ([Code.PROTOCOL_ERROR], [Code.FRAME_SIZE_ERROR])
        await until(port.is_empty)
        assert port.cuts() == {"not_http": 1}


async def test_who_comes_and_is_gone_before_anybody_looks_leaves_nothing_behind() -> None:
    """Nobody can say any more which address it has."""
    async with running() as port:
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port.number)) as visitor:
                visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        async with visiting(port) as here:
            assert (await here.answer(here.ask(ECHO, b"hello"))).messages == [b"hello"]
        await until(port.is_empty)


RESTLESS = {
    "pings": PING,
    "answers to pings": frame(Kind.PING, 1, 0, bytes(8)),
    "settings": settings({}),
    "resets": rst_stream(1, Code.CANCEL),
    "windows": window_update(0, 1),
    "priorities": frame(Kind.PRIORITY, 0, 1, bytes(5)),
    "empty data": frame(Kind.DATA, 0, 1),
    "data for nobody": frame(Kind.DATA, 0, 1, b"x"),
    "what nobody knows": frame(0xFA, 0, 0),
}


@pytest.mark.parametrize("frames", RESTLESS)
async def test_the_restless_are_cut(frames: str) -> None:
    async with running() as port, visiting(port) as visitor:
        await visitor.answer(visitor.ask(ECHO, b"hello"))
        for _ in range(int(PATIENT.frames_max_count) // 100):
            visitor.say(RESTLESS[frames] * 100)
        visitor.say(RESTLESS[frames] * 100)
        await visitor.hears_all()
        await until(port.is_empty)
        assert port.cuts() == {"restless": 1}
        assert visitor.goodbyes in ([Code.ENHANCE_YOUR_CALM], [])  # a reset may overtake it


async def test_who_begins_calls_only_to_reset_them_is_restless() -> None:
    async with running() as port, visiting(port) as visitor:
        await visitor.hears()
        for _ in range(int(PATIENT.frames_max_count)):
            visitor.say(rst_stream(visitor.ask(NEVER, is_end=False), Code.CANCEL))
        await visitor.hears_all()
        await until(port.is_empty)
        assert port.cuts() == {"restless": 1}
        assert port.work.begun == []


async def test_who_calls_all_the_time_is_not_restless() -> None:
    async with running() as port, visiting(port) as visitor:
        for _ in range(20):
            stream_ids = [visitor.ask(ECHO, b"hello") for _ in range(100)]
            visitor.say(PING * 100, window_update(0, 10_000) * 100)
            for stream_id in stream_ids:
                assert (await visitor.answer(stream_id)).messages == [b"hello"]
        assert port.cuts() == {}


async def test_who_answers_no_ping_has_vanished_and_its_calls_end() -> None:
    limits = RpcLimits(read_timeout_s=SHORT_S, keepalive_s=SHORT_S, keepalive_timeout_s=SHORT_S)
    async with running(limits) as port, visiting(port) as visitor:
        visitor.ask(STREAM, b"hello", is_end=False)
        await visitor.hears_all()
        assert visitor.pings_count == 1
        await until(port.is_empty)
        assert port.cuts() == {"vanished": 1}
        await until(lambda: port.work.cancelled == [STREAM])  # a turn after its place was given back


async def test_who_answers_pings_may_be_silent() -> None:
    limits = RpcLimits(read_timeout_s=SHORT_S, keepalive_s=SHORT_S, keepalive_timeout_s=SHORT_S)
    async with running(limits) as port, visiting(port) as visitor:
        stream_id = visitor.ask(STREAM, b"hello", is_end=False)
        for count in range(1, 4):
            while visitor.pings_count < count:
                assert await visitor.hears()
            visitor.say(frame(Kind.PING, 1, 0, bytes(8)))
        visitor.go_on(stream_id, b"world")
        assert (await visitor.answer(stream_id)).messages == [b"hello", b"world"]
        assert port.cuts() == {}


async def test_an_idle_connection_is_told_goodbye() -> None:
    async with running(replace(HASTY, connection_idle_max_s=2 * SHORT_S)) as port, visiting(port) as visitor:
        assert (await visitor.answer(visitor.ask(ECHO, b"hello"))).messages == [b"hello"]
        await visitor.hears_all()
        assert visitor.goodbyes == [Code.NO_ERROR] * 2  # soon, and now
        assert port.cuts() == {"idle": 1}


@pytest.mark.parametrize("path", [LARGE, PIECES])
async def test_an_answer_that_is_not_taken_is_taken_back_and_the_connection_goes_on(path: str) -> None:
    async with running(TAKEN) as port, visiting(port) as visitor:
        visitor.say(window_update(0, 1 << 20))
        answer = await visitor.answer(visitor.ask(path, b""))
        assert (answer.reset, len(answer.data)) == (Code.CANCEL, WINDOW_BYTES)
        assert port.cuts() == {"answer_not_taken": 1}
        await until(lambda: port.calls.taken_count == 0)
        assert (await visitor.answer(visitor.ask(ECHO, b"hello"))).messages == [b"hello"]


@pytest.mark.parametrize("path", [LARGE, PIECES])
async def test_who_does_not_read_at_all_is_cut(path: str) -> None:
    """Whose windows are wide open: it is the socket that is full."""
    async with running(TAKEN) as port:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", port.number))
            stuck.sendall(WIDE_OPEN + b"".join(asked(stream_id, path, b"\0\0\0\0\0") for stream_id in (1, 3, 5, 7)))
            await until(lambda: len(port.work.begun) == 4)
            await until(port.is_empty)
        assert port.cuts() == {"answer_not_taken": 1}


async def test_a_slow_reader_gets_all_of_its_answer() -> None:
    async with running(TAKEN) as port, visiting(port) as visitor:
        stream_id = visitor.ask(LARGE, b"")
        answer = Answer()
        while not answer.has_ended:
            visitor.say(window_update(stream_id, 500_000), window_update(0, 500_000))
            assert await visitor.hears()
            answer = visitor.answer_so_far(stream_id)
        assert answer.messages == [bytes(LARGE_BYTES)]


@pytest.mark.parametrize("path", [ECHO, LARGE])
@pytest.mark.parametrize("begun", [b"", b"\0\0", b"\0\0\0\0\x09half"])
async def test_a_call_without_a_message_in_time_is_refused(path: str, begun: bytes) -> None:
    async with running(HASTY) as port, visiting(port) as visitor:
        answer = await visitor.answer(visitor.ask(path, begun, is_end=False, prefix=False))
        assert answer.status is grpc.StatusCode.INVALID_ARGUMENT
        assert port.calls.taken_count == 0
        assert port.work.begun == []


async def test_a_call_that_ends_without_a_message_is_refused() -> None:
    async with running() as port, visiting(port) as visitor:
        assert (await visitor.answer(visitor.ask(ECHO))).status is grpc.StatusCode.INVALID_ARGUMENT
        assert (await visitor.answer(visitor.ask(STREAM))).status is grpc.StatusCode.OK


@pytest.mark.parametrize("path", [ECHO, STREAM])
async def test_a_message_that_is_cut_off_is_refused(path: str) -> None:
    async with running() as port, visiting(port) as visitor:
        answer = await visitor.answer(visitor.ask(path, b"\0\0\0\0\x09half", prefix=False))
        assert answer.status is grpc.StatusCode.INTERNAL
        assert port.work.begun == port.work.cancelled


@pytest.mark.parametrize(
    ("more", "method"),
    [
        ((b"content-type", b"application/json"), b"POST"),
        ((b"content-type", b""), b"POST"),
        ((b"content-type", b"application/grpc"), b"GET"),
    ],
)
async def test_what_is_not_grpc_gets_415(more: Header, method: bytes) -> None:
    async with running() as port, visiting(port) as visitor:
        answer = await visitor.answer(visitor.ask(ECHO, b"hello", more=(more,), method=method))
        assert answer.headers == [(b":status", b"415")]
        assert port.work.begun == []


async def test_what_cannot_be_read_is_not_implemented() -> None:
    async with running() as port, visiting(port) as visitor:
        answer = await visitor.answer(visitor.ask(ECHO, b"hello", more=((b"grpc-encoding", b"br"),)))
        assert answer.status is grpc.StatusCode.UNIMPLEMENTED
        assert dict(answer.headers)[b"grpc-accept-encoding"] == b"identity,deflate,gzip"
        answer = await visitor.answer(visitor.ask("/test.Echo/Nothing", b"hello"))
        assert answer.status is grpc.StatusCode.UNIMPLEMENTED
        answer = await visitor.answer(visitor.ask(ECHO, b"\1\0\0\0\x05hello", prefix=False))
        assert answer.status is grpc.StatusCode.INTERNAL


async def test_a_deadline_is_kept_for_who_does_not_look_at_it_himself() -> None:
    async with running(replace(PATIENT, read_timeout_s=SHORT_S)) as port, visiting(port) as visitor:
        timeout = ((b"grpc-timeout", b"100m"),)
        for stream_id in (visitor.ask(NEVER, b"hello", more=timeout), visitor.ask(STREAM, more=timeout, is_end=False)):
            assert (await visitor.answer(stream_id)).status is grpc.StatusCode.DEADLINE_EXCEEDED
        answer = await visitor.answer(visitor.ask(LARGE, b"", more=timeout))
        assert answer.reset is Code.CANCEL, "in the middle of a message there is no place for a status"
        await until(lambda: port.calls.taken_count == 0)
        assert port.work.cancelled == [NEVER, STREAM]


async def test_who_stops_sending_ends_its_calls() -> None:
    async with running() as port, visiting(port) as visitor:
        visitor.ask(NEVER, b"hello")
        await until(lambda: port.work.begun)
        visitor.say_no_more()
        await visitor.hears_all()
        await until(port.is_empty)
        await until(lambda: port.work.cancelled == [NEVER])


async def test_one_address_gets_half_of_the_connections_and_others_get_in() -> None:
    async with running(connections_max_count=4) as port:
        async with visiting(port, "127.0.0.2"), visiting(port, "127.0.0.2"):
            await until(lambda: port.connections.open_count == 2)
            async with visiting(port, "127.0.0.2") as third, visiting(port, "127.0.0.3") as other:
                await third.hears_all()
                assert third.goodbyes == [Code.ENHANCE_YOUR_CALM]
                assert (await other.answer(other.ask(ECHO, b"hello"))).messages == [b"hello"]
        assert port.cuts() == {"address_share": 1}
        await until(port.is_empty)
        async with visiting(port, "127.0.0.2") as again:
            assert (await again.answer(again.ask(ECHO, b"hello"))).messages == [b"hello"]


async def test_one_address_gets_half_of_the_calls_and_others_get_theirs() -> None:
    async with running(calls_max_count=4) as port:
        async with visiting(port, "127.0.0.2") as first, visiting(port, "127.0.0.2") as second:
            first.ask(NEVER, b"hello")
            waiting = second.ask(NEVER, b"hello")
            await until(lambda: port.calls.taken_count == 2)
            assert (await first.answer(first.ask(ECHO, b"hello"))).status is grpc.StatusCode.UNAVAILABLE
            assert (await second.answer(second.ask(STREAM, b"hello"))).status is grpc.StatusCode.UNAVAILABLE
            async with visiting(port, "127.0.0.3") as other:
                assert (await other.answer(other.ask(ECHO, b"hello"))).messages == [b"hello"]
            second.say(rst_stream(waiting, Code.CANCEL))
            await until(lambda: port.calls.taken_count == 1)
            assert (await second.answer(second.ask(ECHO, b"hello"))).messages == [b"hello"]
        await until(port.is_empty)


async def test_who_leaves_is_answered_and_then_the_connection_ends() -> None:
    async with running() as port, visiting(port) as visitor:
        stream_ids = [visitor.ask(NEVER, b"hello"), visitor.ask(STREAM, b"hello", is_end=False)]
        visitor.say(goaway(0, Code.NO_ERROR))
        late = visitor.ask(ECHO, b"hello")
        assert (await visitor.answer(late)).reset is Code.REFUSED_STREAM
        port.work.let_go.set()
        visitor.go_on(stream_ids[1], b"world")
        assert (await visitor.answer(stream_ids[0])).messages == [b"hello"]
        assert (await visitor.answer(stream_ids[1])).messages == [b"hello", b"world"]
        await visitor.hears_all()
        assert visitor.goodbyes == [Code.NO_ERROR]


async def test_padding_is_let_in_again_whether_or_not_a_message_is_complete() -> None:
    """A stream whose client pads a message of 1,000 bytes byte by byte takes four windows for it."""
    async with running(replace(PATIENT, frames_max_count=10_000)) as port, visiting(port) as visitor:
        message = bytes(1000)
        stream_id = visitor.ask(STREAM, is_end=False)
        for byte in b"\0" + len(message).to_bytes(4) + message:
            await visitor.send_data(stream_id, b"\xff" + bytes([byte]) + bytes(255), PADDED)
        for _ in range(WINDOW_BYTES // 256 + 1):
            await visitor.send_data(stream_id, b"\xff" + bytes(255), PADDED)
        await visitor.send_data(stream_id, b"", END_STREAM)
        assert (await visitor.answer(stream_id)).messages == [message]


async def test_a_stream_that_nobody_reads_takes_in_a_window_and_no_more() -> None:
    async with running() as port, visiting(port) as visitor:
        stream_id = visitor.ask(DEAF, *[bytes(995)] * 65, is_end=False)
        await visitor.is_heard()
        assert visitor.let_in_bytes(stream_id) == 0
        visitor.go_on(stream_id, bytes(995), is_end=False)
        answer = await visitor.answer(stream_id)
        assert answer.reset is Code.FLOW_CONTROL_ERROR
        assert port.connections.large_bodies_bytes == 0


async def test_large_messages_share_a_bounded_part_of_the_memory_and_small_ones_need_none_of_it() -> None:
    large = PATIENT.message_max_bytes
    async with running(large_bodies_max_bytes=large) as port, visiting(port) as visitor:
        begun = visitor.ask(ECHO, b"\0" + large.to_bytes(4) + bytes(60_000), is_end=False, prefix=False)
        await until(lambda: port.connections.large_bodies_bytes == 60_005 - SMALL_BODY_BYTES)
        while not visitor.let_in_bytes(begun):
            assert await visitor.hears()
        visitor.go_on(begun, bytes(large - 60_001), is_end=False, prefix=False)
        refused = await visitor.answer(visitor.ask(ECHO, bytes(60_000)))
        assert refused.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await visitor.answer(visitor.ask(ECHO, b"hello"))).messages == [b"hello"]
        visitor.say(settings({Setting.INITIAL_WINDOW_SIZE: 1 << 20}), window_update(0, 1 << 20))
        visitor.go_on(begun, b"x", prefix=False)
        assert len((await visitor.answer(begun)).data) == large + 5
        assert port.connections.large_bodies_bytes == 0


async def test_a_call_that_comes_too_late_is_refused_once_though_its_client_does_not_read() -> None:
    limits = replace(HASTY, read_timeout_s=0.05)
    async with running(limits) as port:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", port.number))
            stuck.sendall(WIDE_OPEN + asked(1, LARGE, b"\0\0\0\0\0") + asked(3, ECHO))
            await until(lambda: len(port.work.refusals) == 1)
            await asyncio.sleep(4 * limits.read_timeout_s)
        assert len(port.work.refusals) == 1


async def test_a_call_whose_work_ends_without_an_end_is_ended_and_gives_its_place_back() -> None:
    async with running() as port, visiting(port) as visitor:
        answer = await visitor.answer(visitor.ask(FORSAKEN, b"hello"))
        assert answer.status is grpc.StatusCode.INTERNAL
        await until(lambda: port.calls.taken_count == 0)


async def test_tiny_messages_that_nobody_reads_count_with_what_they_take_of_the_memory() -> None:
    async with running() as port, visiting(port) as visitor:
        visitor.ask(LATE_STREAM, *[b""] * (PAYLOAD_MAX_BYTES // 5), is_end=False)
        await visitor.is_heard()
        assert port.connections.large_bodies_bytes > 100 * (PAYLOAD_MAX_BYTES // 5)


async def test_large_messages_are_let_in_one_after_the_other() -> None:
    """Only the first: the sender waits until it is taken."""
    large = bytes(200_000)
    async with running() as port, visiting(port) as visitor:
        stream_id = visitor.ask(LATE_STREAM, is_end=False)
        whole = prefixed(large)
        visitor.go_on(stream_id, whole[:PAYLOAD_MAX_BYTES], is_end=False, prefix=False)
        await visitor.is_heard()
        assert visitor.let_in_bytes(stream_id) == len(whole)
        visitor.go_on(stream_id, whole[PAYLOAD_MAX_BYTES:], whole[:PAYLOAD_MAX_BYTES], is_end=False, prefix=False)
        await visitor.is_heard()
        assert visitor.let_in_bytes(stream_id) == len(whole)
        port.work.let_go.set()
        while visitor.let_in_bytes(stream_id) < 2 * len(whole):
            assert await visitor.hears()


async def test_compressed_messages_are_decompressed_when_they_are_taken() -> None:
    packed = gzip.compress(bytes(250_000))
    data = b"".join(b"\1" + prefixed(each)[1:] for each in [packed] * 40 + [b"gzip"])
    async with running() as port, visiting(port, hello=WIDE_OPEN) as visitor:
        stream_id = visitor.ask(LATE_STREAM, data, more=((b"grpc-encoding", b"gzip"),), is_end=False, prefix=False)
        await visitor.is_heard()
        assert port.connections.large_bodies_bytes < 2 * 250_000
        port.work.let_go.set()
        answer = await visitor.answer(stream_id)
        assert answer.status is grpc.StatusCode.INTERNAL
        # Of the one before it the answer was begun only where the broken one came late.
        assert answer.messages in ([bytes(250_000)] * 39, [bytes(250_000)] * 40)


async def test_refused_calls_do_not_cost_those_that_are_accepted_the_connection() -> None:
    async with running() as port, visiting(port) as visitor:
        accepted = visitor.ask(NEVER, b"hello")
        for _ in range(60):
            refused = [visitor.ask("/test.Echo/Nothing", b"hello") for _ in range(50)]
            await visitor.answer(refused[-1])
        port.work.let_go.set()
        assert (await visitor.answer(accepted)).messages == [b"hello"]


async def test_too_much_metadata_ends_the_call_and_not_its_neighbours() -> None:
    block = header_block([*ASKED, (b"content-type", b"application/grpc"), *[(b"x", b"v" * 5000)] * 4])
    async with running() as port, visiting(port) as visitor:
        accepted = visitor.ask(NEVER, b"hello")
        await until(lambda: port.work.begun)
        stream_id = accepted + 2
        visitor.say(frame(Kind.HEADERS, 0, stream_id, block[:PAYLOAD_MAX_BYTES]))
        visitor.say(frame(Kind.CONTINUATION, END_HEADERS, stream_id, block[PAYLOAD_MAX_BYTES:]))
        assert (await visitor.answer(stream_id)).status is grpc.StatusCode.RESOURCE_EXHAUSTED
        port.work.let_go.set()
        assert (await visitor.answer(accepted)).messages == [b"hello"]
