"""The command line and the HTTP API show one thing in one way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.api import shapes
from clearinghouse.api.bodies import NewGatewayLimits, NewPlan
from clearinghouse.documents import (
    balance_document,
    fees_document,
    gateway_document,
    key_document,
    limits_document,
    new_key_document,
    new_webhook_secret_document,
    plan_document,
    report_document,
    transfer_document,
    webhook_signer_document,
)
from clearinghouse.identity import gateways, keys, limits, plans, webhook_signers
from clearinghouse.ids import show
from clearinghouse.ledger import accounts, transfers
from clearinghouse.ledger.verify import verify


async def test_the_command_line_and_the_api_show_the_same(admin: AsyncEngine) -> None:
    in_a_day = datetime.now(UTC) + timedelta(days=1)
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme", minimum_charge=Decimal("0.10"))
        new = await keys.create(connection, gateway.id, pepper=b"p" * 32, name="production", expires_at=in_a_day)
        booked = await transfers.grant(
            connection, gateway.id, Decimal("5.00"), reason="a test", actor="test", key="k", expires_at=in_a_day
        )
        now = await accounts.standing(connection, gateway.id)
        secret = await webhook_signers.create(connection, "signer-1", sender=bytes(20), pepper=b"p" * 32)
    assert gateway_document(gateway) == shapes.gateway_answer(gateway).model_dump()
    assert balance_document(now) == shapes.balance_answer(now).model_dump()
    shown = gateway_document(gateway) | balance_document(now) | fees_document(now)
    assert shown == shapes.gateway_standing(gateway, now).model_dump()
    assert transfer_document(booked, now) == shapes.transfer_answer(booked, now).model_dump()
    assert new_webhook_secret_document(secret) == shapes.new_webhook_secret_answer(secret).model_dump()
    registered = shapes.webhook_signer_answer(secret.registered)
    assert webhook_signer_document(secret.registered) == registered.model_dump()
    for document, answer in (
        (key_document(new.key), shapes.key_answer(new.key)),
        (new_key_document(new), shapes.new_key_answer(new)),
    ):
        assert document.pop("key_id") == show("key", new.key.id)
        assert document == answer.model_dump(exclude={"id"} | ({"key_id"} & answer.model_fields_set))


async def test_both_show_the_same_of_plans_and_limits(admin: AsyncEngine) -> None:
    async with admin.begin() as connection:
        wanted = {"spend_per_day": "5.00", "price_live": "0.50"}
        plan = await plans.create(connection, "small", wanted, currency="USD", actor="test")
        gateway = await gateways.create(connection, "acme", plan="small")
        now = await limits.set_gateway_limits(connection, gateway.id, {"price_live": 1, "calls_per_day": 5})
    document = plan_document(plan)
    assert document == shapes.plan_answer(plan).model_dump()
    assert list(document["limits"]) == list(limits.GATEWAY_LIMITS) == list(NewGatewayLimits.model_fields)
    assert NewPlan.model_fields.keys() == {"currency", *limits.GATEWAY_LIMITS}
    shown = limits_document(now)
    assert shown == shapes.limits_answer(now).model_dump()
    assert (shown["plan"], shown["own_limits"]) == ("small", ["calls_per_day", "price_live"])
    assert shown["ceilings"][0] == {
        "ceiling": "price_live", "allowed": "0.5", "unit": "wei per second", "set_by": "plan",
    }  # fmt: skip


async def test_the_report_lists_every_claim_with_its_sentence(admin: AsyncEngine) -> None:
    report = await verify(admin)
    document = report_document(report)
    assert document["is_clean"] is True
    assert document["findings"] == []
    assert [claim["claim"] for claim in document["claims"]] == [verdict.claim for verdict in report.verdicts]
    assert all(claim["sentence"].endswith(".") and claim["violations"] == 0 for claim in document["claims"])
