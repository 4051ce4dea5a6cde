"""The texts of API keys and webhook secrets: one form, told apart by what they begin with."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import InvalidRequest, Unauthenticated
from clearinghouse.identity.keys import API_KEY
from clearinghouse.identity.secret_texts import SecretDigests, SecretForm, SecretText, secret_hmac
from clearinghouse.identity.webhook_signers import WEBHOOK_SECRET

PEPPER = b"0123456789abcdef" * 4
FORMS = pytest.mark.parametrize("form", [API_KEY, WEBHOOK_SECRET], ids=["key", "webhook"])


@FORMS
def test_a_new_secret_is_read_back_into_its_parts(form: SecretForm) -> None:
    key, public_id, secret = form.new(PEPPER)
    read = form.read(key)
    assert (read.public_id, read.secret) == (public_id, secret)
    assert len(secret) == 36
    assert key.startswith(f"{form.prefix}{public_id}_")


@FORMS
def test_a_seal_tells_what_was_made_here_from_every_other_text(form: SecretForm) -> None:
    ours, other = form.read(form.new(PEPPER)[0]), form.read(form.new(PEPPER)[0])
    assert form.was_made_here(PEPPER, ours)
    assert not form.was_made_here(PEPPER[::-1] + b"x", ours)
    assert not form.was_made_here(PEPPER, SecretText(other.public_id, ours.secret))
    assert not form.was_made_here(PEPPER, SecretText(ours.public_id, ours.secret[:-1] + bytes([ours.secret[-1] ^ 1])))
    assert not SecretForm("lpxx_", "x", "an x").was_made_here(PEPPER, ours)


@FORMS
def test_no_two_secrets_are_alike(form: SecretForm) -> None:
    made = [form.new(PEPPER) for _ in range(1000)]
    assert len({public_id for _, public_id, _ in made}) == len({secret for _, _, secret in made}) == 1000


@FORMS
@given(position=st.integers(0, 93), character=st.sampled_from("0123456789abcdef"))
def test_a_mistyped_character_is_noticed(form: SecretForm, position: int, character: str) -> None:
    key, _, _ = form.new(PEPPER)
    mistyped = key[:position] + character + key[position + 1 :]
    if mistyped != key:
        with pytest.raises(Unauthenticated):
            form.read(mistyped)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "There is no API key"),
        ("sk_live_1234", "not an API key of the clearinghouse"),
        ("lpch_", "5 characters instead of 102"),
        ("lpch_" + "A" * 97, "malformed"),
        ("lpch_" + "0" * 16 + "_" + "0" * 80, "checksum does not match"),
        ("lpch_" + "0" * 16 + "_" + "٣" * 80, "malformed"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(key: str, reason: str) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        API_KEY.read(key)


def test_a_secret_of_one_kind_is_none_of_the_other() -> None:
    with pytest.raises(Unauthenticated, match="not a webhook secret of the clearinghouse: those begin with lpws_"):
        WEBHOOK_SECRET.read(API_KEY.new(PEPPER)[0])
    with pytest.raises(Unauthenticated, match="not an API key of the clearinghouse: those begin with lpch_"):
        API_KEY.read(WEBHOOK_SECRET.new(PEPPER)[0])


@FORMS
def test_a_whole_secret_is_not_taken_for_its_name_and_not_repeated(form: SecretForm) -> None:
    text, public_id, _ = form.new(PEPPER)
    form.refuse_whole(public_id)
    form.refuse_whole(form.prefix + public_id)
    with pytest.raises(InvalidRequest, match="and a secret: name it by its public id") as refused:
        form.refuse_whole(text)
    assert text[30:60] not in str(refused.value)


@FORMS
def test_refusals_and_representations_never_show_the_secret(form: SecretForm) -> None:
    key, _, secret = form.new(PEPPER)
    for wrong in (key[:-1], key[:-1] + ("0" if key[-1] != "0" else "1"), key + "0", "x" + key, key.upper()):
        with pytest.raises(Unauthenticated) as refused:
            form.read(wrong)
        assert secret.hex()[:8] not in f"{refused.value} {refused.value.facts}".lower()
    assert secret.hex() not in repr(form.read(key))
    assert repr(secret) not in repr(form.read(key))


def test_what_is_stored_is_an_hmac_of_the_secret_under_the_pepper() -> None:
    assert secret_hmac(PEPPER, b"s" * 32) == hmac.new(PEPPER, b"s" * 32, hashlib.sha256).digest()
    assert secret_hmac(PEPPER, b"s" * 32) != secret_hmac(PEPPER[::-1], b"s" * 32)
    with pytest.raises(ValueError, match="at least 32"):
        secret_hmac(b"short", b"s" * 32)


def test_a_remembered_digest_is_of_one_text_and_of_one_process() -> None:
    digests = SecretDigests()
    assert digests.digest("Bearer a") == digests.digest("Bearer a")
    assert len({digests.digest("Bearer a"), digests.digest("Bearer b"), SecretDigests().digest("Bearer a")}) == 3
    assert len(digests.digest("Bearer \udc80")) == 32
