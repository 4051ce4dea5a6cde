"""The serialisation against another implementation of it, and against everything that is not one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import rlp as twin
from hypothesis import given
from hypothesis import strategies as st

from chain import rlp

ITEMS = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=6), max_leaves=12)


def depth(item: Any) -> int:
    return 0 if isinstance(item, bytes) else 1 + max(map(depth, item), default=0)


@given(ITEMS)
def test_it_is_written_as_others_write_it_and_read_back(item: Any) -> None:
    assert rlp.encode(item) == twin.encode(item)
    if depth(item) <= 8:
        assert rlp.decode(rlp.encode(item)) == item


@given(st.binary(max_size=40) | st.binary(max_size=12).map(lambda tail: b"\xc8" + tail))
def test_only_the_one_form_of_a_value_is_read(data: bytes) -> None:
    with contextlib.suppress(rlp.RlpError):
        assert rlp.encode(rlp.decode(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81\x01",  # a byte that stands for itself
        b"\xb8\x01a",  # a short length as a long one
        b"\xb9\x00\x38" + bytes(56),  # a length with a leading zero
        b"\x83ab",
        b"ab",
        b"\xc2\x83ab",  # an item beyond its list
        b"\xc1" * 40 + b"\xc0",
    ],
)
def test_what_is_not_of_this_form_is_refused(data: bytes) -> None:
    with pytest.raises(rlp.RlpError):
        rlp.decode(data)


@pytest.mark.parametrize(("number", "item"), [(0, b""), (1, b"\x01"), (255, b"\xff"), (256, b"\x01\x00")])
def test_numbers_have_no_leading_zeros(number: int, item: bytes) -> None:
    assert (rlp.number(number), rlp.read_number(item)) == (item, number)
    with pytest.raises(rlp.RlpError):
        rlp.read_number(b"\0" + item)
