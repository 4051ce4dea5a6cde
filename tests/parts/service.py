"""The whole service on real ports, and the tenants whose money it keeps.

    async with running(database) as service:
        gateway = await service.house.new_gateway(tickets=10)
        stream = service.new_stream()
        answer = await service.pay(gateway, stream)       # POST /generate-live-payment

Several services over one database are several processes of one deployment: they share the ticket key and the pepper.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.signatures import keccak
from clearinghouse.config import Settings
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.identity import gateways, keys, limits, webhook_signers
from clearinghouse.ids import show
from clearinghouse.ledger import transfers
from clearinghouse.ledger.accounts import Standing, standing
from clearinghouse.ledger.verify import verify
from clearinghouse.service import RunningService, Secrets, running_service
from settlement.api import operators_routes
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.stack import (
    CREATION_ROUND,
    L1_BLOCK,
    PEPPER,
    SIGNER_KEY,
    TICKET_CHARGE_USD,
    USD_PER_ETH,
    Clock,
    Stream,
    TestGateway,
    offer,
)

EUR_PER_ETH = Decimal(2800)
#: Shorter than in production, so that a test need not wait; the order of the budgets is the same.
DEADLINE_S = 4.0
SIGNER_TIMEOUT_S = 2.0

GO_LIVEPEER = "/generate-live-payment"
OURS = "/v1/signTicket"


@dataclass(frozen=True)
class Sums:
    """One gateway's books: what was issued, what was debited, what is left."""

    issuances: int
    tickets: int
    ev_wei: int
    issued: Decimal
    debited: Decimal
    balance: Decimal
    credit_limit: Decimal


@dataclass
class House:
    """The database behind the services, as an operator works on it."""

    conninfo: str
    engine: AsyncEngine
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def new_gateway(
        self,
        *,
        tickets: int = 100,
        credit: Decimal | None = None,
        currency: str = "USD",
        credit_limit: Decimal = Decimal(0),
        expires_at: datetime | None = None,
        **terms: Any,
    ) -> TestGateway:
        """A gateway with one key and credit for exactly so many tickets of an offer, or the given credit."""
        amount = tickets * TICKET_CHARGE_USD if credit is None else credit
        async with self.engine.begin() as connection:
            name = f"gateway-{next(self._numbers)}-{secrets.token_hex(3)}"
            gateway = await gateways.create(connection, name, currency=currency, credit_limit=credit_limit, **terms)
            if amount:
                await transfers.grant(
                    connection, gateway.id, amount, reason="credit of a test", actor="test", expires_at=expires_at
                )
        return await self.new_key(gateway.id)

    async def grant(self, gateway: TestGateway, amount: Decimal) -> None:
        async with self.engine.begin() as connection:
            await transfers.grant(connection, gateway.id, amount, reason="more credit", actor="test")

    async def new_key(self, gateway_id: UUID, *, expires_at: datetime | None = None) -> TestGateway:
        async with self.engine.begin() as connection:
            key = await keys.create(connection, gateway_id, pepper=PEPPER, expires_at=expires_at)
        return TestGateway(gateway_id, key.api_key)

    async def limit_key(self, gateway: TestGateway, **changes: Decimal | int | None) -> None:
        """Of the key that it calls with, by the names that operators know."""
        async with self.engine.begin() as connection:
            key = await keys.find(connection, gateway.api_key.split("_")[1])
            await limits.set_key_limits(connection, key.id, changes)

    async def new_webhook_secret(self, sender: bytes = SIGNER_KEY.address) -> str:
        """Of a new signer that may ask the webhook; it signs with the ticket key of services in this process."""
        async with self.engine.begin() as connection:
            name = f"signer-{next(self._numbers)}-{secrets.token_hex(3)}"
            new = await webhook_signers.create(connection, name, sender=sender, pepper=PEPPER)
        return new.webhook_secret

    def expire_key(self, gateway: TestGateway) -> None:
        """Lets the time come at which it expires."""
        self._change("UPDATE api_key SET expires_at = now() WHERE public_id = %s AND expires_at > now()",
                     gateway.api_key.split("_")[1])  # fmt: skip

    def expire_credit(self, gateway: TestGateway) -> None:
        """Lets the time come at which its only credit that expires does; nothing has been tidied up by then."""
        self._change(
            "WITH lot AS (UPDATE credit_lot SET expires_at = now() "
            "WHERE account_id = %s AND remaining > 0 AND expires_at > now() RETURNING account_id) "
            "UPDATE account SET next_expiry_at = now() FROM lot WHERE id = lot.account_id", gateway.id,
        )  # fmt: skip

    async def revoke(self, gateway: TestGateway) -> None:
        async with self.engine.begin() as connection:
            await keys.revoke(connection, gateway.api_key.split("_")[1])

    async def suspend(self, gateway: TestGateway) -> None:
        async with self.engine.begin() as connection:
            await gateways.suspend(connection, gateway.id, reason="unpaid")

    async def resume(self, gateway: TestGateway) -> None:
        async with self.engine.begin() as connection:
            await gateways.resume(connection, gateway.id)

    async def standing(self, gateway: TestGateway) -> Standing:
        async with self.engine.connect() as connection:
            return await standing(connection, gateway.id)

    def fetch(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """As the owner of the database, apart from all of our own code."""
        with psycopg.connect(self.conninfo) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def _change(self, query: str, *parameters: Any) -> None:
        """One row, as `fetch`."""
        with psycopg.connect(self.conninfo) as connection:
            assert connection.execute(query.encode(), parameters).rowcount == 1

    def sums(self, gateway: TestGateway) -> Sums:
        ((issuances, tickets, ev_wei, issued, debited, balance, credit_limit),) = self.fetch(_SUMS, gateway.id)
        return Sums(issuances, tickets, int(ev_wei), issued, debited, balance, credit_limit)

    def fingerprint(self) -> tuple[Any, ...]:
        """Changes whenever money, an issuance, a session, a nonce or a stored answer does."""
        return self.fetch(_FINGERPRINT)[0]

    async def require_sound_books(self) -> None:
        report = await verify(self.engine)
        assert report.is_clean, report.findings


_SUMS = """
    SELECT count(i.id), coalesce(sum(i.num_tickets), 0)::bigint, coalesce(sum(i.ev_wei), 0), coalesce(sum(i.charge), 0),
           (SELECT -coalesce(sum(amount), 0) FROM posting WHERE account_id = a.id AND amount < 0),
           a.balance, a.credit_limit
      FROM account a LEFT JOIN issuance i ON i.gateway_id = a.id
     WHERE a.id = %s GROUP BY a.id
"""
_FINGERPRINT = """
    SELECT (SELECT count(*) FROM transfer), (SELECT count(*) FROM issuance), (SELECT sum(balance) FROM account),
           (SELECT count(*) FROM keyed_answer), (SELECT md5(string_agg(s::text, '' ORDER BY id)) FROM session s),
           (SELECT md5(string_agg(r::text, '' ORDER BY hash)) FROM recipient_rand r)
"""


@asynccontextmanager
async def house_of(conninfo: str) -> AsyncIterator[House]:
    """The books of the services over `conninfo`, wherever these run."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE))
    try:
        yield House(conninfo, engine)
    finally:
        await engine.dispose()


@dataclass
class Served(ABC):
    """One process of the service, on ports of its own, and those who call it."""

    house: House

    @property
    @abstractmethod
    def port(self) -> int:
        """Of HTTP."""

    def new_stream(self, *, tickets: int = 1, **settings: Any) -> Stream:
        """A new session's stream: each call of its type "fixed" costs `tickets` tickets, whatever the clock says."""
        return Stream(offer(Clock(), tickets=tickets), **settings)

    async def sign(
        self, gateway: TestGateway, body: bytes, *headers: tuple[str, str], path: str = GO_LIVEPEER, **how: Any
    ) -> Answer:
        """One call with the gateway's key, judged by nobody."""
        return await client.post(self.port, path, body, ("Authorization", gateway.authorization), *headers, **how)

    async def lose(self, gateway: TestGateway, body: bytes, *headers: tuple[str, str]) -> None:
        """A call whose answer is lost: it is recorded, and the caller hangs up without having read a byte."""
        recorded = self.house.sums(gateway).issuances
        async with client.unheard(self.port, GO_LIVEPEER, body, ("Authorization", gateway.authorization), *headers):
            async with asyncio.timeout(client.CLIENT_TIMEOUT_S):
                while self.house.sums(gateway).issuances == recorded:
                    await asyncio.sleep(0.01)

    async def pay(self, gateway: TestGateway, stream: Stream, *headers: tuple[str, str]) -> Answer:
        """The stream's next payment, which must succeed; the stream then holds the newest state."""
        answer = await self.sign(gateway, stream.body(), *headers)
        assert answer.status == 200, (answer.status, answer.body)
        stream.learn(answer.body)
        return answer


@dataclass
class Service(Served):
    """One that runs in this process."""

    running: RunningService

    @property
    def port(self) -> int:
        return self.running.http_port


@asynccontextmanager
async def running(
    conninfo: str,
    *,
    signer_urls: Sequence[str] = (),
    serve_conninfo: str | None = None,
    request_deadline_s: float = DEADLINE_S,
    price_max_age_s: int = 300,
    policy: Mapping[str, Any] | None = None,
    coverage: Mapping[str, Any] | None = None,
    escrow: Mapping[str, Any] | None = None,
    chain: Mapping[str, Any] | None = None,
    price: Mapping[str, Any] | None = None,
    processes_count: int = 1,
    listen: Mapping[str, Any] | None = None,
    admin_token: str | None = None,
    webhook: Mapping[str, Any] | None = None,
    signer_events: Mapping[str, Any] | None = None,
    stripe: Mapping[str, Any] | None = None,
    dunning: Mapping[str, Any] | None = None,
    usd_per_eth: Decimal = USD_PER_ETH,
) -> AsyncIterator[Service]:
    """A service over `conninfo` with the native signer, or in front of signers at `signer_urls`.

    `serve_conninfo` is another way to the same database, for the service alone. `policy`, `coverage`, `escrow`,
    `chain`, `price`, `listen`, `webhook`, `signer_events`, `stripe` and `dunning` have settings of these sections that
    differ from the defaults; the native signer's own limit on face values follows `policy`. With `admin_token` there
    is a management API.
    """
    policy = policy or {}
    signer = {
        "kind": "go_livepeer" if signer_urls else "native",
        "native": {"deposit_multiplier_count": policy.get("face_value_divisor_count", 50)},
        "go_livepeer": {"urls": list(signer_urls), "timeout_s": SIGNER_TIMEOUT_S},
    }
    settings = Settings.model_validate(
        {
            "listen": {"http_port": 0, "grpc_port": 0, **(listen or {})},
            "api": {"admin_token": admin_token} if admin_token is not None else {},
            "signer": signer,
            "escrow": {
                "last_initialized_round": CREATION_ROUND,
                "last_initialized_round_block_hash": "0x" + keccak(b"round 3500").hex(),
                "last_seen_l1_block": L1_BLOCK,
                **(escrow or {}),
            },
            "policy": policy,
            "coverage": coverage or {},
            "chain": chain or {},
            "signer_events": signer_events or {},
            "stripe": stripe or {},
            "dunning": dunning or {},
            "price": {
                "declared": {"USD": f"{usd_per_eth}", "EUR": f"{EUR_PER_ETH}"},
                "max_age_s": price_max_age_s,
                **(price or {}),
            },
            "limits": {"request_deadline_s": request_deadline_s, "processes_count": processes_count},
            "webhook": webhook or {},
        }
    )
    async with (
        house_of(conninfo) as house,
        running_service(
            settings,
            conninfo=serve_conninfo or conninfo,
            admin_conninfo=conninfo if admin_token is not None else None,
            secrets=Secrets(api_key_pepper=PEPPER, native_key=SIGNER_KEY),
            routes=operators_routes(),
        ) as service,
    ):
        yield Service(house, service)


def our_body(document: dict[str, Any], **further: Any) -> dict[str, Any]:
    """The same request in the spelling of /v1/signTicket."""
    names = {"ManifestID": "manifest_id", "inPixels": "in_pixels", "maxPrice": "max_price"}
    ours = {names.get(key, key): value for key, value in document.items()}
    if (state := ours.get("state")) is not None:
        ours["state"] = {"state": state["State"], "sig": state["Sig"]}
    return {**ours, **further}


def gateway_text(gateway: TestGateway) -> str:
    """As the API shows its id."""
    return show("gw", gateway.id)
