"""What the tests of signer events have in common: lines into the table, a run over all of it, what is open afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.signer_events.reconcile import Expected, Finding, Report, open_findings, reconcile
from clearinghouse.signer_events.store import Counts, record_file

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
