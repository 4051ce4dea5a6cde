"""Settings of Stripe: a key of the wrong mode, or what is no key, is found at the start and never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearinghouse.config_sources import ConfigError, load_settings

LIVE_KEY = "rk_live_4eC39HqLyjWDarjtT1zdp7dc"


def loaded(**settings: str) -> str:
    """What is said of these settings; nothing if they are good."""
    try:
        load_settings(environment={f"CLEARINGHOUSE_STRIPE__{name.upper()}": text for name, text in settings.items()})
    except ConfigError as error:
        return str(error)
    return ""


def test_stripe_is_off_unless_it_has_a_key() -> None:
    settings = load_settings(environment={}).stripe
    assert (settings.api_key, settings.livemode) == (None, False)


def test_keys_of_both_kinds_and_modes_are_taken() -> None:
    assert loaded(api_key="sk_test_local_clearinghouse") == ""
    assert loaded(api_key=LIVE_KEY, livemode="true") == ""


@pytest.mark.parametrize("settings", [{"api_key": LIVE_KEY}, {"api_key": "sk_test_12345678", "livemode": "true"}])
def test_a_key_of_the_other_mode_is_refused(settings: dict[str, str]) -> None:
    said = loaded(**settings)
    assert "real money" in said
    assert settings["api_key"] not in said


@pytest.mark.parametrize("text", ["pk_live_4eC39HqLyjWDarjtT1zdp7dc", "whsec_12345678901234567890", "sk_test_a b", "x"])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    said = loaded(api_key=text)
    assert "a restricted or secret key of Stripe's is needed" in said
    assert text not in said.replace("rk_live_…, rk_test_…, sk_test_…", "")


@pytest.mark.parametrize(
    "url", ["api.stripe.com", "https://api.stripe.com/v1", "ftp://a", "https://u:p@a", "https://a?b"]
)
def test_an_address_of_the_api_is_a_host(url: str) -> None:
    assert "https://host is needed" in loaded(api_url=url)


def test_a_key_that_moves_real_money_never_goes_out_in_clear_text() -> None:
    assert "clear text" in loaded(api_key=LIVE_KEY, livemode="true", api_url="http://stripe.internal")
    assert loaded(api_key=LIVE_KEY, livemode="true", api_url="https://stripe.internal") == ""


def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(LIVE_KEY + "\n")
    file.chmod(0o600)
    environment = {"CLEARINGHOUSE_STRIPE__API_KEY_FILE": str(file), "CLEARINGHOUSE_STRIPE__LIVEMODE": "true"}
    key = load_settings(environment=environment).stripe.api_key
    assert key is not None
    assert key.get_secret_value() == LIVE_KEY
    assert LIVE_KEY not in repr(key)
