"""The database: reachable, new enough, migrated, durable, its roles ours to take on, its clock like ours.

Every look is a read: the connections are read-only, and the embedded server is only asked, never started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue

from chain.rates import ETH
from clearinghouse.checkup import chain_index, coverage, transactions, webhook
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import Settings
from clearinghouse.configured import is_coverage_enforced
from clearinghouse.database import cluster_files
from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import newest_revision
from clearinghouse.database.postgres_programs import EmbeddedPostgresError, find_programs, server_user

NAME: Final = "database"
ADMIN_NAME: Final = "admin database"
VERSION_MIN: Final = 15
CLOCK_DIFFERENCE_MAX_S: Final = 2
_CONNECT_TIMEOUT_S: Final = 3
_STATEMENT_TIMEOUT: Final = "3s"
_MIGRATE: Final = "Run `clearinghouse migrate`."
#: Anything else loses acknowledged transactions with the power, or the whole database.
_NEEDED_ON: Final = ("fsync", "full_page_writes", "synchronous_commit")
#: Of synchronous_commit: waits for a standby as well.
_AS_GOOD_AS_ON: Final = frozenset({"on", "remote_apply"})

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Login:
    """One conninfo, and the roles its user must be able to take on, or only should."""

    name: str
    conninfo: str
    must_take_on: tuple[str, ...]
    should_take_on: tuple[str, ...] = ()


async def check(settings: Settings) -> list[Finding]:
    if settings.database_url is None and settings.admin_database_url is None:
        return await _embedded(settings)
    found = await asyncio.gather(*(_look(login, settings) for login in _logins(settings)))
    together = [finding for findings in found for finding in findings]
    if settings.database_url is None:
        together.append(
            error(
                NAME,
                "admin_database_url is set, database_url is not: commands work on one database, the service on its own",
                "Set database_url too, or neither.",
            )
        )
    return together


def _logins(settings: Settings) -> list[_Login]:
    serve, admin = settings.database_url, settings.admin_database_url
    logins = []
    if serve is not None:
        should = () if admin is not None else (ADMIN_ROLE,)
        logins.append(_Login(NAME, serve.get_secret_value(), (SERVE_ROLE,), should))
    if admin is not None:
        logins.append(_Login(ADMIN_NAME, admin.get_secret_value(), (ADMIN_ROLE,)))
    return logins


async def _embedded(settings: Settings) -> list[Finding]:
    database = EmbeddedPostgres(settings.data_dir).database
    answer = await asyncio.to_thread(_ping, database.conninfo)
    if answer == pq.Ping.OK:
        return await _look(_Login(NAME, database.conninfo, (SERVE_ROLE, ADMIN_ROLE)), settings)
    if answer == pq.Ping.REJECT:
        return [warning(NAME, "the embedded database is starting or stopping", "Wait a moment, then look again.")]
    return [await asyncio.to_thread(_not_running, database.data_dir)]


def _ping(conninfo: str) -> pq.Ping:
    return pq.Ping(pq.PGconn.ping(make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT_S).encode()))


def _not_running(data_dir: Path) -> Finding:
    cluster = data_dir / cluster_files.CLUSTER_NAME
    try:
        programs = find_programs(cluster_files.cluster_version(cluster))
        server_user()
    except EmbeddedPostgresError as reason:
        return error(NAME, str(reason), "Without it only a PostgreSQL of your own (database_url) can be used.")
    what = "is not running" if cluster.exists() else "does not exist yet"
    return warning(
        NAME,
        f"the embedded database (PostgreSQL {programs.major_version}) {what}",
        "`clearinghouse dev` starts it; then look again.",
    )


async def _look(login: _Login, settings: Settings) -> list[Finding]:
    options = f"{conninfo_to_dict(login.conninfo).get('options') or ''} -c default_transaction_read_only=on"
    conninfo = make_conninfo(
        login.conninfo,
        options=f"{options} -c statement_timeout={_STATEMENT_TIMEOUT}".strip(),
        connect_timeout=_CONNECT_TIMEOUT_S,
        application_name="clearinghouse-doctor",
    )
    try:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            return await _findings(connection, login, settings)
    except psycopg.OperationalError as reason:
        return [
            error(
                login.name,
                f"cannot be used: {_one_line(reason)}",
                "Check that PostgreSQL runs there, and host, database, user and password of "
                f"{'admin_database_url' if login.name == ADMIN_NAME else 'database_url'}.",
            )
        ]


async def _findings(connection: _Connection, login: _Login, settings: Settings) -> list[Finding]:
    found = [await _version(connection, login), await _clock(connection, login), await _durability(connection, login)]
    if login.name == NAME:  # as the user who logs in: it may see more than a role of ours
        found.append(await transactions.open_for_long(connection))
    roles = [await _role(connection, login, role) for role in (*login.must_take_on, *login.should_take_on)]
    found += roles
    if any(role.status != "ok" for role in roles[: len(login.must_take_on)]):
        # Without its role the login may not see the schema; an empty database is the likely reason all the same.
        return [*found, await _schema(connection, login)] if await _is_empty(connection) else found
    await _take_on(connection, login.must_take_on[0])
    schema = await _schema(connection, login)
    found.append(schema)
    if schema.status == "ok":
        found += await _currencies(connection, settings)
        if login.name == NAME:
            found += await webhook.signers(connection, is_enabled=settings.webhook.enabled)
            is_indexed = settings.chain.is_configured and settings.chain.index_enabled
            found += await chain_index.events(connection, is_enabled=is_indexed)
            found += await coverage.gates(connection, is_enforced=is_coverage_enforced(settings))
        found += await _overrides(connection)
    return found


async def _version(connection: _Connection, login: _Login) -> Finding:
    number = connection.info.server_version
    shown = f"PostgreSQL {number // 10_000}.{number % 10_000} answers"
    if number // 10_000 < VERSION_MIN:
        return error(login.name, f"{shown}; {VERSION_MIN} is the oldest that will do", "Upgrade the server.")
    if await _value(connection, "SELECT pg_is_in_recovery()"):
        return error(login.name, f"{shown}, but as a read-only standby", "Name the primary.")
    return ok(login.name, shown)


async def _clock(connection: _Connection, login: _Login) -> Finding:
    """The difference is known to half the time the question took."""
    asked_unix_s = time.time()
    there_unix_s = await _value(connection, "SELECT extract(epoch FROM clock_timestamp())::float8")
    here_unix_s = (asked_unix_s + time.time()) / 2
    name, difference_s = f"{login.name} clock", there_unix_s - here_unix_s
    if abs(difference_s) > CLOCK_DIFFERENCE_MAX_S:
        direction = "ahead of" if difference_s > 0 else "behind"
        return warning(
            name,
            f"{abs(difference_s):.1f} s {direction} this machine's",
            "Set both by NTP: expiries of keys and credit, and the age of prices, depend on it.",
        )
    return ok(name, f"within {CLOCK_DIFFERENCE_MAX_S} s of this machine's")


async def _durability(connection: _Connection, login: _Login) -> Finding:
    name = f"{login.name} durability"
    values = {setting: str(await _value(connection, f"SHOW {setting}")) for setting in _NEEDED_ON}
    off = [f"{setting} is {value}" for setting, value in values.items() if value not in _AS_GOOD_AS_ON]
    if off:
        return error(
            name,
            ", ".join(off),
            "Set it to on: with less, a crash can forget a charge whose tickets have been handed out.",
        )
    return ok(name, ", ".join(f"{setting} {value}" for setting, value in values.items()))


async def _role(connection: _Connection, login: _Login, role: str) -> Finding:
    name = f"{login.name} role {role}"
    try:
        await _take_on(connection, role)
        await connection.execute("RESET ROLE")
    except InvalidParameterValue:
        return error(name, "does not exist", _MIGRATE)
    except InsufficientPrivilege:
        user = await _value(connection, "SELECT quote_ident(session_user)")
        grant = f"As its owner: GRANT {role} TO {user}"
        if role in login.must_take_on:
            return error(name, f"{user} may not take it on", f"{grant};")
        return warning(
            name,
            f"{user} may not take it on: there is no management API, and no command can manage",
            f"Set admin_database_url where that is wanted. {grant}; is the other way.",
        )
    return ok(name, "can be taken on")


async def _take_on(connection: _Connection, role: str) -> None:
    await connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


async def _is_empty(connection: _Connection) -> bool:
    return await _value(connection, "SELECT to_regclass('alembic_version') IS NULL")  # type: ignore[no-any-return]


async def _schema(connection: _Connection, login: _Login) -> Finding:
    name, needed = f"{login.name} schema", newest_revision()
    if await _is_empty(connection):
        return error(name, f"there is none yet; this release needs {needed}", _MIGRATE)
    try:
        revision = await _value(connection, "SELECT version_num FROM alembic_version")
    except InsufficientPrivilege:
        return error(name, "its version may not be read", f"{_MIGRATE} It grants what the roles need.")
    if revision != needed:
        return error(name, f"is at {revision}, this release needs {needed}", _MIGRATE)
    return ok(name, f"is at {revision}")


async def _currencies(connection: _Connection, settings: Settings) -> list[Finding]:
    """Accounts that cannot pay because their currency has no price."""
    overridden = "SELECT currency FROM price_override_in_force"
    by_hand = [currency for (currency,) in await (await connection.execute(overridden)).fetchall()]
    priced = {*settings.price.currencies, *by_hand, ETH}
    query = "SELECT currency, count(*) FROM account WHERE gateway_id IS NOT NULL GROUP BY currency ORDER BY currency"
    rows: Sequence[tuple[Any, ...]] = await (await connection.execute(query)).fetchall()
    return [
        error(
            "price",
            f"{count} gateway{'s' if count > 1 else ''} with an account in {currency}, which has no price",
            f"Declare it: price.declared.{currency}."
            if settings.price.source == "declared"
            else f"Name its feed: price.currency_feeds.{currency}; `clearinghouse price set` helps at once.",
        )
        for currency, count in rows
        if currency not in priced
    ]


async def _overrides(connection: _Connection) -> list[Finding]:
    """Prices set by hand, which follow no market."""
    query = "SELECT currency, price::text, until, actor FROM price_override_in_force ORDER BY currency"
    rows: Sequence[tuple[Any, ...]] = await (await connection.execute(query)).fetchall()
    return [
        warning(
            "price",
            f"an ETH costs {price} {currency} by the word of {actor}, until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            f"`clearinghouse price clear {currency}` gives it back to its source.",
        )
        for currency, price, until, actor in rows
    ]


async def _value(connection: _Connection, query: str) -> Any:
    """The one value of a query that always has one."""
    row = await (await connection.execute(query.encode())).fetchone()
    return row[0] if row is not None else None


def _one_line(reason: psycopg.OperationalError) -> str:
    """libpq's reason: names host, port, user and database, never the password."""
    return " ".join(str(reason).split())
