from __future__ import annotations

import threading
import time
from uuid import UUID

import pytest

from clearinghouse import ids


def test_identifiers_are_version_7_and_carry_the_time_of_their_making() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = ids.uuid7()
    after_ms = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before_ms <= made.int >> 80 <= after_ms


def test_identifiers_rise_within_a_millisecond_and_are_never_made_twice_by_threads() -> None:
    made: list[list[UUID]] = [[] for _ in range(4)]

    def make(into: list[UUID]) -> None:
        into += [ids.uuid7() for _ in range(5000)]

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(into == sorted(into) for into in made)
    assert len({one for into in made for one in into}) == 20_000


def test_identifiers_rise_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert ids.uuid7() > first


def test_what_is_shown_is_read_back() -> None:
    made = ids.uuid7()
    for kind in ("gw", "key", "ses", "iss", "tr", "whs"):
        assert ids.parse(kind, ids.show(kind, made)) == made


@pytest.mark.parametrize(
    "text",
    ["", "gw_", "gw_1234", "GW_" + "0" * 32, "gw_" + "A" * 32, "gw_" + "0" * 33, "0" * 32, "xx_" + "0" * 32,
     "gw_" + "0" * 32 + "\n"],
)  # fmt: skip
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="gw_ and 32 lower-case hex digits"):
        ids.parse("gw", text)


def test_the_id_of_another_kind_is_named_as_such() -> None:
    with pytest.raises(ValueError, match="the id of an API key, not of a gateway"):
        ids.parse("gw", ids.show("key", ids.uuid7()))
