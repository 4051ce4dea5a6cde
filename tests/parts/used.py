"""Usage of any time: issuances put into the books as if committed then, and the slow way to add them up."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, localcontext
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from clearinghouse.usage_query import Answer, Question, Sums
from tests.parts.books import Connection


class Kind(NamedTuple):
    """What usage is told apart by, but for the day."""

    app: str = "app"
    pipeline: str = "live-video-to-video"
    model: str = "model"
    job_type: str = "lv2v"


@dataclass(frozen=True)
class Used:
    """One issuance, as far as sums know it."""

    gateway_id: UUID
    at: datetime
    kind: Kind
    sums: Sums


SESSION = """
    INSERT INTO session (id, gateway_id, orchestrator, recipient, job_type, app, transcoder, pipeline, model,
                         head_state_hash, head_sequence, request_hash, issuance_id, answer, opened_by)
    SELECT %(id)s, %(gateway)s, %(address)s, %(address)s, %(job_type)s, %(app)s, 't', %(pipeline)s, %(model)s, %(hash)s,
           0, %(hash)s, gen_random_uuid(), '', gen_random_uuid()
"""
ISSUANCE = """
    WITH issued AS (
        INSERT INTO issuance (gateway_id, id, session_id, sequence, key_id, sender, recipient_rand_hash, first_nonce,
                              num_tickets, ev_wei, fee_wei, charge, currency, price, price_source, price_observed_at,
                              markup_bps, balance_after, created_at)
        VALUES (%(gateway)s, (left(uuid7_from(%(at)s)::text, 24) || right(gen_random_uuid()::text, 12))::uuid,
                %(session)s, 0, gen_random_uuid(), %(address)s, %(hash)s, 1, %(tickets)s, %(ev_wei)s, %(fee_wei)s,
                %(charge)s, 'USD', 1, 'declared', now(), 0, 0, %(at)s))
    UPDATE account SET usage_total = usage_total + %(charge)s, ev_total_wei = ev_total_wei + %(ev_wei)s
     WHERE id = %(gateway)s
"""


class Books:
    """Puts usage into the books, and remembers it."""

    def __init__(self, owner: Connection) -> None:
        self._owner = owner
        self._sessions: dict[tuple[UUID, Kind], UUID] = {}
        self.used: list[Used] = []

    def new_gateway(self) -> UUID:
        gateway = uuid4()
        self._owner.execute("INSERT INTO gateway (id, name) VALUES (%s, %s)", [gateway, str(gateway)])
        self._owner.execute(
            "INSERT INTO account (id, gateway_id, name, currency) VALUES (%s, %s, %s, 'USD')",
            [gateway, gateway, str(gateway)],
        )
        return gateway

    def use(
        self, gateway: UUID, at: datetime, kind: Kind | None = None, *, charge: Decimal = Decimal("0.000000001"),
        tickets: int = 1, ev_wei: int = 10**15,
    ) -> None:  # fmt: skip
        """One issuance of this time."""
        kind = kind or Kind()
        session = self._sessions.get((gateway, kind)) or self._new_session(gateway, kind)
        self._sessions[gateway, kind] = session
        used = Used(gateway, at, kind, Sums(1, tickets, ev_wei, ev_wei + 1, charge))
        values = {"gateway": gateway, "session": session, "at": at, "address": b"\x11" * 20, "hash": os.urandom(32)}
        self._owner.execute(ISSUANCE, values | used.sums._asdict())
        self.used.append(used)

    def _new_session(self, gateway: UUID, kind: Kind) -> UUID:
        session = uuid4()
        values = {"id": session, "gateway": gateway, "address": b"\x11" * 20, "hash": os.urandom(32)}
        self._owner.execute(SESSION, values | kind._asdict())
        return session


def slowly(used: Iterable[Used], gateway: UUID, asked: Question) -> dict[tuple[Any, ...], Sums]:
    """The same as clearinghouse.usage_query.usage_of, one by one: what is told apart, and its sums."""
    zone, found = ZoneInfo(asked.time_zone), dict[tuple[Any, ...], Sums]()
    for each in used:
        day = each.at.astimezone(zone).date()
        if each.gateway_id != gateway or not asked.first <= day <= asked.last:
            continue
        labels: dict[str, date | str] = {"day": day, **each.kind._asdict()}
        key = tuple(labels[name] for name in asked.by)
        with localcontext(prec=100):  # the usual 28 digits would round
            found[key] = Sums(*(one + other for one, other in zip(found.get(key, NOTHING), each.sums, strict=True)))
    return found


NOTHING = Sums(0, 0, 0, 0, Decimal(0))


def as_slowly(answer: Answer) -> dict[tuple[Any, ...], Sums]:
    """An answer in the form of `slowly`."""
    found = {tuple(getattr(group, name) for name in answer.question.by): group.sums for group in answer.groups}
    assert len(found) == len(answer.groups), "each group is there once"
    return found
