"""Answers requests: takes on what was asked for, and asks Stripe for it. In every `clearinghouse work` at once.

Two who work at the same payment do no harm: both use one key. The lease only saves the second one the trouble.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import structlog

from clearinghouse.background import end
from clearinghouse.config_payments import PaymentSettings
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.database.connect import DATABASE_FAILED, WORK_ROLE, async_engine, in_role
from settlement.payments import store
from settlement.payments.asking import Asking, Customers
from settlement.payments.record import Payment, Refund
from settlement.payments.refunds import ask_refund
from settlement.stripe_link.client import StripeAway, stripe_link
from settlement.stripe_link.desk import Desk, Park
from settlement.wakes import wake_on

log = structlog.get_logger(__name__)

#: A call of Stripe's may take 30 s, and be tried for 30 more.
LEASE: Final = timedelta(minutes=3)
_AT_ONCE_COUNT: Final = 4
_POOL_SIZE: Final = 2 * _AT_ONCE_COUNT + 1
_LOOK_EVERY_S: Final = 1
_FIRST_PAUSE_S: Final = 2
_LONGEST_PAUSE_S: Final = 300
#: What is wrong in a way that nobody has thought of is looked at by people, and tried now and then.
_WRONG_PAUSE: Final = timedelta(hours=1)


class Clerk:
    """`run` until it is told to stop. `conninfo` needs the rights of clearinghouse_work, without a pooler."""

    def __init__(
        self,
        conninfo: str,
        stripe: StripeSettings,
        settings: PaymentSettings,
        customers: Customers,
        *,
        shutdown_timeout_s: float,
    ) -> None:
        self._conninfo = conninfo
        self._stripe = stripe
        self._settings = settings
        self._customers = customers
        self._shutdown_timeout_s = shutdown_timeout_s
        self._news = asyncio.Event()
        self._is_away = False

    async def run(self, stop: asyncio.Event) -> None:
        """What is under way then has `shutdown_timeout_s` to end; what has not is taken on by others, or later."""
        own = in_role(self._conninfo, WORK_ROLE, application_name="clearinghouse-payments", statement_timeout="60s")
        engine = async_engine(own, pool_size=_POOL_SIZE)
        told = asyncio.create_task(self._told(stop), name="payments-stop")
        heard = asyncio.create_task(
            wake_on(self._conninfo, "payments", "clearinghouse-payments-wakes", self._news.set, _LOOK_EVERY_S),
            name="payments-wakes",
        )
        try:
            async with stripe_link(self._stripe) as link:
                await self._work(Asking(Desk(link, engine), self._customers, self._settings), stop)
        finally:
            await end(told, heard)
            await engine.dispose()

    async def _work(self, asking: Asking, stop: asyncio.Event) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            self._news.clear()
            for attempt in await self._taken_on(asking, _AT_ONCE_COUNT - len(under_way)):
                task = asyncio.create_task(attempt, name="payment")
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(lambda _: self._news.set())
            await self._pause()
        if under_way:
            _, hanging = await asyncio.wait(under_way, timeout=self._shutdown_timeout_s)
            await end(*hanging)

    async def _taken_on(self, asking: Asking, count: int) -> list[Coroutine[Any, Any, None]]:
        """No failure ends it: the next look may go well."""
        if count <= 0:
            return []
        try:
            taken = await take_on(asking, count)
        except DATABASE_FAILED as error:
            if not self._is_away:
                log.warning("payments_not_read", reason=str(error).partition("\n")[0], retry_in_s=_LOOK_EVERY_S)
            self._is_away = True
            return []
        self._is_away = False
        return taken

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S):
                await self._news.wait()

    async def _told(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._news.set()


async def take_on(asking: Asking, count: int = _AT_ONCE_COUNT) -> list[Coroutine[Any, Any, None]]:
    """What is due, some of it, each as the attempt to bring it forward as far as it gets."""
    async with asking.desk.transaction() as connection:
        payments = await store.claim_payments(connection, lease=LEASE, count=count)
        refunds = await store.claim_refunds(connection, lease=LEASE, count=max(count - len(payments), 0))
    return [
        *(_pursued(asking, payment) for payment in payments), *(_refunded(asking.desk, refund) for refund in refunds)
    ]  # fmt: skip


async def _pursued(asking: Asking, payment: Payment) -> None:
    async def later(pause: timedelta, said: str) -> None:
        async with asking.desk.transaction() as connection:
            await store.put_off(connection, payment, pause, said)

    await _tried(payment.shown_id, payment.attempts_count, lambda: asking.pursue(payment), later)


async def _refunded(desk: Desk, refund: Refund) -> None:
    async def later(pause: timedelta, said: str) -> None:
        async with desk.transaction() as connection:
            await store.put_off_refund(connection, refund, pause, said)

    await _tried(refund.shown_id, refund.attempts_count, lambda: ask_refund(desk, refund), later)


async def _tried(
    name: str,
    attempts_count: int,
    attempt: Callable[[], Awaitable[str]],
    later: Callable[[timedelta, str], Awaitable[None]],
) -> None:
    """A bug in one is no reason to leave the others."""
    try:
        said = await attempt()
    except StripeAway as away:
        pause = timedelta(seconds=min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S << min(attempts_count, 10)))
        log.warning("payment_waits", id=name, reason=str(away), retry_in_s=pause.seconds)
        await later(pause, "Stripe did not answer: it is asked again.")
    except Park as reason:
        log.error("payment_wrong", id=name, reason=str(reason))  # noqa: TRY400 (it is no bug)
        await later(_WRONG_PAUSE, "Something is wrong with it: the operator has to look.")
    except DATABASE_FAILED as error:
        log.warning("payment_waits", id=name, reason=type(error).__name__, retry_in_s=LEASE.seconds)
    except Exception:
        log.exception("payment_failed", id=name)
        await later(_WRONG_PAUSE, "Something is wrong with it: the operator has to look.")
    else:
        log.info("payment_pursued", id=name, said=said)
