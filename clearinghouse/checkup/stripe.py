"""Stripe: whether the key opens the account, and whether the account tells its events to somebody who understands them.

It asks for one event and for the webhook endpoints, and changes nothing. What other permissions the key needs is found
out when it is used: docs/stripe.md lists them.
"""

from __future__ import annotations

from typing import Any, Final

from chain.http_client import ExchangeError
from chain.http_target import parse_target
from chain.shallow_json import loads
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import Settings
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.stripe_events import STRIPE_API_VERSION, STRIPE_WEBHOOK_PATH

NAME: Final = "Stripe"
SECRETS_NAME: Final = "Stripe secrets"
ENDPOINT_NAME: Final = "Stripe endpoint"
_TIMEOUT_S: Final = 4
_ANSWER_BYTES_MAX: Final = 1_000_000
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


async def check(settings: Settings) -> list[Finding]:
    """Nothing where these settings do not speak of Stripe."""
    stripe = settings.stripe
    found = [_secrets(stripe)] if stripe.webhook_secrets is not None or stripe.api_key is not None else []
    return found if stripe.api_key is None else [await _key(stripe), *found, *await _endpoints(stripe)]


def _secrets(stripe: StripeSettings) -> Finding:
    """The service and the worker may have settings of their own; what one of them needs the other need not have."""
    mode = "live" if stripe.livemode else "test"
    if stripe.webhook_secrets is not None:
        count = len(stripe.webhook_secrets)
        return ok(SECRETS_NAME, f"signed with {count} secret{'s' if count > 1 else ''}, of {mode} mode")
    return warning(
        SECRETS_NAME, "stripe.webhook_secrets is not in these settings: a service that has them takes no event",
        "Set it for `clearinghouse serve`; in the settings of a worker alone it may be missing.",
    )  # fmt: skip


async def _key(stripe: StripeSettings) -> Finding:
    status, _ = await _asked(stripe, "/v1/events?limit=1")
    if status == 200:
        return ok(NAME, f"the key opens the account, in {'live' if stripe.livemode else 'test'} mode")
    if status == _UNAUTHORIZED:
        return error(
            NAME, f"{stripe.api_url} does not accept stripe.api_key", "Was it rolled or revoked? Take the new one."
        )
    if status == _FORBIDDEN:
        return error(
            NAME, "the key may not read events: what was never delivered is not found",
            "Give it the permissions that docs/stripe.md lists.",
        )  # fmt: skip
    return warning(
        NAME, f"{stripe.api_url} gives no answer" if status is None else f"{stripe.api_url} answers with {status}",
        "Check stripe.api_url and the way there; events wait meanwhile, and nothing is lost.",
    )  # fmt: skip


async def _endpoints(stripe: StripeSettings) -> list[Finding]:
    """Nothing where the key may not list them, which it need not."""
    status, document = await _asked(stripe, "/v1/webhook_endpoints?limit=100")
    items = document.get("data") if isinstance(document, dict) else None
    if status != 200 or not isinstance(items, list):
        return []
    ours = [one for one in items if isinstance(one, dict) and str(one.get("url")).endswith(STRIPE_WEBHOOK_PATH)]
    enabled = [one for one in ours if one.get("status") == "enabled"]
    if not enabled:
        what = "is disabled" if ours else "leads to a clearinghouse"
        detail = f"{'an' if ours else 'no'} endpoint of this account {what}: payments are heard of late"
        return [error(ENDPOINT_NAME, detail, f"Stripe's dashboard, Webhooks: an endpoint to …{STRIPE_WEBHOOK_PATH}.")]
    if other := [one for one in enabled if one.get("api_version") not in {None, STRIPE_API_VERSION}]:
        detail = f"an endpoint sends version {str(other[0].get('api_version'))[:40]}, not {STRIPE_API_VERSION}"
        return [warning(ENDPOINT_NAME, detail, "Everything works; make one of that version when you next roll it.")]
    return [ok(ENDPOINT_NAME, f"{len(enabled)} endpoint{'s' if len(enabled) > 1 else ''} enabled")]


async def _asked(stripe: StripeSettings, path: str) -> tuple[int | None, Any]:
    """Status and document; None where there is none. Nothing of what went wrong is kept: it may quote the key."""
    assert stripe.api_key is not None, "without a key nobody asks"
    target = parse_target(stripe.api_url + path, name="stripe.api_url")
    key = stripe.api_key.get_secret_value()
    request = (
        target.head("GET") + f"Authorization: Bearer {key}\r\nStripe-Version: {STRIPE_API_VERSION}\r\n\r\n".encode()
    )
    client = target.client(body_max_bytes=_ANSWER_BYTES_MAX)
    try:
        answer = await client.exchange(request, timeout_s=_TIMEOUT_S)
        return answer.status, loads(answer.body)
    except (ExchangeError, ValueError):
        return None, None
    finally:
        await client.close()
