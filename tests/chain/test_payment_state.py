"""The state's JSON: Go's bytes out, one reading in."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.messages import MessageError, Price, encode_base64
from chain.payment_state import PaymentState, StateError, decode_state, decode_state_text, encode_state, read_state

EMPTY = PaymentState("", b"", None, bytes(20), "", 0, 0, None, Price(0, 0), "", 0, "")
#: 0001-01-01 and 9999-12-31, the years a state's time can name, in seconds.
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
INT64 = st.integers(-(2**63), 2**63 - 1)
STATES = st.builds(
    PaymentState,
    state_id=TEXT,
    pm_session_id=st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
    last_update_unix_ns=st.one_of(st.none(), st.integers(FIRST_S * 10**9 + 1, LAST_S * 10**9 + 999_999_999)),
    orchestrator_address=st.binary(min_size=20, max_size=20),
    app=TEXT,
    auth_expiry_unix_s=INT64,
    sender_nonce=st.integers(0, 2**32 - 1),
    balance=st.one_of(st.none(), st.fractions(), st.builds(Fraction, st.integers(), st.just(2**256 - 1))),
    initial_price=st.builds(Price, INT64, INT64),
    type=st.sampled_from(["", "live", "lv2v", "fixed"]),
    sequence_number=st.integers(0, 2**64 - 1),
    auth_id=TEXT,
)


@given(STATES)
def test_a_state_survives_writing_and_reading(state: PaymentState) -> None:
    encoded = encode_state(state)
    assert decode_state(encoded) == state
    assert encode_state(decode_state(encoded)) == encoded


@given(STATES)
def test_a_state_is_json_and_holds_no_character_that_html_would_read(state: PaymentState) -> None:
    text = encode_state(state).decode()
    assert not set("<>&\u2028\u2029") & set(text)
    fields = json.loads(text)
    assert (fields["App"], fields["AuthID"], fields["StateID"]) == (state.app, state.auth_id, state.state_id)


def _text_of(app: str) -> str:
    encoded = encode_state(EMPTY._replace(app=app)).decode()
    return encoded.removeprefix(encoded[: encoded.index('"App":') + 6]).removesuffix(
        encoded[encoded.index(',"AuthExpiry"') :]
    )


@pytest.mark.parametrize(
    ("app", "written"),
    [
        ("plain", '"plain"'),
        ("<a>&b", '"\\u003ca\\u003e\\u0026b"'),
        ("\u2028\u2029", '"\\u2028\\u2029"'),
        ('"\\/', '"\\"\\\\/"'),
        ("\n\r\t\b\f", '"\\n\\r\\t\\b\\f"'),
        ("\x00\x1b\x1f", '"\\u0000\\u001b\\u001f"'),
        ("\x7fé🎥", '"\x7fé🎥"'),
    ],
)
def test_strings_are_escaped_as_go_escapes_them(app: str, written: str) -> None:
    assert _text_of(app) == written


def test_the_empty_state_is_gos_zero_value() -> None:
    assert encode_state(EMPTY) == (
        b'{"StateID":"","PMSessionID":"","LastUpdate":"0001-01-01T00:00:00Z",'
        b'"OrchestratorAddress":"0x0000000000000000000000000000000000000000","App":"","AuthExpiry":0,"SenderNonce":0,'
        b'"Balance":"","InitialPricePerUnit":0,"InitialPixelsPerUnit":0,"Type":"","SequenceNumber":0,"AuthID":""}'
    )
    assert decode_state(encode_state(EMPTY)) == EMPTY
    assert decode_state(b"{}") == EMPTY
    assert decode_state(b'{"App":null,"SenderNonce":null,"Balance":null,"LastUpdate":null}') == EMPTY


@pytest.mark.parametrize(
    ("balance", "text"),
    [(Fraction(500), "500"), (Fraction(125, 7), "125/7"), (Fraction(-250, 14), "-125/7"), (Fraction(0), "0")],
)
def test_a_balance_is_a_reduced_fraction(balance: Fraction, text: str) -> None:
    assert f'"Balance":"{text}"'.encode() in encode_state(EMPTY._replace(balance=balance))
    assert _with(Balance=text).balance == balance


def _with(**members: Any) -> PaymentState:
    return decode_state(json.dumps(json.loads(encode_state(EMPTY)) | members).encode())


def test_a_balance_that_is_not_reduced_is_read_as_well() -> None:
    assert _with(Balance="500/1").balance == 500
    assert _with(Balance="250/14").balance == Fraction(125, 7)


APRIL_NS = 1_775_592_000 * 10**9  # 2026-04-07T20:00:00Z


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("2026-04-07T20:00:00Z", APRIL_NS),
        ("2026-04-07T20:00:00.123456789Z", APRIL_NS + 123_456_789),
        ("2026-04-07T22:00:00.123+02:00", APRIL_NS + 123_000_000),
        ("2026-04-07T14:30:00.000000001-05:30", APRIL_NS + 1),
        ("1969-12-31T23:59:59.9Z", -100_000_000),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T01:00:00+01:00", None),
        ("0001-01-01T00:00:00.000000001Z", FIRST_S * 10**9 + 1),
    ],
)
def test_times_are_read_exactly_with_any_offset(text: str, unix_ns: int | None) -> None:
    assert _with(LastUpdate=text).last_update_unix_ns == unix_ns


@given(st.integers(FIRST_S + 86_400, LAST_S - 86_400), st.integers(-(23 * 60 + 59), 23 * 60 + 59))
def test_times_agree_with_the_calendar_of_the_standard_library(unix_s: int, offset_min: int) -> None:
    zone = timezone(timedelta(minutes=offset_min))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=unix_s)
    text = moment.astimezone(zone).isoformat()
    assert _with(LastUpdate=text).last_update_unix_ns == unix_s * 10**9
    written = json.loads(encode_state(EMPTY._replace(last_update_unix_ns=unix_s * 10**9)))["LastUpdate"]
    assert written == moment.isoformat().replace("+00:00", "Z")


def _reading(data: bytes) -> PaymentState | str:
    """The state, or why there is none."""
    try:
        return decode_state(data)
    except StateError as error:
        return str(error)


def _require_one_reading(usual: bytes) -> None:
    """A blank before it makes a state an unusual one, which is read as JSON, and changes nothing of what it says."""
    assert _reading(usual) == _reading(b" " + usual), usual


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\<>&'), max_size=60)
#: As a signer with sessions under way writes them: nothing is empty, nothing escaped.
USUAL = st.builds(
    PaymentState,
    state_id=ASCII,
    pm_session_id=st.binary(min_size=32, max_size=32),
    last_update_unix_ns=st.integers(FIRST_S * 10**9, LAST_S * 10**9 + 999_999_999),
    orchestrator_address=st.binary(min_size=20, max_size=20),
    app=ASCII,
    auth_expiry_unix_s=st.integers(0, 2**63 - 1),
    sender_nonce=st.integers(0, 2**32 - 1),
    balance=st.one_of(st.fractions(), st.builds(Fraction, st.integers(), st.just(2**256 - 1))),
    initial_price=st.builds(Price, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)),
    type=st.sampled_from(["", "live", "lv2v", "fixed"]),
    sequence_number=st.integers(0, 2**64 - 1),
    auth_id=ASCII,
)

IN_USE = PaymentState(
    "a", bytes(32), APRIL_NS + 5, bytes(20), "a", 0, 1, Fraction(-125, 7), Price(4, 1), "live", 3, "gw_1/ses_1"
)
#: What stands in a usual state, and what is nearly that: bounds, other spellings, markup, escapes, names.
PIECES = (
    *(str(number + step) for number in (0, 10**9, 2**32, 10**18, 2**63, 2**64) for step in (-1, 0, 1)),
    "-0", "00", "01", "1.0", "1e3", "true", "null", "NaN", "٢", "x" * 256, "x" * 257, "1" * 300, "1" * 301,
    "/0", "/1", "/07", "1" * 300 + "/" + "1" * 300, "1" * 801, "é", "🎥", "\x7f", "\x00", "\n", " ", "", '"', "\\",
    "\\u0041", "\\ud800", "<", "{", "[" * 70, "},{", '"App":"a",', '"app":"a",', '"x":1,', "0X" + "0" * 64,
    "0x" + "A" * 64, "2026-02-30T00:00:00Z", "2026-04-07T24:00:00.1Z", "0001-01-01T00:00:00.0Z", "+00:00", ".1",
)  # fmt: skip


@given(USUAL, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(PIECES)), max_size=3))
def test_a_usual_state_is_read_as_its_json_says(state: PaymentState, changes: list[tuple[float, int, str]]) -> None:
    text = encode_state(state).decode()
    _require_one_reading(text.encode())
    for where, length, piece in changes:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + length :]
    _require_one_reading(text.encode())


def test_a_member_of_a_usual_state_is_read_as_its_json_says() -> None:
    """And with bounds that are the same, whatever stands there."""
    usual = encode_state(IN_USE).decode()
    for name, was in json.loads(usual).items():
        before, name_and_colon, rest = usual.partition(f'"{name}":')
        value_end = json.JSONDecoder().raw_decode(rest)[1]
        for piece in PIECES:
            for value in (piece, f'"{piece}"', f'"{was}{piece}"', f"{was}{piece}"):
                _require_one_reading(f"{before}{name_and_colon}{value}{rest[value_end:]}".encode())


def test_each_byte_of_a_usual_state_means_in_it_what_it_means_in_json() -> None:
    data = encode_state(IN_USE)
    for at in range(len(data)):
        for other in (*b'09aAfFgZ-."\\{}[],: \x00\x7f\xff', data[at] ^ 0x20):
            _require_one_reading(data[:at] + bytes([other]) + data[at + 1 :])
        _require_one_reading(data[:at] + data[at + 1 :])


@pytest.mark.parametrize(
    ("unix_ns", "text"),
    [
        (APRIL_NS, "2026-04-07T20:00:00Z"),
        (APRIL_NS + 120_000_000, "2026-04-07T20:00:00.12Z"),
        (APRIL_NS + 1, "2026-04-07T20:00:00.000000001Z"),
        (APRIL_NS + 100_000_010, "2026-04-07T20:00:00.10000001Z"),
    ],
)
def test_times_are_written_without_trailing_zeros(unix_ns: int, text: str) -> None:
    assert json.loads(encode_state(EMPTY._replace(last_update_unix_ns=unix_ns)))["LastUpdate"] == text


@pytest.mark.parametrize(
    "text",
    [
        "", "2026-04-07", "2026-04-07 20:00:00Z", "2026-04-07T20:00:00", "2026-04-07t20:00:00z", "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "2026-04-07T24:00:00Z", "2026-04-07T20:60:00Z",
        "2026-04-07T20:00:60Z", "2026-04-07T20:00:00.1234567890Z", "2026-04-07T20:00:00.Z", "2026-04-07T20:00:00+24:00",
        "2026-04-07T20:00:00+02:60", "2026-04-07T20:00:00+0200", "٢026-04-07T20:00:00Z", "2026-04-07T20:00:00Z\n", 5,
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str | int) -> None:
    with pytest.raises(StateError, match="LastUpdate"):
        _with(LastUpdate=text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not-json",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"{} {}",
        b"{}x",
        b'{"App":"\xff"}',
        b"[" * 9000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_anything_but_one_json_object_is_no_state(data: bytes) -> None:
    with pytest.raises(StateError, match="one JSON object in UTF-8"):
        decode_state(data)


@pytest.mark.parametrize("data", [b'{"App":"a","App":"b"}', b'{"x":1,"x":1}', b'{"x":{"a":1,"a":2}}'])
def test_a_member_named_twice_is_refused(data: bytes) -> None:
    with pytest.raises(StateError, match="twice"):
        decode_state(data)


@pytest.mark.parametrize("data", [b'{"app":"b"}', b'{"App":"a","APP":"b"}', b'{"pmsessionid":""}'])
def test_a_member_in_another_case_is_refused(data: bytes) -> None:
    with pytest.raises(StateError, match="wrong case"):
        decode_state(data)


def test_members_of_a_newer_signer_are_passed_over() -> None:
    assert _with(Sparkle={"a": [1, 2.5e300, None]}, Ratio=1.5) == EMPTY


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("SenderNonce", -1), ("SenderNonce", 2**32), ("SenderNonce", True), ("SenderNonce", "1"), ("SenderNonce", 1.0),
        ("SequenceNumber", -1), ("SequenceNumber", 2**64), ("AuthExpiry", 2**63), ("AuthExpiry", 1e400),
        ("InitialPricePerUnit", 2**63), ("InitialPricePerUnit", 1.5), ("InitialPixelsPerUnit", -(2**63) - 1),
        ("StateID", 5), ("StateID", 1.5), ("StateID", "x" * 257), ("App", ["a"]), ("App", "\ud800"), ("Type", {}),
        ("PMSessionID", "0x12"), ("PMSessionID", "00" * 33), ("PMSessionID", 0),
        ("OrchestratorAddress", "00" * 20), ("OrchestratorAddress", "0x" + "0" * 39),
        ("OrchestratorAddress", "0x" + "g" * 40), ("OrchestratorAddress", 5),
        ("Balance", "wat"), ("Balance", "1.5"), ("Balance", "1e9"), ("Balance", "1/0"), ("Balance", "1/-2"),
        ("Balance", 5), ("Balance", "1" * 801), ("Balance", " 1"), ("Balance", "1\n"), ("Balance", "١"),
    ],
)  # fmt: skip
def test_a_member_of_the_wrong_type_or_range_is_refused(member: str, value: Any) -> None:
    with pytest.raises(StateError):
        _with(**{member: value})


def test_not_a_number_is_refused() -> None:
    with pytest.raises(StateError, match="NaN is not JSON"):
        decode_state(b'{"AuthExpiry":NaN}')


@pytest.mark.parametrize(
    "data", [b'{"App":"' + b"x" * 10**6 + b'"}', b'{"AuthExpiry":' + b"9" * 16_000 + b"}", b'{"x":1e999999999}']
)
def test_what_is_long_costs_no_time(data: bytes) -> None:
    begun_ns = time.perf_counter_ns()
    try:
        decode_state(data)
    except StateError:
        assert data != b'{"x":1e999999999}'
    assert time.perf_counter_ns() - begun_ns < 10**9


@pytest.mark.parametrize("state", [b"{}", b"{}".ljust(1024), b"{}".ljust(1025), b"{}".ljust(10_000)])
def test_what_is_remembered_of_a_state_is_what_is_read_and_computed_anew(state: bytes) -> None:
    for _ in range(2):
        assert read_state(state) == (decode_state(state), hashlib.sha256(state).digest())


@pytest.mark.parametrize("state", [b"", b"{}", b"a" * 1024, b"b" * 1025, b"c" * 10_000])
def test_what_is_remembered_of_a_states_text_is_what_is_decoded_anew(state: bytes) -> None:
    text = encode_base64(state)
    for _ in range(2):
        assert decode_state_text(text) == decode_state_text(f"\n{text}") == state
        for illegal in (f"{text}!", f" {text}", f"{text}é"):
            with pytest.raises(MessageError, match="illegal base64 data"):
                decode_state_text(illegal)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(StateError, match="lone surrogates"):
        encode_state(EMPTY._replace(app="\ud800"))
    with pytest.raises(StateError, match="year"):
        encode_state(EMPTY._replace(last_update_unix_ns=(LAST_S + 1) * 10**9))
    with pytest.raises(StateError, match="no such time"):
        encode_state(EMPTY._replace(last_update_unix_ns=10**40))
