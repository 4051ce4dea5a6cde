"""The life of an alert: told once, repeated as agreed, ended once, and never by what nobody knows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from settlement.alerts.conditions import Condition, Group, Severity
from settlement.alerts.round import evaluated
from settlement.alerts.silences import Silence
from settlement.alerts.state import KEEP_S, Alert, Announcement, Said, State
from tests.settlement.alerts.scenes import NOW, POLICY, after

LOW = Condition("deposit_low", Group.FUNDS, Severity.WARNING, "low", for_s=600, worse="w" * 32)
GAS = Condition("gas_low", Group.FUNDS, Severity.WARNING, "little gas", labels=(("wallet", "0xa"),))
DOWN = Condition("signer_down", Group.SIGNING, Severity.CRITICAL, "down")


class House:
    """Evaluates as the job does, and keeps what a database would."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.ended: list[Alert] = []
        self.silences: list[Silence] = []
        self.said: list[tuple[float, str, Said]] = []
        self.told: list[Announcement] = []
        self._ids = map(UUID, (f"{n:032x}" for n in itertools.count(1)))

    def at(self, seconds: float, *conditions: Condition) -> list[Said]:
        now = after(seconds)
        done = evaluated(self.alerts, conditions, self.silences, now, POLICY, new_id=lambda: next(self._ids))
        kept = {alert.id: alert for alert in self.alerts} | {alert.id: alert for alert in done.changed}
        for alert in done.forgotten:
            kept.pop(alert.id, None)
        self.alerts = [alert for alert in kept.values() if alert.state is not State.RESOLVED]
        self.ended += [alert for alert in kept.values() if alert.state is State.RESOLVED]
        self.told += done.announcements
        self.said += [(seconds, told.alert.condition.rule, told.said) for told in done.announcements]
        return [told.said for told in done.announcements]

    def silence(self, matches: dict[str, str], until_s: float) -> None:
        self.silences.append(Silence(UUID(int=1), matches, NOW, after(until_s), "", "me"))

    def acknowledge(self) -> None:
        self.alerts = [replace(alert, acknowledged_at=NOW) for alert in self.alerts]


def test_a_condition_is_told_once_it_has_held_for_its_time_and_not_before() -> None:
    house = House()
    assert house.at(0, LOW) == house.at(590, LOW) == []
    assert house.at(600, LOW) == [Said.FIRING]
    assert house.at(610, LOW) == []


def test_what_goes_away_before_its_time_is_never_told_and_begins_anew() -> None:
    house = House()
    house.at(0, LOW)
    assert house.at(300) == house.at(330) == []
    assert house.alerts == []
    assert house.at(600, LOW) == []
    assert house.at(1200, LOW) == [Said.FIRING]


def test_the_time_counts_from_when_it_began_where_that_is_known() -> None:
    assert House().at(0, replace(LOW, since=after(-600))) == [Said.FIRING]


def test_an_end_is_told_to_whoever_heard_of_the_beginning_once_it_has_lasted() -> None:
    house = House()
    house.at(0, DOWN)
    assert house.at(10) == []
    assert house.at(KEEP_S) == [Said.RESOLVED]
    assert house.told[-1].channels == {"log", "mail", "pager"}
    assert house.at(60) == []
    assert [alert.resolved_at for alert in house.ended] == [after(KEEP_S)]


def test_what_flickers_is_one_alert() -> None:
    house = House()
    for at in range(0, 600, 20):
        house.at(at, DOWN)
        house.at(at + 10)
    assert [said for *_, said in house.said] == [Said.FIRING]


def test_it_is_repeated_at_its_interval_until_somebody_looks_after_it() -> None:
    house = House()
    hours = [house.at(at, GAS) for at in range(0, 9 * 3600, 3600)]
    assert [at for at, said in enumerate(hours) if said] == [0, 4, 8]
    house.acknowledge()
    assert house.at(20 * 3600, GAS) == []
    assert house.at(20 * 3600 + KEEP_S + 10) == [Said.RESOLVED]


def test_a_critical_alert_that_nobody_acknowledges_is_escalated_once() -> None:
    house = House()
    house.at(0, DOWN)
    assert house.at(890, DOWN) == []
    assert house.at(900, DOWN) == [Said.ESCALATED]
    assert house.told[-1].channels == {"boss"}
    assert house.at(910, DOWN) == []
    assert house.at(940) == [Said.RESOLVED]
    assert "boss" in house.told[-1].channels


def test_what_happens_anew_is_told_as_at_first_although_somebody_looks_after_it() -> None:
    house = House()
    house.at(0, replace(DOWN, news="1"))
    house.acknowledge()
    assert house.at(3600, replace(DOWN, news="1")) == []
    assert house.at(3610, replace(DOWN, news="2")) == [Said.FIRING]
    assert house.alerts[0].acknowledged_at is None
    assert house.at(3620, replace(DOWN, news="2")) == []
    assert house.at(3610 + 900, replace(DOWN, news="2")) == [Said.ESCALATED]
    assert [told.number for told in house.told] == [1, 2, 3]


def test_neither_warnings_nor_acknowledged_alerts_are_escalated() -> None:
    house = House()
    house.at(0, DOWN, GAS)
    house.acknowledge()
    assert house.at(3600, DOWN, GAS) == []


def test_a_silence_hushes_what_it_matches_until_it_ends_and_nothing_else() -> None:
    house = House()
    house.silence({"rule": "gas_low", "wallet": "0xa"}, until_s=3600)
    assert house.at(0, GAS, DOWN) == [Said.FIRING]
    assert house.at(3590, GAS, DOWN) == [Said.ESCALATED]
    assert house.at(3600, GAS, DOWN) == [Said.FIRING]
    assert house.said[-1][1] == "gas_low"


def test_what_ends_under_a_silence_is_not_told_unless_its_beginning_was() -> None:
    house = House()
    house.silence({"rule": "gas_low"}, until_s=3600)
    house.at(0, GAS)
    assert house.at(60) == []
    house = House()
    house.at(0, GAS)
    house.silence({"rule": "gas_low"}, until_s=3600)
    assert house.at(60) == [Said.RESOLVED]


def test_the_lesser_of_two_is_not_told_beside_the_worse_and_is_told_after_it() -> None:
    house = House()
    lesser = replace(LOW, for_s=0, worse=DOWN.fingerprint)
    assert house.at(0, lesser, DOWN) == [Said.FIRING]
    assert house.at(10, lesser) == []
    house.at(30, lesser)
    assert [(at, rule, said) for at, rule, said in house.said if at] == [
        (30, "deposit_low", Said.FIRING), (30, "signer_down", Said.RESOLVED),
    ]  # fmt: skip


def test_what_is_not_known_neither_begins_nor_ends_an_alert() -> None:
    house, unknown = House(), replace(DOWN, holds=None)
    assert house.at(0, unknown) == []
    assert house.alerts == []
    house.at(10, DOWN)
    for at in range(20, 800, 10):
        assert house.at(at, unknown) == []
    assert house.at(820) == [Said.RESOLVED]


def told_by(spans: Sequence[tuple[int, int]], until_s: int) -> list[tuple[float, Said]]:
    """A slow and obvious twin: what is to be said of GAS when it holds in these spans, evaluated every 10 s."""
    said: list[tuple[float, Said]] = []
    firing_at: float | None = None
    last_said_at = last_held_at = 0.0
    for at in range(0, until_s, 10):
        if any(begin <= at < end for begin, end in spans):
            last_held_at = at
            if firing_at is None:
                firing_at = last_said_at = at
                said.append((at, Said.FIRING))
            elif at - last_said_at >= 4 * 3600:
                last_said_at = at
                said.append((at, Said.REPEATED))
        elif firing_at is not None and at - last_held_at >= KEEP_S:
            firing_at = None
            said.append((at, Said.RESOLVED))
    return said


@given(st.lists(st.tuples(st.integers(0, 2 * 86_400), st.integers(1, 40_000)), max_size=6))
def test_two_days_of_an_alerts_life_are_as_its_twin_says(drawn: list[tuple[int, int]]) -> None:
    spans = [(begin, begin + length) for begin, length in drawn]
    house = House()
    until_s = 3 * 86_400
    for at in interesting(spans, until_s):
        house.at(at, *([GAS] if any(begin <= at < end for begin, end in spans) else []))
    assert [(at, said) for at, _, said in house.said] == told_by(spans, until_s)


def interesting(spans: Sequence[tuple[int, int]], until_s: int) -> list[int]:
    """Every tenth second near a change, and each hour's first minute besides: the rest says nothing new."""
    near: set[int] = set()
    changes = [at for span in spans for at in span]
    for at in changes:
        near.update(range(at // 10 * 10 - 60, at + 120, 10))
    for begin, _ in spans:  # repeats are counted from a beginning
        for hours in range(0, 80, 4):
            near.update(range(begin // 10 * 10 + hours * 3600 - 60, begin + hours * 3600 + 120, 10))
    return sorted(at for at in near if 0 <= at < until_s)
