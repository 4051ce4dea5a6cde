"""`clearinghouse dev --stripe-local`: settings of a local Stripe, and a customer for whoever has none."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from clearinghouse.cli.context import BadConfiguration
from clearinghouse.config import Settings
from clearinghouse.demo import with_local_stripe
from settlement.cli import app
from settlement.cli.dev_stripe import stripe_beside_dev
from settlement.cli.stripe_of_dev import journal_locked, settings_with_stripe
from settlement.stripe_link.client import stripe_link
from settlement.stripe_local.keys import DEFAULT_KEY, DEFAULT_WEBHOOK_SECRET
from tests.parts.command_line import called
from tests.settlement.conftest import Owner


def test_the_settings_are_those_of_the_local_stripe_and_of_no_other() -> None:
    settings = with_local_stripe(Settings())
    assert settings.stripe.api_key is not None
    assert settings.stripe.api_key.get_secret_value() == DEFAULT_KEY
    assert settings.stripe.webhook_secrets is not None
    assert [one.get_secret_value() for one in settings.stripe.webhook_secrets] == [DEFAULT_WEBHOOK_SECRET]
    assert (settings.stripe.livemode, settings.payments.return_url) == (False, "http://127.0.0.1:8080/docs")


def of_dev(data_dir: Path) -> Settings:
    """At a free port."""
    settings = with_local_stripe(Settings(data_dir=data_dir))
    free = settings.stripe.model_copy(update={"api_url": "http://127.0.0.1:0"})
    return settings.model_copy(update={"stripe": free})


async def test_every_gateway_has_a_customer_and_who_has_one_keeps_it(
    database: str, owner: Owner, tmp_path: Path
) -> None:
    for name in ("demo", "other"):
        owner.execute("INSERT INTO gateway (id, name) VALUES (gen_random_uuid(), %s)", [name])
        owner.execute("INSERT INTO account (id, gateway_id, name, currency) SELECT id, id, name, 'USD' FROM gateway "
                      "WHERE name = %s", [name])  # fmt: skip
    owner.execute("INSERT INTO customer (gateway_id, name, email) SELECT id, 'Other', 'o@example.org' FROM gateway "
                  "WHERE name = 'other'")  # fmt: skip
    async with stripe_beside_dev(of_dev(tmp_path), database):
        assert (tmp_path / "stripe-local.jsonl").exists()
    named = owner.execute("SELECT name, email FROM customer ORDER BY name").fetchall()
    assert named == [("Other", "o@example.org"), ("demo", "billing@gateway.example")]


async def test_commands_on_its_books_find_it_while_it_lives_and_nothing_else_is_led_there(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told, other = tmp_path / "stripe-local.url", tmp_path / "other"
    other.mkdir()
    async with stripe_beside_dev(of_dev(tmp_path), database):
        assert stat.S_IMODE(told.stat().st_mode) == 0o600
        capsys.readouterr()
        found = settings_with_stripe(tmp_path)
        assert capsys.readouterr().err.startswith(
            "TEST MODE: asking the local Stripe of `clearinghouse dev` at http://"
        )
        async with stripe_link(found.stripe) as link:
            assert (await link.call(link.client.v1.customers.list_async)).data == []
        assert settings_with_stripe(other).stripe.api_key is None
        for name, value in (("STRIPE__LIVEMODE", "false"), ("DATABASE_URL", "postgresql://u:p@db.example/books")):
            with monkeypatch.context() as environment:
                environment.setenv(f"CLEARINGHOUSE_{name}", value)
                assert settings_with_stripe(tmp_path).stripe.api_key is None, "configured otherwise"
        with pytest.raises(BadConfiguration, match="another `clearinghouse dev`"):
            async with stripe_beside_dev(of_dev(tmp_path), database):
                pass
        left = told.read_text(encoding="utf-8")
    assert not told.exists()
    told.write_text(left, encoding="utf-8")  # as after a kill
    assert settings_with_stripe(tmp_path).stripe.api_key is None
    with journal_locked(tmp_path):  # the next one begins, and does not listen yet
        assert settings_with_stripe(tmp_path).stripe.api_key is None
    assert capsys.readouterr().err.count("TEST MODE: asking") == 0


@pytest.mark.parametrize("option", [["--no-worker"], ["--http-port", "0"]], ids=str)
def test_it_is_refused_where_nobody_could_deliver_or_act(option: list[str], tmp_path: Path) -> None:
    answer = called(app, ["dev", "--stripe-local", "--data-dir", str(tmp_path), *option], {})
    assert (answer.exit_code, "needs the worker" in answer.err) == (1, True)
