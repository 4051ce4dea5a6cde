"""Logs: one form for everybody, and no secrets in it."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import structlog

from clearinghouse.config import LogSettings
from clearinghouse.log import configure_logging, without_secrets

API_KEY = "lpch_4f0c9a1be2d37705_" + "ab" * 32 + "6b1f02ce"
API_KEY_SECRET = "ab" * 32
WEBHOOK_SECRET = "lpws_" + API_KEY.removeprefix("lpch_")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, disabled = root.handlers, root.level, access.disabled
    show = warnings.showwarning
    yield
    root.handlers, access.disabled = handlers, disabled
    root.setLevel(level)
    logging.captureWarnings(False)
    warnings.showwarning = show
    structlog.reset_defaults()


class Log:
    """What was written."""

    def __init__(self, **settings: Any) -> None:
        self._stream = io.StringIO()
        configure_logging(LogSettings(**settings), stream=self._stream)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_an_event_is_one_json_object_with_level_logger_and_utc_time() -> None:
    log = Log()
    structlog.get_logger("clearinghouse.api").info("refused", code="out_of_credit", reason="a\nb")
    (event,) = log.events
    assert event.pop("time").endswith("Z")
    assert event == {
        "event": "refused",
        "code": "out_of_credit",
        "reason": "a\nb",
        "level": "info",
        "logger": "clearinghouse.api",
    }


@pytest.mark.parametrize("name", ["uvicorn.error", "alembic.runtime.migration", "grpc._server", "asyncio"])
def test_other_libraries_come_out_in_the_same_form(name: str) -> None:
    log = Log()
    logging.getLogger(name).warning("state %d", 1)
    (event,) = log.events
    assert (event["event"], event["logger"], event["level"]) == ("state 1", name, "warning")


def test_python_warnings_are_logged() -> None:
    log = Log()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    assert "careful" in log.events[0]["event"]


def test_there_is_no_access_log() -> None:
    log = Log(level="debug")
    logging.getLogger("uvicorn.access").info('127.0.0.1 - "POST /generate-live-payment" 200')
    assert log.text == ""


def test_the_level_holds_for_ours_and_for_others() -> None:
    log = Log(level="warning")
    structlog.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    structlog.get_logger("a").warning("yes")
    assert [event["event"] for event in log.events] == ["yes"]


@pytest.mark.parametrize(
    "name",
    ["authorization", "Authorization", "api_key_pepper", "keystore_password", "admin_token", "api_key", "secret", "dsn",
     "database_url"],
)  # fmt: skip
@pytest.mark.parametrize("shape", ["plain", "nested", "listed"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_logged_under_the_name_of_a_secret_is_taken_out(name: str, shape: str, form: str) -> None:
    log = Log(format=form)
    value: Any = {"plain": "hunter2", "nested": {"deep": "hunter2"}, "listed": ["hunter2", b"hunter2"]}[shape]
    structlog.get_logger().warning("event", **{name: value}, headers={name: value})
    assert "hunter2" not in log.text
    assert "[redacted]" in log.text


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_looks_like_a_secret_is_taken_out_wherever_it_stands(form: str) -> None:
    log = Log(format=form)
    texts = [
        f"key {API_KEY} is unknown",
        f"secret {WEBHOOK_SECRET} is unknown",
        "postgresql://clearinghouse:hunter2@db/books",
        "Authorization: Bearer hunter2hunter2",
        "host=db password=hunter2 dbname=books",
        "host=db password='hunter2 hunter2' dbname=books",
    ]
    for text in texts:
        structlog.get_logger().warning(text, value=text, listed=[text], nested={"a": {"b": text}})
        logging.getLogger("other").warning("%s", text)
        try:
            raise RuntimeError(text)  # noqa: TRY301 - as a failing call would
        except RuntimeError:
            structlog.get_logger().exception("failed")
            logging.getLogger("other").exception("failed")
    assert "hunter2" not in log.text
    assert API_KEY_SECRET not in log.text
    assert "lpch_4f0c9a1be2d37705_[redacted]" in log.text, "the public part says whose key it was"
    assert "lpws_4f0c9a1be2d37705_[redacted]" in log.text


def test_an_objects_own_text_is_searched_too() -> None:
    class Talkative:
        def __repr__(self) -> str:
            return f"Talkative({API_KEY})"

    log = Log()
    structlog.get_logger().warning("event", value=Talkative(), error=ValueError(API_KEY))
    assert API_KEY_SECRET not in log.text


def test_a_traceback_shows_no_local_variables() -> None:
    log = Log(format="console")
    local = "hunter" + str(1 + 1)  # so that the line of code does not show it
    try:
        int(f"{len(local)}x")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "Traceback" in log.text
    assert "hunter2" not in log.text


def test_bytes_are_counted_and_not_shown() -> None:
    log = Log()
    structlog.get_logger().warning("event", body=b"\x00" * 20)
    assert log.events[0]["body"] == "<20 bytes>"


def test_ids_and_counts_are_shown_whatever_they_are_called() -> None:
    log = Log()
    structlog.get_logger().warning("event", api_key_id="key_1", token_count=3, pepper_file="/run/secrets/pepper")
    assert (
        log.events[0].items() >= {"api_key_id": "key_1", "token_count": 3, "pepper_file": "/run/secrets/pepper"}.items()
    )


def test_amounts_keep_all_their_digits() -> None:
    log = Log()
    structlog.get_logger().warning("event", ev_wei=10**20 + 1, id=uuid4(), rows=5)
    assert log.events[0]["ev_wei"] == "100000000000000000001"
    assert log.events[0]["rows"] == 5


@pytest.mark.parametrize("prefix", ["sk_live_", "sk_test_", "rk_live_", "whsec_"])
def test_keys_and_secrets_of_stripe_are_taken_out(prefix: str) -> None:
    assert without_secrets(f"with {prefix}51HqLyjWDarjtT1_zdp7dc, please") == f"with {prefix}[redacted], please"


def test_ordinary_text_is_left_alone() -> None:
    for text in (
        "Started on http://127.0.0.1:8080/docs",
        "mail me@example.org",
        "3 // 4 @ noon",
        "lpch_ is the prefix",
    ):
        assert without_secrets(text) == text


def test_configuring_again_replaces_the_first_configuration() -> None:
    first, second = Log(), Log()
    structlog.get_logger().warning("once")
    assert (first.text, len(second.events)) == ("", 1)
