"""Takes alerts to the channels of the settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from clearinghouse.config_alerts import AlertSettings
from settlement.delivery.channels import Channel, channels_of
from settlement.delivery.courier import Courier, Observer, nobody
from settlement.delivery.message import Delivery, NotAccepted
from settlement.delivery.outbox import Backoff

#: The first pauses are short: an alert that is late is half an alert. Twenty attempts take three hours.
_FIRST_PAUSE_S = 5
_LONGEST_PAUSE_S = 900


class AlertCarrier:
    """A delivery.courier.Carrier. `timeout_s` is of one message."""

    def __init__(self, channels: Mapping[str, Channel], *, timeout_s: float) -> None:
        self._channels = channels
        self._timeout_s = timeout_s

    def bundles(self, deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
        """One message for all of a group that is due at once, where people read it."""
        bundles: dict[object, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            channel = self._channels.get(delivery.channel)
            takes_many = channel is not None and channel.takes_many
            key = (delivery.channel, delivery.message.group) if takes_many else delivery.id
            bundles[key].append(delivery)
        return list(bundles.values())

    async def send(self, bundle: Sequence[Delivery]) -> None:
        channel = self._channels.get(bundle[0].channel)
        if channel is None:
            raise NotAccepted("no channel of this name is in alerts.channels any more", is_final=True)
        await channel.send(bundle, timeout_s=self._timeout_s)


def alert_courier(settings: AlertSettings, observer: Observer = nobody) -> Courier:
    """Raises ChannelError."""
    timeout_s = settings.attempt_timeout_s
    carrier = AlertCarrier(channels_of(settings), timeout_s=timeout_s)
    backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, settings.attempts_max_count)
    return Courier("alert", carrier, backoff=backoff, timeout_s=timeout_s, observer=observer)
