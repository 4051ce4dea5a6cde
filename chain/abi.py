"""What contracts are called with and what they return, as far as readings need it: words of 32 bytes, and one text."""

from __future__ import annotations

from typing import Final

from chain.signatures import ADDRESS_BYTES, keccak

WORD_BYTES: Final = 32


class AbiError(ValueError):
    """The data is not what the function returns: something else than that contract answers there."""


def selector(signature: str) -> bytes:
    """The four bytes that name a function, such as "getSenderInfo(address)"."""
    return keccak(signature.encode("ascii"))[:4]


def calldata(function: bytes, *arguments: int | bytes) -> bytes:
    """A call with numbers, addresses (20 bytes) and words (32 bytes)."""
    return function + b"".join(_word(argument) for argument in arguments)


def uints(data: bytes, count: int) -> tuple[int, ...]:
    """`count` numbers, as a function or its static structs return them. Raises AbiError for any other length."""
    if len(data) != count * WORD_BYTES:
        raise AbiError(f"{count} words are expected and {len(data)} bytes came")
    return tuple(int.from_bytes(data[at : at + WORD_BYTES], "big") for at in range(0, len(data), WORD_BYTES))


def uint(data: bytes) -> int:
    """One number. Raises AbiError."""
    return uints(data, 1)[0]


def signed(word: int) -> int:
    """The number that a word says as an `int256`."""
    return word - (1 << 256) if word >> 255 else word


def flag(data: bytes) -> bool:
    """Raises AbiError for anything but 0 and 1."""
    number = uint(data)
    if number > 1:
        raise AbiError("neither true nor false")
    return number == 1


def address(data: bytes) -> bytes:
    """20 bytes. Raises AbiError."""
    if uint(data) >> (8 * ADDRESS_BYTES):
        raise AbiError("an address has 20 bytes")
    return data[-ADDRESS_BYTES:]


def text(data: bytes) -> str:
    """A `string`; what is not UTF-8 in it is replaced. Raises AbiError."""
    offset = uint(data[:WORD_BYTES])
    length = uint(data[offset : offset + WORD_BYTES])
    content = data[offset + WORD_BYTES :][:length]
    if len(content) != length:
        raise AbiError("the text is shorter than it says")
    return content.decode("utf-8", errors="replace")


def _word(argument: int | bytes) -> bytes:
    if isinstance(argument, int):
        return argument.to_bytes(WORD_BYTES, "big")
    return argument.rjust(WORD_BYTES, b"\0")
