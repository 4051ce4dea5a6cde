"""Things to observe, for tests: an escrow, a wallet, a service, each as it usually is but for what a test says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chain.chain_reading import Lock
from chain.coverage import Level
from settlement.alerts.observed import Observed, SenderFunds, ServiceCheck
from settlement.alerts.state import Policy

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
ETH = 10**18
SENDER = bytes.fromhex("70997970c51812dc3a010c7d01b50e0d17dc79c8")
ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
POLICY = Policy(
    warning_channels=frozenset({"log", "mail"}),
    critical_channels=frozenset({"log", "mail", "pager"}),
    escalation_channels=frozenset({"boss"}),
    repeat=timedelta(hours=4),
    escalate_after=timedelta(minutes=15),
)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def funds(now: datetime = NOW, **what: Any) -> SenderFunds:
    usual: dict[str, Any] = {
        "sender": SENDER, "observed_at": now, "is_simulated": False, "deposit_wei": 2 * ETH, "reserve_wei": ETH,
        "lock": Lock.LOCKED, "level": Level.OK, "coverage_bps": 40_000, "burn_wei_per_day": ETH // 10,
        "empty_median_s": 20 * 86_400, "empty_pessimistic_s": 15 * 86_400,
    }  # fmt: skip
    return SenderFunds(**usual | what)


def check(
    name: str, *, is_well: bool = False, process: str = "host:1", now: datetime = NOW, **what: Any
) -> ServiceCheck:
    usual: dict[str, Any] = {"detail": "all is well" if is_well else "refused", "since": now, "seen_at": now}
    return ServiceCheck(process, name, is_well, **usual | what)


def seen(now: datetime = NOW, **what: Any) -> Observed:
    return Observed(now, **what)
