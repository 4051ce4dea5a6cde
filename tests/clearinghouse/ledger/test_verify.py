"""`verify` on books in order, on every kind of corruption we can think of, and beside a working service."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import ids
from clearinghouse.identity import gateways, keys, limits, plans
from clearinghouse.ledger import transfers
from clearinghouse.ledger.claims import CLAIMS
from clearinghouse.ledger.verify import verify
from tests.parts.books import Connection, Usage, commit, usage

WHO = {"reason": "a test", "actor": "test"}


@dataclass(frozen=True)
class Books:
    """Two gateways with grants, a lot half used, one lapsed, a withdrawal, sessions of two payments and of one."""

    acme: UUID
    other: UUID
    key: UUID
    first: Usage
    second: Usage
    lot: UUID
    lapsed: UUID


@pytest.fixture
async def books(admin: AsyncEngine, owner: Connection) -> Books:
    in_a_day = datetime.now(UTC) + timedelta(days=1)
    async with admin.begin() as connection:
        acme = (await gateways.create(connection, "acme", markup_bps=250, credit_limit=Decimal(5))).id
        other = (await gateways.create(connection, "other", currency="EUR")).id
        key = (await keys.create(connection, acme, pepper=b"p" * 32)).key.id
        others_key = (await keys.create(connection, other, pepper=b"p" * 32)).key.id
        await transfers.grant(connection, acme, Decimal(100), **WHO)
        await transfers.grant(connection, other, Decimal(100), **WHO)
        lapsed = (await transfers.grant(connection, acme, Decimal(3), expires_at=in_a_day, **WHO)).id
        await transfers.withdraw(connection, acme, Decimal(1), **WHO)
    owner.execute("UPDATE credit_lot SET expires_at = now()")
    owner.execute("UPDATE account SET next_expiry_at = now() WHERE id = %s", [acme])
    owner.execute("SELECT settle_due_lots()")
    async with admin.begin() as connection:
        lot = (await transfers.grant(connection, acme, Decimal(20), expires_at=in_a_day, **WHO)).id
    first = usage(acme, key, ev_wei=3 * 10**15, markup_bps=250, num_tickets=3, idempotency_key="once")
    second = first.continued(num_tickets=2)
    for call in (first, second, usage(other, others_key, ev_wei=10**15)):
        assert commit(owner, call)[0] is None
    owner.execute("SELECT set_key_limits(%s, 1000, NULL, 1000, NULL, 1000)", [key])
    async with admin.begin() as connection:
        await limits.set_gateway_limits(connection, acme, {"spend_per_day": Decimal("5000.0")})
        await limits.set_gateway_limits(connection, other, {"price_live": 7})
    return Books(acme, other, key, first, second, lot, lapsed)


async def test_books_in_order_are_clean_and_everything_was_looked_at(admin: AsyncEngine, books: Books) -> None:
    report = await verify(admin)
    assert report.findings == ()
    assert report.is_clean
    assert [verdict.claim for verdict in report.verdicts] == [claim.name for claim in CLAIMS]
    assert report.counts == {
        "gateways": 2, "accounts": 14, "transfers": 6, "credit_lots": 2, "sessions": 2, "issuances": 3,
        "minimum_charges": 0,
    }  # fmt: skip


async def test_a_minimum_charge_is_no_error_and_is_counted(admin: AsyncEngine, owner: Connection, books: Books) -> None:
    cheap = usage(books.acme, books.key, ev_wei=1, markup_bps=250)
    assert commit(owner, replace(cheap, charge=Decimal("0.01")))[0] is None
    report = await verify(admin)
    assert report.findings == ()
    assert report.counts["minimum_charges"] == 1


@dataclass(frozen=True)
class Corruption:
    """A statement, and every claim that must complain, with words of its finding. No other claim may."""

    statement: str
    expected: dict[str, str]


def closed(*, begins_at: str = "created_at", usage: int = 2, lines: int = 2, closing: int = 98) -> str:
    """A period of the other gateway, which was granted 100 and charged 2 for one call; lines have `lines` of it."""
    return (
        "INSERT INTO billing_period (gateway_id, begins_at, ends_at, first_day, next_day, way, time_zone, currency, "
        f"opening, usage, closing, usage_to_date, calls_count, ev_wei) SELECT id, {begins_at}, now(), '2025-11-01', "
        f"'2025-12-01', 'prepaid', 'UTC', 'EUR', 0, {usage}, {closing}, {usage}, 1, 1e15 FROM gateway "
        "WHERE id = %(other)s;"
        "INSERT INTO billing_movement SELECT gateway_id, begins_at, 'grant', 100 FROM billing_period;"
        f"INSERT INTO billing_line SELECT gateway_id, begins_at, 'app', '', '', 0, 1, 1, 1e15, 1e15, {lines} "
        "FROM billing_period"
    )


CORRUPTIONS = {
    "a balance raised": Corruption(
        "UPDATE account SET balance = balance + 1 WHERE id = %(acme)s",
        {"balance": "the balance is 109.75, the postings sum to 108.75", "zero_sum": "system accounts sum to 1"},
    ),
    "a balance below the limit": Corruption(
        "ALTER TABLE account DROP CONSTRAINT account_within_credit_limit;"
        "UPDATE account SET credit_limit = 0, balance = -1 WHERE id = %(other)s",
        {"balance": "the balance is -1", "credit_limit": "-1 is below minus the credit limit 0",
         "zero_sum": "sum to -9"},
    ),
    "a system account with a balance of its own": Corruption(
        "ALTER TABLE account DROP CONSTRAINT account_of_gateway_or_system;"
        "UPDATE account SET balance = 5 WHERE name = 'revenue' AND currency = 'USD'",
        {"balance": "holds a balance of 5"},
    ),
    "a gateway without an account": Corruption(
        "INSERT INTO gateway (id, name) VALUES (gen_random_uuid(), 'lost')",
        {"gateway_account": "the gateway has no account"},
    ),
    "an account that vanished": Corruption(
        "DELETE FROM account WHERE id = %(other)s",
        {"gateway_account": "no account", "transfer_accounts": "does not exist", "zero_sum": "system accounts sum to",
         "issuance_account": "does not exist"},
    ),
    "a changed amount": Corruption(
        "UPDATE transfer SET amount = amount + 0.000000001 WHERE kind = 'grant' AND destination = %(other)s",
        {"balance": "the postings sum to 98.000000001", "zero_sum": "system accounts sum to -0.000000001"},
    ),
    "a removed grant": Corruption(
        "DELETE FROM transfer WHERE kind = 'grant' AND destination = %(other)s",
        {"balance": "the balance is 98, the postings sum to -2", "zero_sum": "sum to 100"},
    ),
    "a transfer between currencies": Corruption(
        "INSERT INTO transfer (id, kind, source, destination, amount, currency) VALUES "
        "(gen_random_uuid(), 'grant', system_account_id('funding', 'USD'), %(other)s, 5, 'USD')",
        {"transfer_accounts": "USD enters an account in EUR", "balance": "the postings sum to 103", "zero_sum": "-5"},
    ),
    "a transfer out of nowhere": Corruption(
        "INSERT INTO transfer (id, kind, source, destination, amount, currency) VALUES "
        "(gen_random_uuid(), 'grant', gen_random_uuid(), %(other)s, 5, 'EUR');"
        "UPDATE account SET balance = balance + 5 WHERE id = %(other)s",
        {"transfer_accounts": "the source account", "zero_sum": "system accounts sum to 5"},
    ),
    "a transfer that does not suit its kind": Corruption(
        "UPDATE transfer SET destination = system_account_id('revenue', 'USD') WHERE kind = 'withdrawal'",
        {"transfer_kind": "a transfer of kind withdrawal goes from a gateway to revenue"},
    ),
    "usage without an issuance": Corruption(
        "DELETE FROM issuance WHERE id = %(second)s",
        {"balance": "the balance is 108.75, the postings sum to 112.85", "zero_sum": "sum to",
         "usage_total": "usage_total is 10.25, the charges sum to 6.15", "session_head": "does not exist",
         "last_nonce": "last_nonce is 5, the issuances end at 3",
         "usage_counted": "are counted, the issuances make it", "ev_counted": "are counted as released",
         "fees_counted": "wei are counted on the day", "ev_total": "wei of expected value were ever released",
         "exposure_book": "the book lacks", "rand_ids": "its issuances are said to be from iss_"},
    ),
    "an issuance charged less than it says": Corruption(
        "UPDATE issuance SET charge = charge + 1 WHERE id = %(second)s",
        {"balance": "the balance is 108.75, the postings sum to 107.75", "zero_sum": "sum to",
         "usage_total": "usage_total is 10.25, the charges sum to 11.25",
         "usage_counted": "are counted, the issuances make it"},
    ),
    "an issuance of another gateway than the one that paid": Corruption(
        "UPDATE issuance SET gateway_id = %(other)s WHERE id = %(second)s",
        {"issuance_account": "USD was charged to an account in EUR", "balance": "postings sum to",
         "usage_total": "the charges sum to", "rand_owner": "belongs to session",
         "issuance_parents": "session belongs to another gateway", "session_head": "does not exist for its gateway",
         "usage_counted": "are counted, the issuances make it", "ev_counted": "are counted as released",
         "fees_counted": "wei are counted on the day", "ev_total": "wei of expected value were ever released",
         "exposure_book": "the book lacks"},
    ),
    "an issuance of no account": Corruption(
        "UPDATE issuance SET gateway_id = gen_random_uuid() WHERE id = %(second)s",
        {"issuance_account": "does not exist", "balance": "postings sum to", "usage_total": "the charges sum to",
         "rand_owner": "belongs to session", "issuance_parents": "session belongs to another gateway",
         "session_head": "does not exist for its gateway",
         "usage_counted": "are counted, the issuances make it", "ev_counted": "are counted as released",
         "fees_counted": "wei are counted on the day", "ev_total": "wei of expected value were ever released",
         "exposure_book": "the book lacks"},
    ),
    "an issuance twice": Corruption(
        "INSERT INTO issuance SELECT (jsonb_populate_record(issuance, jsonb_build_object('gateway_id', %(other)s))).* "
        "FROM issuance WHERE id = %(second)s",
        {"issuance_id": "2 issuances of different gateways share this id", "issuance_account": "account in EUR",
         "balance": "postings sum to", "zero_sum": "sum to", "usage_total": "the charges sum to",
         "issuance_parents": "another gateway", "rand_owner": "belongs to session", "nonces": "used twice",
         "usage_counted": "are counted, the issuances make it", "ev_counted": "are counted as released",
         "fees_counted": "wei are counted on the day", "ev_total": "wei of expected value were ever released",
         "exposure_book": "the book lacks"},
    ),
    "usage in another currency than the issuance": Corruption(
        "UPDATE issuance SET currency = 'EUR' WHERE id = %(second)s",
        {"issuance_account": "EUR was charged to an account in USD", "zero_sum": "sum to"},
    ),
    "a usage total changed": Corruption(
        "UPDATE account SET usage_total = usage_total + 1 WHERE id = %(acme)s",
        {"usage_total": "usage_total is 11.25, the charges sum to 10.25"},
    ),
    "a call forgotten": Corruption(
        "UPDATE account SET calls_day = calls_day - 1 WHERE id = %(acme)s",
        {"usage_counted": "1 calls and 10.25 on the day, 10.25 in the month are counted, the issuances make it 2,"},
    ),
    "spend of the day forgotten": Corruption(
        "UPDATE account SET spent_day = 0 WHERE id = %(acme)s",
        {"usage_counted": "2 calls and 0 on the day, 10.25 in the month are counted"},
    ),
    "spend of the month forgotten": Corruption(
        "UPDATE account SET spent_month = 0 WHERE id = %(acme)s",
        {"usage_counted": "10.25 on the day, 0 in the month are counted"},
    ),
    "a key's calls forgotten": Corruption(
        "UPDATE key_limit SET calls_day = 0, spent_day = 0 WHERE key_id = %(key)s",
        {"usage_counted": "0 calls and 0 on the day, 10.25 in the month are counted, the issuances make it 2, 10.25"},
    ),
    "a key's open expected value forgotten": Corruption(
        "UPDATE key_limit SET ev_day0_wei = ev_day0_wei - 1, ev_day2_wei = 7 WHERE key_id = %(key)s",
        {"ev_counted": "4999999999999999, 0 and 7 wei are counted as released on the last three days, the issuances "
         "make it 5000000000000000, 0 and 0"},
    ),
    "counters of another day": Corruption(
        "UPDATE account SET usage_day = usage_day + 40 WHERE id = %(acme)s",
        {"usage_counted": "10.25 in the month are counted, the issuances make it 0, 0 and 0",
         "ev_counted": "wei are counted as released on the last three days, the issuances make it 0, 0 and 0",
         "fees_counted": "5000000000000000 wei are counted on the day, the issuances make it 0"},
    ),
    "fees forgotten": Corruption(
        "UPDATE account SET fee_day_wei = fee_day_wei - 1 WHERE id = %(acme)s",
        {"fees_counted": "fees of 4999999999999999 wei are counted on the day, the issuances make it 5000000000000000"},
    ),
    "open expected value forgotten": Corruption(
        "UPDATE account SET ev_day0_wei = ev_day0_wei - 1 WHERE id = %(acme)s",
        {"ev_counted": "4999999999999999, 0 and 0 wei are counted as released on the last three days"},
    ),
    "expected value of yesterday that was never released": Corruption(
        "UPDATE account SET ev_day1_wei = 1, ev_day2_wei = 2 WHERE id = %(other)s",
        {"ev_counted": ", 1 and 2 wei are counted as released on the last three days"},
    ),
    "expected value that was never released": Corruption(
        "UPDATE account SET ev_total_wei = ev_total_wei + 1 WHERE id = %(acme)s",
        {"ev_total": "5000000000000001 wei of expected value were ever released, it says; the issuances make it 5000"},
    ),
    "a ticket in the book that was not released": Corruption(
        "UPDATE exposure_delta SET num_tickets = num_tickets + 1 WHERE gateway_id = %(other)s",
        {"exposure_book": "the book lacks -1 tickets, and -"},
    ),
    "tickets that left the book": Corruption(
        "SELECT roll_up_exposure(100); DELETE FROM exposure_counter WHERE gateway_id = %(acme)s",
        {"exposure_book": "recipient 0x2222222222222222222222222222222222222222, face value 1000000000000000, issued"},
    ),
    "an open session forgotten": Corruption(
        "UPDATE account SET sessions_open = 0 WHERE id = %(acme)s",
        {"sessions_counted": "0 sessions are counted as open, 1 are"},
    ),
    "an open session of an orchestrator forgotten": Corruption(
        "DELETE FROM open_sessions WHERE gateway_id = %(acme)s",
        {"sessions_counted": "0 sessions with orchestrator 0x1111"},
    ),
    "an open session of a key forgotten": Corruption(
        "UPDATE key_limit SET sessions_open = 0 WHERE key_id = %(key)s",
        {"sessions_counted": "0 sessions that it opened are counted as open, 1 are"},
    ),
    "a session said to be opened by another key": Corruption(
        "UPDATE session SET opened_by = gen_random_uuid() WHERE id = %(session)s",
        {"sessions_counted": "1 sessions that it opened are counted as open, 0 are"},
    ),
    "a session closed behind the counter's back": Corruption(
        "UPDATE session SET closed = true WHERE id = %(session)s",
        {"sessions_counted": "1 sessions are counted as open, 0 are"},
    ),
    "a limit raised behind its plan's back": Corruption(
        "UPDATE account SET spend_day_max = 60, calls_day_max = 3 WHERE id = %(acme)s",
        {"plan_limits": "spend_per_day is 60, the plan default and the gateway's own limits make it 5000"},
    ),
    "a limit of its own that vanished": Corruption(
        "DELETE FROM gateway_override WHERE gateway_id = %(acme)s AND name = 'spend_per_day'",
        {"plan_limits": "spend_per_day is 5000, the plan default and the gateway's own limits make it none"},
    ),
    "a ceiling lifted, and said to be the plan's": Corruption(
        "UPDATE gateway SET price_live_max = NULL, own_ceilings = '{}' WHERE id = %(other)s",
        {"plan_limits": "own ceilings is {}, the plan default and the gateway's own limits make it {price_live}"},
    ),
    "a plan changed and not applied": Corruption(
        "UPDATE plan_limit SET value = 9 WHERE plan = 'default' AND name = 'sessions_open'",
        {"plan_limits": "sessions_open is 20000, the plan default and the gateway's own limits make it 9"},
    ),
    "a plan changed an hour ago and still not applied": Corruption(
        "UPDATE plan SET version = 2, changed_at = now() - interval '1 hour';"
        "DELETE FROM plan_limit WHERE name = 'sessions_open'",
        {"plan_limits": "sessions_open is 20000, the plan default and the gateway's own limits make it none"},
    ),
    "a plan in the currency of another gateway": Corruption(
        "UPDATE plan SET currency = 'USD'",
        {"plan_limits": "the plan default limits spend in USD, the account is in EUR"},
    ),
    "limits of a key that nobody looks at": Corruption(
        "UPDATE api_key SET has_limits = false WHERE id = %(key)s",
        {"key_limits": "the limits of the key are not looked at"},
    ),
    "limits of a key that vanished": Corruption(
        "DELETE FROM key_limit WHERE key_id = %(key)s",
        {"key_limits": "said to have limits, and has none"},
    ),
    "a lot nobody granted": Corruption(
        "INSERT INTO credit_lot (id, account_id, amount, remaining, expires_at) "
        "VALUES (gen_random_uuid(), %(acme)s, 1, 0, now())",
        {"lot_grant": "never granted"},
    ),
    "a lot larger than its grant": Corruption(
        "UPDATE credit_lot SET amount = 21 WHERE id = %(lot)s",
        {"lot_grant": "the credit lot has 21"},
    ),
    "a lot of another account": Corruption(
        "UPDATE credit_lot SET account_id = %(other)s WHERE id = %(lapsed)s",
        {"lot_grant": "the credit lot has 3", "lot_expiry": "nothing was granted that could have expired"},
    ),
    "a lapsed lot refilled": Corruption(
        "UPDATE credit_lot SET remaining = 3 WHERE id = %(lapsed)s;"
        "UPDATE account SET next_expiry_at = (SELECT min(expires_at) FROM credit_lot) WHERE id = %(acme)s",
        {"lot_expiry": "the lot expired, but has 3 left"},
    ),
    "a subscription that is said to be charged": Corruption(
        "INSERT INTO subscription_period (gateway_id, begins_at, ends_at, first_day, next_day, fee, included,"
        " booked_at) VALUES (%(acme)s, now(), now() + interval '1 day', '2026-11-21', '2026-11-22', 7, 0, now())",
        {"subscription_fee": "from 2026-11-21 was charged, and of its fee of 7 the books have 0"},
    ),
    "more in lots than in the balance": Corruption(
        "UPDATE credit_lot SET amount = 500, remaining = 500 WHERE id = %(lot)s",
        {"lot_balance": "lots hold 500, of which usage has taken 10.25, but the balance is only 108.75",
         "lot_grant": "has 500"},
    ),
    "an expiry forgotten": Corruption(
        "UPDATE account SET next_expiry_at = NULL WHERE id = %(acme)s",
        {"lot_balance": "the earliest open lot expires at"},
    ),
    "usage taken from lots that was never used": Corruption(
        "UPDATE account SET lots_usage = usage_total + 1 WHERE id = %(other)s",
        {"lot_balance": "lots_usage is 3, outside 0 and usage_total 2"},
    ),
    "an expected value one wei off": Corruption(
        "UPDATE issuance SET ev_wei = ev_wei - 1 WHERE id = %(second)s",
        {"issuance_ev": "ev_wei is 1999999999999999, its 2 tickets are worth 2000000000000000",
         "ev_counted": "are counted as released", "ev_total": "the issuances make it 4999999999999999"},
    ),
    "a probability above one": Corruption(
        "UPDATE issuance SET win_prob = win_prob + 1 WHERE id = %(second)s",
        {"issuance_ev": "is above certainty", "exposure_book": "the book lacks -2 tickets"},
    ),
    "tickets that nobody can have seen": Corruption(
        "UPDATE issuance SET ev_numerator = num_tickets * face_value_wei * win_prob WHERE id = %(second)s",
        {"issuance_ev": "tickets are recorded that the webhook is not shown", "session_head": "in another way"},
    ),
    "a numerator of the webhook one off": Corruption(
        "UPDATE issuance SET ev_numerator = num_tickets * face_value_wei * win_prob + 1, face_value_wei = NULL, "
        "win_prob = NULL, creation_round = NULL WHERE id = %(second)s;"
        "UPDATE session SET approved = '' WHERE id = %(session)s",
        {"issuance_ev": "ev_wei is 2000000000000000, its 2 tickets are worth 2000000000000001",
         "exposure_book": "round unknown, recipient 0x2222"},
    ),
    "tickets forgotten": Corruption(
        "UPDATE issuance SET win_prob = NULL WHERE id = %(second)s",
        {"issuance_ev": "neither its tickets nor what they are worth are recorded",
         "exposure_book": "the book lacks 2 tickets, and 0 of face value"},
    ),
    "a charge below cost": Corruption(
        "UPDATE issuance SET markup_bps = markup_bps + 1 WHERE id = %(second)s",
        {"issuance_charge": "the charge is 4.1, but ev_wei x price x markup is 4.1004"},
    ),
    "a session that vanished": Corruption(
        "DELETE FROM session WHERE id = %(session)s",
        {"issuance_parents": "does not exist", "sessions_counted": "sessions are counted as open",
         "exposure_book": "recipient unknown"},
    ),
    "a key that vanished": Corruption(
        "DELETE FROM api_key WHERE id = %(key)s", {"issuance_parents": "its key key_"}
    ),
    "a gap in the nonces": Corruption(
        "UPDATE issuance SET first_nonce = first_nonce + 1 WHERE id = %(second)s",
        {"nonces": "begin at 5 instead of 4: some are missing", "last_nonce": "the issuances end at 6"},
    ),
    "a nonce used twice": Corruption(
        "UPDATE issuance SET first_nonce = first_nonce - 1 WHERE id = %(second)s",
        {"nonces": "begin at 3 instead of 4: some were used twice", "last_nonce": "the issuances end at 4"},
    ),
    "nonces that begin at 2": Corruption(
        "UPDATE issuance SET first_nonce = first_nonce + 1 WHERE gateway_id = %(acme)s",
        {"nonces": "begin at 2 instead of 1", "last_nonce": "last_nonce is 5, the issuances end at 6"},
    ),
    "a last nonce set back": Corruption(
        "UPDATE recipient_rand SET last_nonce = 3 WHERE session_id = %(session)s",
        {"last_nonce": "last_nonce is 3, the issuances end at 5"},
    ),
    "a first issuance that is a later one": Corruption(
        "UPDATE recipient_rand SET first_issuance_id = last_issuance_id WHERE session_id = %(session)s",
        {"rand_ids": "its issuances are said to be from iss_"},
    ),
    "a last issuance forgotten": Corruption(
        "UPDATE recipient_rand SET last_issuance_id = NULL WHERE session_id = %(session)s",
        {"rand_ids": "to none, they are from iss_"},
    ),
    "nonces forgotten": Corruption(
        "DELETE FROM recipient_rand WHERE session_id = %(session)s",
        {"last_nonce": "last_nonce is 0, the issuances end at 5"},
    ),
    "a recipientRandHash of two sessions": Corruption(
        "UPDATE recipient_rand SET session_id = gen_random_uuid() WHERE session_id = %(session)s",
        {"rand_owner": "belongs to session"},
    ),
    "a session head of another session": Corruption(
        "UPDATE session SET gateway_id = %(other)s, "
        "issuance_id = (SELECT id FROM issuance WHERE gateway_id = %(other)s) WHERE id = %(session)s",
        {"session_head": "belongs to session ses_", "issuance_parents": "its session belongs to another gateway",
         "sessions_counted": "sessions are counted as open"},
    ),
    "a session head that was never issued": Corruption(
        "UPDATE session SET issuance_id = gen_random_uuid() WHERE id = %(session)s",
        {"session_head": "does not exist for its gateway"},
    ),
    "usage that was added up and never issued": Corruption(
        "INSERT INTO usage_kind (app, pipeline, model, job_type) VALUES ('app', 'p', 'm', 'lv2v');"
        "INSERT INTO usage_bucket SELECT %(acme)s, 'ever', usage_begin('ever', now()), id, 'USD', 1, 2, 3, 4, 5.50"
        "  FROM usage_kind",
        {"usage_sums": "the sums of all time, app/p/m/lv2v, lack -1 issuances, -2 tickets, -3 and -4 wei, -5.5 USD"},
    ),
    "usage that was passed over": Corruption(
        "UPDATE usage_progress SET rolled_up_until = now() + interval '1 day'",
        {"usage_sums": "lack 2 issuances, 5 tickets"},
    ),
    "a period that begins before its gateway": Corruption(
        closed(begins_at="created_at - interval '1 day'"), {"period_chain": "before it were"}
    ),
    "a period whose lines lack something": Corruption(closed(lines=1), {"period_sums": "its lines have 1, 1 and"}),
    "a period that closes with too much": Corruption(closed(closing=99), {"period_sums": "it closes with 99; 0 at"}),
    "a period with another usage than its issuances": Corruption(
        closed(usage=3, lines=3, closing=97), {"period_entries": "calls for 3, of 1000000000000000 wei; the issuances"}
    ),
    "a period that lacks a transfer": Corruption(
        closed() + "; UPDATE billing_movement SET kind = 'payment'",
        {"period_entries": "of kind grant it has 0, the transfers of its time make 100"},
    ),
    "a kept answer of nothing": Corruption(
        "UPDATE keyed_answer SET issuance_id = gen_random_uuid()",
        {"keyed_answer": "the answer kept for idempotency key once names iss_"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
async def test_every_planted_corruption_is_found_and_named(
    admin: AsyncEngine, owner: Connection, books: Books, corruption: Corruption
) -> None:
    _plant(owner, corruption.statement, books)
    report = await verify(admin)
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.claim, []).append(f"{finding.subject} {finding.detail}")
    assert found.keys() == corruption.expected.keys(), found
    for claim, words in corruption.expected.items():
        assert any(words in text for text in found[claim]), (words, found[claim])
    assert not report.is_clean


OF_RATE_CARDS = {"rate_charge", "rate_version", "rate_position", "rate_cards"}
OF_RERATING = {"rerated_charge", "rerated_sums", "rerated_calls", "rerated_included", "rerated_invoices"}


def test_every_claim_has_a_corruption_that_breaks_it() -> None:
    """Those of rate cards and re-ratings are broken where there are some: tests/clearinghouse/test_rate_commits.py,
    tests/settlement/rerating."""
    broken = {claim for corruption in CORRUPTIONS.values() for claim in corruption.expected}
    assert broken | OF_RATE_CARDS | OF_RERATING == {claim.name for claim in CLAIMS}


async def test_a_change_to_a_plan_that_is_on_its_way_is_no_error(
    admin: AsyncEngine, owner: Connection, books: Books
) -> None:
    _plant(owner, "DELETE FROM plan_limit; UPDATE plan SET version = version + 1, changed_at = now()", books)
    assert (await verify(admin)).is_clean
    await plans.apply_left_over(admin)
    _plant(owner, "UPDATE plan SET changed_at = now() - interval '1 minute'", books)
    assert await plans.apply_left_over(admin) == 1
    assert await plans.apply_left_over(admin) == 0
    assert (await verify(admin)).is_clean


async def test_many_violations_are_all_counted_and_some_described(
    admin: AsyncEngine, owner: Connection, books: Books
) -> None:
    _plant(owner, "UPDATE issuance SET markup_bps = 10000", books)
    report = await verify(admin, findings_max_per_claim=2)
    assert [verdict.violations for verdict in report.verdicts if verdict.claim == "issuance_charge"] == [3]
    assert len(report.findings) == 2


async def test_findings_name_what_they_are_about(admin: AsyncEngine, owner: Connection, books: Books) -> None:
    _plant(owner, CORRUPTIONS["a charge below cost"].statement, books)
    (finding,) = (await verify(admin)).findings
    assert finding.subject == ids.show("iss", books.second.issuance_id)


async def test_books_are_clean_at_any_instant_while_payments_go_on(
    admin: AsyncEngine, owner: Connection, books: Books
) -> None:
    """What is being committed is seen whole or not at all, and nothing waits for the look."""
    async with admin.begin() as connection:
        await transfers.grant(connection, books.acme, Decimal(10**6), **WHO)
        enough = {"spend_per_month": Decimal(10**6), "calls_per_day": 10**6}  # however quick the machine is
        await limits.set_key_limits(connection, books.key, enough)
        await limits.set_gateway_limits(connection, books.acme, {"spend_per_day": Decimal(10**6)})
    done = threading.Event()

    def pay() -> None:
        call = books.second
        while not done.is_set():
            call = call.continued()
            assert commit(owner, call)[0] is None

    payments = asyncio.create_task(asyncio.to_thread(pay))
    try:
        issuances = []
        for _ in range(10):
            report = await verify(admin)
            assert report.findings == ()
            issuances.append(report.counts["issuances"])
    finally:
        done.set()
        await payments
    assert issuances[-1] > issuances[0]


def _plant(owner: Connection, statement: str, books: Books) -> None:
    """As a superuser who switches triggers and foreign keys off: the worst the books must survive to tell."""
    values = {
        "acme": books.acme, "other": books.other, "key": books.key, "second": books.second.issuance_id,
        "session": books.second.session_id, "lot": books.lot, "lapsed": books.lapsed,
    }  # fmt: skip
    with owner.transaction():
        owner.execute("SET LOCAL session_replication_role = replica")
        for part in statement.split(";"):
            owner.execute(part.encode(), values)
