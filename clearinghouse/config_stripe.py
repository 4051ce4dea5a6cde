"""Settings of Stripe: which account, and how it is spoken to. See config.py."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from clearinghouse.config_section import Section
from clearinghouse.config_values import File, Seconds, Whole, http_url

_WEBHOOK_SECRET: Final = re.compile(r"whsec_[0-9A-Za-z_+/=-]{8,240}", re.ASCII)
_API_KEY: Final = re.compile(r"(?:sk|rk)_(test|live)_[0-9A-Za-z_-]{8,240}", re.ASCII)


def _api_key(secret: SecretStr) -> SecretStr:
    if _API_KEY.fullmatch(secret.get_secret_value()) is None:
        raise ValueError("a restricted or secret key of Stripe's is needed: rk_live_…, rk_test_…, sk_test_…")
    return secret


def _api_url(text: str) -> str:
    parts = http_url(text)
    if parts is None or parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("https://host is needed, without a path")
    return text.rstrip("/")


def _secret_lines(value: Any) -> Any:
    """In the environment and in the file: one a line."""
    return [line.strip() for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


def _webhook_secrets(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not secrets or not all(_WEBHOOK_SECRET.fullmatch(secret.get_secret_value()) for secret in secrets):
        raise ValueError("one signing secret of a webhook endpoint a line is needed: whsec_…")
    return secrets


WebhookSecrets = Annotated[
    tuple[SecretStr, ...], BeforeValidator(_secret_lines), AfterValidator(_webhook_secrets), Field(max_length=8)
]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
ApiUrl = Annotated[str, AfterValidator(_api_url)]


class StripeSettings(Section):
    """The Stripe account that payments and invoices go through: docs/stripe.md. Without api_key nothing of it runs."""

    api_key: ApiKey | None = Field(
        default=None,
        description="Key of the account, best a restricted one. Only `clearinghouse work` and commands need it: do "
        "not give it to `clearinghouse serve`.",
    )
    api_key_file: File | None = Field(default=None, description="File with that key.")
    livemode: bool = Field(
        default=False,
        description="Whether real money moves. A key or an event of the other mode is refused.",
    )
    api_url: ApiUrl = Field(
        default="https://api.stripe.com",
        description="Where Stripe's API is. `clearinghouse stripe-local` is one for development.",
    )
    writes_per_s: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        default=25,
        description="How many changes a process asks of Stripe in a second, at most, evenly spread. Stripe takes 25 in "
        "test mode and 100 in live mode.",
    )
    call_timeout_s: Annotated[Seconds, Field(ge=0.1, le=60)] = Field(
        default=30, description="How long an answer of Stripe's may take before the call is made again."
    )
    retry_for_s: Annotated[Seconds, Field(ge=0.1, le=60)] = Field(
        default=30,
        description="How long a call is made again that failed in passing, always under the same idempotency key; "
        "then whatever wanted it is left for later.",
    )
    webhook_secrets: WebhookSecrets | None = Field(
        default=None,
        description="What Stripe signs its events with: one secret of an endpoint a line, a new one beside the old "
        "while it is rolled. `clearinghouse serve` needs them; without any there is no `POST /webhooks/stripe`.",
    )
    webhook_secrets_file: File | None = Field(default=None, description="File with these secrets.")
    webhook_tolerance_s: Annotated[Whole, Field(ge=30, le=3600)] = Field(
        default=300,
        description="How far the time of an event's signature may be from ours, in either direction.",
    )
    events_kept_days: Annotated[Whole, Field(ge=31, le=3650)] = Field(
        default=90,
        description="How long events are kept that were acted upon; Stripe lists its own for 30. Parked ones stay.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.livemode and not self.api_url.startswith("https://"):
            raise ValueError("api_url must be https://… where real money moves: the key would go out in clear text")
        if self.api_key is not None:
            found = _API_KEY.fullmatch(self.api_key.get_secret_value())
            assert found is not None, "validated"
            if (found[1] == "live") != self.livemode:
                raise ValueError(
                    f"api_key is of {found[1]} mode, and livemode is {str(self.livemode).lower()}: real money would "
                    "be taken for play money, or the other way round"
                )
        return self
