"""What a call used, and what it cost the clearinghouse: what a rate is applied to."""

from __future__ import annotations

from typing import Final, NamedTuple

from chain.fees import FIXED, LIVE, LV2V, LV2V_PRELOAD_S, UNTYPED, JobTypeError
from chain.rates import PRICE_DECIMALS, EthPrice
from clearinghouse.pricing import BPS_DECIMALS, EXACT

_NS: Final = 10**9
_BPS_ONE: Final[int] = 10**BPS_DECIMALS


class Usage(NamedTuple):
    """Of one call, or of several taken together. None: it was not measured, and no rate by it can be applied.

    The three names are those of the issuance; "" where it has none.
    """

    application: str
    pipeline: str
    model: str
    duration_ns: int | None = None
    pixels: int | None = None
    requests: int | None = 1


class Cost(NamedTuple):
    """n·EV of the tickets in wei, and what an ETH cost when they were issued."""

    ev_wei: int
    eth: EthPrice

    def grains(self) -> int:
        """In the price's currency, exactly: 30 decimals are enough. ValueError for a negative value."""
        if self.ev_wei < 0:
            raise ValueError(f"tickets are not worth {self.ev_wei} wei")
        return self.ev_wei * int(EXACT.scaleb(self.eth.value, PRICE_DECIMALS)) * _BPS_ONE


class Work(NamedTuple):
    """What a payment is for, by the signer's clock (chain.fees.billable_units)."""

    units: int
    #: Since the session's last paid call; 0 in its first.
    elapsed_ns: int


def usage_of_call(
    job_type: str, work: Work, *, is_first: bool, application: str = "", pipeline: str = "", model: str = ""
) -> Usage:
    """Of a payment that the network bills `work` for, so that usage and cost agree. `is_first`: of its session.

    Live is measured by the seconds begun, as it is paid for. lv2v by its pixels and the time since the session's last
    paid call, which for a new session is what is paid ahead. Of both a session is one request, told by its first
    payment. The untyped job counts pixels of its own and has no time; of it and of the fixed one each payment is one.
    Raises JobTypeError for another type and ValueError for fewer units than none.
    """
    if work.units < 0:
        raise ValueError(f"{work.units} units cannot be billed")
    if job_type == LIVE:
        return Usage(application, pipeline, model, work.units * _NS, None, int(is_first))
    if job_type == LV2V:
        duration_ns = work.elapsed_ns if work.elapsed_ns > 0 else LV2V_PRELOAD_S * _NS
        return Usage(application, pipeline, model, duration_ns, work.units, int(is_first))
    if job_type == UNTYPED:
        return Usage(application, pipeline, model, None, work.units, 1)
    if job_type == FIXED:
        return Usage(application, pipeline, model, None, None, 1)
    raise JobTypeError("invalid job type")


def usage_beyond(usage: Usage, before: Usage) -> Usage:
    """What `usage` has more than `before`, which was charged already; nothing where it has less."""

    def more(now: int | None, then: int | None) -> int | None:
        return None if now is None else max(now - (then or 0), 0)

    return usage._replace(
        duration_ns=more(usage.duration_ns, before.duration_ns),
        pixels=more(usage.pixels, before.pixels),
        requests=more(usage.requests, before.requests),
    )
