"""Promise 5: ledger rows are append-only, by grants for our roles and by triggers for everybody else."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE
from clearinghouse.identity import gateways, keys
from clearinghouse.ledger import transfers
from tests.parts.books import Connection, commit, usage

PEPPER = b"p" * 32
CHANGES = [
    "UPDATE transfer SET amount = amount + 1",
    "UPDATE transfer SET reason = 'another' WHERE false",
    "DELETE FROM transfer",
    "TRUNCATE transfer CASCADE",
    "UPDATE issuance SET charge = charge + 1",
    "DELETE FROM issuance WHERE false",
    "TRUNCATE issuance",
]


@pytest.fixture
async def books(admin: AsyncEngine, owner: Connection) -> None:
    """A gateway with one grant and one issuance."""
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme")
        key = await keys.create(connection, gateway.id, pepper=PEPPER)
        await transfers.grant(connection, gateway.id, Decimal(10), reason="test", actor="test")
    assert commit(owner, usage(gateway.id, key.key.id))[0] is None


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize("change", CHANGES)
def test_the_owner_cannot_change_a_ledger_row(owner: Connection, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(change.encode())


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize("role", [SERVE_ROLE, ADMIN_ROLE])
@pytest.mark.parametrize(
    "change",
    [
        *CHANGES,
        "INSERT INTO transfer (id, kind, source, destination, amount, currency) SELECT gen_random_uuid(), 'grant', "
        "source, destination, 1, 'USD' FROM transfer WHERE kind = 'grant'",
        "INSERT INTO issuance SELECT * FROM issuance",
        "UPDATE account SET balance = balance + 1",
        "UPDATE account SET usage_total = 0",
        "UPDATE account SET calls_day = 0",
        "UPDATE account SET sessions_open = 0",
        "UPDATE api_key SET has_limits = false",
        "UPDATE key_limit SET spent_day = 0",
        "UPDATE key_limit SET sessions_open = 0",
        "UPDATE session SET opened_by = gen_random_uuid()",
        "DELETE FROM key_limit",
        "DELETE FROM open_sessions",
        "SELECT refresh_account(id, '2100-01-01') FROM account",
        "UPDATE account SET calls_day_max = 5",
        "UPDATE gateway SET requests_per_s = 5",
        "UPDATE gateway SET price_live_max = NULL",
        "UPDATE gateway SET plan = 'default'",
        "UPDATE plan SET applied_version = 5",
        "DELETE FROM limit_kind",
        "UPDATE credit_lot SET remaining = amount",
        "INSERT INTO account (id, name, currency, balance) VALUES (gen_random_uuid(), 'mine', 'USD', 0)",
        "DELETE FROM account",
        "UPDATE session SET gateway_id = gen_random_uuid()",
        "UPDATE recipient_rand SET last_nonce = 0",
        "DELETE FROM keyed_answer",
        "DELETE FROM api_key",
        "DELETE FROM webhook_signer",
        "UPDATE webhook_secret SET secret_hmac = '\\x00'",
        "UPDATE webhook_signer SET sender = '\\x00'",
        "DELETE FROM gateway",
        "ALTER TABLE transfer DISABLE TRIGGER append_only",
        "SET session_replication_role = replica",
        "SELECT settle_lots(gen_random_uuid())",
        "CREATE TABLE theirs ()",
    ],
)
def test_our_roles_have_no_way_to_change_the_books(owner: Connection, role: str, change: str) -> None:
    before = everything(owner)
    owner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner"):
            owner.execute(change.encode())
    finally:
        owner.execute("RESET ROLE")
    assert everything(owner) == before


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE account SET credit_limit = 5",
        "UPDATE plan_limit SET value = 5",
        "INSERT INTO plan_limit (plan, name, value) VALUES ('default', 'calls_per_day', 5)",
        "INSERT INTO gateway_override (gateway_id, name) SELECT id, 'calls_per_day' FROM gateway",
        "SELECT refresh_limits(id) FROM gateway",
        "SELECT put_on_plan(id, 'default') FROM gateway",
        "SELECT set_key_limits(id, 5, NULL, NULL, NULL, NULL) FROM api_key",
        "UPDATE gateway SET status = 'suspended'",
        "UPDATE api_key SET revoked_at = now()",
        "UPDATE webhook_secret SET revoked_at = NULL",
        "UPDATE webhook_signer SET revoked_at = NULL",
        "SELECT grant_credit(gen_random_uuid(), id, 5, NULL, NULL, 'gift', 'me') FROM gateway",
        "SELECT withdraw_credit(gen_random_uuid(), id, 5, NULL, 'theft', 'me') FROM gateway",
        "SELECT open_system_accounts('EUR')",
    ],
)
def test_the_serving_role_cannot_give_credit_nor_touch_tenants(owner: Connection, change: str) -> None:
    owner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(SERVE_ROLE)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        owner.execute(change.encode())


@pytest.mark.usefixtures("books")
def test_the_admin_role_cannot_charge(owner: Connection) -> None:
    row = owner.execute("SELECT gateway.id, api_key.id FROM gateway JOIN api_key ON gateway_id = gateway.id").fetchone()
    assert row is not None
    owner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(ADMIN_ROLE)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function commit_issuances"):
        commit(owner, usage(*row))
    may = owner.execute("SELECT has_function_privilege('commit_next'::regproc, 'EXECUTE')").fetchone()
    assert may == (False,)


def everything(owner: Connection) -> list[list[tuple[object, ...]]]:
    tables = ("account", "transfer", "issuance", "credit_lot", "session", "recipient_rand", "gateway", "api_key")
    return [owner.execute(f"SELECT * FROM {table} ORDER BY 1, 2".encode()).fetchall() for table in tables]
