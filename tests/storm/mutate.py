"""Wrong bytes made of right ones, by a seed: JSON and protobuf with knowledge of their structure, and blind damage.

A mutator draws from `random.Random(seed)` alone: the same seed makes the same mutations of the same inputs.
"""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = Any
SECONDS_DEFAULT = 15.0

#: Where numbers change their width, their sign, or their kind. Literals, because json would not write most of them.
NUMBERS = (
    "0", "-0", "-1", "1", "1.0", "0.1", "1e0", "1E400", "-1e400", "1e-400", "9007199254740993", "2147483648",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" + "0" * 78,
    "9" * 400, "0.30000000000000004", "NaN", "Infinity", "-Infinity", "0x10", "01", "+1", "1_000", ".5", "5.",
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "a\x00b", "\r\nX-Injected: 1", "\u202e\u2066", "\u017f\u212a", "\ufeff", "é", "e\u0301",
    "\U0001f600", "\U0010ffff", "'; DROP TABLE account; --", "{{7*7}}", "../../etc/passwd", "%00%0a", "null", "true",
    "0", "-1", "x" * 129, "x" * 257, "x" * 70_000, "%s%n", "\x1b[2J", "\ud800",
)  # fmt: skip
#: Wire integers at the ends of their types.
VARINTS = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
VARINT, FIXED64, BYTES, GROUP_BEGIN, GROUP_END, FIXED32 = range(6)


def storm_seconds() -> float:
    """How long each storm lasts: STORM_SECONDS."""
    return float(os.environ.get("STORM_SECONDS", SECONDS_DEFAULT))


def storm_seed() -> int:
    """STORM_SEED, where "fresh" is one that nobody has tried; a failure shows it. A test says the same twice: 1."""
    wanted = os.environ.get("STORM_SEED", "1")
    return secrets.randbits(32) if wanted == "fresh" else int(wanted)


def until_the_end() -> Iterator[int]:
    """Numbers from 0, at least one, until a storm has lasted long enough."""
    end_s, number = time.monotonic() + storm_seconds(), 0
    while number == 0 or time.monotonic() < end_s:
        yield number
        number += 1


class Literal(float):
    """A number that is written into JSON as it is spelled."""

    def __new__(cls, spelled: str) -> Literal:
        made = super().__new__(cls, 0.0)
        made.spelled = spelled
        return made

    spelled: str

    def __repr__(self) -> str:  # which json's own encoder, in Python, does not use: see `spell`
        return self.spelled


@dataclass
class Twice:
    """An object whose keys may stand more than once."""

    pairs: list[tuple[str, Json]]


def spell(value: Json) -> str:
    """JSON, with literals as they are spelled and keys as often as they are there."""
    if isinstance(value, Literal):
        return value.spelled
    if isinstance(value, dict):
        value = Twice(list(value.items()))
    if isinstance(value, Twice):
        return "{" + ",".join(f"{json.dumps(key)}:{spell(inner)}" for key, inner in value.pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spell, value)) + "]"
    return json.dumps(value)


class Mutator:
    """`name` says in a failure which of a storm's mutators it was."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    # --- JSON ---------------------------------------------------------------------------------------------------------

    def json(self, document: Json) -> bytes:
        """A document with one to four changes; now and then its bytes are damaged too."""
        for _ in range(self.random.randint(1, 4)):
            document = self._changed(document)
        body = spell(document).encode("utf-8", "surrogatepass")
        return self.blind(body) if self.random.random() < 0.15 else body

    def _changed(self, value: Json) -> Json:
        """The value with a change somewhere in it."""
        if isinstance(value, dict):
            value = Twice(list(value.items()))
        if isinstance(value, Twice) and value.pairs and self.random.random() < 0.85:
            return self._changed_object(value)
        if isinstance(value, list) and value and self.random.random() < 0.7:
            at = self.random.randrange(len(value))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and value and self.random.random() < 0.5:
            return self._changed_text(value)
        return self._other()

    def _changed_object(self, value: Twice) -> Twice:
        pairs = list(value.pairs)
        at = self.random.randrange(len(pairs))
        key, inner = pairs[at]
        match self.random.randrange(9):
            case 0:
                del pairs[at]
            case 1:
                pairs.insert(at, (key, self._other()))
            case 2:
                pairs.append((key, inner))
            case 3:
                pairs[at] = (self._other_case(key), inner)
            case 4:
                other = self.random.randrange(len(pairs))
                pairs[at], pairs[other] = (key, pairs[other][1]), (pairs[other][0], inner)
            case 5:
                pairs.append((self.random.choice([*TEXTS, "__proto__", "state", "State", "type"]), self._other()))
            case _:
                pairs[at] = (key, self._changed(inner))
        return Twice(pairs)

    def _changed_text(self, text: str) -> str:
        """Base64 is opened: what is inside is a protobuf or a state in JSON, and its damage must not look like one of
        the base64.
        """
        if self.random.random() < 0.7:
            try:
                raw = base64.b64decode(text, validate=True)
            except ValueError:
                pass
            else:
                return base64.b64encode(self._changed_content(raw)).decode()
        at = self.random.randrange(len(text))
        return text[:at] + self.random.choice(TEXTS) + text[at + self.random.randint(0, 3) :]

    def _changed_content(self, raw: bytes) -> bytes:
        if raw[:1] == b"{":
            try:
                return self.json(json.loads(raw))
            except ValueError:
                return self.blind(raw)
        return self.protobuf(raw)

    def _other_case(self, key: str) -> str:
        return self.random.choice(
            [key.upper(), key.lower(), key.swapcase(), key.replace("s", "\u017f"), key + "\x00", ""]
        )

    def _other(self) -> Json:
        match self.random.randrange(8):
            case 0:
                return None
            case 1:
                return self.random.choice([True, False])
            case 2 | 3:
                return Literal(self.random.choice(NUMBERS))
            case 4 | 5:
                return self.random.choice(TEXTS)
            case 6:
                return self._deep()
            case _:
                return self.random.choice([[], {}, [None] * 1000, {"price": "1", "currency": "wei", "unit": "fixed"}])

    def _deep(self) -> Json:
        value: Json = 1
        for _ in range(self.random.choice([2, 40, 150])):  # deeper is in test_bad_input, without recursion of ours
            value = [value] if self.random.random() < 0.5 else {"a": value}
        return value

    # --- protobuf -----------------------------------------------------------------------------------------------------

    def protobuf(self, encoded: bytes) -> bytes:
        """A message with one to three changes in its fields, at any depth; now and then damaged blindly as well."""
        for _ in range(self.random.randint(1, 3)):
            fields = fields_of(encoded)
            encoded = self._changed_fields(fields) if fields else self.blind(encoded)
        return self.blind(encoded) if self.random.random() < 0.15 else encoded

    def _changed_fields(self, fields: list[Field]) -> bytes:
        at = self.random.randrange(len(fields))
        field = fields[at]
        match self.random.randrange(12):
            case 0:
                del fields[at]
            case 1:
                fields.insert(at, field)
            case 2:
                fields[at] = Field(self.random.choice([0, 1, 2, 3, 15, 16, 2**29 - 1, 2**29]), field.kind, field.value)
            case 3:
                other = self.random.randrange(len(fields))
                fields[at], fields[other] = (
                    Field(field.number, fields[other].kind, fields[other].value),
                    Field(fields[other].number, field.kind, field.value),
                )
            case 4:
                fields[at] = Field(field.number, self.random.choice([0, 1, 2, 5]), field.value)
            case 5:
                return (
                    b"".join(map(encode, fields[:at])) + self._cut_off(field) + b"".join(map(encode, fields[at + 1 :]))
                )
            case 6:
                fields.insert(
                    at, Field(field.number, BYTES, _nested(field.number, self.random.choice([5, 90, 110, 3000])))
                )
            case _:
                fields[at] = Field(field.number, field.kind, self._changed_value(field))
        return b"".join(map(encode, fields))

    def _changed_value(self, field: Field) -> int | bytes:
        if isinstance(field.value, int):
            return self.random.choice(VARINTS)
        if fields_of(field.value) and self.random.random() < 0.7:
            return self.protobuf(field.value)
        return self.random.choice(
            [b"", b"\x00", b"\xff" * 8, b"\xff" * 32, b"\xff" * 33, b"\x00" * 32, b"\x01" + b"\x00" * 32, b"\xc3\x28",
             b"\xed\xa0\x80", b"x" * 5000, bytes(70_000), self.blind(field.value or b"x"), field.value * 2]
        )  # fmt: skip

    def _cut_off(self, field: Field) -> bytes:
        """A field that promises more than there is, or never ends."""
        tag = varint(field.number << 3 | BYTES)
        return self.random.choice(
            [tag + varint(self.random.choice(VARINTS)) + b"x", tag, tag + b"\x80" * 11, tag + b"\xff" * 4,
             varint(field.number << 3 | GROUP_BEGIN) * 200, varint(field.number << 3 | GROUP_END), b"\x07", b"\x80"]
        )  # fmt: skip

    # --- bytes --------------------------------------------------------------------------------------------------------

    def blind(self, data: bytes) -> bytes:
        """Bits flipped, bytes gone, doubled or strange."""
        damaged = bytearray(data or b"\x00")
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(damaged) or 1)
            match self.random.randrange(5):
                case 0 if damaged:
                    damaged[at] ^= 1 << self.random.randrange(8)
                case 1:
                    del damaged[at : at + self.random.randint(1, 8)]
                case 2:
                    damaged[at:at] = self.random.randbytes(self.random.randint(1, 8))
                case 3:
                    del damaged[at + 1 :]
                case _:
                    damaged[at:at] = damaged[at : at + 64]
        return bytes(damaged)


@dataclass(frozen=True)
class Field:
    """One field on the wire. `value` is an int for a varint and bytes for everything else, whatever `kind` says."""

    number: int
    kind: int
    value: int | bytes


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def encode(field: Field) -> bytes:
    tag, value = varint(field.number << 3 | field.kind), field.value
    if isinstance(value, int):
        match field.kind:
            case 1:
                return tag + struct.pack("<Q", value)
            case 2:
                return tag + varint(value)  # a length without what it counts
            case 5:
                return tag + struct.pack("<L", value & 0xFFFFFFFF)
        return tag + varint(value)
    return tag + (varint(len(value)) if field.kind == BYTES else b"") + value


def fields_of(encoded: bytes) -> list[Field]:
    """Nothing for what is no message; a text that happens to look like one is taken for it."""
    fields, at = [], 0
    try:
        while at < len(encoded):
            tag, at = _varint_at(encoded, at)
            kind = tag & 7
            if kind == VARINT:
                value: int | bytes
                value, at = _varint_at(encoded, at)
            elif kind == BYTES:
                length, at = _varint_at(encoded, at)
                value, at = encoded[at : at + length], at + length
            elif kind in (FIXED64, FIXED32):
                length = 8 if kind == FIXED64 else 4
                value, at = encoded[at : at + length], at + length
            else:
                return []
            if at > len(encoded) or tag >> 3 == 0:
                return []
            fields.append(Field(tag >> 3, kind, value))
    except IndexError:
        return []
    return fields


def _varint_at(encoded: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (encoded[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not encoded[at - 1] & 0x80:
            return number, at


def _nested(number: int, depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = varint(number << 3 | BYTES) + varint(len(content)) + content
    return content
