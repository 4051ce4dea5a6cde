"""What operators do in a storm: for real, in role clearinghouse_admin, and then told to the twin."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import Conflict, OutOfCredit
from clearinghouse.identity import gateways, keys, limits
from clearinghouse.ids import parse, show
from clearinghouse.ledger import accounts, transfers
from tests.parts.stack import PEPPER, TICKET_CHARGE_USD, TICKET_EV_WEI
from tests.storm.schedule import GATEWAYS, Change
from tests.storm.twin import Cover, Gateway, Terms, Twin

TICKET = Fraction(TICKET_CHARGE_USD)
_EXACT = Context(prec=120, traps=[Inexact])
_GATEWAY_LIMITS = (
    "calls_per_day", "spend_per_day", "spend_per_month", "ev_open", "sessions_open", "sessions_open_per_orchestrator",
)  # fmt: skip
_KEY_LIMITS = ("calls_per_day", "spend_per_day", "ev_open", "sessions_open")


@dataclass
class Tenant:
    """A gateway and its keys, by their public part. The newest key is last."""

    id: str
    api_keys: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def uuid(self) -> UUID:
        return parse("gw", self.id)

    @property
    def newest_key(self) -> str:
        return next(reversed(self.api_keys))


class Operators:
    """`engine` is in role clearinghouse_admin; `orchestrators` are the addresses that sessions are with.

    `cover` sets what the deposit covers, at random: what that is for each gateway.
    """

    def __init__(
        self,
        twin: Twin,
        engine: AsyncEngine,
        orchestrators: list[bytes],
        *,
        cover: Callable[[random.Random], Awaitable[dict[UUID, Cover]]],
    ) -> None:
        self._twin = twin
        self._engine = engine
        self._set_cover = cover
        self._orchestrators = orchestrators
        self.tenants: list[Tenant] = []
        self._acts: dict[str, Callable[[Tenant, Terms, int], Awaitable[None]]] = {
            "grant": self._grant,
            "withdraw": self._withdraw,
            "credit_limit": self._credit_limit,
            "suspend": self._suspend,
            "resume": self._resume,
            "pricing": self._pricing,
            "rotate_key": self._rotate_key,
            "revoke_key": self._revoke_key,
            "limit": self._limit,
            "key_limit": self._key_limit,
            "no_limits": self._no_limits,
            "cover": self._cover,
        }

    async def open_tenants(self) -> None:
        """A rich one, a poor one, one on credit with a markup and a minimum, and one in another currency."""
        plans = [
            Terms("USD", granted=TICKET * 10**5),
            Terms("USD", granted=TICKET * 30),
            Terms("USD", Fraction(0), credit_limit=TICKET * 2000, markup_bps=250, minimum_charge=TICKET * 2),
            Terms("EUR", granted=TICKET * 3000),
        ]
        assert len(plans) == GATEWAYS
        for number, terms in enumerate(plans):
            await self.open_tenant(f"tenant-{number}", terms)

    async def open_tenant(self, name: str, terms: Terms) -> Tenant:
        async with self._engine.begin() as connection:
            gateway = await gateways.create(
                connection,
                name,
                currency=terms.currency,
                markup_bps=terms.markup_bps,
                minimum_charge=decimal_of(terms.minimum_charge),
                credit_limit=decimal_of(terms.credit_limit),
            )
            if terms.granted:
                granted = decimal_of(terms.granted)
                await transfers.grant(connection, gateway.id, granted, reason="to begin with", actor="storm")
        tenant = Tenant(show("gw", gateway.id))
        self._twin.open_gateway(tenant.id, terms)
        await self._new_key(tenant)
        self.tenants.append(tenant)
        return tenant

    async def change(self, event: Change) -> None:
        tenant = self.tenants[event.gateway]
        await self._acts[event.what](tenant, self._gateway(tenant).terms, event.amount)

    def _gateway(self, tenant: Tenant) -> Gateway:
        return self._twin.gateways[tenant.id]

    # --- credit -------------------------------------------------------------------------------------------------------

    async def _grant(self, tenant: Tenant, terms: Terms, amount: int) -> None:
        more = TICKET * (amount % 20 + 1)
        async with self._engine.begin() as connection:
            await transfers.grant(connection, tenant.uuid, decimal_of(more), reason="more", actor="storm")
        self._twin.change(tenant.id, granted=terms.granted + more)

    async def _withdraw(self, tenant: Tenant, terms: Terms, amount: int) -> None:
        """Nothing changes where there is less than that."""
        less = TICKET * (amount % 20 + 1)
        try:
            async with self._engine.begin() as connection:
                await transfers.withdraw(connection, tenant.uuid, decimal_of(less), reason="back", actor="storm")
        except OutOfCredit:
            return
        self._twin.change(tenant.id, granted=terms.granted - less)

    async def _credit_limit(self, tenant: Tenant, _terms: Terms, amount: int) -> None:
        """Nothing changes where more is owed already."""
        limit = TICKET * amount * 10
        try:
            async with self._engine.begin() as connection:
                await accounts.set_limit(connection, tenant.uuid, decimal_of(limit))
        except Conflict:
            return
        self._twin.change(tenant.id, credit_limit=limit)

    async def _pricing(self, tenant: Tenant, _terms: Terms, amount: int) -> None:
        markup_bps, minimum = amount * 37, TICKET * (amount % 4) / 2
        async with self._engine.begin() as connection:
            await gateways.set_pricing(
                connection, tenant.uuid, markup_bps=markup_bps, minimum_charge=decimal_of(minimum)
            )
        self._twin.change(tenant.id, markup_bps=markup_bps, minimum_charge=minimum)

    # --- who may call -------------------------------------------------------------------------------------------------

    async def _suspend(self, tenant: Tenant, _terms: Terms, _amount: int) -> None:
        async with self._engine.begin() as connection:
            await gateways.suspend(connection, tenant.uuid, reason="a storm")
        self._twin.change(tenant.id, is_suspended=True)

    async def _resume(self, _tenant: Tenant, _terms: Terms, _amount: int) -> None:
        """All that are suspended, so that not everybody ends up so."""
        for tenant in self.tenants:
            if self._gateway(tenant).terms.is_suspended:
                async with self._engine.begin() as connection:
                    await gateways.resume(connection, tenant.uuid)
                self._twin.change(tenant.id, is_suspended=False)

    async def _rotate_key(self, tenant: Tenant, terms: Terms, amount: int) -> None:
        """With and without a time in which both are valid."""
        old, grace = tenant.newest_key, timedelta(hours=amount % 2)
        async with self._engine.begin() as connection:
            new = await keys.rotate(connection, old, pepper=PEPPER, grace=grace)
        tenant.api_keys[new.key.public_id] = new.api_key
        given = {(new.key.public_id, name): most for (key, name), most in terms.key_limits.items() if key == old}
        self._twin.change(
            tenant.id,
            keys=(terms.keys if grace else terms.keys - {old}) | {new.key.public_id},
            key_limits={**terms.key_limits, **given},
        )

    async def _revoke_key(self, tenant: Tenant, terms: Terms, _amount: int) -> None:
        """The newest, and there is a new one at once."""
        old = tenant.newest_key
        async with self._engine.begin() as connection:
            await keys.revoke(connection, old)
        self._twin.change(tenant.id, keys=terms.keys - {old})
        await self._new_key(tenant)

    async def _new_key(self, tenant: Tenant) -> None:
        async with self._engine.begin() as connection:
            new = await keys.create(connection, tenant.uuid, pepper=PEPPER)
        tenant.api_keys[new.key.public_id] = new.api_key
        self._twin.change(tenant.id, keys=self._gateway(tenant).terms.keys | {new.key.public_id})

    # --- limits -------------------------------------------------------------------------------------------------------

    async def _limit(self, tenant: Tenant, terms: Terms, amount: int) -> None:
        """A little above what is used, or a little below."""
        name = _GATEWAY_LIMITS[amount % len(_GATEWAY_LIMITS)]
        most = max(self._used(tenant, name) + _unit(name) * (amount % 7 - 1), Fraction(0))
        async with self._engine.begin() as connection:
            await limits.set_gateway_limits(connection, tenant.uuid, {name: _quantity(name, most)})
        self._twin.change(tenant.id, limits={**terms.limits, name: most})

    async def _key_limit(self, tenant: Tenant, terms: Terms, amount: int) -> None:
        """So much above what the key has used."""
        key, name = tenant.newest_key, _KEY_LIMITS[amount % len(_KEY_LIMITS)]
        more = amount // len(_KEY_LIMITS) % (12 if name in ("spend_per_day", "ev_open") else 4)
        most = self._used_by_key(tenant, key, name) + _unit(name) * more
        async with self._engine.begin() as connection:
            key_id = (await keys.find(connection, key)).id
            await limits.set_key_limits(connection, key_id, {name: _quantity(name, most)})
        self._twin.change(tenant.id, key_limits={**terms.key_limits, (key, name): most})

    async def _no_limits(self, tenant: Tenant, terms: Terms, _amount: int) -> None:
        async with self._engine.begin() as connection:
            await limits.set_gateway_limits(connection, tenant.uuid, dict.fromkeys(_GATEWAY_LIMITS))
            for key in {key for key, _ in terms.key_limits}:
                key_id = (await keys.find(connection, key)).id
                await limits.set_key_limits(connection, key_id, dict.fromkeys(_KEY_LIMITS))
        self._twin.change(tenant.id, limits={}, key_limits={})

    async def _cover(self, _tenant: Tenant, _terms: Terms, amount: int) -> None:
        covers = await self._set_cover(random.Random(amount))
        for tenant in self.tenants:
            self._twin.change(tenant.id, cover=covers[tenant.uuid])

    def _used(self, tenant: Tenant, name: str) -> Fraction:
        used, day = self._gateway(tenant).used, datetime.now(UTC).date()
        if name == "sessions_open_per_orchestrator":
            return Fraction(
                max(self._twin.open_sessions(tenant.id, orchestrator=address) for address in self._orchestrators)
            )
        by_name: dict[str, Fraction | int] = {
            "calls_per_day": used.calls[day],
            "spend_per_day": used.spent[day],
            "spend_per_month": used.spent_in_month(day),
            "ev_open": used.ev_open_wei(day),
            "sessions_open": self._twin.open_sessions(tenant.id),
        }
        return Fraction(by_name[name])

    def _used_by_key(self, tenant: Tenant, key: str, name: str) -> Fraction:
        used, day = self._gateway(tenant).used_by_key[key], datetime.now(UTC).date()
        by_name: dict[str, Fraction | int] = {
            "calls_per_day": used.calls[day],
            "spend_per_day": used.spent[day],
            "ev_open": used.ev_open_wei(day),
            "sessions_open": self._twin.open_sessions(tenant.id, opened_by=key),
        }
        return Fraction(by_name[name])


def _unit(name: str) -> Fraction:
    """What a call of one ticket uses, about."""
    return TICKET if "spend" in name else Fraction(TICKET_EV_WEI if name == "ev_open" else 1)


def decimal_of(amount: Fraction) -> Decimal:
    """The same amount, to the last digit; decimal.Inexact where that cannot be."""
    return _EXACT.divide(Decimal(amount.numerator), Decimal(amount.denominator))


def _quantity(name: str, most: Fraction) -> Decimal | int:
    return decimal_of(most) if "spend" in name else int(most)
