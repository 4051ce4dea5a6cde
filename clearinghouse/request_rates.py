"""How many requests per second a gateway and each of its keys may send, and how many at once: token buckets.

Each serving process counts for itself, its share of what all of them may let through together. Money has limits that
hold to the last unit over all processes, in the commit (usage.py); a rate keeps one caller from taking the share of the
others, before anything is decoded, looked up or signed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from clearinghouse.errors import LimitReached

REMEMBERED_MAX_COUNT: Final = 50_000
#: A rate without a burst of its own allows two seconds' worth at once.
BURST_S: Final = 2

REQUESTS: Final = "requests_per_s"
KEY_REQUESTS: Final = "key_requests_per_s"
KEY_LOOKUPS: Final = "key_lookups_per_s"
RATES: Final = (REQUESTS, KEY_REQUESTS, KEY_LOOKUPS)


Found = TypeVar("Found")


class Rate(NamedTuple):
    """`per_s` on average, `burst_count` at once; both at least 1."""

    per_s: int
    burst_count: int


def rate_of(per_s: int | None, burst_count: int | None) -> Rate | None:
    """None where there is no limit on the average: a burst alone limits nothing."""
    return Rate(per_s, burst_count or per_s * BURST_S) if per_s is not None else None


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at_s: float


class RequestRates:
    """The buckets of this process. A bucket that was forgotten is full again, as one nobody has used for long.

    Of each rate and burst this process lets through one part in `processes_count`, of a burst one request at least.
    """

    def __init__(self, *, processes_count: int = 1, now_s: Callable[[], float] = monotonic) -> None:
        self._processes_count = processes_count
        self._now_s = now_s
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def require(self, limit: str, whose: Hashable, rate: Rate) -> None:
        """Raises LimitReached for `limit` where nothing is left. Takes nothing yet: several limits may be asked."""
        bucket = self._bucket((limit, whose), rate)
        if bucket.tokens < 1:
            wait_s = ceil((1 - bucket.tokens) * self._processes_count / rate.per_s)
            raise LimitReached(
                f"The limit {limit} is reached: at most {rate.per_s} requests per second, and {rate.burst_count} at "
                "once.",
                retry_after_s=max(1, wait_s),
                rule=limit,
                allowed=str(rate.per_s),
                unit="requests per second",
            )

    def take(self, limit: str, whose: Hashable, rate: Rate) -> None:
        """Counts one request."""
        self._bucket((limit, whose), rate).tokens -= 1

    async def count_misses(
        self, limit: str, rate: Rate, look_up: Callable[[], Awaitable[Found | None]]
    ) -> Found | None:
        """What `look_up` finds; only what it does not find counts. Raises LimitReached, without looking."""
        self.require(limit, None, rate)
        self.take(limit, None, rate)  # at once: while one look-up is under way, others come
        found = await look_up()
        if found is not None:
            self._bucket((limit, None), rate).tokens += 1
        return found

    def _bucket(self, name: Hashable, rate: Rate) -> _Bucket:
        now_s = self._now_s()
        bucket = self._buckets.get(name)
        capacity = max(1, rate.burst_count / self._processes_count)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(capacity, now_s)
            if len(self._buckets) > REMEMBERED_MAX_COUNT:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(name)
        elapsed_s = now_s - bucket.filled_at_s
        bucket.tokens = min(capacity, bucket.tokens + elapsed_s * rate.per_s / self._processes_count)
        bucket.filled_at_s = now_s
        return bucket
