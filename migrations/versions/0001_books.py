"""The books, and all that stands on them, part by part.

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
#: In the order in which they need one another.
PARTS = (
    "books",
    "credit",
    "customers",
    "periods",
    "terms",
    "limits",
    "plans",
    "rates",
    "webhook_signers",
    "webhook",
    "exposure",
    "commit",
    "commit_next",
    "signer_events",
    "prices",
    "chain_events",
    "coverage",
    "jobs",
    "topups",
    "treasury",
    "alerts",
    "invoices",
    "credit_notes",
    "rerating",
    "stripe_events",
    "usage",
    "payments",
    "roles",
)


def upgrade() -> None:
    for part in PARTS:
        # The driver's own cursor: SQLAlchemy would read the colons and percent signs of SQL as its own.
        op.get_bind().connection.cursor().execute((SQL_DIR / f"0001_{part}.sql").read_text())
