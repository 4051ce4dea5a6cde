"""What a pool believes about one member, and when to look again. Pure: times come in, in monotonic seconds.

             probe passed                     failures in a row, or a false identity
    UNVERIFIED ─────────▶ HEALTHY ─────────────────────────────────────────▶ EJECTED
                             ▲   probe passed, after a back-off that doubles    │
                             └──────────────────────────────────────────────────┘
    any ── probe shows another key ──▶ WRONG_KEY ── probe shows the right key ──▶ HEALTHY

Calls can only take a member out; only a probe that proves the key lets it in (half-open: one probe, no caller's
request). A caller must not be able to take signers away from others. So a complete answer never counts against a
member, not even a 500 (protocol, section 1.2: a request can be made to end in one), nor does an answer that is too
large, which large capabilities bring about.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from clearinghouse.signers.go_livepeer import Failure

#: Not the member's doing: brought about by what was asked, or by our own shutdown.
_NOT_HELD_AGAINST: Final = frozenset({Failure.TOO_LARGE, Failure.CLIENT_CLOSED})
#: A member whose last failure was one of these says no at once: asking it when nobody is healthy costs no time.
_FAILS_FAST: Final = frozenset({Failure.CONNECTION_FAILED, Failure.TRUNCATED})


class Standing(StrEnum):
    UNVERIFIED = "unverified"
    HEALTHY = "healthy"
    EJECTED = "ejected"
    WRONG_KEY = "wrong_key"


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """`failures_to_eject` counts failures in a row; a member back from an ejection goes at the first one."""

    probe_interval_s: float = 5.0
    failures_to_eject: int = 3
    backoff_first_s: float = 0.5
    backoff_max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.failures_to_eject < 1:
            raise ValueError(f"failures_to_eject is at least 1, not {self.failures_to_eject}")
        if self.probe_interval_s <= 0 or not 0 < self.backoff_first_s <= self.backoff_max_s:
            raise ValueError(
                "probe_interval_s and backoff_first_s are above 0, backoff_max_s not below backoff_first_s"
            )

    def backoff_s(self, ejections: int) -> float:
        """Doubles with each ejection that was not followed by an answer, from the first to the longest."""
        return min(self.backoff_max_s, self.backoff_first_s * 2.0 ** min(ejections - 1, 30))


class MemberHealth:
    """The belief about one member.

    `epoch` numbers the periods between changes of standing. A call remembers the epoch it began in: when it fails
    after the member was ejected, or even after it came back, it tells nothing new.
    """

    def __init__(self, policy: HealthPolicy, *, now_s: float) -> None:
        self._policy = policy
        # Counted apart: a member may prove its key all day and still hang on every payment.
        self._call_failures = 0
        self._probe_failures = 0
        self._ejections = 0
        self.standing = Standing.UNVERIFIED
        self.last_failure: Failure | None = None
        self.last_seen_s: float | None = None
        self.next_probe_s = now_s
        self.epoch = 0

    @property
    def consecutive_failures(self) -> int:
        return max(self._call_failures, self._probe_failures)

    @property
    def is_healthy(self) -> bool:
        return self.standing is Standing.HEALTHY

    @property
    def is_last_resort(self) -> bool:
        """It has shown the right key, and failed in a way that costs no time to try again."""
        return self.standing is Standing.EJECTED and self.last_failure in _FAILS_FAST

    def answered(self, status: int, epoch: int, *, now_s: float) -> None:
        """A call got a complete answer. Below 500 it proves that the member works; it does not end an ejection."""
        self.last_seen_s = now_s
        if status < 500 and epoch == self.epoch and self.is_healthy:
            self._call_failures = self._ejections = 0

    def call_failed(self, failure: Failure, epoch: int, *, now_s: float) -> None:
        """A call got no complete answer."""
        if epoch != self.epoch or not self.is_healthy or failure in _NOT_HELD_AGAINST:
            return
        self._call_failures += 1
        self.last_failure = failure
        on_trial = self._ejections > 0
        if on_trial or self._call_failures >= self._policy.failures_to_eject:
            self._eject(now_s)

    def probe_passed(self, *, now_s: float) -> None:
        """It proved the pool's key."""
        if not self.is_healthy:
            self._call_failures = 0
        elif self._call_failures == 0:
            self._ejections = 0  # it stayed well from one probe to the next: the trial is over
        self._probe_failures = 0
        self.last_seen_s = now_s
        self._become(Standing.HEALTHY, next_probe_s=now_s + self._policy.probe_interval_s)

    def probe_failed(self, failure: Failure, *, now_s: float) -> None:
        """It proved another key (out until it proves ours), nothing true (out), or gave no answer (counted)."""
        self._probe_failures += 1
        self.last_failure = failure
        if failure is Failure.WRONG_KEY:
            self.last_seen_s = now_s
            self._become(Standing.WRONG_KEY, next_probe_s=now_s + self._policy.probe_interval_s)
        elif (
            failure is Failure.IDENTITY_INVALID
            or not self.is_healthy
            or self._probe_failures >= self._policy.failures_to_eject
        ):
            self._eject(now_s)
        else:
            self.next_probe_s = now_s + self._policy.backoff_first_s  # look again soon: is it one lost packet or more?

    def _eject(self, now_s: float) -> None:
        """Out, or still out: what was never verified, or showed a wrong key, stays that while it cannot be reached."""
        self._ejections += 1
        standing = Standing.EJECTED if self.standing is Standing.HEALTHY else self.standing
        self._become(standing, next_probe_s=now_s + self._policy.backoff_s(self._ejections))

    def _become(self, standing: Standing, *, next_probe_s: float) -> None:
        if standing is not self.standing:
            self.epoch += 1
        self.standing = standing
        self.next_probe_s = next_probe_s
