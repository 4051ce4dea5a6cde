"""Signatures of Stripe's events, held against the official SDK's own."""

from __future__ import annotations

import time

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.stripe_signature import HEADER_BYTES_MAX, BadSignature, require_signed

SECRET, OTHER = "whsec_of_this_endpoint", "whsec_of_another_one"
BODY = '{"id": "evt_1", "name": "Zoë"}'


def header_of(body: str = BODY, secret: str = SECRET, at: int | None = None) -> bytes:
    made: str = stripe.WebhookSignature.generate_signature_header(body, secret, at)
    return made.encode()


def judged(header: bytes, *secrets: str, body: str = BODY, now_s: float | None = None) -> str:
    """What is wrong with it; nothing if it is accepted."""
    keys = [secret.encode() for secret in secrets or (SECRET,)]
    try:
        require_signed(body.encode(), header, keys, now_s=now_s or time.time(), tolerance_s=300)
    except BadSignature as reason:
        return str(reason)
    return ""


def test_what_the_sdk_signs_is_accepted() -> None:
    assert judged(header_of()) == ""


@given(st.text(), st.text(st.characters(categories=["L", "N"]), min_size=8))
def test_any_body_and_secret_are_judged_as_the_sdk_judges_them(body: str, secret: str) -> None:
    header = header_of(body, secret)
    assert judged(header, secret, body=body) == ""
    assert judged(header, secret, body=body + " ") != ""
    assert judged(header, secret + "x", body=body) != ""


@pytest.mark.parametrize("secrets", [(SECRET, OTHER), (OTHER, SECRET)])
def test_two_secrets_of_ours_are_both_tried(secrets: tuple[str, str]) -> None:
    assert judged(header_of(secret=SECRET), *secrets) == ""
    assert judged(header_of(secret=OTHER), *secrets) == ""


def test_two_signatures_of_stripes_are_both_tried() -> None:
    at = int(time.time())
    ours, theirs = header_of(secret=SECRET, at=at), header_of(secret=OTHER, at=at)
    assert judged(ours + b"," + theirs.partition(b",")[2]) == ""
    assert judged(theirs + b"," + ours.partition(b",")[2]) == ""


@pytest.mark.parametrize("seconds", [0, 299, -299])
def test_a_time_close_to_ours_is_accepted(seconds: int) -> None:
    now = int(time.time())
    assert judged(header_of(at=now + seconds), now_s=now) == ""


@pytest.mark.parametrize("seconds", [301, -301, 10**6, -(10**6)])
def test_an_old_and_a_future_time_are_refused(seconds: int) -> None:
    now = int(time.time())
    assert "time is more than 300 s from ours" in judged(header_of(at=now + seconds), now_s=now)


def test_a_time_cannot_be_changed_afterwards() -> None:
    now = int(time.time())
    old = header_of(at=now - 1000)
    assert "no signature matches" in judged(old.replace(b"%d" % (now - 1000), b"%d" % now), now_s=now)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"t=1",
        b"v1=" + b"0" * 64,
        b"t=,v1=" + b"0" * 64,
        b"t=1,v1=",
        b"t=1,v1=" + b"z" * 64,
        b"t=1,v0=" + b"0" * 64,
        b"t=1,t=2,v1=" + b"0" * 64,
        b"t=-1,v1=" + b"0" * 64,
        b"t=9999999999999,v1=" + b"0" * 64,
        "t=١,v1=".encode() + b"0" * 64,
        b"\xff,t=1",
    ],
)
def test_a_header_of_another_form_is_refused(header: bytes) -> None:
    assert "is missing, or has no time and signature" in judged(header)


def test_a_long_header_is_refused_before_it_is_worked_at() -> None:
    assert "too long" in judged(header_of() + b",v1=" + b"0" * HEADER_BYTES_MAX)
