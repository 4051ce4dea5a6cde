"""`clearinghouse`, as the people call it who make invoices."""

from __future__ import annotations

import asyncio
from pathlib import Path

from settlement.cli import app
from settlement.stripe_local.keys import DEFAULT_KEY
from tests.parts.command_line import Answer, called
from tests.parts.invoiced import Invoiced


class Cli:
    def __init__(self, house: Invoiced, folder: Path) -> None:
        key_file = folder / "stripe_api_key"
        key_file.write_text(DEFAULT_KEY, encoding="utf-8")
        key_file.chmod(0o600)
        self._environment = {
            "CLEARINGHOUSE_ADMIN_DATABASE_URL": house.conninfo, "CLEARINGHOUSE_STRIPE__API_KEY_FILE": str(key_file),
            "CLEARINGHOUSE_STRIPE__API_URL": house.stripe.base_url, "COLUMNS": "300",
        }  # fmt: skip

    async def __call__(self, *arguments: str, **changes: str) -> Answer:
        return await self.other("invoices", *arguments, **changes)

    async def other(self, *arguments: str, **changes: str) -> Answer:
        return await asyncio.to_thread(called, app, arguments, self._environment | changes)
