"""The books: gateways, keys, accounts, transfers, sessions, issuances, limits, plans, webhook signers, the commit,
signer events, prices, chain events.

Revision ID: 0001
Revises:

There is no way back: a downgrade would have to throw ledger rows away, which the database refuses.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL_DIR = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    for part in (
        "books", "credit", "limits", "plans", "webhook_signers", "webhook", "commit", "signer_events", "prices",
        "chain_events", "roles",
    ):  # fmt: skip
        # The driver's own cursor: SQLAlchemy would read the colons and percent signs of SQL as its own.
        op.get_bind().connection.cursor().execute((SQL_DIR / f"0001_{part}.sql").read_text())
