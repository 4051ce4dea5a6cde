"""`clearinghouse doctor` about Stripe: a key that opens nothing, and endpoints that nobody hears of."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from clearinghouse.checkup import stripe as stripe_check
from clearinghouse.config import Settings
from settlement.stripe_local.keys import ApiKeys
from tests.parts.stripe import LinkedStripe, linked_stripe

URL = "https://clearinghouse.example/webhooks/stripe"
SECRET = "whsec_of_this_endpoint"


async def found(stripe: LinkedStripe, **settings: Any) -> dict[str, str]:
    """The worst of each name: its status and what is said."""
    given = {"api_key": stripe.settings.api_key, "api_url": stripe.base_url, "webhook_secrets": [SECRET], **settings}
    worst: dict[str, str] = {}
    for each in await stripe_check.check(Settings.model_validate({"stripe": given})):
        assert (each.status == "ok") == (each.what_to_do == "")
        if each.name not in worst or each.status != "ok":
            worst[each.name] = f"{each.status}: {each.detail}"
    return worst


async def test_where_nothing_is_configured_nothing_is_said() -> None:
    assert await stripe_check.check(Settings()) == []


async def test_a_key_and_an_endpoint_that_work_are_in_order() -> None:
    async with linked_stripe() as stripe:
        await stripe.delivers_to(URL)
        assert await found(stripe) == {
            "Stripe": "ok: the key opens the account, in test mode",
            "Stripe secrets": "ok: signed with 1 secret, of test mode",
            "Stripe endpoint": "ok: 1 endpoint enabled",
        }


async def test_an_account_that_tells_its_events_to_nobody_is_an_error() -> None:
    async with linked_stripe() as stripe:
        assert "no endpoint of this account leads" in (await found(stripe))["Stripe endpoint"]
        await stripe.delivers_to("https://elsewhere.example/hook")
        assert (await found(stripe))["Stripe endpoint"].startswith("error")
        await stripe.delivers_to(URL)
        endpoints = stripe.running.client.v1.webhook_endpoints
        (ours,) = [one for one in (await endpoints.list_async()).data if one.url == URL]
        await endpoints.update_async(ours.id, {"disabled": True})
        assert "is disabled" in (await found(stripe))["Stripe endpoint"]


async def test_a_key_that_is_not_accepted_or_may_not_is_an_error_and_is_not_shown() -> None:
    key = "rk_test_ofSomebodyElse4242"
    rights = {key: {"customers": "read"}}
    async with linked_stripe(keys=ApiKeys(restricted=rights)) as stripe:  # type: ignore[arg-type]
        assert "may not read events" in (await found(stripe, api_key=key))["Stripe"]
    async with linked_stripe() as stripe:
        said = await found(stripe, api_key=SecretStr(key))
        assert "does not accept stripe.api_key" in said["Stripe"]
        assert key not in str(said)


async def test_a_stripe_that_is_not_there_is_a_warning() -> None:
    async with linked_stripe() as stripe:
        assert "gives no answer" in (await found(stripe, api_url="http://127.0.0.1:1"))["Stripe"]
        await stripe.fault("status", status=503, times=None)
        assert "answers with 503" in (await found(stripe))["Stripe"]


@pytest.mark.parametrize("has_key", [True, False])
async def test_secrets_that_are_missing_are_told_where_there_is_a_key(has_key: bool) -> None:
    async with linked_stripe() as stripe:
        key = stripe.settings.api_key if has_key else None
        said = await found(stripe, webhook_secrets=None, api_key=key)
        assert ("webhook_secrets is not in these settings" in said.get("Stripe secrets", "")) == has_key
