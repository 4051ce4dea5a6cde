"""What the tests of signer events have in common: a service that pays, lines into the table, what is open then."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.ids import show
from clearinghouse.signer_events.reconcile import Expected, Finding, Report, open_findings, reconcile
from clearinghouse.signer_events.store import Counts, record_file
from tests.parts import client
from tests.parts.event_signer import ReportingSigner
from tests.parts.service import Service
from tests.parts.stack import Stream, TestGateway

HOUR = timedelta(hours=1)


async def record(engine: AsyncEngine, folder: Path, lines: Iterable[str], name: str = "events.jsonl") -> Counts:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return await record_file(engine, path)


async def reconcile_all(engine: AsyncEngine, expected: Expected = Expected()) -> Report:  # noqa: B008
    now = datetime.now(UTC)
    return await reconcile(engine, begins_at=now - HOUR, ends_at=now + timedelta(seconds=1), expected=expected)


async def findings(engine: AsyncEngine) -> list[Finding]:
    async with engine.connect() as connection:
        return await open_findings(connection)


async def found(engine: AsyncEngine, expected: Expected = Expected()) -> set[tuple[str, str]]:  # noqa: B008
    """(kind, subject) of everything that is open after a run."""
    await reconcile_all(engine, expected)
    return {(finding.kind, finding.subject) for finding in await findings(engine)}


def changed(event: str, **data: Any) -> str:
    """The same event with other data; its id too where `id` is given."""
    envelope = json.loads(event)
    if "id" in data:
        envelope["id"] = data.pop("id")
    envelope["data"].update(data)
    return json.dumps(envelope)


def id_of(event: str) -> str:
    return str(json.loads(event)["id"])


def data_of(event: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(event)["data"]
    return data


@dataclass
class World:
    """A service in front of one signer that reports, and a gateway that pays."""

    service: Service
    signer: ReportingSigner
    gateway: TestGateway
    folder: Path

    @property
    def engine(self) -> AsyncEngine:
        return self.service.house.engine

    async def streams(self, count: int, payments: int) -> list[Stream]:
        streams = [self.service.new_stream(tickets=1 + index % 3) for index in range(count)]
        for index in range(payments):
            for stream in streams:
                if index % 4 == 3:
                    stream.refresh()  # fresh ticket parameters now and then, as after a 480
                await self.service.pay(self.gateway, stream)
        return streams

    async def behind_our_back(self, stream: Stream, *, auth_id: str = "") -> str:
        """The stream's next payment, signed by the signer itself without the service. Its event."""
        port = int(self.signer.url.rpartition(":")[2])
        headers = [("Signer-Auth-Id", auth_id)] if auth_id else []
        answer = await client.post(port, "/generate-live-payment", stream.body(), *headers)
        assert answer.status == 200, answer.body
        stream.learn(answer.body)
        return self.signer.tickets[-1]

    def issuance_of(self, event: str) -> str:
        data = data_of(event)
        ((id_,),) = self.service.house.fetch(
            "SELECT id FROM issuance WHERE recipient_rand_hash = %s AND sequence = %s",
            bytes.fromhex(data["pm_session_id"]), data["sequence_number"],
        )  # fmt: skip
        return show("iss", id_)
