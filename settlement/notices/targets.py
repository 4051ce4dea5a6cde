"""Where a gateway hears of itself, and with which secrets its webhook is signed.

Secrets are not kept: each is derived from the pepper, the gateway and a version. Whoever has the database alone cannot
sign; whoever rotates counts one up, and for a time both are signed with.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.public_hosts import HostRefused, https_endpoint

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

SECRET_PREFIX: Final = "lphk_"  # noqa: S105 - what every one of them begins with
_URL_CHARS_MAX: Final = 2000
#: Plain enough to stand in a header and in a URL; whatever else may be an address is not taken.
_EMAIL: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """None: not there, or as the settings say."""

    gateway_id: UUID
    webhook_url: str | None = None
    email: str | None = None
    low_balance: Decimal | None = None
    depleted_below: Decimal | None = None
    secret_version: int = 1
    previous_until: datetime | None = None

    def secrets(self, pepper: bytes, now: datetime) -> list[bytes]:
        """Those to sign with, the newest first."""
        versions = [self.secret_version]
        if self.previous_until is not None and now < self.previous_until:
            versions.append(self.secret_version - 1)
        return [secret_of(pepper, self.gateway_id, version).encode() for version in versions]

    def channels(self) -> list[str]:
        named = (("webhook", self.webhook_url), ("email", self.email))
        return [name for name, value in named if value is not None]


def secret_of(pepper: bytes, gateway_id: UUID, version: int) -> str:
    """As its holder has it: `lphk_` and 64 hex digits, which are the HMAC's key as they stand."""
    text_ = f"notice secret {version} of {gateway_id.hex}"
    return SECRET_PREFIX + hmac.digest(pepper, text_.encode("ascii"), "sha256").hex()


async def target_of(connection: AsyncConnection, gateway_id: UUID) -> Target:
    """Also of a gateway that has said nothing."""
    query = text(f"SELECT {_COLUMNS} FROM notice_target WHERE gateway_id = :id")  # noqa: S608 - names of this module
    row = (await connection.execute(query, {"id": gateway_id})).mappings().one_or_none()
    return _target(row) if row is not None else Target(gateway_id)


async def all_targets(connection: AsyncConnection) -> dict[UUID, Target]:
    """Of all gateways that have said something, by gateway."""
    rows = (await connection.execute(text(f"SELECT {_COLUMNS} FROM notice_target"))).mappings()  # noqa: S608
    return {row["gateway_id"]: _target(row) for row in rows}


async def set_target(connection: AsyncConnection, target: Target, *, actor: str) -> None:
    """All of it but the secret. In role clearinghouse_admin. InvalidRequest for what cannot be written to."""
    if target.webhook_url is not None:
        check_webhook_url(target.webhook_url)
    if target.email is not None and _EMAIL.fullmatch(target.email) is None:
        raise InvalidRequest("an address is written name@host.example")
    bounds = (target.low_balance, target.depleted_below)
    if None not in bounds and target.depleted_below > target.low_balance:  # type: ignore[operator]
        raise InvalidRequest("a balance is low before it is depleted: depleted_below must not be above low_balance")
    upsert = """
        INSERT INTO notice_target (gateway_id, webhook_url, email, low_balance, depleted_below, changed_by)
        VALUES (:id, :webhook_url, :email, :low_balance, :depleted_below, :actor)
            ON CONFLICT (gateway_id) DO UPDATE SET
               webhook_url = excluded.webhook_url, email = excluded.email, low_balance = excluded.low_balance,
               depleted_below = excluded.depleted_below, changed_at = now(), changed_by = excluded.changed_by"""
    values = {
        "id": target.gateway_id, "webhook_url": target.webhook_url, "email": target.email, "actor": actor,
        "low_balance": target.low_balance, "depleted_below": target.depleted_below,
    }  # fmt: skip
    await connection.execute(text(upsert), values)


async def rotate_secret(connection: AsyncConnection, gateway_id: UUID, *, grace: timedelta, actor: str) -> Target:
    """A new secret from now on; for `grace` messages are signed with the one before, too. NotFound without a target."""
    update = f"""UPDATE notice_target SET secret_version = secret_version + 1, previous_until = now() + :grace,
                        changed_at = now(), changed_by = :actor WHERE gateway_id = :id RETURNING {_COLUMNS}"""  # noqa: S608
    values = {"id": gateway_id, "grace": grace, "actor": actor}
    row = (await connection.execute(text(update), values)).mappings().one_or_none()
    if row is None:
        raise NotFound("this gateway has no webhook: `clearinghouse notices set` gives it one")
    return _target(row)


def check_webhook_url(url: str) -> None:
    """By its text alone; where it leads is judged each time it is posted to. InvalidRequest says what is wrong."""
    try:
        https_endpoint(url)
    except HostRefused as refused:
        raise InvalidRequest(f"a webhook needs the https URL of a public host: this is {refused}") from None
    if len(url) > _URL_CHARS_MAX or "#" in url or " " in url:
        raise InvalidRequest(f"a webhook's URL has at most {_URL_CHARS_MAX} characters, no space and no fragment")


_COLUMNS: Final = "gateway_id, webhook_url, email, low_balance, depleted_below, secret_version, previous_until"


def _target(row: RowMapping) -> Target:
    return Target(**row)
