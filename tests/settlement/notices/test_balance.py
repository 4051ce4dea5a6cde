"""GET /v1/balance says what the notices say, at every step of a gateway's life: a service and a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
from clearinghouse.identity import keys
from clearinghouse.ids import show
from clearinghouse.ledger import transfers
from settlement.notices.evaluate import NoticeEvaluation
from settlement.notices.targets import Target, set_target
from settlement.schedule import Tick
from tests.parts.client import call
from tests.parts.service import Service, running


async def balance(service: Service, api_key: str) -> dict[str, Any]:
    answer = await call(service.port, "GET", "/v1/balance", headers=[("Authorization", f"Bearer {api_key}")])
    assert answer.status == 200
    document: dict[str, Any] = answer.json
    return document


async def test_the_balance_says_what_the_notices_say(database: str) -> None:
    work = async_engine(in_role(database, WORK_ROLE))
    async with running(database) as service:
        house = service.house
        gateway = await house.new_gateway(credit=Decimal(50))

        async def noticed() -> tuple[str, dict[str, Any]]:
            """The newest notice, where there is one."""
            await NoticeEvaluation(NoticeSettings(), DunningSettings()).tick(Tick(work, datetime.now(UTC)))
            rows = house.fetch("SELECT type, data FROM notice ORDER BY number DESC LIMIT 1")
            return rows[0] if rows else ("", {})

        async def withdraw(amount: int) -> None:
            async with house.engine.begin() as connection:
                await transfers.withdraw(connection, gateway.id, Decimal(amount), reason="x", actor="test")

        assert await noticed() == ("", {})
        assert (await balance(service, gateway.api_key))["status"] == "ok"

        async with house.engine.begin() as connection:
            await set_target(connection, Target(gateway.id, low_balance=Decimal(60)), actor="test")
        said = await noticed()
        read = await balance(service, gateway.api_key)
        assert said == ("balance.low", {name: read[name] for name in said[1]})
        assert (read["status"], read["low_balance"]) == ("low", "60")

        await withdraw(50)
        said = await noticed()
        read = await balance(service, gateway.api_key)
        assert said == ("balance.depleted", {name: read[name] for name in said[1]})
        assert read["status"] == "depleted"

        await house.grant(gateway, Decimal(100))
        assert (await noticed())[0] == "balance.recovered"
        assert (await balance(service, gateway.api_key))["status"] == "ok"

        await house.suspend(gateway)
        said = await noticed()
        read = await balance(service, gateway.api_key)
        assert said == ("gateway.suspended", {"reason": read["gateway_status_reason"]})
        assert read["gateway_status"] == "suspended"
        await house.resume(gateway)
        assert (await noticed())[0] == "gateway.resumed"
        assert (await balance(service, gateway.api_key))["gateway_status"] == "active"

        for days in (6, 8):
            expires_at = datetime.now(UTC) + timedelta(days=days)
            async with house.engine.begin() as connection:
                key = await keys.create(
                    connection, gateway.id, name=f"{days} days", pepper=b"p" * 32, expires_at=expires_at
                )
            if days == 6:
                ending = key.key
        said = await noticed()
        assert said == ("key.expiring", (await balance(service, gateway.api_key))["keys_expiring"][0])
        assert said[1]["key_id"] == show("key", ending.id)
        assert len((await balance(service, gateway.api_key))["keys_expiring"]) == 1
        async with house.engine.begin() as connection:
            await keys.revoke(connection, ending.public_id)
        assert (await balance(service, gateway.api_key))["keys_expiring"] == []
    await work.dispose()
