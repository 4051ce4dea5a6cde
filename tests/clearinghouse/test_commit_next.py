"""`commit_next` carries out a usual payment that comes alone: exactly as `commit_issuances` would, or not at all."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clearinghouse.commits import Issuance
from clearinghouse.database.connect import SERVE_ROLE
from clearinghouse.ids import uuid7
from tests.clearinghouse.test_commits import committing
from tests.parts.books import TYPES, Connection, Usage, as_issuance, commit, commit_together, new_gateway, usage

#: The time of the commit itself, by table: there are two, and it is compared for itself.
TIMES: Final = {"exposure_delta": "issued_hour", "issuance": "created_at"}

#: What commit_issuances names and commit_next does not, by what has payments left to the former.
NOT_IN_NEXT: Final = {
    "rate_rule": """rate_rule rate_position rate_charge rate_cost rate_total rate_version_at rate_volume rate_card
        below_cost at_least_cost lead_before volume_before card cost counts floor meter month month_of rated version
        volume""",
    "is_new_session, or one that was closed": """open_sessions opened_by pipeline model sessions sessions_open
        sessions_open_max sessions_open_per_orchestrator_max""",
    "idempotency_key": "keyed_answer key",
    "repeats_max_count": "take_repeat",
    "api_key.has_limits": "key_limit key_limit_passed",
    "a day that has begun, credit or terms that have ended": "refresh_account",
    "a gate that is critical": "cover_share ev_total_max_wei",
}
#: The codes of refusals that nothing in CIRCUMSTANCES brings about: somebody else's lock, and of those payments.
CODES_OF_OTHERS: Final = {
    "account_busy", "coverage_low", "idempotency_conflict", "sessions_open", "sessions_open_per_orchestrator",
}  # fmt: skip


class Books(NamedTuple):
    """A gateway whose session has had two payments, another with one, and what the first one's next payment is."""

    owner: Connection
    #: In the order of the parameters of commit_issuances.
    names: list[str]
    names_of_next: list[str]
    #: The query for every row of every table.
    everything: bytes
    before: Usage
    paid: Usage
    other: Usage
    issuance: Issuance


@pytest.fixture
def books(owner: Connection) -> Books:
    first, other = (usage(*new_gateway(owner), markup_bps=500) for _ in range(2))
    owner.execute("UPDATE gateway SET markup_bps = 500")
    paid = first.continued()
    assert [commit(owner, call)[0] for call in (first, other, paid)] == [None] * 3
    owner.execute("INSERT INTO coverage_gate (sender, level, valid_until, evaluated_at) "
                  "VALUES (%s, 'ok', now() + interval '1 day', now())", [first.sender])  # fmt: skip
    issuance = as_issuance(paid.continued(num_tickets=3))._replace(answer=b"another answer")
    names, names_of_next = _inputs(owner, "commit_issuances"), _inputs(owner, "commit_next")
    return Books(owner, names, names_of_next, _everything(owner), first, paid, other, issuance)


def _inputs(owner: Connection, function: str) -> list[str]:
    query = "SELECT proargnames, pronargs FROM pg_proc WHERE proname = %s"
    ((names, count),) = owner.execute(query, [function]).fetchall()
    return list(names[:count])


def _everything(owner: Connection) -> bytes:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    rows = (
        f"SELECT '{table}', to_jsonb(t) - '{TIMES.get(table, '')}' FROM {table} AS t"
        for (table,) in owner.execute(query).fetchall()
    )
    return f"{' UNION ALL '.join(rows)} ORDER BY 1, 2".encode()


Change = Callable[[Books], Any]


def sql(statement: str) -> Change:
    """On what the payment is about."""

    def change(books: Books) -> None:
        paid = books.paid
        books.owner.execute(
            statement.encode(),
            {
                "gateway": paid.gateway_id, "key": paid.key_id, "session": paid.session_id, "sender": paid.sender,
                "rand": paid.rand,
                "charge": books.issuance.charge, "ev": books.issuance.ev_wei,
            },
        )  # fmt: skip

    return change


def asked(**changed: Any) -> Change:
    """Of the payment: fields, or what gives them of the books."""
    return lambda books: {name: value(books) if callable(value) else value for name, value in changed.items()}


def _account(assignment: str) -> Change:
    return sql(f"UPDATE account SET {assignment} WHERE id = %(gateway)s")


def _gateway(assignment: str) -> Change:
    return sql(f"UPDATE gateway SET {assignment} WHERE id = %(gateway)s")


def _key(assignment: str) -> Change:
    return sql(f"UPDATE api_key SET {assignment} WHERE id = %(key)s")


def _session(assignment: str) -> Change:
    return sql(f"UPDATE session SET {assignment} WHERE id = %(session)s")


def _gate(assignment: str) -> Change:
    return sql(f"UPDATE coverage_gate SET {assignment}")


def _the_first_of_a_rand_that_was_only_seen(books: Books) -> dict[str, Any]:
    sql("UPDATE recipient_rand SET last_nonce = 0 WHERE hash = %(rand)s")(books)
    return {"first_nonce": 1}


#: What may be otherwise, and whether commit_next still carries the payment out where nothing else is.
CIRCUMSTANCES: Final[dict[str, tuple[Change, bool]]] = {
    "nothing": (asked(), True),
    # The account.
    "exactly enough credit": (_account("balance = %(charge)s"), True),
    "credit for less": (_account("balance = %(charge)s - 1e-18"), False),
    "exactly the limit's credit": (_account("balance = 0, credit_limit = %(charge)s"), True),
    "less than the limit's credit": (_account("balance = -1e-18, credit_limit = %(charge)s"), False),
    "more owed than the limit": (_account("balance = -%(charge)s, overdrawn = %(charge)s"), False),
    "the last call of the day": (_account("calls_day_max = calls_day + 1"), True),
    "a call too many": (_account("calls_day_max = calls_day"), False),
    "no call at all": (_account("calls_day_max = 0"), False),
    "the last of a day's spend": (_account("spend_day_max = spent_day + %(charge)s"), True),
    "more than a day's spend": (_account("spend_day_max = spent_day + %(charge)s - 1e-18"), False),
    "the last of a month's spend": (_account("spend_month_max = spent_month + %(charge)s"), True),
    "more than a month's spend": (_account("spend_month_max = spent_month + %(charge)s - 1e-18"), False),
    "the last of the expected value": (
        _account("ev_day2_wei = 5, ev_day1_wei = 7, ev_open_max_wei = ev_day0_wei + 12 + %(ev)s"), True),
    "more than the expected value": (
        _account("ev_day2_wei = 5, ev_day1_wei = 7, ev_open_max_wei = ev_day0_wei + 11 + %(ev)s"), False),
    "no session more": (_account("sessions_open_max = 0, sessions_open_per_orchestrator_max = 0"), True),
    "a day has begun": (_account("usage_day = usage_day - 1"), False),
    "a month has begun": (_account("usage_day = usage_day - 32, spend_month_max = %(charge)s"), False),
    "a day that is yet to come": (_account("usage_day = usage_day + 1"), True),
    "credit that expires": (
        sql("""WITH lot AS (INSERT INTO credit_lot (id, account_id, amount, remaining, expires_at)
                            VALUES (%(session)s, %(gateway)s, 1, 1, now() - interval '1 s') RETURNING expires_at)
               UPDATE account SET next_expiry_at = lot.expires_at FROM lot WHERE id = %(gateway)s"""), False),
    "credit that will expire": (_account("next_expiry_at = now() + interval '1 day'"), True),
    "terms that are due": (_account("terms_due_at = now() - interval '1 s'"), False),
    "terms that will be due": (_account("terms_due_at = now() + interval '1 day'"), True),
    "free terms that have ended": (_account("signs_until = now() - interval '1 s'"), False),
    "free terms that hold": (_account("signs_until = now() + interval '1 day'"), True),
    # The gateway and its key.
    "suspended": (_gateway("status = 'suspended'"), False),
    "held": (_gateway("billing_hold = 'signing'"), False),
    "held from new sessions": (_gateway("billing_hold = 'new_sessions'"), True),
    "another markup": (_gateway("markup_bps = 1"), False),
    "another minimum": (_gateway("minimum_charge = 1"), False),
    "other ceilings": (_gateway("ceilings_version = 1"), False),
    "a key revoked": (_key("revoked_at = now()"), False),
    "a key that is to be revoked": (_key("revoked_at = now() + interval '1 day'"), True),
    "a key that has ended": (_key("expires_at = now()"), False),
    "a key that will end": (_key("expires_at = now() + interval '1 day'"), True),
    "a key with limits": (
        sql("SELECT set_key_limits(%(key)s, 100, NULL, NULL, NULL, NULL)"), False),
    "another gateway's key": (asked(key_id=lambda books: books.other.key_id), False),
    "an unknown key": (asked(key_id=uuid4()), False),
    # The session.
    "closed": (_session("closed = true"), False),
    "of the webhook": (_session("approved = ''"), False),
    "no manifest yet": (_session("manifest_id = NULL"), True),
    "no manifest said": (asked(manifest_id=None), True),
    "no manifest at all": (lambda books: _session("manifest_id = NULL")(books) or {"manifest_id": None}, True),
    "another manifest": (asked(manifest_id="stream-2"), False),
    "another orchestrator": (asked(orchestrator=b"\x12" * 20), False),
    "another recipient": (asked(recipient=b"\x12" * 20), False),
    "another kind of job": (asked(job_type="byoc"), False),
    "another app": (asked(app="another"), False),
    "another transcoder": (asked(transcoder="https://another.example:8935"), False),
    "another pipeline": (asked(pipeline="another", model="another"), True),
    "another gateway's session": (asked(session_id=lambda books: books.other.session_id), False),
    "another gateway's session, with a new rand": (
        asked(session_id=lambda books: books.other.session_id, recipient_rand_hash=b"\x01" * 32, first_nonce=1), False),
    "an unknown session": (asked(session_id=uuid4()), False),
    "an unknown session, with a new rand": (
        asked(session_id=uuid4(), recipient_rand_hash=b"\x01" * 32, first_nonce=1), False),
    "an older state": (asked(base_state_hash=lambda books: books.before.head_hash), False),
    "no state": (asked(base_state_hash=None), False),
    "the same request": (asked(request_hash=lambda books: books.paid.request_hash), False),
    "the very same commit": (asked(id=lambda books: books.paid.issuance_id), False),
    # Nonces.
    "nonces that are used": (asked(first_nonce=2), False),
    "a gap": (asked(first_nonce=4), False),
    "from the first nonce again": (asked(first_nonce=1), False),
    "a new rand": (asked(recipient_rand_hash=b"\x01" * 32, first_nonce=1), True),
    "a new rand after an older state": (
        asked(recipient_rand_hash=b"\x01" * 32, first_nonce=1, base_state_hash=b"\x02" * 32), True),
    "a new rand, not from the first": (asked(recipient_rand_hash=b"\x01" * 32), False),
    "another session's rand": (
        asked(recipient_rand_hash=lambda books: books.other.rand, first_nonce=2), False),
    "a rand of which nothing was released": (
        sql("UPDATE recipient_rand SET last_nonce = 0 WHERE hash = %(rand)s"), False),
    "the first of one of which nothing was released": (_the_first_of_a_rand_that_was_only_seen, False),
    "ids from a clock behind": (
        sql("UPDATE recipient_rand SET last_issuance_id = repeat('f', 32)::uuid WHERE hash = %(rand)s"), True),
    # What it costs.
    "no tickets": (asked(num_tickets=0, ev_wei=0, fee_wei=0, charge=Decimal(0)), False),
    "for nothing": (asked(charge=Decimal(0)), True),
    "an end user": (asked(end_user="somebody"), True),
    "a quantity": (asked(quantity=1234), True),
    "a known sum of its worth": (asked(ev_numerator=10**90), True),
    # Coverage.
    "no gate": (sql("DELETE FROM coverage_gate"), False),
    "a gate of long ago": (_gate("valid_until = now()"), False),
    "watch": (_gate("level = 'watch'"), True),
    "low": (_gate("level = 'low'"), True),
    "critical": (_gate("level = 'critical'"), False),
    "critical, with a share": (
        sql("""WITH gate AS (UPDATE coverage_gate SET level = 'critical')
               INSERT INTO cover_share (sender, gateway_id, ev_total_max_wei)
               VALUES (%(sender)s, %(gateway)s, 1e30)"""), False),
    "the largest face value": (
        lambda books: _gate(f"face_value_max_wei = {books.issuance.face_value_wei}")(books), True),
    "a larger face value": (
        lambda books: _gate(f"face_value_max_wei = {books.issuance.face_value_wei} - 1")(books), False),
    "another sender": (asked(sender=b"\x34" * 20), False),
}  # fmt: skip
#: Those that say nothing where the deposit does not count.
OF_COVERAGE: Final = {
    "no gate", "a gate of long ago", "critical", "critical, with a share", "a larger face value", "another sender",
}  # fmt: skip


@pytest.mark.parametrize("is_covered", [True, False])
def test_what_is_usual_is_carried_out_and_nothing_else(books: Books, is_covered: bool) -> None:
    judged = {circumstance: _compared(books, [circumstance], is_covered) for circumstance in CIRCUMSTANCES}
    done = {circumstance for circumstance, (is_done, _) in judged.items() if is_done}
    usual = {circumstance for circumstance, (_, is_usual) in CIRCUMSTANCES.items() if is_usual}
    assert done == (usual if is_covered else usual | OF_COVERAGE)
    if is_covered:
        codes = set(re.findall(r"(?:THEN|:=) '(\w+)'", _text(books.owner, "commit_issuances")))
        assert codes - {code for _, code in judged.values()} == CODES_OF_OTHERS, "a circumstance for every refusal"


def test_every_table_column_and_function_of_the_group_is_here_too_or_it_is_said_why_not(owner: Connection) -> None:
    """What is new in commit_issuances belongs into commit_next, or stands above with what leaves it there.

    Of names alone: what is done with them the other tests see.
    """
    group, by_itself = (set(re.findall(r"\w+", _text(owner, name))) for name in ("commit_issuances", "commit_next"))
    query = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION SELECT unnest(ARRAY[table_name, column_name]) FROM information_schema.columns
               WHERE table_schema = 'public' AND table_name = ANY (%s)"""
    names = {name for (name,) in owner.execute(query, [list(group)]).fetchall()}
    assert names & group - by_itself == set(" ".join(NOT_IN_NEXT.values()).split())


def _text(owner: Connection, function: str) -> str:
    """Without its comments."""
    ((text,),) = owner.execute("SELECT prosrc FROM pg_proc WHERE proname = %s", [function]).fetchall()
    return re.sub("--.*", "", text)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # every example is rolled back
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.lists(st.sampled_from(sorted(CIRCUMSTANCES)), min_size=2, max_size=4, unique=True), st.booleans())
def test_whatever_comes_together(books: Books, circumstances: list[str], is_covered: bool) -> None:
    _compared(books, circumstances, is_covered)


def _compared(books: Books, circumstances: list[str], is_covered: bool) -> tuple[bool, str | None]:
    """Whether commit_next carries it out: then all is as after commit_issuances, else as before. The latter's code."""
    changes: dict[str, Any] = {}
    with rolled_back(books.owner):
        for circumstance in circumstances:
            changes |= CIRCUMSTANCES[circumstance][0](books) or {}
        values = dict(zip(books.names, books.issuance._replace(**changes), strict=False))
        values["a_covered"] = is_covered
        before = books.owner.execute(books.everything).fetchall()
        with rolled_back(books.owner):
            code, *judged = _by_the_group(books, values)
            after = books.owner.execute(books.everything).fetchall()
        balance, credit_limit, created_at = _by_itself(books, values)
        if balance is None:
            assert (credit_limit, created_at) == (None, None)
            assert books.owner.execute(books.everything).fetchall() == before
            return False, code
        assert (code, *judged) == (None, balance, credit_limit, values["a_charge"])
        assert books.owner.execute(books.everything).fetchall() == after
        times = "SELECT created_at, date_trunc('hour', created_at, 'UTC') FROM issuance WHERE id = %s"
        assert books.owner.execute(times, [values["a_issuance"]]).fetchall() == [
            (created_at, _newest_hour(books.owner))
        ]
        return True, None


@contextmanager
def rolled_back(owner: Connection) -> Iterator[None]:
    with owner.transaction(force_rollback=True):
        yield


def _newest_hour(owner: Connection) -> Any:
    ((hour,),) = owner.execute("SELECT issued_hour FROM exposure_delta ORDER BY ctid DESC LIMIT 1").fetchall()
    return hour


def _by_the_group(books: Books, values: dict[str, Any]) -> tuple[Any, ...]:
    places = ", ".join(f"ARRAY[%s::{kind}]" for kind in TYPES)
    (row,) = books.owner.execute(
        f"SELECT o_code, o_balance, o_credit_limit, o_charge FROM commit_issuances({places}, false, %s)".encode(),
        [*[values[name] for name in books.names[: len(TYPES)]], values["a_covered"]],
    ).fetchall()
    return row


def _by_itself(books: Books, values: dict[str, Any]) -> tuple[Any, ...]:
    kinds = {**dict(zip(books.names, TYPES, strict=False)), "a_covered": "boolean"}
    places = ", ".join(f"{name} => %s::{kinds[name]}" for name in books.names_of_next)
    (row,) = books.owner.execute(
        f"SELECT * FROM commit_next({places})".encode(), [values[name] for name in books.names_of_next]
    ).fetchall()
    return row


async def test_the_service_has_it_carry_out_what_comes_alone(database: str, books: Books) -> None:
    """The other function is out of reach: whatever is done, is done without it. Values are sent by their places."""
    assert [name for name in books.names if name in books.names_of_next] == books.names_of_next
    books.owner.execute(f"REVOKE EXECUTE ON FUNCTION commit_issuances FROM {SERVE_ROLE}")
    async with committing(database) as commits:
        outcome = await commits.commit(books.issuance)
        assert (outcome.code, outcome.charge) == (None, books.issuance.charge)
        assert outcome.balance == 1000 - 2 * books.paid.charge - books.issuance.charge
        with pytest.raises(psycopg.errors.InsufficientPrivilege):  # the same again is nothing for it
            await commits.commit(books.issuance)


async def test_a_key_with_limits_is_not_tried_again_and_again(database: str, books: Books) -> None:
    """A try takes the account's lock, which is written to disk as a payment is."""
    books.owner.execute("SELECT set_key_limits(%s, 100, NULL, NULL, NULL, NULL)", [books.paid.key_id])
    following = books.paid.continued()
    async with committing(database) as commits:
        assert (await commits.commit(as_issuance(following))).code is None
        books.owner.execute(f"REVOKE EXECUTE ON FUNCTION commit_next FROM {SERVE_ROLE}")
        assert (await commits.commit(as_issuance(following.continued()))).code is None
        with pytest.raises(psycopg.errors.InsufficientPrivilege):  # of another key it is
            await commits.commit(as_issuance(books.other.continued()))


@pytest.mark.parametrize(
    ("unusual", "code"),
    [
        ({"idempotency_key": "a key"}, None),
        (
            {"is_new_session": True, "session_id": uuid7(), "recipient_rand_hash": os.urandom(32), "first_nonce": 1},
            None,
        ),
        ({"num_tickets": 0, "ev_wei": 0, "repeats_max_count": 0}, "repeats_used_up"),
        ({"first_nonce": 1}, "nonce_used"),
    ],
)
async def test_whatever_it_leaves_is_judged_all_the_same(
    database: str, books: Books, unusual: dict[str, Any], code: str | None
) -> None:
    async with committing(database) as commits:
        assert (await commits.commit(books.issuance._replace(**unusual))).code == code


async def test_an_account_that_somebody_holds_is_waited_for_in_the_other_lane(database: str, books: Books) -> None:
    who_waits = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with committing(database) as commits:
        with psycopg.connect(database) as holding:
            holding.execute("SELECT FROM account WHERE id = %s FOR UPDATE", [books.paid.gateway_id])
            waiting = asyncio.create_task(commits.commit(books.issuance))
            while not (waits := books.owner.execute(who_waits).fetchall()):
                await asyncio.sleep(0.01)
            assert ["commit_issuances" in query for (query,) in waits] == [True]
            assert (await commits.commit(as_issuance(books.other.continued()))).code is None, "nobody else waits"
        assert (await waiting).code in (None, "account_busy"), "by how long all that took"


#: And how many rows of sessions each reads: to judge (a batch also for a stored answer), and to change it.
BOTH: Final = {"commit_next": (_by_itself, 2), "commit_issuances": (_by_the_group, 3)}


@pytest.mark.parametrize("function", BOTH)
def test_however_many_sessions_and_keys_there_are_one_of_each_is_read(books: Books, function: str) -> None:
    """By a plan made where every gateway had one of each: there the indexes by gateway look as good as the keys."""
    carried_out, session_reads_count = BOTH[function]
    others = [usage(*new_gateway(books.owner)) for _ in range(20)]
    assert {code for code, _ in commit_together(books.owner, others)} == {None}
    books.owner.execute("ANALYZE")
    sessions = [usage(books.paid.gateway_id, books.paid.key_id, markup_bps=500) for _ in range(20)]
    assert {code for code, _ in commit_together(books.owner, sessions)} == {None}
    more_keys = """INSERT INTO api_key (id, gateway_id, public_id, secret_hmac)
                   SELECT gen_random_uuid(), %s, number::text, sha256('') FROM generate_series(1, 20) AS number"""
    books.owner.execute(more_keys, [books.paid.gateway_id])
    values = {**dict(zip(books.names, books.issuance, strict=False)), "a_covered": True}
    with books.owner.transaction():
        before = _read(books.owner)
        carried_out(books, values)
        read = {table: count - before[table] for table, count in _read(books.owner).items()}
    assert read == {"session": session_reads_count, "api_key": 1}
    assert books.owner.execute("SELECT FROM issuance WHERE id = %s", [books.issuance.id]).rowcount == 1


def _read(owner: Connection) -> dict[str, int]:
    """How many rows this transaction has read by an index, and whichever before it are not counted elsewhere yet."""
    query = "SELECT relname, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname IN ('session', 'api_key')"
    return dict(owner.execute(query).fetchall())
