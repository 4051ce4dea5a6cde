"""The official Python client, unchanged and from PyPI, pays an orchestrator that checks everything.

The client runs in an environment of its own (`tests.e2e.sdk`); what it reports is believed only as far as the
orchestrator's books say the same. `service` gives `http_url` and `api_key`, `orchestrator` serves on this machine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from fractions import Fraction
from math import ceil
from typing import Any

from tests.e2e.conftest import Service
from tests.e2e.sdk.run import drive
from tests.parts.orchestrator import Orchestrator

MODEL = "streamdiffusion"
TOKEN_REFRESH_S = 180  # a signer asks for a fresh quote this long before the auth token expires
OPENING_S = 60  # a live video's first payment covers so much of it
PIXELS_PER_S = 1280 * 720 * 30


async def test_a_live_video_job_is_paid_across_refreshes_without_one_refused_ticket(
    service: Service, orchestrator: Orchestrator
) -> None:
    """The quotes last four seconds, so the signer answers 480 in mid-session and the client fetches a fresh quote."""
    orchestrator.settings.auth_token_valid_s = TOKEN_REFRESH_S + 4
    started_at_s = time.monotonic()
    lines = await drive("drive_lv2v.py", lv2v_job(service, orchestrator, payments=6, interval_s=1.1))
    elapsed_s = ceil(time.monotonic() - started_at_s)
    assert [line["event"] for line in lines] == ["info", "started", *["paid"] * 6], lines
    assert lines[0]["recipient"] == orchestrator.address.hex()

    books = orchestrator.books
    assert books.refused == []
    assert len(books.payments) == 7  # the first opened the job
    assert {payment.manifest_id for payment in books.payments} == {lines[1]["manifest_id"]}
    assert_nonces_count_up_from_one(orchestrator)
    assert_every_ticket_was_debited(service, orchestrator)
    assert len({ticket.recipient_rand_hash for ticket in books.tickets}) >= 2, "the signer never asked for a refresh"
    assert video_price_wei(orchestrator, seconds=OPENING_S + 6) <= paid_wei(orchestrator)
    assert paid_wei(orchestrator) <= video_price_wei(orchestrator, seconds=OPENING_S + elapsed_s) + one_ticket_wei(
        orchestrator
    )
    for payment in books.payments:
        assert payment.capabilities is not None
        assert list(payment.capabilities.constraints.PerCapability[35].models) == [MODEL]


async def test_the_client_skips_a_payment_when_nothing_is_due(service: Service, orchestrator: Orchestrator) -> None:
    """At a millionth of the price a ticket outlasts the test: two tickets build the balance, then nothing is due."""
    orchestrator.settings.prices["lv2v"] = (3, 10_000)
    lines = await drive("drive_lv2v.py", lv2v_job(service, orchestrator, payments=3, interval_s=0.1))
    assert [line["event"] for line in lines] == ["info", "started", "paid", "skipped", "skipped"], lines
    assert len(orchestrator.books.tickets) == 2
    assert orchestrator.books.refused == []


async def test_jobs_behind_a_402_are_paid_once_or_for_as_long_as_they_run(
    service: Service, orchestrator: Orchestrator
) -> None:
    orchestrator.settings.auth_token_valid_s = TOKEN_REFRESH_S + 5  # one refresh between the work and the last payment
    lines = await drive("drive_runner.py", runner_job(service, orchestrator, work_s=5, pause_s=1))
    facts = {line["event"]: line for line in lines}
    assert set(facts) == {
        "fixed done",
        "challenged",
        "fixed payment",
        "fixed payments ended",
        "live done",
        "live paid again",
        "live payments ended",
    }, lines
    assert facts["challenged"]["status"] == 402
    assert facts["fixed done"]["keeps_paying"] is False
    assert facts["fixed payment"]["has_seg_creds"] is True
    assert facts["fixed payments ended"]["session_gone"] is False  # 409: nothing more is due, but the session lives
    assert facts["live payments ended"]["session_gone"] is True  # 404

    books = orchestrator.books
    assert books.refused == []
    paid_for = [payment.manifest_id for payment in books.payments]
    assert paid_for.count(facts["fixed done"]["session_id"]) == 1
    assert paid_for.count(facts["live done"]["session_id"]) == 3  # up front, during the work, after the pause
    assert_nonces_count_up_from_one(orchestrator)
    # A session that ended costs its client one payment more: it asks the signer before it learns of the end.
    assert service.house.sums(service.gateway).tickets >= len(books.tickets)
    assert [quote.route for quote in books.quotes].count("/refresh-payment") >= 1


async def test_an_unknown_key_gets_neither_a_signature_nor_a_ticket(
    service: Service, orchestrator: Orchestrator
) -> None:
    job = lv2v_job(service, orchestrator, payments=1, interval_s=0)
    job["signer_headers"] = {"Authorization": "Bearer of no key"}
    (line,) = await drive("drive_lv2v.py", job)
    assert line["event"] == "not started"
    assert "401" in line["message"]
    assert orchestrator.books.quotes == []
    assert orchestrator.books.tickets == []


def assert_every_ticket_was_debited(service: Service, orchestrator: Orchestrator) -> None:
    """One by one: what the orchestrator received is what was issued, and what was issued was taken from the credit."""
    sums = service.house.sums(service.gateway)
    assert sums.tickets == len(orchestrator.books.tickets)
    assert sums.issued == sums.debited > 0


def lv2v_job(service: Service, orchestrator: Orchestrator, *, payments: int, interval_s: float) -> dict[str, Any]:
    pace = {"payments": payments, "interval_s": interval_s}
    return {**_parties(service, orchestrator), "model_id": MODEL, **pace}


def runner_job(service: Service, orchestrator: Orchestrator, *, work_s: int, pause_s: int) -> dict[str, Any]:
    prices = {job_type: wei for job_type, (wei, units) in orchestrator.settings.prices.items() if units == 1}
    return {**_parties(service, orchestrator), "prices": prices, "work_s": work_s, "pause_s": pause_s}


def _parties(service: Service, orchestrator: Orchestrator) -> dict[str, Any]:
    return {
        "orchestrator_url": orchestrator.url,
        "signer_url": service.http_url,
        "signer_headers": {"Authorization": f"Bearer {service.api_key}"},
    }


def assert_nonces_count_up_from_one(orchestrator: Orchestrator) -> None:
    """Per commitment 1, 2, 3…: none repeated, none lost on the way."""
    nonces: dict[bytes, list[int]] = defaultdict(list)
    for ticket in orchestrator.books.tickets:
        nonces[ticket.recipient_rand_hash].append(ticket.nonce)
    for of_one in nonces.values():
        assert of_one == list(range(1, len(of_one) + 1))


def paid_wei(orchestrator: Orchestrator) -> Fraction:
    (credit_wei,) = orchestrator.books.credit_wei.values()
    return credit_wei


def one_ticket_wei(orchestrator: Orchestrator) -> Fraction:
    return orchestrator.books.tickets[0].terms.ev_wei


def video_price_wei(orchestrator: Orchestrator, *, seconds: int) -> Fraction:
    wei, units = orchestrator.settings.prices["lv2v"]
    return Fraction(wei, units) * PIXELS_PER_S * seconds
