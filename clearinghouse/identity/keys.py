"""API keys: how they are made, found, rotated and revoked. Their form is that of every secret_texts.SecretForm.

Every function runs in the caller's transaction, in role clearinghouse_admin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity.limits import give_same_limits
from clearinghouse.identity.secret_texts import DEFAULT_GRACE, SecretForm, check_grace, secret_hmac

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

API_KEY: Final = SecretForm("lpch_", "API key", "an API key")

_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{0,128}")

KeyStatus = Literal["active", "expired", "revoked"]


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
    api_key, public_id, secret = API_KEY.new(pepper)
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


async def expiring_keys(connection: AsyncConnection, gateway_id: UUID, *, within: timedelta) -> list[ApiKey]:
    """The gateway's keys that end so soon and were not revoked, as notices have them. The first to end first."""
    query = f"""SELECT {_COLUMNS} FROM api_key WHERE gateway_id = :gateway_id AND revoked_at IS NULL
                   AND expires_at > now() AND expires_at <= now() + :within ORDER BY expires_at, id"""  # noqa: S608
    result = await connection.execute(text(query), {"gateway_id": gateway_id, "within": within})
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
    check_grace(grace)
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
    API_KEY.refuse_whole(key)
    condition, value = _naming(key)
    suffix = "FOR NO KEY UPDATE" if locked else ""
    row = await _one(connection, f"SELECT {_COLUMNS} FROM api_key WHERE {condition} {suffix}", value=value)  # noqa: S608
    if row is None:
        raise NotFound(f"there is no API key {key}")
    return _api_key(row)


def _naming(key: str) -> tuple[str, object]:
    if not key.startswith("key_"):
        return "public_id = :value", key.removeprefix(API_KEY.prefix)
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
