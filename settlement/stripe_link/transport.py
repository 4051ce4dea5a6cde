"""How the SDK reaches Stripe: changes wait for their turn, and no call takes longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import stripe

from settlement.stripe_link.turns import Turns


class Transport(stripe.HTTPXClient):
    """The SDK's own, bounded. Its time-out is for each wait of a connection; ours is for the whole call."""

    def __init__(self, turns: Turns, *, call_timeout_s: float) -> None:
        super().__init__(timeout=call_timeout_s)
        self._turns = turns
        self._call_timeout_s = call_timeout_s

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Raises stripe.APIConnectionError, after which nobody knows whether it was done."""
        if method.lower() != "get":
            await self._turns.take()
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await super().request_async(method, url, headers, post_data)
        except TimeoutError as error:
            raise stripe.APIConnectionError("it took too long") from error  # type: ignore[no-untyped-call]
