"""The operators' channels: each takes messages in its own form.

    log                                   always there
    pagerduty://KEY                       PagerDuty's Events API v2; pagerduty+https://KEY@HOST for another region
    webhook+https://HOST/PATH             signed JSON (signatures.py)
    alertmanager+https://HOST:PORT        an Alertmanager's /api/v2/alerts
    mailtos://…, slack://…, and others    whatever apprise knows

PagerDuty goes by HTTP of our own and not through apprise: apprise says yes or no and neither the status nor the reason,
so that a message which PagerDuty refuses for good (400) could not be told from one to be sent again (429, 500).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol
from urllib.parse import unquote, urlunsplit

import structlog

from clearinghouse.config_alerts import LOG_CHANNEL, AlertSettings
from clearinghouse.errors import Refusal
from clearinghouse.instants import rfc3339
from settlement.delivery.apprise_channel import AppriseChannel
from settlement.delivery.http_post import Target, post_json, require_accepted, split_plus
from settlement.delivery.message import Delivery, Document, Message
from settlement.delivery.signatures import signed_event

log = structlog.get_logger(__name__)

PAGERDUTY_HOST: Final = "events.pagerduty.com"
_PAGERDUTY_SUMMARY_CHARS_MAX: Final = 1024
#: An Alertmanager forgets what it is not told again; an alert that is acknowledged here is not repeated.
_ALERTMANAGER_LASTS: Final = timedelta(days=7)


class ChannelError(Refusal):
    """A channel of the settings cannot be used. Names the channel, and nothing of its URL."""

    code, http_status = "bad_channel", 500
    what_next = "Correct alerts.channels; docs/alerts.md has the schemes."


class Channel(Protocol):
    """`takes_many`: messages of one group are joined into one, for people."""

    takes_many: bool

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        """One delivery, or several where it takes many. Raises NotAccepted."""
        ...


def channels_of(settings: AlertSettings) -> dict[str, Channel]:
    """All channels, by name. Connects to nothing. Raises ChannelError."""
    channels: dict[str, Channel] = {LOG_CHANNEL: LogChannel()}
    for name, url in (settings.channels or {}).items():
        try:
            channels[name] = _channel(url.get_secret_value(), settings)
        except ValueError as error:
            raise ChannelError(f"alerts.channels: {name}: {error}") from None
    return channels


def _channel(url: str, settings: AlertSettings) -> Channel:
    scheme = url.partition("://")[0]
    kind, _, transport = scheme.partition("+")
    if kind == "pagerduty":
        return PagerDuty(*_pagerduty(url))
    if kind == "webhook" and transport:
        if settings.webhook_secret is None:
            raise ValueError("alerts.webhook_secret_file is needed to sign its messages")
        return SignedWebhook(urlunsplit(split_plus(url)), settings.webhook_secret.get_secret_value().encode())
    if kind == "alertmanager" and transport:
        return Alertmanager(urlunsplit(split_plus(url)))
    return AppriseChannel(url)


def _pagerduty(url: str) -> tuple[str, str]:
    """Routing key and origin."""
    parts = split_plus(url)
    key, at, host = parts.netloc.rpartition("@")
    if parts.path not in {"", "/"} or not (key if at else host):
        raise ValueError("pagerduty://KEY, or pagerduty+https://KEY@HOST, is needed")
    if parts.scheme == "pagerduty":
        return unquote(host), f"https://{PAGERDUTY_HOST}"
    return unquote(key), f"{parts.scheme}://{host}"


class LogChannel:
    """Standard error, as all else that is logged."""

    takes_many = False

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        for delivery in deliveries:
            message = delivery.message
            say = log.critical if message.level == "critical" and not message.is_end else log.warning
            say("alert", type=message.type, title=message.title, dedup_key=message.dedup_key, text=message.body)


class SignedWebhook:
    """One POST of JSON for each message."""

    takes_many = False

    def __init__(self, url: str, secret: bytes) -> None:
        self._target = Target(url)
        self._secret = secret

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        for delivery in deliveries:
            body, headers = signed_event(delivery, [self._secret])
            answer = await self._target.post(body, headers, timeout_s=timeout_s)
            require_accepted(answer, self._target.authority)


class PagerDuty:
    """Events API v2: one incident for each alert, which ends with it."""

    takes_many = False

    def __init__(self, routing_key: str, origin: str) -> None:
        self._routing_key = routing_key
        self._target = Target(f"{origin}/v2/enqueue")

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        for delivery in deliveries:
            await post_json(self._target, self._event(delivery.message), {}, timeout_s=timeout_s)

    def _event(self, message: Message) -> Document:
        event: Document = {
            "routing_key": self._routing_key, "dedup_key": message.dedup_key,
            "event_action": "resolve" if message.is_end else "trigger",
        }  # fmt: skip
        if message.is_end:
            return event
        event["payload"] = {
            "summary": message.title[:_PAGERDUTY_SUMMARY_CHARS_MAX], "source": "livepeer-clearinghouse",
            "severity": message.level, "timestamp": rfc3339(message.said_at), "group": message.group,
            "class": message.document.get("rule", message.type), "custom_details": {"text": message.body},
        }  # fmt: skip
        if message.link is not None:
            event["links"] = [{"href": message.link, "text": "The alert"}]
        return event


class Alertmanager:
    """Its own way of grouping, silencing and telling people, for whoever runs one."""

    takes_many = True

    def __init__(self, url: str) -> None:
        self._target = Target(f"{url.rstrip('/')}/api/v2/alerts")

    async def send(self, deliveries: Sequence[Delivery], *, timeout_s: float) -> None:
        alerts = [_alertmanager_alert(delivery.message) for delivery in deliveries]
        await post_json(self._target, alerts, {}, timeout_s=timeout_s)


def _alertmanager_alert(message: Message) -> Document:
    document = message.document
    ends_at = message.said_at if message.is_end else message.said_at + _ALERTMANAGER_LASTS
    alert: Document = {
        "labels": {
            "alertname": document.get("rule", message.type), "severity": message.level, "group": message.group,
            **document.get("labels", {}),
        },
        "annotations": {"summary": message.title, "description": message.body},
        "startsAt": document.get("since", rfc3339(message.said_at)), "endsAt": rfc3339(ends_at),
    }  # fmt: skip
    return {**alert, "generatorURL": message.link} if message.link is not None else alert
