"""What a call ends with, read back by what others read it with."""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import unquote

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clearinghouse.rpc.frames import header_block
from clearinghouse.rpc.status import Status, ok_trailers
from tests.clearinghouse.rpc.http2_parts import Client, Listening

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


@given(TEXTS)
@example(" as it was said: \n ")
@example(" ")
def test_details_are_read_back_as_they_were_and_are_plain_where_they_can_be(details: str) -> None:
    trailers = dict(Status(grpc.StatusCode.INTERNAL, details).trailers())
    message = trailers.get(b"grpc-message", b"").decode("ascii")
    assert unquote(message, errors="strict") == details
    assert message.isprintable()
    assert message == message.strip(), "HTTP/2 has no field that begins or ends with a space (RFC 9113, 8.2.1)"


def test_details_in_english_stay_readable() -> None:
    details = "There is no room: 100% of 5 MiB, “all” of it."
    trailers = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, details).trailers()
    assert trailers == [
        (b"grpc-status", b"8"),
        (b"grpc-message", b"There is no room: 100%25 of 5 MiB, %E2%80%9Call%E2%80%9D of it."),
    ]


def test_a_status_without_details_has_no_message() -> None:
    assert Status(grpc.StatusCode.NOT_FOUND).trailers() == [(b"grpc-status", b"5")]


@given(TEXTS, st.binary(max_size=5000))
@example(" as it was said: ", b"")
def test_another_implementation_of_http2_reads_the_trailers(details: str, packed: bytes) -> None:
    status = Status(grpc.StatusCode.ABORTED, details, (("grpc-status-details-bin", packed), ("x-plain", "a b")))
    client = Client(Listening())
    stream_id = client.ask()
    client.talk()
    client.http2.send_headers(stream_id, header_block([(b":status", b"200"), *status.trailers()]), is_end=True)
    (answered,) = (dict(event.headers) for event in client.talk() if hasattr(event, "headers"))
    assert answered[b"grpc-status"] == b"10"
    assert unquote(answered.get(b"grpc-message", b"").decode("ascii")) == details
    assert b64decode(answered[b"grpc-status-details-bin"]) == packed
    assert answered[b"x-plain"] == b"a b"


def test_a_call_that_went_well_has_metadata_too() -> None:
    assert ok_trailers(()) == [(b"grpc-status", b"0")]
    assert ok_trailers((("x-plain", "1"), ("x-bin", b"\0\xff"))) == [
        (b"grpc-status", b"0"),
        (b"x-plain", b"1"),
        (b"x-bin", b"AP8="),
    ]


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_code_is_sent_as_its_number(code: grpc.StatusCode) -> None:
    assert Status(code).trailers() == [(b"grpc-status", str(code.value[0]).encode())]
