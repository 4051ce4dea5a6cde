"""Trouble on demand: what the next calls meet, before or after their work is done."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

Kind = Literal["status", "status_after", "hang", "hang_after", "cut", "cut_after", "latency"]
KINDS: Final = get_args(Kind)


@dataclass
class Fault:
    """One kind of trouble for the next `times` calls that match; None: until it is taken away.

    status         answered with `status` at once, nothing done (429 and 500 look as Stripe's do)
    status_after   the work is done and recorded under the idempotency key, and the answer is `status`
    hang, cut      no answer until the client gives up, or the connection cut; nothing done
    hang_after …   the same once the work is done: the caller cannot know
    latency        answered, `delay_ms` later
    """

    kind: Kind
    method: str = "*"
    path: str = "*"
    times: int | None = 1
    status: int = 500
    delay_ms: int = 0
    skip: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no fault {self.kind!r}: {', '.join(KINDS)}")

    def meets(self, method: str, path: str) -> bool:
        """Whether this call is one of those it is for."""
        return fnmatchcase(method, self.method) and fnmatchcase(path, self.path)


class Faults:
    """The faults in force, oldest first. At most one strikes a call, and latency adds to it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """From the next call on."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Everything works again."""
        self._faults.clear()

    def in_force(self) -> list[Fault]:
        """Those that still have calls to meet."""
        return list(self._faults)

    def strike(self, method: str, path: str) -> tuple[Fault | None, int]:
        """What this call meets, and how many milliseconds late; it is counted as met."""
        delay_ms = 0
        for fault in list(self._faults):
            if not fault.meets(method, path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            self._count(fault)
            delay_ms += fault.delay_ms
            if fault.kind != "latency":
                return fault, delay_ms
        return None, delay_ms

    def _count(self, fault: Fault) -> None:
        if fault.times is None:
            return
        fault.times -= 1
        if fault.times <= 0:
            self._faults.remove(fault)
