"""One turn of a courier: takes on what is due, sends it, and records how that ended."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import structlog

from settlement.delivery.message import Delivery, NotAccepted
from settlement.delivery.outbox import Backoff, Kind, Outcome, claim, end
from settlement.schedule import Tick

log = structlog.get_logger(__name__)

#: Beyond the time-out of a channel: for recording, and for a thread that ends late.
_MARGIN_S: Final = 15


class Carrier(Protocol):
    """Knows the ways of one kind of message."""

    def bundles(self, deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
        """What goes out together, in order; all of a bundle to one channel."""
        ...

    async def send(self, bundle: Sequence[Delivery]) -> None:
        """Raises NotAccepted."""
        ...


class Observer(Protocol):
    """Who is told how attempts ended: delivered, failed, refused; and what was given up by it."""

    def __call__(self, kind: Kind, outcome: str, count: int) -> None: ...


def nobody(kind: Kind, outcome: str, count: int) -> None:
    """For whoever keeps no metrics."""


class Courier:
    """`timeout_s` bounds an attempt. Two couriers may run at once: each takes on what the other has not."""

    def __init__(
        self, kind: Kind, carrier: Carrier, *, backoff: Backoff, timeout_s: float, observer: Observer = nobody
    ) -> None:
        self._kind: Kind = kind
        self._carrier = carrier
        self._backoff = backoff
        self._timeout_s = timeout_s
        self._observer = observer

    async def tick(self, tick: Tick) -> str:
        """Sends everything that is due. Returns one line of what became of it."""
        lost_at = tick.now + timedelta(seconds=self._timeout_s + _MARGIN_S)
        async with tick.transaction() as connection:
            deliveries = await claim(connection, self._kind, now=tick.now, lost_at=lost_at)
        bundles = self._carrier.bundles(deliveries)
        outcomes = await asyncio.gather(*(self._send(tick, bundle) for bundle in bundles))
        counts: dict[Outcome, int] = defaultdict(int)
        for bundle, outcome in zip(bundles, outcomes, strict=True):
            counts[outcome] += len(bundle)
        return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing was due"

    async def _send(self, tick: Tick, bundle: Sequence[Delivery]) -> Outcome:
        channel, outcome, detail = bundle[0].channel, "delivered", ""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._carrier.send(bundle)
        except NotAccepted as reason:
            outcome, detail = "refused" if reason.is_final else "failed", str(reason)
        except TimeoutError:
            outcome, detail = "failed", f"no answer within {self._timeout_s:g} s"
        except Exception as error:
            # A bug, of ours or of a library: it must not keep the other channels from hearing.
            log.exception("message_not_sent", channel=channel, kind=self._kind)
            outcome, detail = "failed", f"failed with {type(error).__name__}: see the log"
        ended: Outcome = outcome  # type: ignore[assignment] # one of three
        died_count = await self._end(tick, bundle, ended, detail)
        self._observer(self._kind, ended, len(bundle))
        if died_count:
            self._observer(self._kind, "given_up", died_count)
            log.error("messages_given_up", kind=self._kind, channel=channel, count=died_count, reason=detail)
        elif detail:
            log.warning("message_not_accepted", kind=self._kind, channel=channel, reason=detail)
        return ended

    async def _end(self, tick: Tick, bundle: Sequence[Delivery], outcome: Outcome, detail: str) -> int:
        """Also where the run was given up meanwhile: it happened, and the attempt's number is fence enough."""
        async with tick.engine.connect() as reading:
            connection = await reading.execution_options(postgresql_readonly=False)
            async with connection.begin():
                return await end(connection, bundle, outcome, detail=detail, now=tick.now, backoff=self._backoff)
