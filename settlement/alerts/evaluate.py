"""The job that evaluates: sees, judges, and records what follows, all in one transaction.

What is recorded is what is told: alerts as they are now, and a row in the outbox for each announcement and channel.
A process that is killed in between leaves nothing of it; the next evaluation sees and says the same. Of two that
evaluate at once one waits, and then finds that there is nothing left to say; should both ever be let through, the
database refuses the second of two announcements with one number, and the second of two open alerts about one thing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.config_alerts import LOG_CHANNEL, AlertSettings
from clearinghouse.ids import uuid7
from settlement.alerts import store
from settlement.alerts.messages import message_of
from settlement.alerts.observed import Observed
from settlement.alerts.round import Round, evaluated
from settlement.alerts.rules import conditions
from settlement.alerts.state import Policy, State
from settlement.alerts.thresholds import Thresholds, thresholds_of
from settlement.delivery.outbox import put
from settlement.schedule import Tick

#: Sees what there is to see, within the transaction.
Observer = Callable[[AsyncConnection, datetime], Awaitable[Observed]]


class Evaluation:
    """`runbook_url` is for links."""

    def __init__(self, observe: Observer, policy: Policy, thresholds: Thresholds, *, runbook_url: str | None) -> None:
        self._observe = observe
        self._policy = policy
        self._thresholds = thresholds
        self._runbook_url = runbook_url

    async def tick(self, tick: Tick) -> str:
        async with tick.transaction() as connection:
            if not await store.take_turn(connection, tick.now):
                return "somebody else has evaluated since"
            done = await self._evaluated(connection, tick.now)
        said = [f"{announcement.alert.condition.rule} {announcement.said}" for announcement in done.announcements]
        return ", ".join(said) or "nothing to say"

    async def _evaluated(self, connection: AsyncConnection, now: datetime) -> Round:
        alerts = await store.open_alerts(connection)
        observed = await self._observe(connection, now)
        firing = {alert.fingerprint for alert in alerts if alert.state is State.FIRING}
        holding = conditions(observed, self._thresholds, firing=firing)
        silences = await store.silences(connection, now)
        done = evaluated(alerts, holding, silences, now, self._policy, new_id=uuid7)
        await store.keep(connection, done.changed)
        await store.forget(connection, done.forgotten)
        for announcement in done.announcements:
            message = message_of(announcement, now=now, runbook_url=self._runbook_url)
            await put(
                connection, "alert", subject=announcement.alert.id, number=announcement.number,
                channels=announcement.channels, message=message, now=now,
            )  # fmt: skip
        return done


def evaluation_of(settings: AlertSettings, observe: Observer) -> Evaluation:
    return Evaluation(observe, policy_of(settings), thresholds_of(settings), runbook_url=settings.runbook_url)


def policy_of(settings: AlertSettings) -> Policy:
    """The log hears everything. Where no channels are named for a severity, all do but those of escalation."""
    everybody = frozenset(settings.channels or ()) - frozenset(settings.escalation_channels)
    logged = frozenset({LOG_CHANNEL})
    return Policy(
        warning_channels=(frozenset(settings.warning_channels) or everybody) | logged,
        critical_channels=(frozenset(settings.critical_channels) or everybody) | logged,
        escalation_channels=frozenset(settings.escalation_channels),
        repeat=timedelta(hours=settings.repeat_hours),
        escalate_after=timedelta(seconds=settings.escalate_after_s),
    )
