"""A gateway to try things out with: made at the first start of `clearinghouse dev`, found again at every other."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.config import Settings
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.errors import NotFound, Refusal
from clearinghouse.identity import gateways, keys
from clearinghouse.ids import show
from clearinghouse.ledger import accounts, transfers
from clearinghouse.ledger.money import show_amount
from clearinghouse.secrets import DEMO_API_KEY_FILE_NAME, SECRETS_DIR_NAME, new_token, read_or_create, replace

NAME: Final = "demo"
CREDIT: Final = Decimal(10)
ACTOR: Final = "clearinghouse dev"


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo gateway, ready to sign. The API key is a secret that exists to be shown."""

    gateway_id: str
    name: str
    api_key: str
    available: str
    currency: str


def for_development(settings: Settings) -> Settings:
    """The settings with what a development service may give itself: a token for the management API."""
    if settings.api.admin_token is not None:
        return settings
    token = read_or_create(settings.data_dir / SECRETS_DIR_NAME / "admin_token", new_token)
    return settings.model_copy(update={"api": settings.api.model_copy(update={"admin_token": SecretStr(token)})})


def with_local_stripe(settings: Settings) -> Settings:
    """The settings with the local Stripe that the floor above starts beside the service. None of it is a secret."""
    stripe = {
        "api_key": SecretStr("sk_test_local_clearinghouse"),
        "api_url": "http://127.0.0.1:12111",
        "webhook_secrets": (SecretStr("whsec_local_clearinghouse"),),
    }
    payments = {"return_url": f"http://{settings.listen.host}:{settings.listen.http_port}/docs"}
    return settings.model_copy(
        update={
            "stripe": settings.stripe.model_copy(update=stripe),
            "payments": settings.payments.model_copy(update=payments),
        }
    )


async def ensure_demo(conninfo: str, settings: Settings, pepper: bytes) -> Demo:
    """The demo gateway with an active key; a new one gets CREDIT. Credit that was used up is not given again."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE, application_name="clearinghouse-demo"), pool_size=1)
    try:
        async with engine.begin() as connection:
            gateway = await _gateway(connection)
            api_key = await _api_key(connection, gateway, settings, pepper)
            standing = await accounts.standing(connection, gateway.id)
    finally:
        await engine.dispose()
    return Demo(
        gateway_id=show("gw", gateway.id),
        name=gateway.name,
        api_key=api_key,
        available=show_amount(standing.available),
        currency=standing.currency,
    )


async def _gateway(connection: AsyncConnection) -> gateways.Gateway:
    try:
        return await gateways.find(connection, NAME)
    except NotFound:
        gateway = await gateways.create(connection, NAME)
        await transfers.grant(connection, gateway.id, CREDIT, reason="to try it out", actor=ACTOR, key="demo-credit")
        return gateway


async def _api_key(connection: AsyncConnection, gateway: gateways.Gateway, settings: Settings, pepper: bytes) -> str:
    """The key kept in the data directory, as long as it works; else a new one takes its place."""
    path = settings.data_dir / SECRETS_DIR_NAME / DEMO_API_KEY_FILE_NAME
    if path.exists():
        kept = path.read_text(encoding="utf-8").strip()
        try:
            read = keys.API_KEY.read(kept)
            record = await keys.find(connection, read.public_id) if keys.API_KEY.was_made_here(pepper, read) else None
        except Refusal:
            record = None  # from another database, or damaged: replaced below
        if record is not None and record.status == "active" and record.gateway_id == gateway.id:
            return kept
    new = await keys.create(connection, gateway.id, pepper=pepper, name="demo")
    replace(path, new.api_key)
    return new.api_key
