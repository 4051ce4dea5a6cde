"""Signed events on their way to the endpoints: about in order, or as badly as a test wants it.

What still has to be delivered is in the store, so that a restart finds it again. Stripe promises neither order nor
that an event comes only once; `Mischief` makes that happen on demand.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import structlog

from settlement.delivery.http_post import Target, require_accepted
from settlement.delivery.message import NotAccepted
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import DELIVERY
from settlement.stripe_local.expand import answered
from settlement.stripe_local.frame import LocalStripe

_TIMEOUT_S: Final = 10
_IN_FLIGHT_MAX: Final = 8
_IDLE_MAX_S: Final = 60
_A_LITTLE_S: Final = 0.01  # clocks are coarse: not a moment before it is due
#: Seconds until the next try, by how many have failed. Stripe goes on for three days; here nobody waits that long.
RETRY_AFTER_S: Final = (1, 2, 4, 8, 16, 32, 60, 120, 300, 600)
_log = structlog.get_logger(__name__)


@dataclass
class Mischief:
    """What becomes of deliveries. Lost ones are never tried again; the event itself stays in the list of events."""

    repeat: int = 1
    shuffle: bool = False
    lose_percent: int = 0
    paused: bool = False
    retry_after_s: tuple[float, ...] = RETRY_AFTER_S
    seed: int = 0
    chance: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 (trouble that can be had again)


class Deliveries:
    """Takes what is to be delivered from the store, and keeps trying."""

    def __init__(self, stripe: LocalStripe) -> None:
        self.mischief = Mischief()
        self._stripe = stripe
        self._not_before: dict[str, float] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Delivers until it is cancelled."""
        try:
            while True:
                self._stripe.written.clear()
                self._begin_due()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._idle_s()):
                        await self._stripe.written.wait()
        finally:
            for task in self._under_way.values():
                task.cancel()

    def pending(self) -> int:
        """How many deliveries have neither arrived nor been given up."""
        return len(list(self._stripe.store.ids(DELIVERY)))

    def _begin_due(self) -> None:
        """A few at a time, the oldest first; any of them, if order is to be lost."""
        free = _IN_FLIGHT_MAX - len(self._under_way)
        if self.mischief.paused or free <= 0:
            return
        now = time.monotonic()
        due = (
            one
            for one in self._stripe.store.ids(DELIVERY)
            if one not in self._under_way and self._not_before.get(one, 0) <= now
        )
        chosen = list(islice(due, None if self.mischief.shuffle else free))
        if self.mischief.shuffle:
            self.mischief.chance.shuffle(chosen)
        for one in chosen[:free]:
            self._not_before.pop(one, None)
            task = asyncio.create_task(self._deliver(one))
            self._under_way[one] = task

    def _idle_s(self) -> float:
        """Until the next one that failed before is tried again, if nothing new comes."""
        now = time.monotonic()
        return min([at - now for at in self._not_before.values() if at > now], default=_IDLE_MAX_S) + _A_LITTLE_S

    async def _deliver(self, delivery_id: str) -> None:
        try:
            desk = self._stripe.desk()
            delivery = desk.changes.get(delivery_id)
            endpoint = desk.changes.get(delivery["endpoint"]) if delivery is not None else None
            if delivery is None or endpoint is None or endpoint["status"] != "enabled":
                self._ended(delivery_id)
                return
            if self.mischief.chance.randrange(100) < self.mischief.lose_percent:
                self._ended(delivery_id)
                return
            event = answered(desk, desk.get("event", delivery["event"]), [])
            arrived = [await self._post(endpoint, event) for _ in range(self.mischief.repeat)]
            if all(arrived):
                self._ended(delivery_id)
            else:
                self._failed(delivery_id)
        finally:
            self._under_way.pop(delivery_id, None)
            self._stripe.written.set()

    async def _post(self, endpoint: Json, event: Json) -> bool:
        body = json.dumps(event, indent=2).encode()
        now_s = self._stripe.clock.now_s()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": signature(body, endpoint["_secrets"], now_s),
        }
        try:
            target = Target(endpoint["url"])
            require_accepted(await target.post(body, headers, timeout_s=_TIMEOUT_S), target.authority)
        except NotAccepted as error:
            _log.info("stripe_local_delivery_failed", event_type=event["type"], reason=str(error))
            return False
        return True

    def _ended(self, delivery_id: str) -> None:
        """It has arrived, or nobody tries any more."""
        desk = self._stripe.desk()
        delivery = desk.changes.get(delivery_id)
        if delivery is not None:
            event = desk.get("event", delivery["event"])
            event["pending_webhooks"] = max(event["pending_webhooks"] - 1, 0)
            desk.changes.remove(delivery_id)
        self._stripe.store.apply(desk.changes.written())

    def _failed(self, delivery_id: str) -> None:
        desk = self._stripe.desk()
        delivery = desk.changes.get(delivery_id)
        if delivery is None:
            return
        if delivery["attempts"] >= len(self.mischief.retry_after_s):
            self._ended(delivery_id)
            return
        self._not_before[delivery_id] = time.monotonic() + self.mischief.retry_after_s[delivery["attempts"]]
        delivery["attempts"] += 1
        self._stripe.store.apply(desk.changes.written())


def signature(body: bytes, secrets: list[str], now_s: int) -> str:
    """The Stripe-Signature header: one v1 for each secret, so that a secret can be rolled."""
    signed = f"{now_s}.".encode() + body
    parts = [f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={now_s}", *parts])


def mischief_of(wanted: dict[str, Any]) -> Mischief:
    """From the control call's JSON. Raises ValueError for what does not exist."""
    try:
        made = Mischief(**wanted)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if made.repeat < 1 or not 0 <= made.lose_percent <= 100:
        raise ValueError("repeat is 1 or more, lose_percent 0 to 100")
    made.retry_after_s = tuple(made.retry_after_s)
    return made
