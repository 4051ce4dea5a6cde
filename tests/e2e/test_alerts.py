"""Alerts from their cause to real receivers and to their end, by real processes that are killed in the middle.

`clearinghouse serve` is killed: that is the cause. Two or three `clearinghouse work` tell a webhook and a mail server.
How long each step took is printed (`pytest -s`); what is asserted leaves room for a busy machine.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from settlement.delivery.signatures import is_signed
from tests.parts.program import Home, Program, Serving, new_home
from tests.parts.receiver import HttpReceiver, MailReceiver, Post, http_receiver, mail_receiver

pytestmark = pytest.mark.slow

SECRET = "s" * 32
#: What is promised; a machine that is busy with other things gets as much again.
TOLD_MAX_S, LEADS_MAX_S = 60, 10
BUSY = 2
PATIENCE_S = 180


class Timeline:
    """What is measured, by name, for people."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}

    def begin(self, what: str) -> None:
        self._begun[what] = time.monotonic()

    def end(self, what: str, *, promised_s: float) -> None:
        took_s = time.monotonic() - self._begun[what]
        print(f"{what}: {took_s:.1f} s (promised: {promised_s:g} s)")
        assert took_s < promised_s * BUSY, what


def environment(hook: HttpReceiver, mails: MailReceiver) -> dict[str, str]:
    return {
        "CLEARINGHOUSE_ALERTS__CHANNELS": (
            f"hook: webhook+http://127.0.0.1:{hook.port}/alerts\n"
            f"mail: mailto://127.0.0.1:{mails.port}?from=alerts@ch.example&to=oncall@ch.example"
        ),
        "CLEARINGHOUSE_ALERTS__WEBHOOK_SECRET": SECRET,
        "CLEARINGHOUSE_ALERTS__ATTEMPT_TIMEOUT_S": "5",
    }


def working(home: Home, settings: dict[str, str]) -> Program:
    program = home.start("work", "--data-dir", home.data_dir, "--metrics-port", 0, environment=settings)
    program.wait_for(r"^working, with metrics on \S+:(\d+)")
    return program


async def until(is_so: Callable[[], Any], what: str) -> None:
    give_up_at_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up_at_s, f"waited in vain for: {what}"
        await asyncio.sleep(0.05)


def about_silence(post: Post) -> str | None:
    assert is_signed(
        post.body,
        post.headers["clearinghouse-signature"],
        SECRET.encode(),
        now_unix_s=int(time.time()),
        tolerance_s=600,
    )
    data = post.document["data"]
    return str(data["said"]) if data["rule"] == "service_silent" else None


def mailed(mails: MailReceiver) -> list[str]:
    """Subjects, with one for each alert of a mail that joins several."""
    return [
        line
        for mail in mails.mails
        for line in (str(mail["Subject"]), *mail.get_content().splitlines())
        if "sign of life" in line
    ]


def outbox(home: Home) -> list[tuple[Any, ...]]:
    with psycopg.connect(home.conninfo, autocommit=True) as connection:
        return connection.execute(
            "SELECT 'evt_' || replace(id::text, '-', ''), channel, state FROM delivery ORDER BY position"
        ).fetchall()


@dataclass
class Scene:
    """A service, its workers, and who is told."""

    home: Home
    hook: HttpReceiver
    mails: MailReceiver
    timeline: Timeline = field(default_factory=Timeline)

    async def serve(self) -> Serving:
        return await asyncio.to_thread(self.home.serve)

    async def work(self) -> Program:
        return await asyncio.to_thread(working, self.home, environment(self.hook, self.mails))

    def told(self, said: str) -> list[Post]:
        """At the webhook, of the processes that are silent, as often as it came."""
        return [post for post in self.hook.posts if about_silence(post) == said]

    def mailed_count(self) -> int:
        return len(mailed(self.mails))


async def test_what_is_wrong_is_told_within_a_minute_and_who_is_killed_while_it_tells_loses_and_doubles_nothing() -> (
    None
):
    with new_home() as home:
        async with http_receiver() as hook, mail_receiver() as mails:
            scene = Scene(home, hook, mails)
            serving = await scene.serve()
            workers = [await scene.work(), await scene.work()]
            await asyncio.to_thread(workers[0].wait_for, "lead_taken")
            serving = await told_and_ended(scene, serving)
            await killed_while_it_tells(scene, serving, *workers)
        rows = outbox(home)
    require_each_once(rows, hook, mails)


async def told_and_ended(scene: Scene, serving: Serving) -> Serving:
    """One alert's life without a fault in it."""
    scene.timeline.begin("told after the cause")
    serving.program.kill()
    await until(lambda: scene.told("firing") and scene.mailed_count(), "the alert")
    scene.timeline.end("told after the cause", promised_s=TOLD_MAX_S)
    serving = await scene.serve()
    scene.timeline.begin("ended after the end of the cause")
    await until(lambda: scene.told("resolved") and scene.mailed_count() == 2, "the end of the alert")
    scene.timeline.end("ended after the end of the cause", promised_s=TOLD_MAX_S)
    return serving


async def killed_while_it_tells(scene: Scene, serving: Serving, leading: Program, standing_by: Program) -> None:
    """Who leads is killed while the receiver has the message, and has not said that it took it."""
    scene.hook.answers[:] = [None]
    serving.program.kill()
    await until(lambda: len(scene.told("firing")) == 2 and scene.mailed_count() == 3, "the second alert")
    first = scene.told("firing")[1]
    await until(lambda: [state for *_, state in outbox(scene.home)].count("waiting") == 1, "all else to be recorded")
    scene.timeline.begin("the other leads")
    leading.kill()
    scene.hook.answers[:] = [200]
    await asyncio.to_thread(standing_by.wait_for, "lead_taken")
    scene.timeline.end("the other leads", promised_s=LEADS_MAX_S)
    scene.timeline.begin("told again by the other")
    await until(lambda: len(scene.told("firing")) == 3, "the message from who leads now")
    scene.timeline.end("told again by the other", promised_s=TOLD_MAX_S)
    again = scene.told("firing")[2]
    assert again.document["id"] == first.document["id"], "the receiver can tell that it is the same"
    assert [post.headers["clearinghouse-attempt"] for post in (first, again)] == ["1", "2"]
    await scene.serve()
    await until(lambda: len(scene.told("resolved")) == 2 and scene.mailed_count() == 4, "the end of the second alert")
    await until(lambda: {state for *_, state in outbox(scene.home)} == {"delivered"}, "everything to be recorded")
    standing_by.terminate()
    assert await asyncio.to_thread(standing_by.wait) == 0


def require_each_once(rows: list[tuple[Any, ...]], hook: HttpReceiver, mails: MailReceiver) -> None:
    """By what the receivers have: by ids at the webhook, which is told twice; and in so many words by mail."""
    came = Counter(post.document["id"] for post in hook.posts)
    assert set(came) == {id_ for id_, channel, _ in rows if channel == "hook"}
    assert sorted(came.values())[-2:] == [1, 2], "but for the one whose answer was never heard, each came once"
    assert len(mailed(mails)) == 4
    assert sum("resolved: " in line for line in mailed(mails)) == 2


def test_the_page_about_alerts_says_what_is_measured_here() -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert f"{TOLD_MAX_S} s" in page
    assert f"{LEADS_MAX_S} s" in page
