"""Cards, calls and positions for the tests of rates, drawn at random, and a slow and obvious way to rate by them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil

from hypothesis import strategies as st

from chain.rates import EthPrice
from clearinghouse.rates.card import CardVersion, Floor, Rate, Tier
from clearinghouse.rates.quote import Position
from clearinghouse.rates.units import BASE_PER_UNIT, GRAIN, Per
from clearinghouse.rates.usage import Cost, Usage

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ETH_USD = EthPrice("USD", Decimal("3141.592653589"), "test", NOW)

APPLICATIONS = ("", "app-a", "app-b")
PIPELINES = ("", "live-video-to-video", "text-to-image")
MODELS = ("", "model-x", "model-y")


def prices(decimals: int = 24) -> st.SearchStrategy[Decimal]:
    return st.builds(
        lambda units, places: Decimal(units).scaleb(-places), st.integers(0, 10**12), st.integers(0, decimals)
    )


@st.composite
def tiers(draw: st.DrawFn, per: Per, floor: Floor) -> tuple[Tier, ...]:
    if per is Per.COST:
        low = 0 if floor is Floor.NONE else 10_000
        price = st.integers(low, 1_010_000).map(lambda bps: Decimal(bps).scaleb(-4))
    else:
        price = prices()
    # ends that calls of a few seconds come across
    ends = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    steps = [end * BASE_PER_UNIT[per] for end in ends]
    return (*(Tier(step, draw(price)) for step in steps), Tier(None, draw(price)))


@st.composite
def rates(
    draw: st.DrawFn, *, names: tuple[str | None, str | None, str | None] = (None, None, None), minimum: bool = True
) -> Rate:
    per, floor = draw(st.sampled_from(Per)), draw(st.sampled_from(Floor))
    least = draw(st.one_of(st.just(Decimal(0)), prices(12))) if minimum else Decimal(0)
    return Rate(per, draw(tiers(per, floor)), *names, floor=floor, minimum_charge=least)


def some(choices: tuple[str, ...]) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *filter(None, choices)])


@st.composite
def cards(draw: st.DrawFn, *, version: int = 1, effective_from: datetime = NOW, minimum: bool = True) -> CardVersion:
    """With several rates, of which one fits everything."""
    names = draw(st.sets(st.tuples(some(APPLICATIONS), some(PIPELINES), some(MODELS)), max_size=8))
    found = [draw(rates(names=one, minimum=minimum)) for one in sorted(names | {(None, None, None)}, key=str)]
    return CardVersion("standard", version, "USD", effective_from, tuple(draw(st.permutations(found))))


usages = st.builds(
    Usage,
    st.sampled_from(APPLICATIONS),
    st.sampled_from(PIPELINES),
    st.sampled_from(MODELS),
    duration_ns=st.one_of(st.just(0), st.integers(0, 10**11), st.integers(0, 60).map(lambda s: s * 10**9)),
    pixels=st.integers(0, 10**9),
    requests=st.integers(0, 5),
)
#: Up to some 30 dollars, as a call with one lump of a ticket may cost.
costs = st.builds(Cost, st.one_of(st.just(0), st.integers(0, 10**16)), st.just(ETH_USD))
calls = st.tuples(usages, costs)
positions = st.builds(Position, st.integers(0, 10**11), prices(20), prices(20))


def one_rate_card(rate: Rate) -> CardVersion:
    return CardVersion("standard", 1, "USD", NOW, (rate,))


def exact_total(rate: Rate, volume: int) -> Fraction:
    """What the first `volume` of a period cost, tier by tier, never rounded."""
    total, begin = Fraction(0), 0
    for tier in rate.tiers:
        end = volume if tier.up_to is None else min(volume, tier.up_to)
        if end > begin:
            total += Fraction(end - begin, BASE_PER_UNIT[rate.per]) * Fraction(tier.price)
            begin = end
    return total


def slow_total(rate: Rate, volume: int) -> Fraction:
    """The same, up to a whole grain."""
    return ceil(exact_total(rate, volume) / GRAIN) * GRAIN
