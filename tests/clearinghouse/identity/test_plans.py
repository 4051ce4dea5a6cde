"""Plans: what a gateway is limited by is what its plan and its own limits come to, whoever changes what, and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Mapping
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import AccountBusy, Conflict, InvalidRequest, NotFound
from clearinghouse.identity import gateways, keys, limits, plans
from clearinghouse.identity.gateways import Gateway
from clearinghouse.identity.limits import GATEWAY_LIMITS, INHERIT, Inherited
from clearinghouse.identity.plans import DEFAULT_PLAN, Plan
from clearinghouse.ledger import transfers
from clearinghouse.ledger.verify import verify
from clearinghouse.policy import CEILINGS
from tests.parts.books import Connection, commit, usage_costing

Value = Decimal | int | Inherited | None


async def make_plan(admin: AsyncEngine, name: str, currency: str | None = None, **wanted: str) -> Plan:
    async with admin.begin() as connection:
        return await plans.create(connection, name, wanted, currency=currency, actor="test")


async def change_plan(admin: AsyncEngine, name: str, currency: str | None = None, **wanted: str) -> Plan:
    async with admin.begin() as connection:
        changed = await plans.change(connection, name, wanted, currency=currency, actor="test")
    await plans.apply(admin, changed)
    async with admin.connect() as connection:
        return await plans.find(connection, name)


async def make_gateway(admin: AsyncEngine, name: str, plan: str = DEFAULT_PLAN, currency: str = "USD") -> Gateway:
    async with admin.begin() as connection:
        return await gateways.create(connection, name, plan=plan, currency=currency)


async def put_on(admin: AsyncEngine, gateway: Gateway, plan: str) -> None:
    async with admin.begin() as connection:
        await gateways.set_plan(connection, gateway, plan)


async def override(admin: AsyncEngine, gateway: Gateway, **values: Value) -> None:
    async with admin.begin() as connection:
        await limits.set_gateway_limits(connection, gateway.id, values)


async def in_force(admin: AsyncEngine, gateway: Gateway) -> dict[str, Decimal | int | None]:
    """What calls of the gateway are limited by, by the limit's name."""
    async with admin.connect() as connection:
        found = await limits.gateway_limits(connection, gateway.id)
    return {
        "requests_per_s": found.requests_per_s,
        "burst_count": found.burst_count,
        **{str(use.limit): use.allowed for use in found.limits},
        **{ceiling.name: ceiling.max_wei_per_unit for ceiling in found.ceilings},
    }


def some_values(rng: random.Random) -> dict[str, Decimal | int | None]:
    """A few limits, some of them none. Small numbers, so that equal ones come up."""
    names = rng.sample(GATEWAY_LIMITS, rng.randrange(1, 6))
    return {name: rng.choice([None, rng.randrange(1, 6), rng.randrange(1, 6)]) for name in names}


def as_written(values: Mapping[str, Value]) -> dict[str, str | None]:
    return {name: "none" if value is None else str(value) for name, value in values.items()}


def effective(name: str, planned: Mapping[str, Value], own: Mapping[str, Value]) -> Value:
    """The rule, in a line: what is the gateway's own, else what is its plan's; of two ceilings the lower one."""
    if name in CEILINGS:
        there = [value for value in (planned.get(name), own.get(name)) if isinstance(value, int | Decimal)]
        return min(there, default=None)
    return own[name] if name in own else planned.get(name)


@pytest.mark.parametrize("seed", range(8))
async def test_a_limit_is_the_gateways_own_or_else_its_plans_and_of_ceilings_the_lower_one(
    admin: AsyncEngine, seed: int
) -> None:
    rng = random.Random(seed)
    planned: dict[str, dict[str, Value]] = {
        "default": {"sessions_open": 20_000, "sessions_open_per_orchestrator": 5000}
    }
    for name in ("small", "large"):
        values = some_values(rng)
        await make_plan(admin, name, "USD", **as_written(values))  # type: ignore[arg-type]
        planned[name] = dict(values)
    found = [await make_gateway(admin, f"gateway-{number}", rng.choice(["small", "default"])) for number in range(3)]
    on = {gateway.id: gateway.plan for gateway in found}
    own: dict[object, dict[str, Value]] = {gateway.id: {} for gateway in found}
    for _ in range(12):
        gateway, plan = rng.choice(found), rng.choice(["small", "large", "default"])
        match rng.randrange(4):
            case 0:
                changes = some_values(rng)
                await change_plan(admin, plan, "USD", **as_written(changes))  # type: ignore[arg-type]
                planned[plan] |= changes
            case 1:
                await put_on(admin, gateway, plan)
                on[gateway.id] = plan
            case 2:
                values = some_values(rng)
                await override(admin, gateway, **values)
                own[gateway.id] |= values
            case _:
                left = dict.fromkeys(some_values(rng), INHERIT)
                await override(admin, gateway, **left)
                own[gateway.id] = {name: value for name, value in own[gateway.id].items() if name not in left}
        for one in found:
            expected = {name: effective(name, planned[on[one.id]], own[one.id]) for name in GATEWAY_LIMITS}
            assert await in_force(admin, one) == expected
    assert (await verify(admin)).is_clean


async def test_whose_a_limit_is_is_said(admin: AsyncEngine) -> None:
    await make_plan(admin, "small", calls_per_day="10", price_live="5", price_fixed="5")
    gateway = await make_gateway(admin, "acme", "small")
    await override(admin, gateway, calls_per_day=None, price_live=6, price_fixed=Decimal("4.5"), price_lv2v=1)
    async with admin.connect() as connection:
        found = await limits.gateway_limits(connection, gateway.id)
    assert (found.plan, found.own_limits) == ("small", ("calls_per_day", "price_fixed", "price_live", "price_lv2v"))
    assert [(ceiling.name, ceiling.max_wei_per_unit, ceiling.is_own) for ceiling in found.ceilings] == [
        ("price_live", 5, False), ("price_lv2v", 1, True), ("price_fixed", Decimal("4.5"), True),
        ("price_untyped", None, False),
    ]  # fmt: skip


async def test_a_plan_is_made_with_what_is_named_and_no_other_limit(admin: AsyncEngine) -> None:
    made = await make_plan(admin, "small", "EUR", spend_per_day="5.50", price_live="0.001")
    assert {name: value for name, value in made.limits.items() if value is not None} == {
        "spend_per_day": Decimal("5.5"), "price_live": Decimal("0.001"),
    }  # fmt: skip
    assert (made.currency, made.gateways_count, made.is_applied, made.changed_by) == ("EUR", 0, True, "test")
    async with admin.connect() as connection:
        assert [plan.name for plan in await plans.list_plans(connection)] == ["default", "small"]
        assert (await plans.find(connection, "default")).limits == dict.fromkeys(GATEWAY_LIMITS) | {
            "sessions_open": 20_000, "sessions_open_per_orchestrator": 5000,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "currency", "reason"),
    [
        ({"spend_per_day": "5"}, None, "spend_per_day: say in which currency"),
        ({"spend_per_day": "5"}, "dollars", "a currency is 3 to 8 capital letters"),
        ({"spend_per_day": "5.1234567890123"}, "USD", "spend_per_day: the amount 5.1234567890123 is too fine"),
        ({"calls_per_day": "inherit"}, None, "calls_per_day: a whole number from 0"),
        ({"requests_per_s": "0"}, None, "requests_per_s: a whole number from 1"),
        ({"price_live": "0"}, None, "price_live: wei per second are needed, a decimal number above 0"),
        ({"price_lv2v": "-1"}, None, "price_lv2v: wei per pixel are needed"),
        ({"price_fixed": "1e9"}, None, "price_fixed: wei per call are needed"),
        ({"price_untyped": "0." + "0" * 18 + "1"}, None, "at most 18 decimals"),
    ],
)
async def test_a_plan_that_cannot_be_is_refused_and_leaves_nothing(
    admin: AsyncEngine, wanted: dict[str, str], currency: str | None, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason.replace(".", r"\.").replace("(", r"\(")):
        await make_plan(admin, "small", currency, **wanted)
    with pytest.raises(InvalidRequest, match=reason):
        await change_plan(admin, "default", currency, **wanted)
    async with admin.connect() as connection:
        (only,) = await plans.list_plans(connection)
    assert (only.name, only.currency, only.version) == ("default", None, 1)


@pytest.mark.parametrize("name", ["", "a" * 129, "größe", "-x", "a/b", "a b"])
async def test_a_name_that_would_not_fit_into_a_url_is_refused(admin: AsyncEngine, name: str) -> None:
    with pytest.raises(InvalidRequest, match="a plan's name has"):
        await make_plan(admin, name)


async def test_names_are_taken_once_and_unknown_ones_are_not_found(admin: AsyncEngine) -> None:
    await make_plan(admin, "small")
    with pytest.raises(Conflict, match="there is a plan named small already"):
        await make_plan(admin, "small")
    with pytest.raises(NotFound, match="there is no plan large"):
        await change_plan(admin, "large", calls_per_day="1")
    with pytest.raises(NotFound, match="there is no plan large"):
        await make_gateway(admin, "acme", "large")
    with pytest.raises(NotFound, match="there is no plan"):
        await make_gateway(admin, "acme", "a name with \0, which the database does not have")
    with pytest.raises(InvalidRequest, match="name at least one of currency, requests_per_s"):
        await change_plan(admin, "small")


async def test_a_plan_is_deleted_when_nobody_is_on_it_and_the_default_one_never(admin: AsyncEngine) -> None:
    await make_plan(admin, "small", calls_per_day="1")
    gateway = await make_gateway(admin, "acme", "small")
    for name, reason in (("small", "1 gateways are on the plan small"), ("default", "the plan default stays")):
        with pytest.raises(Conflict, match=reason):
            async with admin.begin() as connection:
                await plans.delete(connection, name)
    await put_on(admin, gateway, "default")
    async with admin.begin() as connection:
        await plans.delete(connection, "small")
        assert [plan.name for plan in await plans.list_plans(connection)] == ["default"]


async def test_a_limit_on_spend_holds_in_its_currency_and_nowhere_else(admin: AsyncEngine) -> None:
    """A gateway in another currency would have no limit where its operator thinks there is one."""
    await make_plan(admin, "small", "USD", spend_per_day="5")
    euros = await make_gateway(admin, "euros", currency="EUR")
    with pytest.raises(Conflict, match="the plan small limits spend in USD, and the account of euros is in EUR"):
        await put_on(admin, euros, "small")
    with pytest.raises(Conflict, match="the account of more is in EUR"):
        await make_gateway(admin, "more", "small", "EUR")
    with pytest.raises(Conflict, match="the gateway euros is on the plan default, and its account is in EUR"):
        await change_plan(admin, "default", "USD", spend_per_day="5")
    with pytest.raises(InvalidRequest, match="currency: the plan limits spend_per_day, which has to be in one"):
        await change_plan(admin, "small", "none")
    await change_plan(admin, "small", "none", spend_per_day="none", calls_per_day="3")
    await put_on(admin, euros, "small")
    assert (await in_force(admin, euros))["calls_per_day"] == 3


async def test_the_currency_of_limits_on_spend_can_change_while_no_account_is_in_the_old_one(
    admin: AsyncEngine,
) -> None:
    await make_plan(admin, "small", "USD", spend_per_day="5")
    assert (await change_plan(admin, "small", "EUR")).currency == "EUR"
    euros = await make_gateway(admin, "euros", "small", "EUR")
    assert (await in_force(admin, euros))["spend_per_day"] == 5


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "APPLIED_AT_ONCE_COUNT", 4)


async def many(admin: AsyncEngine, count: int, plan: str) -> list[Gateway]:
    found = [await make_gateway(admin, f"gateway-{number}", plan) for number in range(count)]
    return sorted(found, key=lambda gateway: gateway.id)


async def calls_per_day(admin: AsyncEngine, found: Iterable[Gateway]) -> list[Value]:
    return [(await in_force(admin, gateway))["calls_per_day"] for gateway in found]


@pytest.mark.usefixtures("few_at_once")
async def test_a_change_comes_to_some_gateways_at_a_time_and_says_how_far_it_is(admin: AsyncEngine) -> None:
    await make_plan(admin, "small", calls_per_day="1")
    found = await many(admin, 10, "small")
    heard: list[int] = []
    async with admin.begin() as connection:
        changed = await plans.change(connection, "small", {"calls_per_day": "2"}, currency=None, actor="test")
    await plans.apply(admin, changed, progress=heard.append)
    assert heard == [4, 8, 10]
    assert await calls_per_day(admin, found) == [2] * 10
    async with admin.connect() as connection:
        assert (await plans.find(connection, "small")).is_applied


@pytest.mark.usefixtures("few_at_once")
async def test_a_change_that_is_cut_off_at_a_held_account_is_ended_by_whoever_finds_it(
    admin: AsyncEngine, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_plan(admin, "small", calls_per_day="1")
    found = await many(admin, 10, "small")
    monkeypatch.setattr(plans, "LOCK_TIMEOUT_MS", 200)
    with owner.transaction():
        owner.execute("SELECT FROM account WHERE id = %s FOR NO KEY UPDATE", [found[5].id])
        with pytest.raises(AccountBusy, match="The plan small is changed, and 4 of its gateways have it so"):
            await change_plan(admin, "small", calls_per_day="2")
    assert await calls_per_day(admin, found) == [2] * 4 + [1] * 6
    async with admin.connect() as connection:
        assert not (await plans.find(connection, "small")).is_applied
    assert (await verify(admin)).is_clean  # it is on its way
    assert await plans.apply_left_over(admin) == 0  # whoever changed it may still be at it
    monkeypatch.undo()
    monkeypatch.setattr(plans, "APPLIED_WITHIN_S", 0)
    assert await plans.apply_left_over(admin) == 1
    assert await calls_per_day(admin, found) == [2] * 10


@pytest.mark.parametrize("change", ["a limit of its own", "another plan", "a new gateway"])
async def test_who_looks_at_a_plan_that_is_being_changed_waits_and_sees_the_change(
    admin: AsyncEngine, change: str
) -> None:
    """The change goes to the gateways that are on the plan when it is made: whoever comes later must not miss it."""
    await make_plan(admin, "small", calls_per_day="1")
    gateway = await make_gateway(admin, "acme", "default" if change == "another plan" else "small")
    await override(admin, gateway, sessions_open=7)
    async with admin.begin() as connection:
        await plans.change(connection, "small", {"calls_per_day": "2"}, currency=None, actor="test")
        if change == "a limit of its own":
            meanwhile = asyncio.create_task(override(admin, gateway, sessions_open=8))
        elif change == "another plan":
            meanwhile = asyncio.create_task(put_on(admin, gateway, "small"))
        else:
            meanwhile = asyncio.create_task(_discarded(make_gateway(admin, "new", "small")))
        await asyncio.sleep(0.3)
        assert not meanwhile.done()
    await meanwhile
    async with admin.connect() as connection:
        found = await gateways.find(connection, "new" if change == "a new gateway" else "acme")
    assert (await in_force(admin, found))["calls_per_day"] == 2


async def _discarded(made: Awaitable[object]) -> None:
    await made


@pytest.mark.usefixtures("few_at_once")
async def test_whatever_is_changed_at_once_the_limits_agree_in_the_end_and_nobody_deadlocks(
    admin: AsyncEngine, owner: Connection
) -> None:
    rng = random.Random(3)
    for name in ("small", "large"):
        await make_plan(admin, name, "USD", calls_per_day="1000")
    found = await many(admin, 9, "small")
    async with admin.begin() as connection:
        payers = [(one.id, (await keys.create(connection, one.id, pepper=b"p" * 32)).key.id) for one in found]
        for one in found:
            await transfers.grant(connection, one.id, Decimal(1000), reason="test", actor="test")

    async def change_often(plan: str) -> None:
        for _ in range(8):
            await change_plan(admin, plan, **as_written({"calls_per_day": rng.randrange(500, 900), "burst_count": 3}))  # type: ignore[arg-type]

    async def move_often() -> None:
        for _ in range(24):
            await put_on(admin, rng.choice(found), rng.choice(["small", "large", "default"]))

    async def override_often() -> None:
        for _ in range(24):
            value = rng.choice([INHERIT, None, rng.randrange(500, 900)])
            await override(admin, rng.choice(found), calls_per_day=value, price_live=rng.randrange(1, 9))

    def pay_often() -> None:
        for number in range(60):
            code, _ = commit(owner, usage_costing(*payers[number % 9], Decimal(1), ceilings_version=0))
            assert code in (None, "terms_changed", "account_busy")

    await asyncio.gather(
        change_often("small"), change_often("large"), change_often("large"), move_often(), override_often(),
        override_often(), asyncio.to_thread(pay_often),
    )  # fmt: skip
    report = await verify(admin)
    assert report.findings == ()
    async with admin.connect() as connection:
        assert all(plan.is_applied for plan in await plans.list_plans(connection))
