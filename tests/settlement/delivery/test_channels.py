"""Every channel against a real receiver: what arrives is read and asserted, and what is not accepted is told."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest

from clearinghouse.config_alerts import AlertSettings
from settlement.alerts.conditions import Condition
from settlement.alerts.messages import message_of
from settlement.alerts.rules import conditions
from settlement.alerts.state import Alert, Announcement, Said, State
from settlement.alerts.thresholds import Thresholds
from settlement.delivery.channels import ChannelError, channels_of
from settlement.delivery.message import Delivery, NotAccepted
from settlement.delivery.signatures import is_signed
from tests.parts.alertmanager import alertmanager_program, running_alertmanager
from tests.parts.receiver import http_receiver, mail_receiver
from tests.settlement.alerts.scenes import ADDRESS, ETH, NOW, funds, seen

SECRET = "s" * 32
RUNBOOK_URL = "https://docs.example/alerts.md"


def low_deposit() -> Condition:
    observed = seen(
        funds=(
            funds(
                deposit_wei=9 * 10**15, burn_wei_per_day=2 * 10**16, empty_median_s=38_880, empty_pessimistic_s=22_200,
                coverage_bps=11_000, top_up_deposit_wei=2 * ETH // 10,
            ),
        ),
    )  # fmt: skip
    return next(one for one in conditions(observed, Thresholds()) if one.rule == "deposit_critical")


def delivery(said: Said = Said.FIRING, condition: Condition | None = None, number: int = 7) -> Delivery:
    resolved_at = NOW + timedelta(minutes=9) if said is Said.RESOLVED else None
    state = State.RESOLVED if resolved_at else State.FIRING
    alert = Alert(UUID(int=number), condition or low_deposit(), state, NOW, NOW, fired_at=NOW, resolved_at=resolved_at)
    announcement = Announcement(alert, said, 1, frozenset({"it"}))
    message = message_of(announcement, now=resolved_at or NOW, runbook_url=RUNBOOK_URL)
    return Delivery(UUID(int=number + 100), "it", alert.id, 1, message, NOW)


async def send(url: str, *deliveries: Delivery, timeout_s: float = 5, **settings: Any) -> None:
    channel = channels_of(AlertSettings(channels={"it": url}, webhook_secret=SECRET, **settings))["it"]
    await channel.send(deliveries or [delivery()], timeout_s=timeout_s)


BODY = f"""\
threshold: 0.01 ETH
sender: {ADDRESS}
deposit: 0.009 ETH
reserve: 1 ETH
coverage: 110.00 %
burn: 0.02 ETH a day
time left: 10 h 48 min usually, 6 h 10 min in one case of twenty
since: 2026-11-21T14:00:00.000000Z
Advised top-up: 0.2 ETH to the deposit of {ADDRESS}.
https://docs.example/alerts.md#deposit_critical"""


def test_a_message_names_balance_threshold_address_burn_time_left_top_up_and_a_link() -> None:
    message = delivery().message
    assert message.title == f"[CRITICAL] Deposit of {ADDRESS} is 0.009 ETH, below 0.01 ETH"
    assert message.body == BODY


async def test_mail_arrives_with_subject_and_text() -> None:
    async with mail_receiver() as mails:
        await send(f"mailto://127.0.0.1:{mails.port}?from=alerts@ch.example&to=oncall@ch.example")
        (mail,) = mails.mails
    assert mails.recipients == ["oncall@ch.example"]
    assert mail["Subject"] == f"[CRITICAL] Deposit of {ADDRESS} is 0.009 ETH, below 0.01 ETH"
    assert [line.strip() for line in mail.get_content().splitlines() if line.strip()] == BODY.splitlines()


async def test_what_begins_together_comes_in_one_mail() -> None:
    async with mail_receiver() as mails:
        url = f"mailto://127.0.0.1:{mails.port}?from=alerts@ch.example&to=oncall@ch.example"
        await send(url, delivery(number=7), delivery(Said.RESOLVED, number=8))
        (mail,) = mails.mails
    assert mail["Subject"] == "[funds] 2 alerts: 1 firing, 1 resolved"
    assert "resolved: Deposit of" in mail.get_content()
    assert "It lasted 9 minutes." in mail.get_content()


async def test_a_mail_server_that_refuses_is_told_without_the_password() -> None:
    async with mail_receiver("550 no such user") as mails:
        url = f"mailto://alerts:hunter2secret@127.0.0.1:{mails.port}?from=alerts@ch.example&to=nobody@ch.example"
        with pytest.raises(NotAccepted) as refused:
            await send(url)
    assert "hunter2secret" not in str(refused.value)
    assert not refused.value.is_final
    assert mails.mails == []


async def test_slack_is_posted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apprise's own request, to a receiver here in place of Slack's host."""
    from apprise.plugins.slack import NotifySlack

    async with http_receiver(200) as slack:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{slack.port}/services")
        await send("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#oncall")
        (post,) = slack.posts
    assert post.path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert "Advised top-up: 0.2 ETH" in post.body.decode()


async def test_slack_that_refuses_is_told_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.slack import NotifySlack

    async with http_receiver(403) as slack:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{slack.port}/services")
        with pytest.raises(NotAccepted) as refused:
            await send("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#oncall")
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in str(refused.value)
    assert "403" in str(refused.value)


async def test_no_token_is_logged_at_any_level(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from apprise.plugins.slack import NotifySlack

    caplog.set_level(logging.DEBUG)
    async with http_receiver(200, 403) as slack, mail_receiver("550 no") as mails:
        monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{slack.port}/services")
        await send("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#oncall")
        for url in (
            "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#oncall",
            f"mailto://alerts:hunter2secret@127.0.0.1:{mails.port}?from=alerts@ch.example&to=nobody@ch.example",
        ):
            with pytest.raises(NotAccepted):
                await send(url)
        assert len(slack.posts) == 2
    logging.getLogger("test").debug("what is logged is seen here")
    assert "what is logged is seen here" in caplog.text
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in caplog.text
    assert "hunter2secret" not in caplog.text


@pytest.mark.parametrize(("channels", "is_imported"), [("", False), ("pagerduty://K3Y", False), ("json://h", True)])
def test_apprise_is_imported_by_the_worker_alone_and_only_for_a_channel_that_needs_it(
    channels: str, is_imported: bool
) -> None:
    code = """if True:
        import sys
        import clearinghouse.service, clearinghouse.running, settlement.cli, settlement.cli.work, settlement.jobs
        assert "apprise" not in sys.modules, "imported without a channel"
        from prometheus_client import CollectorRegistry
        from clearinghouse.config import Settings
        channels = {"it": sys.argv[1]} if sys.argv[1] else {}
        settlement.jobs.jobs_of(Settings.model_validate({"alerts": {"channels": channels}}), CollectorRegistry())
        print("apprise" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, channels], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"{is_imported}\n"), done.stderr


async def test_a_webhook_is_signed_and_the_same_event_keeps_its_id() -> None:
    async with http_receiver() as hook:
        for _ in range(2):
            await send(f"webhook+http://127.0.0.1:{hook.port}/alerts?team=1")
        first, second = hook.posts
    assert first.path == "/alerts?team=1"
    signature, now_unix_s = first.headers["clearinghouse-signature"], int(time.time())
    assert is_signed(first.body, signature, SECRET.encode(), now_unix_s=now_unix_s)
    assert not is_signed(first.body + b" ", signature, SECRET.encode(), now_unix_s=now_unix_s)
    assert not is_signed(first.body, signature, b"another" * 8, now_unix_s=now_unix_s)
    assert not is_signed(first.body, signature, SECRET.encode(), now_unix_s=now_unix_s + 301)
    assert not is_signed(first.body, signature, SECRET.encode(), now_unix_s=now_unix_s - 301)
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == first.document["id"]
    event = first.document
    assert event["type"] == "alert.firing"
    assert event["data"]["labels"] == {"sender": ADDRESS}
    assert event["data"]["facts"]["deposit"] == "0.009 ETH"
    assert event["data"]["state"] == "firing"


async def test_pagerduty_gets_one_incident_for_an_alert_and_its_end() -> None:
    async with http_receiver(202) as pagerduty:
        url = f"pagerduty+http://R0UTINGKEY@127.0.0.1:{pagerduty.port}"
        await send(url, delivery())
        await send(url, delivery(Said.RESOLVED))
        begun, ended = (post.document for post in pagerduty.posts)
    assert [post.path for post in pagerduty.posts] == ["/v2/enqueue"] * 2
    assert begun["event_action"] == "trigger"
    assert begun["routing_key"] == "R0UTINGKEY"
    assert begun["payload"]["severity"] == "critical"
    assert begun["payload"]["summary"] == delivery().message.title
    assert begun["payload"]["custom_details"]["text"] == BODY
    assert begun["links"][0]["href"].startswith(RUNBOOK_URL)
    assert ended == {"routing_key": "R0UTINGKEY", "event_action": "resolve", "dedup_key": begun["dedup_key"]}


@pytest.mark.parametrize(("status", "is_final"), [(400, True), (429, False), (500, False), (301, False)])
async def test_what_pagerduty_refuses_for_good_is_not_sent_again(status: int, is_final: bool) -> None:
    async with http_receiver(status) as pagerduty:
        with pytest.raises(NotAccepted, match=str(status)) as refused:
            await send(f"pagerduty+http://R0UTINGKEY@127.0.0.1:{pagerduty.port}")
    assert refused.value.is_final is is_final
    assert "R0UTINGKEY" not in str(refused.value)


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", None])
async def test_a_receiver_that_is_slow_or_answers_garbage_has_not_taken_it(answer: bytes | None) -> None:
    async with http_receiver(answer) as hook:
        with pytest.raises(NotAccepted):
            await send(f"webhook+http://127.0.0.1:{hook.port}/", timeout_s=0.3)


@pytest.mark.parametrize(("status", "took_it"), [(200, True), (204, True), (500, False)])
async def test_a_receiver_that_closes_instead_of_saying_how_long_its_answer_is_counts_by_its_status(
    status: int, took_it: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(f"HTTP/1.0 {status} As wanted\r\nServer: old\r\n\r\n".encode())

        thread = Thread(target=answer)
        thread.start()
        url = f"webhook+http://127.0.0.1:{server.getsockname()[1]}/"
        if took_it:
            await send(url)
        else:
            with pytest.raises(NotAccepted, match="500"):
                await send(url)
        thread.join()


async def test_a_receiver_that_is_away_has_not_taken_it() -> None:
    async with http_receiver() as hook:
        port = hook.port
    with pytest.raises(NotAccepted, match="cannot be connected to"):
        await send(f"webhook+http://127.0.0.1:{port}/secret-path")


async def test_an_alertmanager_is_told_by_its_own_api() -> None:
    async with http_receiver() as manager:
        url = f"alertmanager+http://127.0.0.1:{manager.port}/prefix/"
        await send(url, delivery())
        await send(url, delivery(Said.RESOLVED))
        ((begun,), (ended,)) = (post.document for post in manager.posts)
    assert manager.posts[0].path == "/prefix/api/v2/alerts"
    assert begun["labels"] == ended["labels"], "by its labels it is the same alert"
    assert begun["labels"] == {
        "alertname": "deposit_critical", "severity": "critical", "group": "funds", "sender": ADDRESS,
    }  # fmt: skip
    assert begun["endsAt"] > "2026-11-28" > ended["endsAt"]


@pytest.mark.skipif(
    alertmanager_program() is None, reason="NO ALERTMANAGER IS TOLD: install prometheus-alertmanager to test it"
)
async def test_a_real_alertmanager_shows_what_it_was_told(tmp_path: Path) -> None:
    program = alertmanager_program()
    assert program is not None
    with running_alertmanager(program, tmp_path) as manager:
        await send(f"alertmanager+{manager.url}")
        (alert,) = await asyncio.to_thread(manager.alerts)
    assert alert["labels"]["alertname"] == "deposit_critical"
    assert "Advised top-up: 0.2 ETH" in alert["annotations"]["description"]


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://x",
        "webhook://x",
        "webhook+ftp://h/p",
        "pagerduty://key/path",
        "alertmanager+http:///x",
    ],
)
def test_a_channel_that_cannot_be_is_refused_at_the_start_without_its_url(url: str) -> None:
    with pytest.raises(ChannelError, match=r"alerts\.channels: it") as refused:
        channels_of(AlertSettings(channels={"it": url}, webhook_secret=SECRET))
    assert url not in str(refused.value)


def test_a_webhook_needs_a_secret_to_sign_with() -> None:
    with pytest.raises(ChannelError, match="webhook_secret"):
        channels_of(AlertSettings(channels={"it": "webhook+https://h.example/"}))


def test_the_log_is_always_there() -> None:
    assert set(channels_of(AlertSettings())) == {"log"}


def test_the_default_of_pagerduty_is_its_own_host() -> None:
    channel: Any = channels_of(AlertSettings(channels={"it": "pagerduty://R0UTINGKEY"}))["it"]
    assert channel._target.authority == "events.pagerduty.com"
