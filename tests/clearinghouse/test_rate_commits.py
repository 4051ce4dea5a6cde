"""A commit charges by a rate card what the pure quotes say, to the last digit, whatever came before in the month.

The quotes have a slow twin of their own (tests/clearinghouse/rates). Here the same calls go through `commit_issuances`,
some of them together, and `ledger verify` computes every charge once more from the rows.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import rate_store
from clearinghouse.database.connect import ADMIN_ROLE, in_role
from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity import gateways, keys, plans
from clearinghouse.ledger import transfers
from clearinghouse.ledger.verify import verify
from clearinghouse.rates.card import CardVersion, Floor, Meter, Rate, Tier
from clearinghouse.rates.quote import START, Position, quote_call
from clearinghouse.rates.reading import NAME_CHARS_MAX
from clearinghouse.rates.rules import StoredVersion
from clearinghouse.rates.units import BASE_PER_UNIT, Per
from clearinghouse.rates.usage import Cost, Usage
from clearinghouse.rating import by_rule
from tests.clearinghouse.rates.parts import cards
from tests.parts import books
from tests.parts.books import ETH, Connection, commit, commit_together

#: More than any cards and calls come to.
CREDIT = Decimal(10**30)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["", "app-a", "app-b"]),
        st.integers(1, 10**13),  # n·EV: up to two cents
        st.one_of(st.just(0), st.integers(0, 10**11), st.integers(0, 60).map(lambda s: s * 10**9)),
        st.integers(0, 10**9),
        st.integers(0, 5),
        st.booleans(),  # together with the one before
    ),
    min_size=1,
    max_size=12,
)


class Tenant:
    """A gateway with a key, much credit and a card of its own."""

    def __init__(self, gateway: gateways.Gateway, key: Any) -> None:
        self.gateway, self.key = gateway, key
        self.version = 0

    def usage(self, stored: StoredVersion, usage: Usage, ev_wei: int, *, may_be_below_cost: bool) -> books.Usage:
        rate = stored.version.rate(*usage[:3])
        rules = rate_store.Rules((stored,))
        rule = rules.at(stored.version.card, datetime.now(UTC), *usage[:3])
        assert rule.rate is rate
        priced = by_rule(rule, usage, Cost(ev_wei, ETH), may_be_below_cost=may_be_below_cost)
        return books.Usage(
            self.gateway.id, self.key, priced.charge, ev_wei, ceilings_version=self.version, rate_rule=priced.rule_id,
            quantity=priced.quantity,
        )  # fmt: skip


async def tenant_of(admin: AsyncEngine, **terms: Any) -> Tenant:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, f"gateway-{secrets.token_hex(4)}", **terms)
        key = await keys.create(connection, gateway.id, pepper=b"p" * 32)
        await transfers.grant(connection, gateway.id, CREDIT, reason="test", actor="test")
    return Tenant(gateway, key.key.id)


async def put_on(
    admin: AsyncEngine, tenant: Tenant, card: CardVersion, *, may_be_below_cost: bool = False
) -> StoredVersion:
    """The tenant's calls are charged by this card, which is applied where it was not."""
    async with admin.begin() as connection:
        stored = await rate_store.apply(connection, card, is_correction=False, actor="test")
    async with admin.begin() as connection:
        await rate_store.assign_to_gateway(connection, tenant.gateway, card.card, actor="test")
        if may_be_below_cost:
            name = f"cheap-{secrets.token_hex(4)}"
            await plans.create(connection, name, {}, currency=None, actor="test")
            await rate_store.assign_to_plan(connection, name, rate_store.NONE, may_be_below_cost=True, actor="test")
            await gateways.set_plan(connection, tenant.gateway, name)
    return stored


def learn(owner: Connection, tenant: Tenant) -> None:
    query = "SELECT ceilings_version FROM gateway WHERE id = %s"
    ((tenant.version,),) = owner.execute(query, [tenant.gateway.id]).fetchall()


def charges(owner: Connection, tenant: Tenant) -> list[Decimal]:
    query = "SELECT charge FROM issuance WHERE gateway_id = %s ORDER BY sequence"
    return [row[0] for row in owner.execute(query, [tenant.gateway.id])]


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example is a gateway: the first that fails will do
)
@given(card=cards(effective_from=LONG_AGO), calls=CALLS, may_be_below_cost=st.booleans())
async def test_every_charge_is_the_quote_at_its_place_in_the_month(
    admin: AsyncEngine, owner: Connection, card: CardVersion, calls: list[Any], may_be_below_cost: bool
) -> None:
    card = replace(card, card=f"card-{secrets.token_hex(4)}")
    tenant = await tenant_of(admin)
    stored = await put_on(admin, tenant, card, may_be_below_cost=may_be_below_cost)
    learn(owner, tenant)
    batches: list[list[books.Usage]] = []
    wanted: list[Decimal] = []
    positions: dict[Meter, Position] = {}
    for number, (application, ev_wei, duration_ns, pixels, requests, together) in enumerate(calls):
        usage = Usage(application, "live-video-to-video", "streamdiffusion", duration_ns, pixels, requests)
        meter = card.rate(*usage[:3]).meter
        quote = quote_call(
            card, usage, Cost(ev_wei, ETH), before=positions.get(meter, START), may_be_below_cost=may_be_below_cost
        )
        positions[meter] = quote.after
        wanted.append(quote.charge)
        asked = tenant.usage(stored, usage, ev_wei, may_be_below_cost=may_be_below_cost)
        assert asked.charge >= quote.charge, "what is asked for before the commit is never less"
        asked = replace(asked, sequence=number)
        batches = [*batches[:-1], [*batches[-1], asked]] if together and batches else [*batches, [asked]]
    for batch in batches:
        assert [code for code, _ in commit_together(owner, batch)] == [None] * len(batch)
    assert charges(owner, tenant) == wanted
    ((balance,),) = owner.execute("SELECT balance FROM account WHERE id = %s", [tenant.gateway.id]).fetchall()
    assert Fraction(balance) == 10**30 - sum(map(Fraction, wanted))
    report = await verify(admin)
    assert report.is_clean, report.findings


TIERED = CardVersion(
    "tiered", 1, "USD", LONG_AGO,
    (Rate(Per.REQUEST, (Tier(2, Decimal("0.1")), Tier(None, Decimal("0.07"))), floor=Floor.CALL),),
)  # fmt: skip
ONE = Usage("app", "", "", requests=1)


async def test_credit_ends_at_the_charge_and_not_at_the_most_it_could_have_been(
    admin: AsyncEngine, owner: Connection
) -> None:
    tenant = await tenant_of(admin)
    stored = await put_on(admin, tenant, TIERED)
    learn(owner, tenant)
    owner.execute("UPDATE account SET balance = 0.27 WHERE id = %s", [tenant.gateway.id])
    codes = [commit(owner, tenant.usage(stored, ONE, 1, may_be_below_cost=False)) for _ in range(4)]
    assert codes == [
        (None, Decimal("0.17")), (None, Decimal("0.07")), (None, 0), ("out_of_credit", 0),
    ]  # fmt: skip


async def test_a_month_begins_at_its_first_tier_again(admin: AsyncEngine, owner: Connection) -> None:
    tenant = await tenant_of(admin)
    stored = await put_on(admin, tenant, TIERED)
    learn(owner, tenant)
    for _ in range(3):
        assert commit(owner, tenant.usage(stored, ONE, 1, may_be_below_cost=False))[0] is None
    owner.execute("UPDATE rate_position SET month = month - interval '1 month'")
    assert commit(owner, replace(tenant.usage(stored, ONE, 1, may_be_below_cost=False), sequence=1))[0] is None
    assert charges(owner, tenant)[-1] == Decimal("0.1")


async def test_a_version_with_tiers_finds_what_was_used_by_one_without(admin: AsyncEngine, owner: Connection) -> None:
    """Two dollars a call: six at one price, of the next two one below the tier's end and one beyond it."""
    tenant = await tenant_of(admin)
    tiers = (Tier(7 * BASE_PER_UNIT[Per.COST], Decimal("1.1")), Tier(None, Decimal("1.02")))
    plain = replace(TIERED, rates=(Rate(Per.COST, (Tier(None, Decimal("1.05")),)),))
    stored = await put_on(admin, tenant, plain)
    learn(owner, tenant)
    calls = [
        replace(tenant.usage(stored, ONE, 10**15, may_be_below_cost=False), sequence=number) for number in range(3)
    ]
    assert [code for batch in (calls[:1], calls[1:]) for code, _ in commit_together(owner, batch)] == [None] * 3
    async with admin.begin() as connection:
        tiered = replace(plain, version=2, rates=(Rate(Per.COST, tiers),))
        stored = await rate_store.apply(connection, tiered, is_correction=True, actor="test")
        assert (await rate_store.position(connection, tenant.gateway.id, tiered.rates[0].meter, datetime.now(UTC))) == (
            6 * BASE_PER_UNIT[Per.COST], Decimal("6.3"), 6,
        )  # fmt: skip
    asked = tenant.usage(stored, ONE, 10**15, may_be_below_cost=False)
    assert commit(owner, replace(asked, sequence=3))[0] is None
    assert charges(owner, tenant) == [Decimal("2.1")] * 3 + [Decimal("1.1") + Decimal("1.02")]
    assert (await verify(admin)).is_clean


async def test_nothing_is_counted_for_a_call_that_is_refused(admin: AsyncEngine, owner: Connection) -> None:
    tenant = await tenant_of(admin)
    stored = await put_on(admin, tenant, TIERED)
    learn(owner, tenant)
    owner.execute("UPDATE account SET balance = 0.15 WHERE id = %s", [tenant.gateway.id])
    asked = [tenant.usage(stored, ONE, 1, may_be_below_cost=False) for _ in range(3)]
    assert [code for code, _ in commit_together(owner, asked)] == [None, "out_of_credit", "out_of_credit"]
    assert owner.execute("SELECT volume FROM rate_position").fetchall() == [(1,)]


# --- which version, and whose card ----------------------------------------------------------------------------------


def later(card: CardVersion, version: int, effective_from: datetime, price: str) -> CardVersion:
    rate = Rate(Per.REQUEST, (Tier(None, Decimal(price)),), floor=Floor.CALL)
    return replace(card, version=version, effective_from=effective_from, rates=(rate,))


async def test_a_version_that_does_not_hold_any_more_is_sent_back(admin: AsyncEngine, owner: Connection) -> None:
    tenant = await tenant_of(admin)
    first = await put_on(admin, tenant, TIERED)
    learn(owner, tenant)
    async with admin.begin() as connection:
        ahead = datetime.now(UTC) + timedelta(hours=1)
        await rate_store.apply(connection, later(TIERED, 2, ahead, "0.5"), is_correction=False, actor="test")
    asked = tenant.usage(first, ONE, 1, may_be_below_cost=False)
    assert commit(owner, asked)[0] is None, "one that begins later holds later"
    async with admin.begin() as connection:
        corrected = later(TIERED, 3, LONG_AGO, "0.3")
        second = await rate_store.apply(connection, corrected, is_correction=True, actor="test")
    asked = replace(tenant.usage(first, ONE, 1, may_be_below_cost=False), sequence=1)
    assert commit(owner, asked)[0] == "terms_changed"
    asked = replace(tenant.usage(second, ONE, 1, may_be_below_cost=False), sequence=1)
    assert commit(owner, asked)[0] is None
    assert charges(owner, tenant) == [Decimal("0.1"), Decimal("0.3")]
    assert (await verify(admin)).is_clean


async def test_whoever_is_put_on_a_card_or_taken_off_is_charged_so_for_the_next_call(
    admin: AsyncEngine, owner: Connection
) -> None:
    tenant = await tenant_of(admin)
    by_markup = books.usage(tenant.gateway.id, tenant.key)
    assert commit(owner, by_markup)[0] is None
    stored = await put_on(admin, tenant, TIERED)
    assert commit(owner, books.usage(tenant.gateway.id, tenant.key))[0] == "terms_changed"
    learn(owner, tenant)
    by_card = tenant.usage(stored, ONE, 1, may_be_below_cost=False)
    assert commit(owner, by_card)[0] is None
    async with admin.begin() as connection:
        await rate_store.assign_to_gateway(connection, tenant.gateway, rate_store.NONE, actor="test")
    assert commit(owner, tenant.usage(stored, ONE, 1, may_be_below_cost=False))[0] == "terms_changed"
    learn(owner, tenant)
    # Whoever still named a rule would be charged by a card that the gateway is not on.
    assert commit(owner, tenant.usage(stored, ONE, 1, may_be_below_cost=False))[0] == "terms_changed"
    assert (await verify(admin)).is_clean


async def test_a_plan_brings_its_card_to_its_gateways_and_a_gateways_own_stands_above(
    admin: AsyncEngine, owner: Connection
) -> None:
    tenant = await tenant_of(admin)
    own = replace(TIERED, card="own")

    async def card() -> tuple[str | None, bool]:
        async with admin.connect() as connection:
            return await rate_store.card_of(connection, tenant.gateway.id)

    async with admin.begin() as connection:
        for each in (TIERED, own):
            await rate_store.apply(connection, each, is_correction=False, actor="test")
        plan = await rate_store.assign_to_plan(connection, "default", "tiered", may_be_below_cost=True, actor="test")
    assert await card() == (None, False)
    await plans.apply(admin, plan)
    assert await card() == ("tiered", True)
    for chosen, found in (("own", "own"), ("none", None), ("inherit", "tiered")):
        async with admin.begin() as connection:
            await rate_store.assign_to_gateway(connection, tenant.gateway, chosen, actor="test")
        assert await card() == (found, True)
    fresh = await tenant_of(admin)
    async with admin.connect() as connection:
        assert await rate_store.card_of(connection, fresh.gateway.id) == ("tiered", True)
    assert (await verify(admin)).is_clean


async def test_a_card_in_another_currency_or_one_that_does_not_hold_yet_is_nobodys(admin: AsyncEngine) -> None:
    euro = await tenant_of(admin, currency="EUR")
    dollar = await tenant_of(admin)
    coming = replace(TIERED, card="coming", effective_from=datetime.now(UTC) + timedelta(days=1))
    async with admin.begin() as connection:
        for each in (TIERED, coming):
            await rate_store.apply(connection, each, is_correction=False, actor="test")
        await plans.create(connection, "sold", {}, currency=None, actor="test")
        await rate_store.assign_to_plan(connection, "sold", "tiered", may_be_below_cost=False, actor="test")
    async with admin.begin() as connection:
        with pytest.raises(Conflict, match=r"is in USD, and the account of .* is in EUR"):
            await rate_store.assign_to_gateway(connection, euro.gateway, "tiered", actor="test")
        with pytest.raises(Conflict, match=r"is in USD, and the account of .* which is on the plan, is in EUR"):
            await rate_store.assign_to_plan(connection, "default", "tiered", may_be_below_cost=False, actor="test")
        with pytest.raises(Conflict, match="charges by the rate card tiered, which is in USD"):
            await gateways.set_plan(connection, euro.gateway, "sold")
        with pytest.raises(Conflict, match="begins at"):
            await rate_store.assign_to_gateway(connection, dollar.gateway, "coming", actor="test")
        with pytest.raises(NotFound, match="no rate card other"):
            await rate_store.assign_to_gateway(connection, dollar.gateway, "other", actor="test")
        with pytest.raises(InvalidRequest, match="nothing to inherit"):
            await rate_store.assign_to_plan(connection, "sold", "inherit", may_be_below_cost=False, actor="test")


async def test_a_rate_for_the_longest_names_in_any_script_charges_its_calls(
    admin: AsyncEngine, owner: Connection
) -> None:
    letters = random.Random(1)
    names = ["".join(chr(letters.randrange(0x20000, 0x2A6D0)) for _ in range(NAME_CHARS_MAX)) for _ in range(3)]
    application, pipeline, model = names
    rate = replace(TIERED.rates[0], application=application, pipeline=pipeline, model=model)
    tenant = await tenant_of(admin)
    stored = await put_on(admin, tenant, replace(TIERED, rates=(rate,)))
    learn(owner, tenant)
    call = tenant.usage(stored, Usage(*names, duration_ns=10**9), 10**9, may_be_below_cost=False)
    assert commit(owner, call)[0] is None
    assert (await verify(admin)).is_clean


# --- what is applied stays ------------------------------------------------------------------------------------------


async def test_a_version_is_applied_once_and_read_back_as_it_was(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        stored = await rate_store.apply(connection, TIERED, is_correction=False, actor="test")
    async with admin.begin() as connection:
        assert await rate_store.apply(connection, TIERED, is_correction=False, actor="other") == stored
        assert (await rate_store.read_rules(connection)).stored == (stored,)
        with pytest.raises(Conflict, match="has two versions 1"):
            await rate_store.apply(connection, later(TIERED, 1, LONG_AGO, "9"), is_correction=True, actor="test")
        with pytest.raises(Conflict, match="for calls that were charged by another") as backdated:
            await rate_store.apply(connection, later(TIERED, 2, LONG_AGO, "9"), is_correction=False, actor="test")
        assert "clearinghouse rates apply --correction" in backdated.value.what_next
        for name in ("none", "inherit"):
            with pytest.raises(InvalidRequest, match="no rate card may be called"):
                await rate_store.apply(connection, replace(TIERED, card=name), is_correction=False, actor="test")


async def test_commits_wait_as_long_for_a_card_of_many_rates_as_for_a_small_one(admin: AsyncEngine) -> None:
    asked: list[str] = []
    event.listen(admin.sync_engine, "before_cursor_execute", lambda *execution: asked.append(execution[2]))
    rates = tuple(replace(TIERED.rates[0], model=f"model-{number}") for number in range(50))
    async with admin.begin() as connection:
        await rate_store.apply(connection, replace(TIERED, rates=rates), is_correction=False, actor="test")
        (held_from,) = (number for number, statement in enumerate(asked) if "hold_rate_cards" in statement)
        assert len(asked[held_from + 1 :]) == 4, "the newest rule, the card, its rates and their tiers"
        (stored,) = (await rate_store.read_rules(connection)).stored
    assert [stored.version.rates[place] for place in range(50)] == list(rates)
    assert list(stored.rule_ids) == sorted(stored.rule_ids)


@pytest.mark.parametrize("change", [
    "UPDATE rate_card SET effective_from = now()", "DELETE FROM rate_card", "UPDATE rate_rule SET minimum_charge = 0",
    "UPDATE rate_tier SET price = 0", "DELETE FROM rate_assignment",
])  # fmt: skip
async def test_neither_a_card_nor_who_was_on_it_can_be_changed(
    admin: AsyncEngine, owner: Connection, change: str
) -> None:
    await put_on(admin, await tenant_of(admin), TIERED)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        owner.execute(change.encode())


@pytest.mark.parametrize("addition", [
    "INSERT INTO rate_tier SELECT id, 7, 0, 0 FROM rate_rule",
    "INSERT INTO rate_rule (card, version, ordinal, per, base_per_unit, floor, minimum_charge, counts, meter) "
    "SELECT card, version, 99, per, base_per_unit, floor, 0, counts, meter FROM rate_rule",
])  # fmt: skip
async def test_nothing_is_added_to_a_version_that_was_applied(admin: AsyncEngine, database: str, addition: str) -> None:
    await put_on(admin, await tenant_of(admin), TIERED)
    with (
        psycopg.connect(in_role(database, ADMIN_ROLE), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="gets no further rate"),
    ):
        connection.execute(addition.encode())


# --- ledger verify --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "claim"), [
    ("UPDATE issuance SET charge = charge + 1, balance_after = balance_after - 1; UPDATE account SET "
     "balance = balance - 1, usage_total = usage_total + 1, spent_day = spent_day + 1, spent_month = spent_month + 1 "
     "WHERE gateway_id IS NOT NULL", "rate_charge"),
    ("UPDATE issuance SET volume_before = 2", "rate_charge rate_position"),
    ("UPDATE issuance SET lead_before = NULL", "rate_charge"),
    ("UPDATE issuance SET rate_rule = rate_rule + 7", "rate_charge rate_position"),
    ("UPDATE rate_card SET effective_from = now() + interval '1 day'", "rate_version"),
    ("UPDATE rate_position SET volume = volume + 1", "rate_position"),
    ("UPDATE gateway SET rate_card = NULL WHERE rate_card IS NOT NULL", "rate_cards"),
])  # fmt: skip
async def test_verify_finds_what_was_tampered_with(
    admin: AsyncEngine, owner: Connection, change: str, claim: str
) -> None:
    tenant = await tenant_of(admin)
    stored = await put_on(admin, tenant, TIERED)
    learn(owner, tenant)
    assert commit(owner, tenant.usage(stored, ONE, 1, may_be_below_cost=False))[0] is None
    assert (await verify(admin)).is_clean
    owner.execute(f"SET session_replication_role = replica; {change}; SET session_replication_role = DEFAULT".encode())
    found = {finding.claim for finding in (await verify(admin)).findings}
    assert found == set(claim.split())
