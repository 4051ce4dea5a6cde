"""What the worker may write: its own record and what it tells people, and money through functions only."""

from __future__ import annotations

import psycopg
import pytest

from clearinghouse.database.connect import WORK_ROLE, in_role
from tests.settlement.conftest import Owner

#: Each with what else but reading it may do there. Top-ups are written through functions alone, which leave an event.
TABLES = {
    "alert": {"DELETE", "INSERT", "UPDATE"},
    "alert_evaluation": {"UPDATE"},
    "billing_difference": {"INSERT", "UPDATE"},
    "current_period": {"DELETE", "INSERT", "UPDATE"},
    "customer": {"UPDATE"},
    "delivery": {"INSERT", "UPDATE"},
    "delivery_attempt": {"INSERT", "UPDATE"},
    "entry_of_period": {"INSERT"},
    "rerated_call": {"INSERT"},
    "rerated_line": {"INSERT"},
    "rerating": {"INSERT", "UPDATE"},
    "credit_note": {"INSERT", "UPDATE"},
    "invoice": {"INSERT", "UPDATE"},
    "invoice_entry": {"INSERT"},
    "invoice_line": {"INSERT"},
    "job": {"DELETE", "INSERT", "UPDATE"},
    "job_lead": {"DELETE", "INSERT", "UPDATE"},
    "job_run": {"DELETE", "INSERT", "UPDATE"},
    "notice": {"INSERT"},
    "notice_state": {"INSERT", "UPDATE"},
    "stripe_event": {"DELETE", "INSERT", "UPDATE"},
    "stripe_listing": {"INSERT", "UPDATE"},
    "stripe_sweep": {"INSERT", "UPDATE"},
    "saved_card": {"DELETE", "INSERT", "UPDATE"},
}
#: With rights that the role itself has not.
FUNCTIONS = {
    "apply_all_due_terms",
    "hold_terms",
    "book_entry",
    "claim_payments",
    "claim_refunds",
    "close_periods",
    "confirm_payment",
    "correct_usage",
    "correct_usage_ever",
    "end_payment",
    "end_topup",
    "exposure_difference",
    "note_dispute",
    "note_payment_asked",
    "note_refund",
    "note_refund_asked",
    "note_topup_overtaken",
    "note_topup_sent",
    "note_topup_standing",
    "open_payment",
    "process_payment",
    "plan_payment",
    "plan_subscription_period",
    "plan_topup",
    "put_off_payment",
    "put_off_refund",
    "refuse_refund",
    "reopen_topup",
    "roll_up_usage",
    "seal_books",
    "set_billing_hold",
    "store_topup_transaction",
    "usage_differences",
    "usage_first",
    "usage_mark",
    "usage_reach",
}
MONEY = (
    "UPDATE account SET balance = balance + 1",
    "UPDATE account SET credit_limit = 10",
    "INSERT INTO transfer SELECT * FROM transfer",
    "INSERT INTO issuance SELECT * FROM issuance",
    "DELETE FROM transfer",
    "SELECT grant_credit(NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "UPDATE coverage_snapshot SET top_up_deposit_wei = 1",
    "INSERT INTO coverage_snapshot SELECT * FROM coverage_snapshot",
    "SET ROLE clearinghouse_admin",
)


def test_the_worker_writes_to_these_tables_and_no_others(owner: Owner) -> None:
    query = """
        SELECT table_name, privilege_type FROM information_schema.table_privileges WHERE grantee = %(role)s
         UNION SELECT table_name, privilege_type FROM information_schema.column_privileges WHERE grantee = %(role)s
    """
    found: dict[str, set[str]] = {}
    for table, privilege in owner.execute(query, {"role": WORK_ROLE}):
        if privilege != "SELECT":
            found.setdefault(table, set()).add(privilege)
    assert found == TABLES


def test_the_worker_borrows_the_rights_of_these_functions_and_no_others(owner: Owner) -> None:
    query = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
           AND has_function_privilege(%s, oid, 'EXECUTE')
    """
    assert {name for (name,) in owner.execute(query, [WORK_ROLE])} == FUNCTIONS


@pytest.mark.parametrize("statement", MONEY)
def test_the_worker_moves_no_money_of_the_ledger(database: str, owner: Owner, statement: str) -> None:
    login = "a_worker_of_a_test"
    owner.execute(f"CREATE ROLE {login} LOGIN NOINHERIT IN ROLE {WORK_ROLE}".encode())
    try:
        own = psycopg.conninfo.make_conninfo(in_role(database, WORK_ROLE), user=login)
        with (
            psycopg.connect(own, autocommit=True) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())
    finally:
        owner.execute(f"DROP ROLE {login}".encode())
