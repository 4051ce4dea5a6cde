"""An alert that nothing is behind, sent to try the channels: its beginning and its end, past the outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from clearinghouse.config_alerts import AlertSettings
from clearinghouse.ids import uuid7
from settlement.alerts.conditions import Condition, Group, Severity
from settlement.alerts.messages import message_of
from settlement.alerts.state import Alert, Announcement, Said, State
from settlement.delivery.channels import Channel
from settlement.delivery.message import Delivery, NotAccepted

_CONDITION = Condition(
    "test", Group.WORK, Severity.WARNING, "This is a test of the clearinghouse's alerts",
    facts=(("asked for by", "clearinghouse alerts test"),), advice="Nothing is wrong, and nothing has to be done.",
)  # fmt: skip


async def tried(channels: Mapping[str, Channel], settings: AlertSettings) -> dict[str, str]:
    """How each channel took it: "" where it did, or why not."""
    outcomes = await asyncio.gather(*(_try(name, channel, settings) for name, channel in channels.items()))
    return dict(zip(channels, outcomes, strict=True))


async def _try(name: str, channel: Channel, settings: AlertSettings) -> str:
    now = datetime.now(UTC)
    begun = Alert(uuid7(), _CONDITION, State.FIRING, now, now, fired_at=now, told=frozenset({name}))
    ended = replace(begun, state=State.RESOLVED, resolved_at=now)
    told = (Announcement(begun, Said.FIRING, 1, begun.told), Announcement(ended, Said.RESOLVED, 2, begun.told))
    try:
        async with asyncio.timeout(2 * settings.attempt_timeout_s):
            for announcement in told:
                message = message_of(announcement, now=now, runbook_url=settings.runbook_url)
                delivery = Delivery(uuid7(), name, begun.id, 1, message, now)
                await channel.send([delivery], timeout_s=settings.attempt_timeout_s)
    except NotAccepted as reason:
        return str(reason)
    except TimeoutError:
        return "no answer in time"
    return ""
