"""docs/alerts.md says what is so: every rule has its place, its receiver runs as it stands, its commands exist."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clearinghouse.config_alerts import AlertSettings, NoticeSettings
from settlement.alerts.rules import RULES
from settlement.cli import app
from settlement.delivery.channels import channels_of
from settlement.delivery.http_post import Target
from settlement.delivery.message import Delivery, NotAccepted
from settlement.delivery.signatures import signature_header
from tests.parts.ports import free_port
from tests.settlement.delivery.test_channels import delivery

PAGE = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text(encoding="utf-8")
SECRET = "lphk_" + "5" * 64


def test_every_rule_has_a_heading_that_messages_can_link_to_and_no_other_has() -> None:
    assert sorted(re.findall(r"^#### (\w+)$", PAGE, re.MULTILINE)) == sorted(RULES)


def test_every_command_on_the_page_exists() -> None:
    commands = set(re.findall(r"clearinghouse ((?:alerts?|notices) [a-z]+)", PAGE))
    assert len(commands) > 10
    for command in commands:
        done = CliRunner().invoke(app, [*command.split(), "--help"])
        assert done.exit_code == 0, command


@contextmanager
def receiver(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """As it stands on the page."""
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    file = folder / "receiver.py"
    file.write_text(source, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(file), str(port)], env={"WEBHOOK_SECRET": SECRET}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


async def sent(port: int, what: Delivery) -> None:
    settings = AlertSettings(channels={"it": f"webhook+http://127.0.0.1:{port}/hooks"}, webhook_secret=SECRET)  # type: ignore[dict-item, arg-type]
    for _ in range(100):
        try:
            return await channels_of(settings)["it"].send([what], timeout_s=5)
        except NotAccepted as reason:
            if "cannot be connected to" not in str(reason):
                raise
            await asyncio.sleep(0.1)
    raise AssertionError("the receiver does not start")


async def test_the_receiver_of_the_page_takes_what_we_sign_once_and_refuses_what_we_did_not(tmp_path: Path) -> None:
    port = free_port()
    with receiver(tmp_path, port) as process:
        event = delivery()
        await sent(port, event)
        await sent(port, event)  # as a second attempt does
        await sent(port, delivery(number=8))
        target = Target(f"http://127.0.0.1:{port}/hooks")
        body = b'{"id":"evt_1","type":"alert.firing","data":{}}'

        async def status(header: str, body: bytes = body) -> int:
            headers: dict[str, Any] = {"Clearinghouse-Signature": header} if header else {}
            return (await target.post(body, headers, timeout_s=5)).status

        now_unix_s = int(time.time())
        good = signature_header(body, [b"old", SECRET.encode()], at_unix_s=now_unix_s)
        assert await status(signature_header(body, [b"another"], at_unix_s=now_unix_s)) == 401
        assert await status(signature_header(body, [SECRET.encode()], at_unix_s=now_unix_s - 400)) == 401
        assert await status(good, body + b" ") == 401
        assert await status("") == 401
        assert await status(good) == 200, "one of two signatures is enough while a secret is replaced"
        process.terminate()
        out = await asyncio.to_thread(process.communicate)
    assert [line.split()[0] for line in out[0].splitlines()] == ["alert.firing"] * 3


@pytest.mark.parametrize("setting", re.findall(r"`(alerts\.[a-z_]+|notices\.[a-z_]+)`", PAGE))
def test_every_setting_on_the_page_exists(setting: str) -> None:
    section, name = setting.split(".")
    assert name in (AlertSettings if section == "alerts" else NoticeSettings).model_fields
