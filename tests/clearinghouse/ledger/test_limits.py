"""Limits inside one commit: many calls judged together, each as if it had come alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.housekeeping import close_idle_sessions
from clearinghouse.identity import gateways, keys, limits
from clearinghouse.ledger import transfers
from clearinghouse.ledger.verify import verify
from clearinghouse.usage import Limit
from tests.parts.books import Connection, Usage, commit, commit_together, usage, usage_costing

ORCHESTRATORS = (b"\x11" * 20, b"\x12" * 20)


@dataclass
class Payer:
    """A gateway with two keys, of which the second may have limits."""

    id: UUID
    keys: tuple[UUID, UUID]


async def new_payer(admin: AsyncEngine, name: str) -> Payer:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, name)
        made = [(await keys.create(connection, gateway.id, pepper=b"p" * 32)).key.id for _ in range(2)]
        await transfers.grant(connection, gateway.id, Decimal(1000), reason="test", actor="test")
    return Payer(gateway.id, (made[0], made[1]))


async def test_a_call_refused_for_a_limit_does_not_keep_out_smaller_ones_of_its_batch(
    admin: AsyncEngine, owner: Connection
) -> None:
    payer = await new_payer(admin, "acme")
    async with admin.begin() as connection:
        await limits.set_gateway_limits(connection, payer.id, {"spend_per_day": Decimal(10)})
    calls = [usage_costing(payer.id, payer.keys[0], Decimal(charge)) for charge in (7, 7, 2, 7, 1, 1)]
    outcomes = [code for code, _ in commit_together(owner, calls)]
    assert outcomes == [None, "spend_per_day", None, "spend_per_day", None, "spend_per_day"]


async def test_neighbours_in_a_batch_have_their_own_counters(admin: AsyncEngine, owner: Connection) -> None:
    payers = [await new_payer(admin, name) for name in ("one", "two", "three")]
    async with admin.begin() as connection:
        for most, payer in enumerate(payers):
            await limits.set_gateway_limits(connection, payer.id, {"calls_per_day": most})
    calls = [usage_costing(payer.id, payer.keys[0], Decimal(1)) for _ in range(3) for payer in payers]
    refused = [code is not None for code, _ in commit_together(owner, calls)]
    assert refused == [True, False, False, True, True, False, True, True, True]


async def test_every_payment_of_a_session_is_recorded_with_its_number(admin: AsyncEngine, owner: Connection) -> None:
    payer = await new_payer(admin, "acme")
    call = usage_costing(payer.id, payer.keys[0], Decimal(1))
    for _ in range(3):
        assert commit(owner, call)[0] is None
        call = call.continued()
    assert owner.execute("SELECT sequence FROM issuance ORDER BY id").fetchall() == [(0,), (1,), (2,)]


@dataclass
class Twin:
    """The same rules, one call at a time, in plain Python."""

    allowed: dict[str, Decimal | int]
    key_allowed: dict[str, Decimal | int]
    calls: int = 0
    spent: Decimal = Decimal(0)
    ev_wei: int = 0
    key_calls: int = 0
    key_spent: Decimal = Decimal(0)
    key_ev_wei: int = 0
    key_open: int = 0
    open: list[bytes] = field(default_factory=list)

    def judge(self, call: Usage, *, has_key_limits: bool) -> str | None:
        used: list[tuple[str, Decimal | int]] = [
            ("calls_per_day", self.calls + 1),
            ("spend_per_day", self.spent + call.charge),
            ("spend_per_month", self.spent + call.charge),
            ("ev_open", self.ev_wei + call.ev_wei),
        ]
        if call.is_new:
            used.append(("sessions_open", len(self.open) + 1))
        if has_key_limits:
            used.append(("key_calls_per_day", self.key_calls + 1))
            used += [(name, self.key_spent + call.charge) for name in ("key_spend_per_day", "key_spend_per_month")]
            used.append(("key_ev_open", self.key_ev_wei + call.ev_wei))
            if call.is_new:
                used.append(("key_sessions_open", self.key_open + 1))
        if call.is_new:
            used.append(("sessions_open_per_orchestrator", self.open.count(call.orchestrator) + 1))
        allowed = self.allowed | {f"key_{name}": most for name, most in self.key_allowed.items()}
        for name, amount in used:
            if name in allowed and amount > allowed[name]:
                return name
        self.calls, self.spent, self.ev_wei = self.calls + 1, self.spent + call.charge, self.ev_wei + call.ev_wei
        if has_key_limits:
            self.key_calls, self.key_spent = self.key_calls + 1, self.key_spent + call.charge
            self.key_ev_wei, self.key_open = self.key_ev_wei + call.ev_wei, self.key_open + call.is_new
        if call.is_new:
            self.open.append(call.orchestrator)
        return None


def some_limits(rng: random.Random, names: tuple[str, ...]) -> dict[str, Decimal | int]:
    most: dict[str, Decimal | int] = {
        "calls_per_day": rng.randrange(20),
        "spend_per_day": Decimal(rng.randrange(60)),
        "spend_per_month": Decimal(rng.randrange(60)),
        "ev_open": rng.randrange(60) * 5 * 10**14,
        "sessions_open": rng.randrange(10),
        "sessions_open_per_orchestrator": rng.randrange(6),
    }
    return {name: amount for name, amount in most.items() if name in names and rng.random() < 0.4}


@pytest.mark.parametrize("seed", range(12))
async def test_any_history_of_batches_is_judged_as_one_call_after_the_other(
    admin: AsyncEngine, owner: Connection, seed: int
) -> None:
    rng = random.Random(seed)
    payer = await new_payer(admin, "acme")
    _, limited = payer.keys
    twin = Twin(some_limits(rng, limits.GATEWAY_LIMITS), some_limits(rng, limits.KEY_LIMITS))
    async with admin.begin() as connection:
        # Both begin without limits on sessions, of which the twin knows nothing.
        lifted = dict.fromkeys(("sessions_open", "sessions_open_per_orchestrator"))
        await limits.set_gateway_limits(connection, payer.id, lifted | twin.allowed)
        if twin.key_allowed:
            await limits.set_key_limits(connection, limited, twin.key_allowed)
    heads: list[Usage] = []
    for _ in range(12):
        batch: list[Usage] = []
        for _ in range(rng.randrange(1, 6)):
            if heads and rng.random() < 0.5:  # either key goes on with what either opened
                call = heads.pop(rng.randrange(len(heads))).continued(num_tickets=rng.randrange(1, 5))
                call = replace(call, key_id=rng.choice(payer.keys))
            else:
                charge, orchestrator = Decimal(rng.randrange(1, 8)), rng.choice(ORCHESTRATORS)
                call = usage_costing(payer.id, rng.choice(payer.keys), charge, orchestrator=orchestrator)
            batch.append(call)
        expected = [
            twin.judge(call, has_key_limits=bool(twin.key_allowed) and call.key_id == limited) for call in batch
        ]
        assert [code for code, _ in commit_together(owner, batch)] == expected
        heads += [call for call, code in zip(batch, expected, strict=True) if code is None]
    assert (await verify(admin)).findings == ()


async def test_a_session_counts_for_the_key_that_opened_it_last_whoever_goes_on_with_it(
    admin: AsyncEngine, owner: Connection
) -> None:
    payer = await new_payer(admin, "acme")
    first, second = payer.keys
    for key in payer.keys:
        async with admin.begin() as connection:
            await limits.set_key_limits(connection, key, {"sessions_open": 1, "ev_open": 10**16})
    opened = usage(payer.id, first, approved=b"states")  # at the webhook, where a repeat may have nothing due
    went_on = replace(opened.continued(num_tickets=2), key_id=second)
    assert [commit(owner, call)[0] for call in (opened, went_on)] == [None, None]
    assert await _open_of(admin, payer) == [(1, 10**15), (0, 2 * 10**15)]
    assert commit(owner, usage(payer.id, first))[0] == "key_sessions_open"
    owner.execute("SELECT close_idle_sessions(%s, interval '0')", [payer.id])
    assert await _open_of(admin, payer) == [(0, 10**15), (0, 2 * 10**15)]
    assert commit(owner, went_on.continued(num_tickets=0))[0] is None
    assert await _open_of(admin, payer) == [(0, 10**15), (1, 2 * 10**15)]
    assert commit(owner, usage(payer.id, second))[0] == "key_sessions_open"
    assert commit(owner, usage(payer.id, first))[0] is None
    assert (await verify(admin)).findings == ()


async def _open_of(admin: AsyncEngine, payer: Payer) -> list[tuple[int, int]]:
    """Of both keys: open sessions, and open expected value in wei."""
    async with admin.begin() as connection:
        found = [await limits.key_limits(connection, key) for key in payer.keys]
    by_name = [{use.limit: int(use.used) for use in key.limits} for key in found]
    return [(used[Limit.KEY_SESSIONS_OPEN], used[Limit.KEY_EV_OPEN]) for used in by_name]


async def test_idle_sessions_are_closed_gateway_by_gateway_and_a_held_account_waits(
    admin: AsyncEngine, owner: Connection, database: str
) -> None:
    held, free = [await new_payer(admin, name) for name in ("held", "free")]
    for payer in (held, free):
        calls = [usage_costing(payer.id, payer.keys[0], Decimal(1)) for _ in range(2)]
        assert [code for code, _ in commit_together(owner, calls)] == [None, None]
    engine = async_engine(in_role(database, SERVE_ROLE))
    with owner.transaction():
        owner.execute("SELECT 1 FROM account WHERE id = %s FOR UPDATE", [held.id])
        assert await close_idle_sessions(engine, idle=timedelta(0)) == 2
    assert await close_idle_sessions(engine, idle=timedelta(0)) == 2
    await engine.dispose()
    assert owner.execute("SELECT sum(sessions_open)::int FROM account").fetchone() == (0,)
    assert owner.execute("SELECT count(*) FROM open_sessions").fetchone() == (0,)
    assert (await verify(admin)).findings == ()
