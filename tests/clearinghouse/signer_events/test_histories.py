"""Random histories of payments, losses and foreign signatures, against a slow and obvious twin."""

from __future__ import annotations

import json
import random
import secrets
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.ids import show
from clearinghouse.sessions import auth_id
from clearinghouse.signer_events.faults import Found
from clearinghouse.signer_events.reconcile import reconcile
from tests.clearinghouse.signer_events.parts import findings, record

SEEDS = range(12)
STEP_MS = 20_000
EV_WEI = 8000


@dataclass
class History:
    """What was issued, reported and thrown away, and what a reader of both lists would say."""

    dice: random.Random
    begins_ms: int
    gateway: uuid.UUID = field(default_factory=uuid.uuid4)
    now_ms: int = 0
    issuances: list[dict[str, Any]] = field(default_factory=list)
    thrown_away: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def run(self, sessions: int, payments: int) -> None:
        self.now_ms = self.begins_ms
        for _ in range(sessions):
            session, state, rand, balance = uuid.uuid4(), secrets.token_hex(16), secrets.token_bytes(32), 0
            for sequence in range(payments):
                self.now_ms += self.dice.randrange(1, STEP_MS)
                fee = self.dice.randrange(1, EV_WEI)
                place = {"session": session, "state": state, "rand": rand, "sequence": sequence}
                if self.dice.random() < 0.2:  # signed before, for nothing
                    self._event(place, fee=fee + 1, balance=balance + EV_WEI - fee - 1)
                    self.thrown_away.append({**place, "at_ms": self.now_ms + self.dice.randrange(20_000)})
                balance += EV_WEI - fee
                skew_ms = self.dice.randrange(-25_000, 25_000)
                self._event(place, fee=fee, balance=balance, at_ms=self.now_ms + skew_ms)
                self.issuances.append({**place, "at_ms": self.now_ms, "fee": fee, "id": id_at(self.now_ms)})
                if self.dice.random() < 0.1:  # behind our back: in the place of this payment, or in none of ours
                    if self.dice.random() < 0.5:
                        self._event(place, fee=fee, balance=balance)
                    else:
                        self._event(
                            {**place, "session": None, "state": secrets.token_hex(16)}, fee=fee, balance=balance
                        )
        for event in self.events:
            if self.dice.random() >= 0.15:
                self.lines += [event] * self.dice.choice([1, 1, 1, 1, 2])
        self.dice.shuffle(self.lines)

    def _event(self, place: dict[str, Any], *, fee: int, balance: int, at_ms: int | None = None) -> None:
        at_ms = self.now_ms if at_ms is None else at_ms
        self.events.append({**place, "fee": fee, "balance": balance, "at_ms": at_ms, "id": str(uuid.uuid4())})

    def line(self, event: dict[str, Any]) -> str:
        data = {
            "auth_id": auth_id(self.gateway, event["session"]) if event["session"] else "someone",
            "computed_fee": str(event["fee"]), "manifest_id": "m", "num_tickets": 1, "orch_address": "0x" + "11" * 20,
            "pm_session_id": event["rand"].hex(), "sequence_number": event["sequence"],
            "session_balance": str(event["balance"]), "session_id": event["state"],
        }  # fmt: skip
        fields = {"id": event["id"], "type": "create_signed_ticket", "timestamp": str(event["at_ms"]), "data": data}
        return json.dumps(fields)

    def expected(self) -> tuple[Counter[str], set[tuple[str, str]]]:
        """How many of each kind there are; and of those kinds whose subjects are certain, which."""
        told = {event["id"]: event for event in self.lines}
        subjects = {
            ("duplicate", id_) for id_, count in Counter(event["id"] for event in self.lines).items() if count > 1
        }
        first, newest = min(e["at_ms"] for e in told.values()), max(e["at_ms"] for e in told.values())
        by_place = Counter(place_of(event) for event in told.values())
        excess = 0
        for place, count in by_place.items():
            known = sum(place_of(each) == place for each in (*self.issuances, *self.thrown_away))
            excess += max(count - (known if place[0] is not None else 0), 0)
        for issuance in self.issuances:
            if not by_place[place_of(issuance)] and first <= issuance["at_ms"] <= newest:
                subjects.add(("issuance_without_event", show("iss", issuance["id"])))
        states: dict[str, list[int]] = {}
        for event in told.values():
            states.setdefault(event["state"], []).append(event["sequence"])
        for state, numbers in states.items():
            for low, high in zip(sorted(set(numbers)), sorted(set(numbers))[1:], strict=False):
                if high > low + 1:
                    subjects.add(("sequence_missing", f"{state}:{low + 1}-{high - 1}"))
        counts = Counter(kind for kind, _ in subjects)
        counts["event_without_issuance"] = excess
        return +counts, subjects


def place_of(thing: dict[str, Any]) -> tuple[Any, ...]:
    return thing["session"], thing["sequence"], thing["rand"], thing["state"] if thing["session"] is None else ""


def id_at(at_ms: int) -> uuid.UUID:
    return uuid.UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | secrets.randbits(61))


def write(conninfo: str, history: History) -> None:
    with psycopg.connect(conninfo) as owner:
        owner.execute("INSERT INTO gateway (id, name) VALUES (%s, %s)", [history.gateway, str(history.gateway)])
        for each in history.issuances:
            owner.execute(
                """INSERT INTO issuance (gateway_id, id, session_id, sequence, key_id, sender, recipient_rand_hash,
                       first_nonce, num_tickets, face_value_wei, win_prob, creation_round, ev_wei, fee_wei, charge,
                       currency, price, price_source, price_observed_at, markup_bps, balance_after)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, 1, 1, 1, 1, 1, %s, %s, 1, 'USD', 1, 'test', now(), 0, 1)""",
                [history.gateway, each["id"], each["session"], each["sequence"], uuid.uuid4(), bytes(20), each["rand"],
                 EV_WEI, each["fee"]],
            )  # fmt: skip
        for each in history.thrown_away:
            owner.execute(
                "INSERT INTO unreleased VALUES (%s, %s, %s, %s, %s, 1, 'test', to_timestamp(%s / 1000.0))",
                [uuid.uuid4(), history.gateway, each["session"], each["sequence"], each["rand"], each["at_ms"]],
            )


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_found_is_what_the_twin_finds(database: str, tmp_path: Path, seed: int) -> None:
    begins_at = datetime(2026, 1, 1, tzinfo=UTC)
    history = History(random.Random(seed), begins_ms=int(begins_at.timestamp() * 1000))
    history.run(sessions=8, payments=12)
    write(database, history)
    engine = async_engine(in_role(database, SERVE_ROLE))
    try:
        await record(engine, tmp_path, map(history.line, history.lines))
        report = await reconcile(
            engine, begins_at=begins_at - timedelta(minutes=5), ends_at=begins_at + timedelta(hours=9)
        )
        open_now = await findings(engine)
    finally:
        await engine.dispose()
    counts, subjects = history.expected()
    assert {str(kind): count for kind, count in report.found.items() if count} == dict(counts), seed
    found = {(each.kind, each.subject) for each in open_now}
    assert {each for each in found if each[0] != Found.EVENT_WITHOUT_ISSUANCE} == subjects, seed
    foreign = {event["id"] for event in history.lines if event["session"] is None}
    assert foreign <= {subject for kind, subject in found if kind == Found.EVENT_WITHOUT_ISSUANCE}, seed
