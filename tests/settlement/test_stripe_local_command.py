"""`clearinghouse stripe-local`, as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stripe

from settlement.stripe_local.keys import DEFAULT_WEBHOOK_SECRET
from tests.settlement.stripe_local.parts import client_of
from tests.settlement.stripe_local.test_events import listening, until

COMMAND = (sys.executable, "-m", "settlement.cli", "stripe-local", "--port", "0")


@contextmanager
def running(*options: str, is_killed: bool = False) -> Iterator[str]:
    """The command's API address. It must end by itself when it is asked to, unless it is killed."""
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "TEST MODE" in process.stdout.readline()
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None
        yield address[0]
        process.send_signal(signal.SIGKILL if is_killed else signal.SIGTERM)
        assert process.wait(timeout=20) == (-signal.SIGKILL if is_killed else 0)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_it_serves_delivers_signed_events_and_keeps_what_was_made_even_when_it_is_killed(tmp_path: Path) -> None:
    journal = ("--journal", str(tmp_path / "stripe.jsonl"))
    async with listening() as inbox:
        with running(*journal, "--webhook", inbox.url, is_killed=True) as address:
            async with client_of(address) as client:
                made = await client.v1.customers.create_async({"name": "A"})
                await until(lambda: len(inbox.received) == 1)
                assert inbox.events(client, DEFAULT_WEBHOOK_SECRET)[0].data.object["id"] == made.id
        with running(*journal, "--webhook", inbox.url) as address:
            async with client_of(address) as client:
                await client.v1.customers.update_async(made.id, {"name": "B"})
                await until(lambda: len(inbox.received) == 2)
                assert len((await client.v1.webhook_endpoints.list_async()).data) == 1


async def test_stripe_tax_is_set_at_the_start() -> None:
    with running("--tax", "de=19") as address:
        async with client_of(address) as client:
            customer = await client.v1.customers.create_async({"address": {"country": "DE"}})
            invoice = await client.v1.invoices.create_async(
                {"customer": customer.id, "currency": "eur", "automatic_tax": {"enabled": True}}
            )
            item = {"customer": customer.id, "invoice": invoice.id, "amount": 1000, "currency": "eur"}
            await client.v1.invoice_items.create_async(stripe.params.InvoiceItemCreateParams(**item))
            assert (await client.v1.invoices.retrieve_async(invoice.id)).total == 1190


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tax", "19"), "a country and its percentage are needed"),
        (("--webhook", "nowhere"), "--webhook: Invalid URL"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
    ],
)
def test_a_wrong_option_is_named(options: tuple[str, ...], told: str) -> None:
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
