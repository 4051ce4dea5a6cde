"""Stripe's own command line drives the local server: requests and expectations that nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from settlement.stripe_local.keys import DEFAULT_KEY
from tests.parts.npm import NotInstalled, installed
from tests.settlement.stripe_local.parts import Running
from tests.settlement.stripe_local.test_payments import event_types

FOLDER = Path(__file__).parents[2] / "parts" / "stripe_cli"


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return installed(FOLDER, "@stripe/cli-linux-x64/bin/stripe")
    except NotInstalled as error:
        pytest.skip(f"STRIPE'S COMMAND LINE DOES NOT JUDGE THE LOCAL STRIPE: {error}")


async def run(program: Path, local: Running, home: Path, *arguments: str) -> str:
    """What it says. It may talk to the local server alone: for all else there is a proxy that does not exist."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "STRIPE_API_KEY": DEFAULT_KEY,
        "STRIPE_CLI_TELEMETRY_OPTOUT": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    process = await asyncio.create_subprocess_exec(
        str(program),
        *arguments,
        "--api-base",
        local.base_url,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize(
    "event",
    [
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.failed",
        "charge.refunded",
        "credit_note.created",
        "credit_note.voided",
        "customer.updated",
        "invoice.deleted",
        "invoice.marked_uncollectible",
        "invoice.paid",
        "invoice.payment_action_required",
        "invoice.payment_failed",
        "invoice.sent",
        "invoice.voided",
        "payment_intent.canceled",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
        "payment_method.detached",
        "setup_intent.canceled",
        "setup_intent.requires_action",
        "setup_intent.setup_failed",
        "setup_intent.succeeded",
    ],
)
async def test_trigger_brings_about_the_event(program: Path, local: Running, tmp_path: Path, event: str) -> None:
    said = await run(program, local, tmp_path, "trigger", event)
    assert "Trigger succeeded" in said
    assert event in await event_types(local)


async def test_fixtures_of_ones_own_bill_a_customer(program: Path, local: Running, tmp_path: Path) -> None:
    steps = [
        {"name": "customer", "path": "/v1/customers", "method": "post", "params": {"email": "a@example.org"}},
        {
            "name": "invoice",
            "path": "/v1/invoices",
            "method": "post",
            "params": {"customer": "${customer:id}", "collection_method": "send_invoice", "days_until_due": 30},
        },
        {
            "name": "item",
            "path": "/v1/invoiceitems",
            "method": "post",
            "params": {"customer": "${customer:id}", "invoice": "${invoice:id}", "amount": 1234, "currency": "usd"},
        },
        {"name": "sent", "path": "/v1/invoices/${invoice:id}/send", "method": "post"},
    ]
    file = tmp_path / "fixtures.json"
    file.write_text(json.dumps({"_meta": {"template_version": 0}, "fixtures": steps}))
    await run(program, local, tmp_path, "fixtures", str(file))
    (invoice,) = (await local.client.v1.invoices.list_async()).data
    assert (invoice.status, invoice.amount_due) == ("open", 1234)
