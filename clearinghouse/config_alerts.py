"""Settings of what is told to whom: operators' alerts and customers' notices."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from clearinghouse.config_section import Section
from clearinghouse.config_values import (
    COMMA_LIST,
    ExactDecimal,
    File,
    Seconds,
    Token,
    Wei,
    Whole,
    http_url,
    name_value_lines,
)

#: What is always there, needs no setting, and is told everything.
LOG_CHANNEL: Final = "log"

_CHANNEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_CHANNEL_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+", re.ASCII)


def _channels(urls: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, url in urls.items():
        if name == LOG_CHANNEL or _CHANNEL_NAME.fullmatch(name) is None:
            raise ValueError("a channel's name has small letters, digits and hyphens, and is not `log`, which is there")
        if _CHANNEL_URL.fullmatch(url.get_secret_value()) is None:
            raise ValueError("scheme://… is needed for each channel: docs/alerts.md has them")
    return urls


def _amounts(value: Any) -> Any:
    return {str(name).upper(): amount for name, amount in value.items()} if isinstance(value, dict) else value


def _known_amounts(amounts: dict[str, Decimal]) -> dict[str, Decimal]:
    if not all(re.fullmatch(r"[A-Z]{3,8}", currency) for currency in amounts):
        raise ValueError("a currency is three to eight letters, such as USD")
    return amounts


def _page_url(text: str) -> str:
    parts = http_url(text)
    if parts is None or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("https://host/path is needed")
    return text.rstrip("/")


def _one_mail_server(secret: SecretStr) -> SecretStr:
    if not re.match(r"mailtos?://", secret.get_secret_value()):
        raise ValueError("mailtos://user:password@host?from=… is needed")
    return secret


Channels = Annotated[dict[str, SecretStr], BeforeValidator(name_value_lines), AfterValidator(_channels)]
ChannelNames = Annotated[tuple[str, ...], COMMA_LIST]
AmountsByCurrency = Annotated[
    dict[str, Annotated[ExactDecimal, Field(ge=0)]], BeforeValidator(_amounts), AfterValidator(_known_amounts)
]
PageUrl = Annotated[str, AfterValidator(_page_url)]
MailUrl = Annotated[SecretStr, AfterValidator(_one_mail_server)]


class AlertSettings(Section):
    """What operators are told, when, and how often: docs/alerts.md. `clearinghouse work` does it.

    Everything is logged; whatever else is told it stands in `channels`.
    """

    channels: Channels | None = Field(
        default=None,
        description="Who else is told, by name: e-mail, Slack and others by apprise's URLs, and `pagerduty://`, "
        "`webhook+https://`, `alertmanager+https://`. Secret, because they hold tokens; in the environment one "
        "`name: URL` a line.",
    )
    channels_file: File | None = Field(default=None, description="File with one `name: URL` a line.")
    warning_channels: ChannelNames = Field(
        default=(), description="Channels that warnings go to; all but those for escalation without it."
    )
    critical_channels: ChannelNames = Field(
        default=(), description="Channels that critical alerts go to; all but those for escalation without it."
    )
    escalation_channels: ChannelNames = Field(
        default=(), description="Channels that hear of a critical alert which nobody has acknowledged in time."
    )
    escalate_after_s: Annotated[Whole, Field(ge=60, le=604_800)] = Field(default=900, description="That time.")
    repeat_hours: Annotated[Whole, Field(ge=1, le=168)] = Field(
        default=4, description="How often an alert that goes on and is not acknowledged is told again."
    )
    runbook_url: PageUrl | None = Field(
        default=None,
        description="Where your people read docs/alerts.md, or a page of your own with a heading for each rule: "
        "messages then link to what their rule means and what to do.",
    )
    webhook_secret: Token | None = Field(
        default=None, description="Key of the signatures of `webhook+https://` channels, which need it."
    )
    webhook_secret_file: File | None = Field(default=None, description="File with that key.")
    attempts_max_count: Annotated[Whole, Field(ge=1, le=100)] = Field(
        default=20,
        description="How often a message is sent before it is given up: 20 attempts take three hours.",
    )
    attempt_timeout_s: Annotated[Seconds, Field(ge=0.1, le=60)] = Field(
        default=15, description="How long a receiver may take to accept a message."
    )

    deposit_warning_wei: Wei = Field(default=5 * 10**16, description="A deposit below it is a warning…")
    deposit_warning_for_s: Annotated[Whole, Field(ge=0, le=86_400)] = Field(default=600, description="…after so long.")
    deposit_critical_wei: Wei = Field(default=10**16, description="A deposit below it is critical…")
    deposit_critical_for_s: Annotated[Whole, Field(ge=0, le=86_400)] = Field(default=300, description="…after so long.")
    reserve_warning_wei: Wei = Field(default=5 * 10**15, description="A reserve below it is a warning.")
    empty_warning_hours: Annotated[Whole, Field(ge=1, le=8760)] = Field(
        default=72, description="A deposit that may be empty sooner than that is a warning: the pessimistic estimate."
    )
    empty_critical_hours: Annotated[Whole, Field(ge=1, le=8760)] = Field(
        default=24, description="And sooner than that it is critical."
    )
    burst_probability_max_ppm: Annotated[Whole, Field(ge=1, le=10_000)] = Field(
        default=1,
        description="More redeemed tickets in a day than chance has with this probability, in millionths, are a "
        "warning: somebody draws winners, or signs behind our back.",
    )
    unknown_after_s: Annotated[Whole, Field(ge=90, le=86_400)] = Field(
        default=180,
        description="What was not observed for so long is not known any more: alerts about it stay as they are, and "
        "that it is not known is an alert.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {LOG_CHANNEL, *(self.channels or {})}
        named = {*self.warning_channels, *self.critical_channels, *self.escalation_channels}
        if named - known:
            raise ValueError(f"{', '.join(sorted(named - known))}: no such channel in channels")
        if self.deposit_critical_wei > self.deposit_warning_wei:
            raise ValueError("deposit_critical_wei must not be above deposit_warning_wei")
        if self.empty_critical_hours > self.empty_warning_hours:
            raise ValueError("empty_critical_hours must not be above empty_warning_hours")
        return self


class NoticeSettings(Section):
    """What gateways are told about themselves: low and spent balances, keys that end, suspensions. docs/alerts.md.

    Each gateway can have thresholds of its own, a webhook and an address: `clearinghouse notices set`.
    """

    low_balance: AmountsByCurrency = Field(
        default={"USD": Decimal(10), "EUR": Decimal(10)},
        description="What a gateway can spend is low below it, by currency, as decimals in quotes. A currency that is "
        "not named has no such bound. Giving one replaces the default list.",
    )
    depleted_below: AmountsByCurrency = Field(
        default={"USD": Decimal("0.01"), "EUR": Decimal("0.01")},
        description="And below it everything is spent; 0 for a currency that is not named.",
    )
    key_expiry_days: Annotated[Whole, Field(ge=1, le=365)] = Field(
        default=7, description="How long before an API key ends its gateway is told; and again a day before."
    )
    mail_url: MailUrl | None = Field(
        default=None,
        description="Mail server for notices, as apprise writes it, without recipients: "
        "`mailtos://user:password@host?from=billing@host`. Secret; no mail is sent without it.",
    )
    mail_url_file: File | None = Field(default=None, description="File with that URL.")
    private_hosts_allowed: bool = Field(
        default=False,
        description="Whether webhooks may lead into private networks: gateways then choose which of your own hosts "
        "are connected to.",
    )
    attempts_max_count: Annotated[Whole, Field(ge=1, le=100)] = Field(
        default=30, description="How often a notice is sent before it is given up: 30 attempts take a day."
    )
