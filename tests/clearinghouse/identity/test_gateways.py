from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity import gateways
from clearinghouse.ids import show, uuid7
from clearinghouse.ledger.verify import verify
from tests.parts.books import Connection


async def test_a_gateway_is_found_by_name_and_by_id(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        made = await gateways.create(
            connection, "acme", currency="EUR", markup_bps=250, minimum_charge=Decimal("0.001")
        )
        assert await gateways.find(connection, "acme") == made
        assert await gateways.find(connection, show("gw", made.id)) == made
    assert (made.name, made.status, made.currency, made.markup_bps) == ("acme", "active", "EUR", 250)
    assert made.minimum_charge == Decimal("0.001")


async def test_an_unknown_gateway_is_not_found(admin: AsyncEngine) -> None:
    async with admin.connect() as connection:
        for name in ("nobody", show("gw", uuid7())):
            with pytest.raises(NotFound, match=f"there is no gateway {name}"):
                await gateways.find(connection, name)
        with pytest.raises(InvalidRequest, match="32 lower-case hex digits"):
            await gateways.find(connection, "gw_1")


async def test_a_taken_name_is_a_conflict_also_when_two_come_at_once(admin: AsyncEngine) -> None:
    async def create() -> object:
        async with admin.begin() as connection:
            return await gateways.create(connection, "acme")

    outcomes = await asyncio.gather(*(create() for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(outcome, gateways.Gateway) for outcome in outcomes) == 1
    conflicts = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert [str(conflict) for conflict in conflicts] == ["there is a gateway named acme already"] * 5
    assert (await verify(admin)).is_clean


async def test_gateways_may_be_called_like_system_accounts(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        for name in ("revenue", "funding", "expired"):
            await gateways.create(connection, name)
        assert [gateway.name for gateway in await gateways.list_gateways(connection)] == [
            "expired", "funding", "revenue",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "1 to 128 characters, not 0"),
        ("x" * 129, "not 129"),
        ("gw_acme", "cannot begin with gw_"),
        ("-acme", "begins with a letter or digit"),
        ("a b", "only the letters"),
        ("acme\n", "only the letters"),
        ("ácme", "only the letters"),
        ("a/b", "only the letters"),
    ],
)
async def test_unusable_names_are_refused_with_the_rule_they_break(admin: AsyncEngine, name: str, reason: str) -> None:
    async with admin.begin() as connection:
        with pytest.raises(InvalidRequest, match=reason):
            await gateways.create(connection, name)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "7", "x" * 128])
async def test_usable_names_are_taken_as_they_are(admin: AsyncEngine, name: str) -> None:
    async with admin.begin() as connection:
        assert (await gateways.create(connection, name)).name == name


async def test_suspending_and_resuming_keep_the_rest(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        made = await gateways.create(connection, "acme", markup_bps=250)
        suspended = await gateways.suspend(connection, made.id, reason="chargeback")
        assert (suspended.status, suspended.status_reason, suspended.markup_bps) == ("suspended", "chargeback", 250)
        assert await gateways.resume(connection, made.id) == made
        assert await gateways.resume(connection, made.id) == made
        with pytest.raises(InvalidRequest, match="a reason is needed"):
            await gateways.suspend(connection, made.id, reason=" ")
        with pytest.raises(NotFound):
            await gateways.suspend(connection, uuid7(), reason="gone")


async def test_pricing_changes_only_what_is_given(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        made = await gateways.create(connection, "acme", markup_bps=250, minimum_charge=Decimal("0.5"))
        changed = await gateways.set_pricing(connection, made.id, markup_bps=0)
        assert (changed.markup_bps, changed.minimum_charge) == (0, Decimal("0.5"))
        changed = await gateways.set_pricing(connection, made.id, minimum_charge=Decimal(0))
        assert (changed.markup_bps, changed.minimum_charge) == (0, 0)
        with pytest.raises(InvalidRequest, match="name a markup"):
            await gateways.set_pricing(connection, made.id)
        with pytest.raises(InvalidRequest, match="basis points"):
            await gateways.set_pricing(connection, made.id, markup_bps=-1)
        with pytest.raises(InvalidRequest, match="cannot be negative"):
            await gateways.set_pricing(connection, made.id, minimum_charge=Decimal(-1))


async def test_system_accounts_are_opened_once_per_currency(admin: AsyncEngine, owner: Connection) -> None:
    async with admin.begin() as connection:
        for name, currency in (("a", "USD"), ("b", "USD"), ("c", "ETH")):
            await gateways.create(connection, name, currency=currency)
    query = "SELECT currency, name FROM account WHERE gateway_id IS NULL ORDER BY 1, 2"
    names = ("expired", "funding", "included", "revenue", "rounding", "written_off")
    assert owner.execute(query).fetchall() == [(code, name) for code in ("ETH", "USD") for name in names]


@pytest.mark.parametrize(
    "terms", [{"currency": "usd"}, {"markup_bps": 1_000_001}, {"minimum_charge": Decimal(-1)},
              {"credit_limit": Decimal(-1)}],
)  # fmt: skip
async def test_unusable_terms_are_refused_before_anything_is_made(admin: AsyncEngine, terms: dict[str, object]) -> None:
    async with admin.begin() as connection:
        with pytest.raises(InvalidRequest):
            await gateways.create(connection, "acme", **terms)  # type: ignore[arg-type]
        assert await gateways.list_gateways(connection) == []
