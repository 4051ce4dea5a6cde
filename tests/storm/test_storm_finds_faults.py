"""A storm that finds nothing must be able to find something: each of these faults is, within a short run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from clearinghouse import charging, sessions, signing
from clearinghouse.commits import Outcome
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.errors import RefreshSession
from clearinghouse.sessions import Proceed, Replay, first_nonce
from tests.storm.campaign import Database, one_storm
from tests.storm.schedule import Profile
from tests.storm.storm import StormFailed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: Runs of so many steps, with these seeds, one after the other.
STEPS = 350
SEEDS = range(1, 7)


async def what_is_found(databases: Database, profile: Profile = Profile.MEAN) -> str:
    for seed in SEEDS:
        try:
            await one_storm(databases, seed, profile, STEPS)
        except StormFailed as failure:
            return failure.why
    pytest.fail(f"nothing was found in {len(SEEDS)} runs of {STEPS} steps")


def with_sql(databases: Database, *changes: tuple[str, str], function: str = "commit_issuances") -> Database:
    """Databases whose `function` has something else in some places.

    Unless it is commit_next, that carries out nothing: every payment comes to the faulty function.
    """

    @contextmanager
    def faulty() -> Any:
        with databases() as conninfo:
            with psycopg.connect(conninfo) as connection:
                if changes and function != "commit_next":
                    _change(connection, "commit_next", ("NOT session.closed", "false"))
                _change(connection, function, *changes)
            yield conninfo

    return faulty


def _change(connection: psycopg.Connection[tuple[Any, ...]], function: str, *changes: tuple[str, str]) -> None:
    ((text,),) = connection.execute("SELECT pg_get_functiondef(%s::regproc)", [function]).fetchall()
    for old, new in changes:
        assert old in text, f"{function} has no {old!r} any more"
        text = text.replace(old, new)
    connection.execute(text.encode())


async def test_the_service_as_it_is_passes_the_same_runs(databases: Database) -> None:
    for seed in SEEDS[:2]:
        await one_storm(databases, seed, Profile.MEAN, STEPS)


SQL_FAULTS: dict[str, tuple[tuple[str, str], ...]] = {
    "a debit that is left out": (("SET balance = balance - paid.cost,", "SET balance = balance,"),),
    "credit that ends one call too late": (
        ("o_balance + o_credit_limit < o_charge", "o_balance + o_credit_limit < 0"),
    ),
    "calls a day, off by one": (("calls >= item.calls_day_left", "calls > item.calls_day_left"),),
    "expected value, off by one call": (("evs + item.ev > item.ev_left", "evs > item.ev_left"),),
    "a session that is not counted": (("opened := opened + 1;", "opened := opened;"),),
    "a key's use that is not counted": (
        ("calls_day = calls_day + (item.tickets > 0)::integer", "calls_day = calls_day"),
    ),
    "a suspension that is not looked at": (("gateway.status <> 'active'", "false"),),
    "tickets that are not in the book": (("this_hour, a_tickets[ord]", "this_hour, 1"),),
    "expected value that is not in the total": (
        ("ev_total_wei = ev_total_wei + paid.ev", "ev_total_wei = ev_total_wei"),
    ),
    "a markup of a moment ago": (
        ("(gateway.markup_bps, gateway.minimum_charge, gateway.ceilings_version)", "true"),
        ("<> (asked.markup, asked.minimum_charge, asked.ceilings_version)", "= false"),
    ),
}


@pytest.mark.parametrize("fault", SQL_FAULTS)
async def test_a_fault_in_the_commit_is_found(databases: Database, fault: str) -> None:
    print(await what_is_found(with_sql(databases, *SQL_FAULTS[fault])))


#: Of commit_next, which is asked only about a call that comes alone: effects, which every such call has. What it must
#: not carry out is mostly refused before, so that a storm finds it by chance; test_commit_next.py tries all of it.
NEXT_FAULTS: dict[str, tuple[str, str]] = {
    "a debit that is left out": ("SET balance = o_balance,", "SET balance = balance,"),
    "tickets that are not in the book": (
        "'UTC'),\n        a_tickets, a_ev_numerator",
        "'UTC'),\n        1, a_ev_numerator",
    ),
    "expected value that is not in the total": ("ev_total_wei = ev_total_wei + a_ev", "ev_total_wei = ev_total_wei"),
}


@pytest.mark.parametrize("fault", NEXT_FAULTS)
async def test_a_fault_in_the_commit_of_what_comes_alone_is_found(databases: Database, fault: str) -> None:
    print(await what_is_found(with_sql(databases, NEXT_FAULTS[fault], function="commit_next")))


def _without_nonces(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, str], ...]:
    """Nothing is refused for nonces or older states, neither before the signer nor by the commit."""
    real = sessions.decide

    def decide(request: Any, **known: Any) -> Replay | Proceed:
        try:
            return real(request, **known)
        except RefreshSession:
            return Proceed(first_nonce(request, known["base"]))

    monkeypatch.setattr(signing, "decide", decide)
    return (
        ("rand.last_nonce > 0 AND rand.session_id <> asked.session_id", "false"),
        ("session.head_state_hash IS DISTINCT FROM asked.base_hash", "false"),
        ("asked.first_nonce <> coalesce(rand.last_nonce, 0) + 1", "false"),
    )


def _replays_charged(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, str], ...]:
    """A repeated request is one more request: another payment for the same nonces."""
    real = sessions.decide

    def decide(request: Any, **known: Any) -> Replay | Proceed:
        decision = real(request, **known)
        return Proceed(first_nonce(request, known["base"])) if isinstance(decision, Replay) else decision

    monkeypatch.setattr(signing, "decide", decide)
    return (*_without_nonces(monkeypatch), ("WHEN newest.request_hash = asked.request_hash THEN 'replayed'", ""))


def _released_without_commit(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, str], ...]:
    """One answer in twenty leaves before it is recorded."""
    real, count = charging.Charging.commit, 0

    async def commit(self: charging.Charging, caller: Any, issuance: Any, *further: Any) -> Any:
        nonlocal count
        count += 1
        if count % 20:
            return await real(self, caller, issuance, *further)
        return caller, issuance, Outcome(None, caller.available, caller.available, datetime.now(UTC))

    monkeypatch.setattr(charging.Charging, "commit", commit)
    return ()


def _charged_for_less(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, str], ...]:
    """Rounded down by one wei where n·EV is no whole number of them."""
    real = charging.by_markup
    monkeypatch.setattr(charging, "by_markup", lambda ev_wei, *price, **terms: real(ev_wei - 1, *price, **terms))
    return ()


def _pins_not_kept(monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, str], ...]:
    monkeypatch.setattr("clearinghouse.sessions.require_pins", lambda *_: None)
    return (
        ("(session.orchestrator, session.recipient, session.job_type, session.app, session.transcoder)", "true"),
        ("(asked.orchestrator, asked.recipient, asked.job_type, asked.app, asked.transcoder)", "true"),
        ("session.manifest_id <> asked.manifest", "false"),
    )


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], tuple[tuple[str, str], ...]]] = {
    "nonces that are not checked": _without_nonces,
    "a replay that is charged": _replays_charged,
    "tickets released before their debit": _released_without_commit,
    "a charge one wei too small": _charged_for_less,
    "pins that are not kept": _pins_not_kept,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_the_service_is_found(
    databases: Database, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    print(await what_is_found(with_sql(databases, *FAULTS[fault](monkeypatch))))


COVER_FAULTS: dict[str, tuple[tuple[str, str], ...]] = {
    "a new session while the deposit is low": (("item.is_new AND gate.level IN ('low', 'critical')", "false"),),
    "a gate that has ended": (("gate.valid_until <= begun_at", "false"),),
    "a ticket larger than the cap": (("item.face_value > gate.face_value_max_wei", "false"),),
    "a share that is passed by one call": (("evs + item.ev <= share", "evs <= share"),),
}


@pytest.mark.parametrize("fault", COVER_FAULTS)
async def test_a_commit_that_releases_what_is_not_covered_is_found(
    databases: Database, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Without the early gate, which refuses nearly all of it before."""
    monkeypatch.setattr(EarlyGate, "refusal", lambda *_, **__: None)
    monkeypatch.setattr(EarlyGate, "share_refusal", lambda *_: None)
    print(await what_is_found(with_sql(databases, *COVER_FAULTS[fault]), Profile.COVERED))
