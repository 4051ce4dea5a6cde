"""The link to Stripe: what is wished for once is done once, whatever happens to the calls."""

from __future__ import annotations

import asyncio
import time
import traceback

import pytest
import structlog
from pydantic import SecretStr

from clearinghouse.config_stripe import StripeSettings
from settlement.stripe_link.client import StripeAway, StripeNotAllowed, StripeRefused, stripe_link
from settlement.stripe_local.keys import DEFAULT_KEY, ApiKeys
from tests.parts.stripe import LinkedStripe, linked_stripe

PATH = "/v1/customers"


async def created(stripe: LinkedStripe, key: str | None = "a", name: str = "Acme") -> str:
    """The id of a customer that was wished for under this key."""
    made = await stripe.link.call(
        stripe.link.client.v1.customers.create_async, params={"name": name}, idempotency_key=key
    )
    return made.id


async def customers(stripe: LinkedStripe) -> list[str]:
    return [one.id async for one in stripe.link.each(stripe.link.client.v1.customers.list_async, params={})]


async def test_a_call_answers_with_the_object_and_the_same_wish_again_with_the_same_object() -> None:
    async with linked_stripe() as stripe:
        made = await created(stripe)
        assert await created(stripe) == made
        assert await customers(stripe) == [made]
        found = await stripe.link.call(stripe.link.client.v1.customers.retrieve_async, made)
        assert found.name == "Acme"


async def test_calls_without_a_key_are_wishes_of_their_own() -> None:
    async with linked_stripe() as stripe:
        assert await created(stripe, None) != await created(stripe, None)


@pytest.mark.parametrize(
    ("kind", "key"), [("cut", "a"), ("cut_after", "a"), ("hang", "a"), ("hang_after", "a"), ("hang_after", None)]
)
async def test_a_call_whose_answer_never_came_is_made_again_and_done_once(kind: str, key: str | None) -> None:
    async with linked_stripe(call_timeout_s=0.3) as stripe:
        await stripe.fault(kind, method="POST", path=PATH)
        made = await created(stripe, key)
        assert await customers(stripe) == [made]
        assert stripe.asked("POST", PATH) == 2


async def test_a_storm_of_429_is_sat_out_and_everything_is_done_once() -> None:
    async with linked_stripe() as stripe:
        await stripe.fault("status", status=429, times=12)
        made = await asyncio.gather(*(created(stripe, f"wish {number}") for number in range(10)))
        assert len(set(made)) == 10
        assert set(await customers(stripe)) == set(made)


async def test_a_storm_that_does_not_end_leaves_the_wish_for_later() -> None:
    async with linked_stripe(retry_for_s=1.2) as stripe:
        await stripe.fault("status", status=429, times=None)
        begun = time.monotonic()
        with pytest.raises(StripeAway) as caught:
            await created(stripe)
        assert time.monotonic() - begun < 20
        assert (caught.value.may_pass, caught.value.key_is_spent) == (True, False)
        assert stripe.asked("POST", PATH) >= 2
        await stripe.works_again()
        assert [await created(stripe)] == await customers(stripe)


async def test_a_server_that_is_not_there_is_away() -> None:
    settings = StripeSettings(api_key=SecretStr(DEFAULT_KEY), api_url="http://127.0.0.1:1", retry_for_s=0.1)
    async with stripe_link(settings) as link:
        with pytest.raises(StripeAway, match="cannot be reached: ConnectError"):
            await link.call(link.client.v1.customers.list_async)


async def test_a_failure_that_stripe_stored_under_the_key_is_not_asked_for_again_and_again() -> None:
    async with linked_stripe() as stripe:
        await stripe.fault("status_after", method="POST", path=PATH, status=500)
        with pytest.raises(StripeAway) as caught:
            await created(stripe)
        assert caught.value.key_is_spent
        assert stripe.asked("POST", PATH) == 2  # the failure, and its repetition
        assert len(await customers(stripe)) == 1, "it was done all the same: look for it, then take another key"


async def test_a_failure_before_anything_was_done_passes() -> None:
    async with linked_stripe() as stripe:
        await stripe.fault("status", status=503)
        assert await customers(stripe) == []
        await stripe.fault("status", status=500, method="POST", times=2)
        assert [await created(stripe)] == await customers(stripe)


async def test_two_at_once_with_one_key_get_one_object() -> None:
    async with linked_stripe() as stripe:
        await stripe.fault("latency", method="POST", delay_ms=300)
        first, second = await asyncio.gather(created(stripe), created(stripe))
        assert [first] == [second] == await customers(stripe)


async def test_a_key_used_for_another_wish_is_refused_at_once() -> None:
    async with linked_stripe() as stripe:
        await created(stripe)
        with pytest.raises(StripeRefused, match="same parameters") as caught:
            await created(stripe, name="Other")
        assert caught.value.status == 400
        assert stripe.asked("POST", PATH) == 2


async def test_a_declined_card_says_why() -> None:
    async with linked_stripe() as stripe:
        intents = stripe.link.client.v1.payment_intents
        params = {
            "amount": 500, "currency": "usd", "confirm": True, "off_session": True,
            "payment_method": "pm_card_chargeDeclinedInsufficientFunds",
        }  # fmt: skip
        with pytest.raises(StripeRefused) as caught:
            await stripe.link.call(intents.create_async, params=params, idempotency_key="a")
        refused = caught.value
        assert (refused.status, refused.code, refused.decline_code) == (402, "card_declined", "insufficient_funds")
        assert refused.request_id is not None
        assert refused.payment_intent_id is not None
        intent = await stripe.link.call(intents.retrieve_async, refused.payment_intent_id)
        assert intent.status == "requires_payment_method"
        assert stripe.asked("POST", "/v1/payment_intents") == 1


async def test_what_does_not_exist_is_refused() -> None:
    async with linked_stripe() as stripe:
        with pytest.raises(StripeRefused) as caught:
            await stripe.link.call(stripe.link.client.v1.customers.retrieve_async, "cus_none")
        assert (caught.value.status, caught.value.code) == (404, "resource_missing")
        assert stripe.asked("GET", "/v1/customers/cus_none") == 1


async def test_a_key_that_may_not_is_the_operators_matter_and_not_tried_again() -> None:
    rights = {"rk_test_limited00": {"customers": "read"}}
    async with linked_stripe(keys=ApiKeys(restricted=rights), api_key=SecretStr("rk_test_limited00")) as stripe:  # type: ignore[arg-type]
        assert await customers(stripe) == []
        with pytest.raises(StripeNotAllowed, match="required permissions"):
            await created(stripe)
        assert stripe.asked("POST", PATH) == 1


async def test_no_error_and_no_log_shows_the_key_or_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    key, person = "sk_test_aKeyThatNobodyMaySee4242", "Jane Customer"
    logged = structlog.testing.LogCapture()  # of every level, whatever was configured before
    log = structlog.wrap_logger(None, processors=[logged], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr("settlement.stripe_link.client.log", log)
    async with linked_stripe(api_key=SecretStr(key)) as stripe:
        with pytest.raises(StripeNotAllowed) as refused:
            await created(stripe, name=person)
    keys = ApiKeys(frozenset({key}))
    async with linked_stripe(keys=keys, api_key=SecretStr(key), retry_for_s=1) as stripe:
        await stripe.fault("cut", times=None)
        with pytest.raises(StripeAway) as away:
            await created(stripe, name=person)
    assert {one["event"] for one in logged.entries} == {"stripe_call_again"}
    told = [str(logged.entries), *("".join(traceback.format_exception(each.value)) for each in (refused, away))]
    assert not [text for text in told if key in text or person in text or "Bearer" in text]


async def test_changes_are_spread_over_time_and_readings_are_not() -> None:
    async with linked_stripe(writes_per_s=4) as stripe:
        begun = time.monotonic()
        await asyncio.gather(*(created(stripe, f"wish {number}") for number in range(5)))
        assert time.monotonic() - begun >= 1.0
        begun = time.monotonic()
        await asyncio.gather(*(customers(stripe) for _ in range(40)))
        assert time.monotonic() - begun < 9, "ten seconds, if they were"


async def test_lists_are_read_to_their_end_over_troubled_pages() -> None:
    async with linked_stripe() as stripe:
        made = await asyncio.gather(*(created(stripe, f"wish {number}") for number in range(5)))
        await stripe.fault("status", status=500, skip=1)
        listed = stripe.link.each(stripe.link.client.v1.customers.list_async, params={"limit": 2})
        assert {one.id async for one in listed} == set(made)
        assert stripe.asked("GET", PATH) == 4


async def test_without_a_key_there_is_no_link() -> None:
    with pytest.raises(ValueError, match=r"stripe\.api_key_file is not set"):
        async with stripe_link(StripeSettings()):
            pass
