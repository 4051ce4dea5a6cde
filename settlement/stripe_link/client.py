"""The way to Stripe: the official SDK, pinned, patient, and never twice for one wish."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import stripe
import structlog

from clearinghouse.config_stripe import StripeSettings
from clearinghouse.stripe_events import STRIPE_API_VERSION as API_VERSION
from settlement.stripe_link.failures import StripeAway, StripeNotAllowed, StripeRefused, failure_of
from settlement.stripe_link.transport import Transport
from settlement.stripe_link.turns import Turns

__all__ = ["API_VERSION", "StripeAway", "StripeLink", "StripeNotAllowed", "StripeRefused", "stripe_link"]

_PAUSE_FIRST_S: Final = 0.5
_PAUSE_MAX_S: Final = 8.0
_PAGE_ITEMS: Final = 100  # the most that Stripe gives at once

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class StripeLink:
    """Calls of one Stripe account. `client` is the SDK's: its methods are given to `call`, and not awaited directly."""

    def __init__(self, client: stripe.StripeClient, turns: Turns, *, livemode: bool, retry_for_s: float) -> None:
        self.client = client
        self.livemode = livemode
        self._turns = turns
        self._retry_for_s = retry_for_s

    async def call(
        self,
        function: Callable[..., Awaitable[_T]],
        *args: str,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> _T:
        """What an asynchronous method of `client` answers: `call(client.v1.invoices.create_async, params=…)`.

        Tried again for `retry_for_s` where that can help, always under one idempotency key. Give that key for whatever
        must happen once even if this process ends in the middle: without one, each call has one of its own. Stripe
        forgets keys after a day, so a row of ours comes first. Raises StripeAway and StripeRefused.
        """
        options = {"idempotency_key": idempotency_key or str(uuid.uuid4())}
        clock = asyncio.get_running_loop().time
        until_s = clock() + self._retry_for_s
        pause_s = _PAUSE_FIRST_S
        while True:
            try:
                return await function(*args, params=dict(params or {}), options=options)
            except stripe.StripeError as error:
                failure = failure_of(error)
            if isinstance(failure, StripeRefused) or not failure.may_pass:
                raise failure
            pause_s = _PAUSE_FIRST_S if failure.is_soon else pause_s
            wait_s = pause_s * random.uniform(0.5, 1)  # noqa: S311 (spreads those that failed together)
            if clock() + wait_s > until_s:
                raise failure
            log.info("stripe_call_again", call=_name_of(function), reason=str(failure), wait_ms=int(wait_s * 1000))
            if failure.too_many:
                self._turns.pause(wait_s)
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def each(
        self, function: Callable[..., Awaitable[stripe.ListObject[Any]]], *args: str, params: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        """Every object of a list, page by page, newest first. Raises what `call` does, at any object."""
        asked = {"limit": _PAGE_ITEMS, **params}
        while True:
            page = await self.call(function, *args, params=asked)
            for one in page.data:
                yield one
            if not page.has_more or not page.data:
                return
            asked["starting_after"] = page.data[-1].id


@asynccontextmanager
async def stripe_link(settings: StripeSettings) -> AsyncIterator[StripeLink]:
    """The link that the settings describe, while the block lasts. Connects at the first call. Needs `api_key`."""
    if settings.api_key is None:
        raise ValueError("stripe.api_key_file is not set: nothing of Stripe can be used")
    stripe.enable_telemetry = False  # it would keep a file in the home directory, and tell Stripe of this machine
    turns = Turns(settings.writes_per_s)
    transport = Transport(turns, call_timeout_s=settings.call_timeout_s)
    client = stripe.StripeClient(
        settings.api_key.get_secret_value(),
        stripe_version=API_VERSION,
        base_addresses={"api": settings.api_url},
        http_client=transport,
        max_network_retries=0,  # `StripeLink.call` tries again, and also after a 429
    )
    try:
        yield StripeLink(client, turns, livemode=settings.livemode, retry_for_s=settings.retry_for_s)
    finally:
        await transport.close_async()  # type: ignore[no-untyped-call]


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", "a call")
