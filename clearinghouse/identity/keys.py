"""API keys: how they are made, read, kept, rotated and revoked.

    lpch_4f0c9a1be2d37705_<64 hex digits>6b1f02ce
    |    |                |               |
    |    |                |               CRC-32 of all before it: a mistyped key is told from a wrong one, offline
    |    |                256 random bits: the secret
    |    public id, 64 random bits: may be shown, names the key in lists and logs
    prefix, for people and secret scanners

Of the secret only an HMAC-SHA256 under the pepper is kept. The pepper never enters the database, so a stolen copy of
the database cannot even check guesses. The whole key is shown once, when it is made.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from clearinghouse.identity.limits import give_same_limits

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

PREFIX: Final = "lpch_"
DEFAULT_GRACE: Final = timedelta(hours=24)
PEPPER_BYTES_MIN: Final = 32

_PUBLIC_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_CHECKSUM_CHARS: Final = 8
_PUBLIC_ID_END: Final = len(PREFIX) + 2 * _PUBLIC_ID_BYTES
_SECRET_START: Final = _PUBLIC_ID_END + 1
_SECRET_END: Final = _SECRET_START + 2 * _SECRET_BYTES
_KEY_CHARS: Final = _SECRET_END + _CHECKSUM_CHARS
_KEY: Final = re.compile(r"lpch_[0-9a-f]{16}_[0-9a-f]{72}", re.ASCII)
assert len(PREFIX) + 16 + 1 + 72 == _KEY_CHARS

_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{0,128}")
_LIFE_MAX: Final = timedelta(days=36_525)

KeyStatus = Literal["active", "expired", "revoked"]


# The pure part.


@dataclass(frozen=True, slots=True)
class ApiKeyText:
    """A key as its holder sends it, taken apart. Proves nothing yet: the secret must match the stored HMAC."""

    public_id: str
    secret: bytes = field(repr=False)


def new_api_key() -> tuple[str, str, bytes]:
    """The full text, its public id, its 32 secret bytes."""
    public_id = secrets.token_hex(_PUBLIC_ID_BYTES)
    secret = secrets.token_bytes(_SECRET_BYTES)
    body = f"{PREFIX}{public_id}_{secret.hex()}"
    return body + _checksum(body), public_id, secret


def read_api_key(key: str) -> ApiKeyText:
    """Take a key apart and check its form and checksum, without a database.

    Unauthenticated says what is wrong with the form and never quotes the key: refusals reach logs.
    """
    if _KEY.fullmatch(key) is None:
        raise Unauthenticated(_what_is_wrong(key))
    if key[_SECRET_END:] != _checksum(key[:_SECRET_END]):  # a checksum is public: nothing to hide in the time it takes
        raise Unauthenticated("The API key is mistyped: its checksum does not match.")
    return ApiKeyText(key[len(PREFIX) : _PUBLIC_ID_END], bytes.fromhex(key[_SECRET_START:_SECRET_END]))


def secret_hmac(pepper: bytes, secret: bytes) -> bytes:
    """What is stored of a secret: HMAC-SHA256 under the pepper, 32 bytes. Compare with `hmac.compare_digest`."""
    if len(pepper) < PEPPER_BYTES_MIN:
        raise ValueError(f"the pepper has {len(pepper)} bytes; it needs at least {PEPPER_BYTES_MIN}")
    return hmac.digest(pepper, secret, "sha256")


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"


def _what_is_wrong(key: str) -> str:
    if not key:
        return "There is no API key."
    if not key.startswith(PREFIX):
        return f"This is not an API key of the clearinghouse: keys begin with {PREFIX}."
    if len(key) != _KEY_CHARS:
        return f"The API key is incomplete or too long: {len(key)} characters instead of {_KEY_CHARS}."
    return "The API key is malformed: after the prefix it has only digits and the letters a to f, in two parts."


# The stored part. Every function runs in the caller's transaction, in role clearinghouse_admin.


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key, which is never the key."""

    id: UUID
    gateway_id: UUID
    public_id: str
    name: str
    status: KeyStatus
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. `api_key` is its full text, here and nowhere else."""

    key: ApiKey
    api_key: str = field(repr=False)


_COLUMNS: Final = """
    id, gateway_id, public_id, name, created_at, expires_at, revoked_at,
    CASE WHEN revoked_at <= now() THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END AS status
"""


async def create(
    connection: AsyncConnection, gateway_id: UUID, *, pepper: bytes, name: str = "", expires_at: datetime | None = None
) -> NewApiKey:
    """A further key for the gateway, valid at once beside the others. InvalidRequest for a bad name or expiry."""
    _check_name(name)
    _check_expiry(expires_at)
    api_key, public_id, secret = new_api_key()
    row = await _one(
        connection,
        f"""INSERT INTO api_key (id, gateway_id, public_id, secret_hmac, name, expires_at)
            VALUES (:id, :gateway_id, :public_id, :secret_hmac, :name, :expires_at) RETURNING {_COLUMNS}""",  # noqa: S608
        id=ids.uuid7(),
        gateway_id=gateway_id,
        public_id=public_id,
        secret_hmac=secret_hmac(pepper, secret),
        name=name,
        expires_at=expires_at,
    )
    assert row is not None
    return NewApiKey(_api_key(row), api_key)


async def list_keys(connection: AsyncConnection, gateway_id: UUID) -> list[ApiKey]:
    """All keys the gateway ever had, newest first."""
    query = text(f"SELECT {_COLUMNS} FROM api_key WHERE gateway_id = :gateway_id ORDER BY id DESC")  # noqa: S608
    result = await connection.execute(query, {"gateway_id": gateway_id})
    return [_api_key(row) for row in result.mappings()]


async def find(connection: AsyncConnection, key: str) -> ApiKey:
    """By key id (`key_…`) or public id. NotFound otherwise; a whole API key is refused rather than looked up."""
    return await _find(connection, key, locked=False)


async def rotate(
    connection: AsyncConnection,
    key: str,
    *,
    pepper: bytes,
    grace: timedelta = DEFAULT_GRACE,
    expires_at: datetime | None = None,
) -> NewApiKey:
    """A new key of the same name, gateway and limits, valid now; the old one ends after `grace`, or before.

    The new key does not expire unless `expires_at` says so. Conflict if the old one is revoked or expired already:
    whoever holds it must not be handed a new one by mistake.
    """
    if not timedelta(0) <= grace <= _LIFE_MAX:
        raise InvalidRequest("the grace period must be between nothing and 100 years")
    old = await _find(connection, key, locked=True)
    if old.status != "active":
        raise Conflict(f"key {old.public_id} is {old.status}; create a new key instead of rotating it")
    new = await create(connection, old.gateway_id, pepper=pepper, name=old.name, expires_at=expires_at)
    await give_same_limits(connection, old.id, new.key.id)
    await connection.execute(
        text("UPDATE api_key SET expires_at = least(expires_at, now() + :grace) WHERE id = :id"),
        {"id": old.id, "grace": grace},
    )
    return new


async def revoke(connection: AsyncConnection, key: str) -> ApiKey:
    """End a key now. Revoking it again changes nothing: the first time stands."""
    old = await _find(connection, key, locked=True)
    row = await _one(
        connection,
        f"UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = :id RETURNING {_COLUMNS}",  # noqa: S608
        id=old.id,
    )
    assert row is not None
    return _api_key(row)


async def _find(connection: AsyncConnection, key: str, *, locked: bool) -> ApiKey:
    if len(key) >= _KEY_CHARS and key.startswith(PREFIX):
        raise InvalidRequest(
            "this is a whole API key, and a secret: name it by its public id, the 16 digits after lpch_, and treat it "
            "as seen by others (argument lists are visible to every user of a machine)"
        )
    condition, value = _naming(key)
    suffix = "FOR NO KEY UPDATE" if locked else ""
    row = await _one(connection, f"SELECT {_COLUMNS} FROM api_key WHERE {condition} {suffix}", value=value)  # noqa: S608
    if row is None:
        raise NotFound(f"there is no API key {key}")
    return _api_key(row)


def _naming(key: str) -> tuple[str, object]:
    if not key.startswith("key_"):
        return "public_id = :value", key.removeprefix(PREFIX)
    try:
        return "id = :value", ids.parse("key", key)
    except ValueError as error:
        raise InvalidRequest(f"{key[:64]!r} is {error}") from error


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest("a key's name has at most 128 characters, none of them a control character")


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest("a key cannot expire in the past")


async def _one(connection: AsyncConnection, query: str, **parameters: Any) -> RowMapping | None:
    return (await connection.execute(text(query), parameters)).mappings().one_or_none()


def _api_key(row: RowMapping) -> ApiKey:
    return ApiKey(**row)
