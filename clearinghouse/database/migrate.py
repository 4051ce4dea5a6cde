"""Brings a database to the newest schema. Safe to run at every start and by several processes at once."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

import migrations
from clearinghouse.database.connect import sync_url

#: Any constant will do; it only has to be the same in every process that migrates.
MIGRATION_LOCK_ID = 0x6C70_6368


def migrate(conninfo: str) -> str:
    """Applies what is missing and returns the revision reached. Needs the owner's rights, CREATEROLE included."""
    with create_engine(sync_url(conninfo), poolclass=NullPool).begin() as connection:
        # Held until the transaction ends: whoever comes second finds nothing left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": MIGRATION_LOCK_ID})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return current_revision(connection) or ""


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """The revision this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the distribution carries its migrations"
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
