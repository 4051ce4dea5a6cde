"""What is measured, and one measurement of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tests.bench import stages
from tests.bench.stack import HOST, Stack
from tests.bench.usage import cpu_ns, machine_busy_ns

IDLE_S = 5.0
#: Of one caller. A gateway pays for a few streams, each again and again; a thousand would all be strangers each time.
SESSIONS_OF_ONE_COUNT = 16
Role = Literal["upstream", "proxy", "listener", "service", "echo"]


@dataclass(frozen=True)
class Scenario:
    """One way of calling one server. `is_busy`: with all callers, not one."""

    name: str
    title: str
    server: Role
    is_busy: bool = True
    #: Accounts that sessions belong to: all, one, or none because the server asks for no key.
    accounts: Literal["all", "one", "none"] = "none"
    is_grpc: bool = False
    #: A signer asks for consent, instead of a gateway for tickets.
    is_webhook: bool = False
    #: Wait so long on an open connection, then call once.
    pause_s: float = 0

    @property
    def is_paid_for(self) -> bool:
        """Whether every answer is an issuance."""
        return self.server == "service"


#: In the order of a round.
SCENARIOS = (
    Scenario("direct", "(a) upstream, called directly", "upstream"),
    Scenario("proxy", "(b) plain proxy, no ledger", "proxy"),
    Scenario("listener", "(b') plain listener, no upstream", "listener"),
    Scenario("accounts", "(c) service, all accounts", "service", accounts="all"),
    Scenario("hot", "(d) service, one hot account", "service", accounts="one"),
    Scenario("grpc", "(e) service over gRPC", "service", accounts="all", is_grpc=True),
    Scenario("webhook", "(g) service, asked by webhook", "service", accounts="all", is_webhook=True),
    Scenario("echo", "(f) bare grpc.aio echo", "echo", is_grpc=True),
    Scenario("direct-1", "(a) upstream, called directly", "upstream", is_busy=False),
    Scenario("accounts-1", "(c) service, one account", "service", is_busy=False, accounts="one"),
    Scenario("idle", "(c) first call after idling", "service", is_busy=False, accounts="one", pause_s=IDLE_S),
)


def chosen(names: Iterable[str]) -> list[Scenario]:
    """Those named, or all. ValueError for an unknown name."""
    wanted = set(names)
    if unknown := wanted - {scenario.name for scenario in SCENARIOS}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(s.name for s in SCENARIOS)}")
    return [scenario for scenario in SCENARIOS if not wanted or scenario.name in wanted]


class Runner:
    """Measures scenarios on one stack, and counts every payment that a caller of the service got."""

    def __init__(self, stack: Stack, *, callers: int, seconds: float) -> None:
        self._stack = stack
        self._callers = callers
        self._seconds = seconds
        self.payments = 0

    def warm_up(self, scenario: Scenario, seconds: float) -> dict[str, Any]:
        """As `measure`, without the measuring."""
        return self._call(scenario, seconds=0 if scenario.pause_s else seconds, pause_s=0)

    def measure(self, scenario: Scenario) -> dict[str, Any]:
        """The load's statistics with CPU per call by role, the service's stages, and how busy others were."""
        stack, http_url = self._stack, f"http://{HOST}:{self._stack.http_port}"
        stages_before = stages.read(http_url)
        began_ns, cpu_before, machine_before = time.perf_counter_ns(), self._all_cpu_ns(), machine_busy_ns()
        seconds = 0 if scenario.pause_s else self._seconds
        result = self._call(scenario, seconds=seconds, pause_s=scenario.pause_s)
        machine_after, cpu_after, ended_ns = machine_busy_ns(), self._all_cpu_ns(), time.perf_counter_ns()
        used = {role: cpu_after[role] - cpu_before[role] for role in cpu_after}
        capacity_ns = (ended_ns - began_ns) * (os.cpu_count() or 1)
        result["cpu_us"] = {role: used_ns / 1000 / result["calls"] for role, used_ns in used.items()}
        result["others_percent"] = max(0, 100 * (machine_after - machine_before - sum(used.values())) / capacity_ns)
        if scenario.server == "service":
            result |= stages.means(stages_before, stages.read(http_url))
        stack.service.require_running()
        return result

    def _all_cpu_ns(self) -> dict[str, int]:
        return {**self._stack.cpu_by_role_ns(), "bench": cpu_ns(os.getpid())}

    def _call(self, scenario: Scenario, *, seconds: float, pause_s: float) -> dict[str, Any]:
        stack = self._stack
        load = stack.grpc_load if scenario.is_grpc else stack.http_load
        callers = self._callers if scenario.is_busy else 1
        job = {
            "fleet": scenario.name,
            "host": HOST,
            "port": self._port(scenario),
            "callers": callers,
            "seconds": seconds,
            "authorizations": self._authorizations(scenario, callers),
            "pause_s": pause_s,
            "signer_authorization": stack.signer_authorization if scenario.is_webhook else None,
        }
        result = load.do(job)
        if scenario.is_paid_for:
            self.payments += result["answers"]
        return result

    def _port(self, scenario: Scenario) -> int:
        stack = self._stack
        if scenario.server == "service":
            return stack.grpc_port if scenario.is_grpc else stack.http_port
        ports = {"upstream": stack.upstream_port, "proxy": stack.proxy_port, "listener": stack.listener_port}
        return {**ports, "echo": stack.echo_port}[scenario.server]

    def _authorizations(self, scenario: Scenario, callers: int) -> list[str]:
        """One for each session; where many call there are always as many, so that only the accounts differ."""
        keys = self._stack.authorizations
        count = max(len(keys), callers) if callers > 1 else SESSIONS_OF_ONE_COUNT
        return {
            "all": [keys[number % len(keys)] for number in range(count)],
            "one": keys[:1] * count,
            "none": [""] * count,
        }[scenario.accounts]
