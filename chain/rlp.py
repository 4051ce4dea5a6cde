"""Ethereum's serialisation of nested lists of bytes (Yellow Paper, appendix B), both ways and strict.

    a byte below 0x80         itself
    up to 55 bytes            0x80 + length | bytes
    longer                    0xb7 + length of the length | length | bytes
    a list                    the same with 0xc0 and 0xf7, over its items one after the other

Every value has one form only, and no other is read: two different byte strings are never the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

Item: TypeAlias = "bytes | Sequence[Item]"

_STRING: Final = 0x80
_LIST: Final = 0xC0
_SHORT_MAX: Final = 55
#: Transactions have lists within lists two deep; a deeper one is none.
_DEPTH_MAX: Final = 8


class RlpError(ValueError):
    """The bytes are not the serialisation of anything."""


def encode(item: Item) -> bytes:
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < _STRING:
            return item
        return _length(len(item), _STRING) + item
    content = b"".join(encode(each) for each in item)
    return _length(len(content), _LIST) + content


def decode(data: bytes) -> Item:
    """The one item that `data` is. Raises RlpError."""
    item, end = _item(data, 0, _DEPTH_MAX)
    if end != len(data):
        raise RlpError("something follows the item")
    return item


def number(value: int) -> bytes:
    """A number as an item: big-endian without leading zeros, 0 as no bytes at all."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def read_number(item: Item) -> int:
    """Raises RlpError for a list, and for leading zeros."""
    if not isinstance(item, bytes) or item[:1] == b"\0":
        raise RlpError("not a number")
    return int.from_bytes(item, "big")


def _length(count: int, offset: int) -> bytes:
    if count <= _SHORT_MAX:
        return bytes([offset + count])
    size = number(count)
    return bytes([offset + _SHORT_MAX + len(size)]) + size


def _item(data: bytes, at: int, depth: int) -> tuple[Item, int]:
    """The item that begins there, and where it ends."""
    first = _slice(data, at, 1)[0]
    if first < _STRING:
        return data[at : at + 1], at + 1
    start, end = _content(data, at, first, _STRING if first < _LIST else _LIST)
    if first < _LIST:
        content = _slice(data, start, end - start)
        if len(content) == 1 and content[0] < _STRING:
            raise RlpError("a byte that stands for itself has a length before it")
        return content, end
    if not depth:
        raise RlpError("nested too deeply")
    items: list[Item] = []
    while start < end:
        item, start = _item(data, start, depth - 1)
        items.append(item)
    if start != end:
        raise RlpError("an item ends beyond its list")
    return items, end


def _content(data: bytes, at: int, first: int, offset: int) -> tuple[int, int]:
    """Where it begins and ends."""
    if first <= offset + _SHORT_MAX:
        return at + 1, at + 1 + first - offset
    size_count = first - offset - _SHORT_MAX
    size = read_number(_slice(data, at + 1, size_count))
    if size <= _SHORT_MAX:
        raise RlpError("a short length is written as a long one")
    start = at + 1 + size_count
    return start, start + size


def _slice(data: bytes, at: int, count: int) -> bytes:
    found = data[at : at + count]
    if len(found) != count:
        raise RlpError("the data ends too early")
    return found
