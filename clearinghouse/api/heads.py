"""The request headers that mean something here. All others, Signer-* above all, go no further (spec 10-A8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from clearinghouse.errors import InvalidRequest, Unauthenticated


class Head(NamedTuple):
    """Values as sent, without surrounding space; "" where there is no such header."""

    authorization: str
    idempotency_key: str
    end_user: str


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Raises Unauthenticated or InvalidRequest for a repeated one: two readers could take different values."""
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name not in _HEADERS:
            continue
        if name in found:
            if name == _AUTHORIZATION:
                raise Unauthenticated("There is more than one Authorization header.")
            raise InvalidRequest(f"There is more than one {name.decode()} header.")
        found[name] = value.decode("latin-1").strip()
    return Head(found.get(_AUTHORIZATION, ""), found.get(_IDEMPOTENCY_KEY, ""), found.get(_END_USER, ""))


_AUTHORIZATION: Final = b"authorization"
_IDEMPOTENCY_KEY: Final = b"idempotency-key"
_END_USER: Final = b"clearinghouse-end-user"
_HEADERS: Final = (_AUTHORIZATION, _IDEMPOTENCY_KEY, _END_USER)
