"""How a command finds its settings, its database and its secrets, and runs its work in the admin role."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from clearinghouse.errors import DatabaseUnavailable, Refusal

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from clearinghouse.config import Settings

Result = TypeVar("Result")

#: The option of every command that needs the database.
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Directory of the embedded database. Default: CLEARINGHOUSE_DATA_DIR, else .clearinghouse here. "
        "Not used where CLEARINGHOUSE_DATABASE_URL names another database.",
        show_default=False,
    ),
]
#: And of every command that follows the settings further than to the database.
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings in TOML. Default: the file CLEARINGHOUSE_CONFIG names.", show_default=False
    ),
]


class BadConfiguration(Refusal):
    """A setting is wrong or missing. The message names it."""

    code, http_status = "bad_configuration", 500
    what_next = "Correct the configuration, then run the command again."


class DatabaseNotReady(DatabaseUnavailable):
    """There is a database, but not one this command can work on."""

    what_next = "Mend that, then run the command again."


def settings_of(
    data_dir: Path | None = None, *, config: Path | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    """The settings as the service reads them: environment and file, with the flags over both. BadConfiguration.

    `flags` are by dotted name, such as "listen.http_port"; None is a flag that was not given.
    """
    from clearinghouse.config_sources import ConfigError, load_settings

    try:
        return load_settings(flags={"data_dir": data_dir, **(flags or {})}, environment=os.environ, config_file=config)
    except ConfigError as error:
        raise BadConfiguration(str(error)) from error


def pepper_of(settings: Settings) -> bytes:
    """The pepper of the API keys. BadConfiguration where it is neither given nor may be made."""
    from clearinghouse.database.postgres_programs import EmbeddedPostgresError
    from clearinghouse.secrets import SecretMissing, api_key_pepper

    try:
        return api_key_pepper(settings)
    except (SecretMissing, EmbeddedPostgresError, ValueError) as error:
        raise BadConfiguration(str(error)) from error
    except OSError as error:
        raise BadConfiguration(f"the pepper of the API keys: {error}") from error


def in_transaction(settings: Settings, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
    """Do `work` in one transaction of the admin role: all of it, or after a refusal nothing."""

    async def within(engine: AsyncEngine) -> Result:
        async with engine.begin() as connection:
            return await work(connection)

    return with_engine(settings, within)


def with_engine(settings: Settings, work: Callable[[AsyncEngine], Awaitable[Result]]) -> Result:
    """Do `work` on the database in the admin role. DatabaseUnavailable where there is none to be reached."""
    return with_engine_and_conninfo(settings, lambda engine, _: work(engine))


def with_engine_and_conninfo(settings: Settings, work: Callable[[AsyncEngine, str], Awaitable[Result]]) -> Result:
    """The same, for what starts a process that connects by itself; the conninfo takes on no role."""
    with database_explained(), database(settings) as conninfo:
        return asyncio.run(_with_engine(conninfo, lambda engine: work(engine, conninfo)))


@contextmanager
def database_explained() -> Iterator[None]:
    """What the driver says of a database that cannot be used, as DatabaseNotReady; also to several tasks at once."""
    from psycopg import OperationalError
    from sqlalchemy.exc import OperationalError as WrappedOperationalError

    kinds = (OperationalError, WrappedOperationalError)
    try:
        yield
    except kinds as error:
        raise _not_ready(error) from error
    except ExceptionGroup as group:
        if group.split(kinds)[1] is not None:  # something else has happened as well
            raise
        raise _not_ready(_first_of(group)) from group


def _not_ready(error: BaseException) -> DatabaseNotReady:
    return DatabaseNotReady(f"the database cannot be used: {str(getattr(error, 'orig', None) or error).strip()}")


def _first_of(group: BaseExceptionGroup[Any]) -> BaseException:
    first: BaseException = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def _with_engine(conninfo: str, work: Callable[[AsyncEngine], Awaitable[Result]]) -> Result:
    from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role

    engine = async_engine(in_role(conninfo, ADMIN_ROLE, application_name="clearinghouse-cli"), pool_size=1)
    try:
        return await work(engine)
    finally:
        await engine.dispose()


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The conninfo of a database with the schema this code needs, up for as long as the block lasts."""
    url = settings.admin_database_url or settings.database_url
    if url is not None:
        conninfo = url.get_secret_value()
        require_newest_schema(conninfo)
        yield conninfo
        return
    with embedded_database(settings) as conninfo:
        yield conninfo


@contextmanager
def embedded_database(settings: Settings) -> Iterator[str]:
    """The embedded database, started or attached to, brought to the newest schema. Stopped if nobody else uses it."""
    from clearinghouse.database.embedded import EmbeddedPostgres, EmbeddedPostgresError
    from clearinghouse.database.migrate import migrate, newest_revision

    if not (settings.data_dir / "postgres").exists():
        typer.echo(f"Creating a new database in {settings.data_dir.absolute()} …", err=True)
    try:
        postgres = EmbeddedPostgres(settings.data_dir)
        conninfo = postgres.start().conninfo
    except EmbeddedPostgresError as error:
        raise DatabaseNotReady(str(error)) from error
    try:
        if _revision(conninfo) != newest_revision():
            migrate(conninfo)
        yield conninfo
    finally:
        postgres.stop()


def require_newest_schema(conninfo: str) -> None:
    """A database that others run is migrated when its operator says so, not by the first command that looks at it."""
    from clearinghouse.database.migrate import newest_revision

    found, needed = _revision(conninfo), newest_revision()
    if found != needed:
        state = "is empty" if found is None else f"is at schema {found}"
        raise DatabaseNotReady(f"the database {state}, this program needs {needed}: run `clearinghouse migrate`")


def _revision(conninfo: str) -> str | None:
    """The schema's revision; None for a database without one."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from clearinghouse.database.connect import sync_url
    from clearinghouse.database.migrate import current_revision

    with create_engine(sync_url(conninfo), poolclass=NullPool).connect() as connection:
        return current_revision(connection)


def actor() -> str:
    """Who did it, for the books: the user of this machine who ran the command, whatever the environment says."""
    import pwd

    user_id = os.geteuid()
    try:
        return f"cli:{pwd.getpwuid(user_id).pw_name}"
    except KeyError:  # a user id without a name, as in many containers
        return f"cli:{user_id}"
