"""The service with what it needs around it: its databases, its secrets and its key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from chain.keystore import create_keystore, load_keystore
from chain.signatures import SigningKey
from clearinghouse.api.wiring import Routes
from clearinghouse.config import NativeSignerSettings, Settings
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from clearinghouse.secrets import SECRETS_DIR_NAME, api_key_pepper, read_or_create
from clearinghouse.service import RunningService, Secrets, running_service

log = structlog.get_logger(__name__)


@asynccontextmanager
async def service_of(
    settings: Settings,
    *,
    prepare: Callable[[str], Awaitable[None]] | None = None,
    routes: Sequence[Routes] = (),
) -> AsyncIterator[RunningService]:
    """The service that the settings describe, with its embedded database where there is no other.

    `prepare` is called with the admin conninfo before anything is served; `routes` are further ones for operators.
    """
    embedded = EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None
    try:
        conninfo, admin_conninfo = await _databases(settings, embedded)
        if prepare is not None and admin_conninfo is not None:
            await prepare(admin_conninfo)
        secrets_ = Secrets(
            api_key_pepper=api_key_pepper(settings),
            native_key=await asyncio.to_thread(native_key, settings) if settings.signer.kind == "native" else None,
        )
        async with running_service(
            settings, conninfo=conninfo, admin_conninfo=admin_conninfo, secrets=secrets_, embedded=embedded,
            routes=routes,
        ) as service:  # fmt: skip
            yield service
    finally:
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)


async def _databases(settings: Settings, embedded: EmbeddedPostgres | None) -> tuple[str, str | None]:
    """For serving, and for managing (None where managing was not given a database)."""
    if embedded is not None:
        conninfo = (await asyncio.to_thread(embedded.start)).conninfo
        await asyncio.to_thread(migrate, conninfo)
        return conninfo, conninfo
    assert settings.database_url is not None, "either embedded or given"
    admin = settings.admin_database_url
    return settings.database_url.get_secret_value(), admin.get_secret_value() if admin is not None else None


def native_key(settings: Settings) -> SigningKey:
    """The ticket key: of the configured keystore, or of one in the data directory, made on first use.

    Raises KeystoreError, ValueError or OSError; none of them shows a secret.
    """
    native = settings.signer.native
    if native.keystore_file is not None:
        return load_keystore(native.keystore_file, _password(native))
    directory = settings.data_dir / SECRETS_DIR_NAME
    password = read_or_create(directory / "keystore_password", lambda: secrets.token_hex(32))
    keystore = directory / "keystore.json"
    if not keystore.exists():
        create_keystore(keystore, password)
        log.info("keystore_created", file=str(keystore))
    return load_keystore(keystore, password)


def _password(native: NativeSignerSettings) -> str:
    if native.keystore_password is None:
        raise ValueError("signer.native.keystore_password_file is needed with signer.native.keystore_file")
    return native.keystore_password.get_secret_value()
