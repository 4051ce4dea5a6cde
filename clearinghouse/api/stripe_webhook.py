"""POST /webhooks/stripe: where Stripe tells its events. 200 is said of those that are in the database, of no others.

    signed by Stripe? ─▶ an event? ─▶ of our mode? ─▶ stored, once ─▶ 200
         400               400            400           503: Stripe sends it again, for three days

This process holds no key of Stripe's and acts upon nothing: `clearinghouse work` does, which asks Stripe what is true.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.asgi import Reply
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.errors import DatabaseUnavailable, InvalidRequest, RequestTooLarge
from clearinghouse.hot_routes import HotRequest
from clearinghouse.stripe_events import STRIPE_API_VERSION, NotAnEvent, StripeEvent, event_of, store
from clearinghouse.stripe_signature import BadSignature, require_signed

log = structlog.get_logger(__name__)

#: Stripe's largest are invoices with their first ten lines, of some 50 KiB.
EVENT_MAX_BYTES: Final = 256 * 1024
#: Stripe waits longer; whoever waits with it holds a connection.
_STORE_TIMEOUT_S: Final = 5
_STORED: Final = Reply(200, b'{"received":true}', [(b"content-type", b"application/json")])


class NotOurs(InvalidRequest):
    """Not signed by our account's endpoint, of another mode, or no event."""

    what_next: ClassVar[str] = (
        "Set stripe.webhook_secrets and stripe.livemode to those of the endpoint: docs/stripe.md."
    )


class StripeWebhook:
    """The handler of the route. `engine` needs the rights of clearinghouse_serve; `clock` is Unix time in seconds."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        secrets: Sequence[bytes],
        tolerance_s: int,
        livemode: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secrets:
            raise ValueError("without a secret nobody could be believed")
        self._engine = engine
        self._secrets = tuple(secrets)
        self._tolerance_s = tolerance_s
        self._livemode = livemode
        self._clock = clock
        self._storing: set[asyncio.Task[None]] = set()
        self._versions_seen: set[str | None] = {STRIPE_API_VERSION}

    async def answer(self, request: HotRequest) -> Reply:
        """Raises NotOurs, RequestTooLarge or DatabaseUnavailable."""
        event = self._judged(request)
        await self._store(event)
        return _STORED

    def _judged(self, request: HotRequest) -> StripeEvent:
        body = request.read()
        if len(body) > EVENT_MAX_BYTES:
            raise RequestTooLarge(f"an event is larger than {EVENT_MAX_BYTES} bytes")
        signatures = [value for name, value in request.headers if name == b"stripe-signature"]
        try:
            require_signed(
                body,
                signatures[0] if len(signatures) == 1 else b"",
                self._secrets,
                now_s=self._clock(),
                tolerance_s=self._tolerance_s,
            )
            event = event_of(body)
        except (BadSignature, NotAnEvent) as reason:
            raise NotOurs(f"Not accepted: {reason}.") from None
        if event.livemode != self._livemode:
            mode, ours = ("live", "test") if event.livemode else ("test", "live")
            raise NotOurs(f"Not accepted: an event of {mode} mode, and this clearinghouse is in {ours} mode.")
        return event

    async def _store(self, event: StripeEvent) -> None:
        if event.api_version not in self._versions_seen:  # what is asked for is of our version; nothing depends on it
            self._versions_seen.add(event.api_version)
            log.warning("stripe_api_version", endpoint=event.api_version, expected=STRIPE_API_VERSION)
        storing = asyncio.create_task(self._insert(event), name="stripe-event-store")
        self._storing.add(storing)
        storing.add_done_callback(self._stored)
        # A database that is silent is not waited for: to cancel what was asked of it, the driver would wait again.
        await asyncio.wait({storing}, timeout=_STORE_TIMEOUT_S)
        if not storing.done() or isinstance(error := storing.exception(), DATABASE_FAILED):
            reason = type(error).__name__ if storing.done() else f"not within {_STORE_TIMEOUT_S} s"
            storing.cancel()
            log.warning("stripe_event_not_stored", event_id=event.id, reason=reason)
            raise DatabaseUnavailable("The event could not be stored; send it again.", retry_after_s=5)
        storing.result()

    async def _insert(self, event: StripeEvent) -> None:
        async with self._engine.begin() as connection:
            await store(connection, [event], "delivered")

    def _stored(self, storing: asyncio.Task[None]) -> None:
        """Also of one that was not waited for: nobody else asks what became of it."""
        self._storing.discard(storing)
        if not storing.cancelled():
            storing.exception()


def stripe_webhook_of(settings: StripeSettings, engine: AsyncEngine) -> StripeWebhook | None:
    """None where no secret is configured: then there is no such route."""
    if settings.webhook_secrets is None:
        return None
    return StripeWebhook(
        engine,
        secrets=[secret.get_secret_value().encode() for secret in settings.webhook_secrets],
        tolerance_s=settings.webhook_tolerance_s,
        livemode=settings.livemode,
    )
