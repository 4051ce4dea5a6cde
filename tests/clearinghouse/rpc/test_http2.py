"""Our HTTP/2 and the h2 library's, with no socket between them: streams, flow control in both directions, and ends."""

from __future__ import annotations

import struct

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from clearinghouse.rpc.frames import (
    END_HEADERS,
    PAYLOAD_MAX_BYTES,
    PREFACE,
    WINDOW_BYTES,
    Code,
    Kind,
    Setting,
    frame,
    header_block,
)
from clearinghouse.rpc.http2 import CONNECTION_WINDOW_BYTES, Stream
from tests.clearinghouse.rpc.http2_parts import (
    HELLO,
    STREAMS_MAX_COUNT,
    Answering,
    Client,
    Listening,
    Told,
    asked,
    server,
)

LARGE = bytes(range(256)) * 4096


def backwards(data: bytes) -> bytes:
    return data[::-1]


def has_ended(client: Client, stream_id: int) -> bool:
    return any(isinstance(event, StreamEnded) and event.stream_id == stream_id for event in client.events)


def test_a_request_is_heard_and_its_answer_comes_with_trailers() -> None:
    client = Client(Answering(backwards))
    stream_id = client.ask(b"hello")
    client.talk()
    names = [told[0] for told in client.listening.told]
    assert names == ["request", "data", "half_closed"]
    assert client.answer(stream_id) == b"olleh"
    kinds = [type(event) for event in client.events if getattr(event, "stream_id", None) == stream_id]
    assert kinds == [ResponseReceived, DataReceived, TrailersReceived, StreamEnded]
    assert client.http2.streams == {}


def test_a_request_without_data_ends_with_its_header_fields() -> None:
    client = Client(Answering(backwards))
    stream_id = client.ask()
    client.talk()
    assert [told[0] for told in client.listening.told] == ["request", "half_closed"]
    assert has_ended(client, stream_id)


def test_a_request_that_ends_with_trailers_has_ended() -> None:
    client = Client(Answering(backwards))
    stream_id = client.ask(b"hello", is_end=False)
    client.h2.send_headers(stream_id, [(b"x-late", b"1")], end_stream=True)
    client.talk()
    assert client.answer(stream_id) == b"olleh"
    assert has_ended(client, stream_id)


def test_padding_is_no_data_and_counts_for_flow_control() -> None:
    client = Client(Answering(backwards))
    stream_id = client.ask(is_end=False)
    client.h2.send_data(stream_id, b"hello", end_stream=True, pad_length=200)
    client.talk()
    assert ("data", stream_id, b"hello", 206) in client.listening.told
    assert client.answer(stream_id) == b"olleh"


def test_as_many_streams_as_may_be_are_answered_side_by_side_and_one_more_is_refused() -> None:
    client = Client(Answering(backwards))
    client.talk()
    client.h2.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 100})  # as one that has not heard of fewer
    client.h2.remote_settings.acknowledge()
    stream_ids = [client.ask(b"hello", is_end=False) for _ in range(STREAMS_MAX_COUNT)]
    refused = client.ask()
    resets = [event for event in client.talk() if isinstance(event, StreamReset)]
    assert [(event.stream_id, event.error_code) for event in resets] == [(refused, ErrorCodes.REFUSED_STREAM)]
    assert ("request", refused) not in [told[:2] for told in client.listening.told]
    for stream_id in reversed(stream_ids):
        client.send(stream_id, b" world")
    client.talk()
    assert {client.answer(stream_id) for stream_id in stream_ids} == {b"dlrow olleh"}
    client.ask(b"hello")
    client.talk()
    assert client.http2.streams == {}


def test_thousands_of_streams_one_after_another_leave_nothing_behind() -> None:
    client = Client(Answering(backwards))
    for _ in range(1000):
        stream_id = client.ask(b"hello")
        client.talk()
        assert client.answer(stream_id) == b"olleh"
        client.events.clear()
    assert client.http2.streams == {}


def test_more_than_all_windows_comes_in_when_it_is_let_in() -> None:
    client = Client(Answering(lambda data: b"%d" % len(data)))
    stream_id = client.ask(LARGE * 3)  # `send` fails where the server lets nothing in
    client.talk()
    assert client.answer(stream_id) == b"%d" % (3 * len(LARGE))


def test_who_is_not_let_in_stops_at_the_window_of_the_stream_and_others_go_on() -> None:
    listening = Answering(lambda data: b"%d" % len(data))
    listening.reads_at_once = False
    client = Client(listening)
    first = client.ask(bytes(WINDOW_BYTES), is_end=False)
    client.talk()
    assert client.h2.local_flow_control_window(first) == 0
    second = client.ask(b"hello")
    client.talk()
    assert client.answer(second) == b"5"
    client.http2.let_in(first, 100)
    client.talk()
    assert client.h2.local_flow_control_window(first) == 100
    client.send(first, bytes(100))
    client.talk()
    assert client.answer(first) == b"%d" % (WINDOW_BYTES + 100)


def test_the_connection_is_let_in_for_streams_that_nobody_reads() -> None:
    """Else calls that hold back what was sent to them would stop all others."""
    listening = Answering(backwards)
    listening.reads_at_once = False
    client = Client(listening)
    client.talk()
    for _ in range(3 * CONNECTION_WINDOW_BYTES // WINDOW_BYTES):
        stream_id = client.ask(bytes(WINDOW_BYTES), is_end=False)
        client.h2.reset_stream(stream_id)
        client.talk()
    assert client.h2.outbound_flow_control_window >= CONNECTION_WINDOW_BYTES // 2


@pytest.mark.parametrize("window_bytes", [0, 1, 100, 16_384, WINDOW_BYTES])
def test_an_answer_waits_for_the_windows_of_the_client(window_bytes: int) -> None:
    """h2 fails for a single byte too much."""
    asked = LARGE[: 2 * window_bytes + 1000]
    client = Client(Answering(backwards), {SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
    stream_id = client.ask(asked)
    client.talk()
    assert len(client.answer(stream_id)) == min(window_bytes, len(asked))
    client.h2.increment_flow_control_window(len(LARGE))
    while not has_ended(client, stream_id):
        before_bytes = len(client.answer(stream_id))
        client.h2.increment_flow_control_window(9_999, stream_id)
        client.talk()
        assert len(client.answer(stream_id)) == min(before_bytes + 9_999, len(asked))
    assert client.answer(stream_id) == backwards(asked)


def test_answers_share_the_window_of_the_connection() -> None:
    client = Client(Answering(lambda _: LARGE), {SettingCodes.INITIAL_WINDOW_SIZE: len(LARGE)})
    stream_ids = [client.ask(b"hello") for _ in range(3)]
    client.talk()
    assert sum(len(client.answer(stream_id)) for stream_id in stream_ids) == WINDOW_BYTES
    client.h2.increment_flow_control_window(len(LARGE))
    client.talk()
    assert sum(len(client.answer(stream_id)) for stream_id in stream_ids) == WINDOW_BYTES + len(LARGE)
    client.h2.increment_flow_control_window(2 * len(LARGE))
    client.talk()
    assert [client.answer(stream_id) == LARGE for stream_id in stream_ids] == [True] * 3


def test_a_window_that_grows_in_the_middle_lets_more_through() -> None:
    """h2 knows of its larger window only once we have acknowledged it: what is sent before would be too much."""
    client = Client(Answering(lambda _: LARGE[:50_000]), {SettingCodes.INITIAL_WINDOW_SIZE: 10_000})
    stream_id = client.ask(b"hello")
    client.talk()
    assert len(client.answer(stream_id)) == 10_000
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 30_000})
    client.talk()
    assert len(client.answer(stream_id)) == 30_000
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 60_000})
    client.talk()
    assert client.answer(stream_id) == LARGE[:50_000]
    assert has_ended(client, stream_id)


def test_a_window_that_shrinks_in_the_middle_has_to_be_filled_up_first() -> None:
    client = Client(Answering(lambda _: LARGE[:20_000]), {SettingCodes.INITIAL_WINDOW_SIZE: 10_000})
    stream_id = client.ask(b"hello")
    client.talk()
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_000})  # 9,000 less than nothing are left
    client.talk()
    client.h2.increment_flow_control_window(8_000, stream_id)
    client.talk()
    assert len(client.answer(stream_id)) == 10_000
    client.h2.increment_flow_control_window(2_000, stream_id)
    client.talk()
    assert len(client.answer(stream_id)) == 11_000
    client.h2.increment_flow_control_window(9_000, stream_id)
    client.talk()
    assert has_ended(client, stream_id)


def test_a_client_without_a_table_of_header_fields_is_told_that_none_is_used() -> None:
    """RFC 7541, 4.2: who may use less than before says so in the next block. h2 fails for one that does not."""
    client = Client(Answering(backwards), {SettingCodes.HEADER_TABLE_SIZE: 0})
    client.talk()
    for _ in range(2):
        stream_id = client.ask(b"hello")
        client.talk()
        assert has_ended(client, stream_id)
    client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 100})
    stream_id = client.ask(b"hello")
    client.talk()
    assert has_ended(client, stream_id)


def test_settings_are_acknowledged_and_pings_answered() -> None:
    client = Client(Listening())
    client.h2.ping(b"12345678")
    events = client.talk()
    assert any(isinstance(event, SettingsAcknowledged) for event in events)
    assert [event.ping_data for event in events if isinstance(event, PingAckReceived)] == [b"12345678"]


def test_a_stream_that_the_client_resets_is_given_up_once_and_the_next_one_is_served() -> None:
    client = Client(Answering(backwards))
    reset = client.ask(b"hello", is_end=False)
    client.h2.reset_stream(reset, ErrorCodes.CANCEL)
    stream_id = client.ask(b"hello")
    client.talk()
    assert client.listening.told.count(("given_up", reset)) == 1
    assert client.answer(stream_id) == b"olleh"


def test_who_leaves_is_still_answered() -> None:
    client = Client(Answering(backwards), {SettingCodes.INITIAL_WINDOW_SIZE: 2})
    stream_id = client.ask(b"hello")
    client.talk()
    client.http2.receive(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))  # h2 would take no answer after a GOAWAY of its own
    assert ("leaves",) in client.listening.told
    client.h2.increment_flow_control_window(3, stream_id)
    client.talk()
    assert client.answer(stream_id) == b"olleh"


def test_a_goodbye_names_the_last_stream_that_is_served() -> None:
    client = Client(Listening())
    client.ask(b"hello")
    last = client.ask(b"hello")
    client.talk()
    client.http2.say_goodbye(Code.NO_ERROR)
    (event,) = client.talk()
    assert isinstance(event, ConnectionTerminated)
    assert (event.last_stream_id, event.error_code) == (last, ErrorCodes.NO_ERROR)


def test_who_is_answered_before_having_said_all_is_told_to_stop_and_what_comes_late_harms_nobody() -> None:
    def refuse(told: Told) -> None:
        if told[0] == "request":
            assert isinstance(told[1], int)
            client.http2.send_headers(told[1], header_block([(b":status", b"415")]), is_end=True)

    client = Client(Listening(refuse))
    client.talk()
    stream_id = client.ask(is_end=False)
    client.h2.send_data(stream_id, bytes(10_000))  # on its way when the answer comes
    events = client.talk()
    assert [type(event) for event in events][:2] == [ResponseReceived, StreamEnded]
    resets = [event.error_code for event in events if isinstance(event, StreamReset)]
    assert resets[:1] == [ErrorCodes.NO_ERROR]
    assert [told[0] for told in client.listening.told] == ["request"]
    assert client.http2.streams == {}


def test_who_is_refused_for_a_whole_request_is_not_told_to_stop() -> None:
    def refuse(told: Told) -> None:
        if told[0] == "data":
            assert isinstance(told[1], int)
            client.http2.send_headers(told[1], header_block([(b":status", b"415")]), is_end=True)

    client = Client(Listening(refuse))
    client.ask(b"hello")
    assert not any(isinstance(event, StreamReset) for event in client.talk())
    assert [told[0] for told in client.listening.told] == ["request", "data"], "of what has ended nothing is told"


def test_the_preface_may_come_in_pieces() -> None:
    client = Client(Listening())
    first = client.h2.data_to_send()
    assert first.startswith(PREFACE)
    for byte in first:
        client.http2.receive(bytes([byte]))
    client.talk()
    assert client.http2.frames_count == 2  # its settings, and that it has taken ours


class CountedStream(Stream):
    """Counts how often its window is set."""

    set_count = 0

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "send_bytes":
            self.set_count += 1


def test_a_frame_of_thousands_of_windows_is_looked_at_once_for_each_stream() -> None:
    http2 = server(Listening())
    http2.receive(HELLO + asked(1, flags=END_HEADERS))
    http2.streams[1] = stream = CountedStream(WINDOW_BYTES)
    for last_bytes in (1, 0, 1):
        windows = struct.pack(
            ">HLHL", Setting.INITIAL_WINDOW_SIZE, 1 - last_bytes, Setting.INITIAL_WINDOW_SIZE, last_bytes
        )
        before_count = stream.set_count
        http2.receive(frame(Kind.SETTINGS, 0, 0, windows * (PAYLOAD_MAX_BYTES // len(windows))))
        assert stream.set_count == before_count + 1
        assert stream.send_bytes == last_bytes
