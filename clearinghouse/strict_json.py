"""JSON with one reading or none: no duplicate keys, no NaN, no bytes after the value, no number bent into a float.

Forgiving readers differ in what they forgive, so one forgiving body can be two requests (remote-signer protocol,
section 10, A9). Everything here raises InvalidRequest, or RequestTooLarge, and nothing else. An absent key and `null`
are the same: not given.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from chain.messages import MessageError, decode_base64
from chain.shallow_json import TooDeep, decoded, require_shallow
from clearinghouse.errors import InvalidRequest, RequestTooLarge

INT64: Final = range(-(2**63), 2**63)


class Number(str):
    """A JSON number with a fraction or an exponent, kept as its text: it must never become a float."""

    __slots__ = ()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in unique if keys.count(key) > 1)
        raise InvalidRequest(f"duplicate key {shown(repeated)} in the request body")
    return unique


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"invalid character {name[0]!r} looking for beginning of value: {name} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_float=Number, parse_constant=_refuse_constant
)


def parse_object(body: bytes, *, bytes_max: int, what: str) -> dict[str, Any]:
    """The body's one JSON object, without duplicate keys at any depth, floats, lone surrogates or anything after it.

    `what` names, for the refusal of another kind of value, what the object was to be.
    """
    if len(body) > bytes_max:
        raise RequestTooLarge(f"request body is larger than {bytes_max} bytes")
    try:
        text = body.decode()
        require_shallow(text)
        document = decoded(text, _DECODER)
        # The only way a lone surrogate gets through a UTF-8 decoder. That there is no backslash at all is seen sooner.
        if "\\" in text and "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"invalid character {error.object[error.start]:#04x}: body is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise InvalidRequest("invalid character in string: a lone UTF-16 surrogate") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(_syntax_message(error)) from error
    except TooDeep as error:
        raise InvalidRequest("request body is nested too deeply") from error
    except ValueError as error:  # int() refuses more digits than sys.get_int_max_str_digits
        raise InvalidRequest("request body contains a number that is too long") from error
    if type(document) is not dict:
        raise InvalidRequest(f"cannot unmarshal {kind_of(document)} into {what}: it must be an object")
    return document


def _syntax_message(error: json.JSONDecodeError) -> str:
    """ "invalid character …" as the reference signer begins, with the parser's own reason and place."""
    reason = f"{error.msg[:1].lower()}{error.msg[1:]}"
    if error.pos >= len(error.doc):
        return f"unexpected end of JSON input: {reason}"
    return f"invalid character {error.doc[error.pos]!r} at offset {error.pos}: {reason}"


def refuse_unknown(document: dict[str, Any], known: frozenset[str], inside: str = "") -> None:
    """Refuse the first key that is not known, by its name, with the known key it was probably meant to be."""
    for key in document:
        if key not in known:
            nearest = _nearest(key, known)
            hint = f"did you mean {inside}{nearest}?" if nearest else f"known are {', '.join(sorted(known))}"
            raise InvalidRequest(f"unknown key {shown(key)}{f' in {inside[:-1]}' if inside else ''}: {hint}")


def refuse_variants(document: dict[str, Any], known: frozenset[str], inside: str = "") -> None:
    """Unknown keys are nobody's business; a known key in another case is another reader's known key."""
    if document.keys() <= known:
        return
    for key in document.keys() - known:
        spelling = next((name for name in known if name.casefold() == key.casefold()), None)
        if spelling is not None:
            raise InvalidRequest(f"key {shown(key)} must be spelled {inside}{spelling}")


def _nearest(key: str, known: frozenset[str]) -> str | None:
    plain = {_plain(name): name for name in known}
    matches = get_close_matches(_plain(key[:64]), plain, n=1)
    return plain[matches[0]] if matches else None


def _plain(key: str) -> str:
    return key.casefold().replace("_", "").replace("-", "")


def text_of(document: dict[str, Any], key: str, inside: str = "") -> str:
    """A string; "" where none is given."""
    value = document.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise InvalidRequest(f"cannot unmarshal {kind_of(value)} into {inside}{key} of type string")
    return value


def integer_of(document: dict[str, Any], key: str) -> int:
    """A whole number of 64 bits; 0 where none is given."""
    value = document.get(key)
    if value is None:
        return 0
    if type(value) is not int or value not in INT64:
        raise InvalidRequest(f"cannot unmarshal {kind_of(value)} into {key} of type int64")
    return value


def object_of(document: dict[str, Any], key: str) -> dict[str, Any] | None:
    """An object inside the object; None where none is given."""
    value = document.get(key)
    if value is None:
        return None
    if type(value) is not dict:
        raise InvalidRequest(f"cannot unmarshal {kind_of(value)} into {key} of type object")
    return value


def base64_of(
    document: dict[str, Any], key: str, inside: str = "", *, decode: Callable[[str], bytes] = decode_base64
) -> bytes:
    """Bytes in standard base64; b"" where none are given. `decode` may remember, and raises MessageError."""
    text = text_of(document, key, inside)
    if not text:
        return b""
    try:
        return decode(text)
    except MessageError as error:
        raise InvalidRequest(f"{error} in {inside}{key}") from error


def kind_of(value: object) -> str:
    """What JSON calls a parsed value, for a message."""
    if type(value) in (int, Number):
        return f"number {str(value)[:40]}"
    return {type(None): "null", bool: "bool", str: "string", list: "array", dict: "object"}[type(value)]


def shown(key: str) -> str:
    """A caller's key in a message: bounded and in ASCII."""
    return ascii(key if len(key) <= 40 else f"{key[:40]}…")
