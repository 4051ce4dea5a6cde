"""A local Stripe and a clearinghouse as their users run them: what changes there is heard of here, and is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from settlement.stripe_local.keys import DEFAULT_KEY, DEFAULT_WEBHOOK_SECRET
from tests.parts.ports import free_port
from tests.parts.program import Home, new_home, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as made:
        yield made


def events(home: Home, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.json("stripe", "events", "list", *options)["items"]
    return found


def test_a_customer_made_at_stripe_is_heard_of_and_done_and_can_be_done_again(home: Home) -> None:
    port = free_port()  # each of the two programs has to know the other's before it starts
    local = home.start("stripe-local", "--port", 0, "--webhook", f"http://127.0.0.1:{port}/webhooks/stripe")
    url = local.wait_for(r"^API address +(\S+)", source="out")[1]
    stripe = {
        "CLEARINGHOUSE_STRIPE__API_KEY_FILE": home.secret_file("stripe_api_key", DEFAULT_KEY),
        "CLEARINGHOUSE_STRIPE__WEBHOOK_SECRETS_FILE": home.secret_file("stripe_secrets", DEFAULT_WEBHOOK_SECRET),
        "CLEARINGHOUSE_STRIPE__API_URL": url,
    }
    home.json("gateway", "create", "acme")
    home.json("customers", "set", "acme", "--name", "Acme", "--email", "billing@acme.example", "--country", "DE")
    serving = home.dev("--http-port", port, environment=stripe)
    making = ("--type", "customer.created")  # others of the customer come at the same time, in any order
    wait_until(lambda: any(each["state"] == "done" for each in events(home, *making)), "an event that is done")
    (made,) = events(home, *making)
    assert (made["object_type"], made["source"]) == ("customer", "delivered")
    wait_until(lambda: {each["state"] for each in events(home)} == {"done"}, "the end of all of them")

    assert home.json("stripe", "events", "replay", made["id"]) == {"events_count": 1}

    def is_done_again() -> bool:
        (again,) = events(home, "--object", made["object_id"], *making)
        return bool(again["state"] == "done" and again["attempts_count"] > made["attempts_count"])

    wait_until(is_done_again, "its second time")
    found = {each["name"]: each for each in home.run("doctor", "--json", environment=stripe).json}
    assert found["Stripe"]["status"] == found["Stripe endpoint"]["status"] == "ok"

    serving.program.interrupt()
    assert serving.program.wait() == 0
    assert "Traceback" not in serving.program.log, serving.program.log
    assert DEFAULT_KEY not in serving.program.log
    local.terminate()
    assert local.wait() == 0


def test_commands_that_need_no_stripe_need_no_key_and_say_nothing_of_it(home: Home) -> None:
    assert events(home) == []
    assert "There are no such events." in home.run("stripe", "events", "list").out
