"""Curves of the deposit over time: of a future that was played, and of the past as snapshots have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from clearinghouse.cli.drawing import HEIGHT, WIDTH, Area, Line, Shape, Words, as_png, as_svg

if TYPE_CHECKING:
    from clearinghouse.coverage.snapshots import Point

_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 20, 50, 50
_GRID_LINES_MAX: Final = 8
_BLUE, _ORANGE, _RED, _GREY = "#1f77b4", "#ff7f0e", "#d62728", "#dddddd"
_QUIET: Final = "#666666"
_LEVEL_COLOURS: Final = {"ok": "#2ca02c", "watch": "#bcbd22", "low": "#ff7f0e", "critical": "#d62728"}
#: Of the strip below the curves that shows the level.
_STRIP_UNITS: Final = 6
#: Further apart, snapshots are not joined: nobody was looking in between.
_GAP_SHARE: Final = Decimal("0.05")


def deposit_svg(deposit_wei: int, drawn_wei: tuple[Sequence[int], Sequence[int], Sequence[int]], step_s: float) -> str:
    """`drawn_wei`: by the end of each step, in the luckiest 5 %, half and 95 % of the futures."""
    low, half, high = ([max(deposit_wei - drawn, 0) for drawn in curve] for curve in drawn_wei)
    steps = max(len(half) - 1, 1)
    scale_wei = deposit_wei or 1

    def places(curve: Sequence[int]) -> list[tuple[float, float]]:
        return [(_x(step, steps), _y(wei, scale_wei)) for step, wei in enumerate(curve)]

    return as_svg(
        [
            Words(_LEFT, 24, "Deposit without a top-up", size=15),
            Words(_LEFT, 41, "line: half of the futures; band: 9 in 10 of them", colour=_QUIET),
            *_eth_grid(scale_wei),
            *_day_marks(Decimal(round(steps * step_s)) / 86_400),
            Area(places(low) + places(high)[::-1], _BLUE, 0.25),
            Line(places(half), _BLUE, 2),
        ]
    )


def coverage_svg(points: Sequence[Point], sender: str) -> str:
    """`points` are at least one, oldest first."""
    return as_svg(_coverage(points, sender))


def coverage_png(points: Sequence[Point], sender: str) -> bytes:
    """The same. Raises drawing.NoPillow."""
    return as_png(_coverage(points, sender))


def _coverage(points: Sequence[Point], sender: str) -> Iterator[Shape]:
    scale_wei = max(max(point.deposit_wei, point.needed_wei) for point in points) or 1
    begins_at, whole = points[0].observed_at, points[-1].observed_at - points[0].observed_at or timedelta(seconds=1)

    def x(point: Point) -> float:
        return _x((point.observed_at - begins_at) // timedelta(milliseconds=1), whole // timedelta(milliseconds=1) or 1)

    yield Words(_LEFT, 24, f"Coverage of {sender}", size=15)
    yield Words(_LEFT, 41, "deposit", colour=_BLUE)
    yield Words(_LEFT + 70, 41, "expected liability", colour=_ORANGE)
    yield Words(_LEFT + 200, 41, "what must be covered: with deviations and the largest ticket", colour=_RED)
    yield from _eth_grid(scale_wei)
    yield from _time_marks(begins_at, whole)
    curves: tuple[tuple[str, Callable[[Point], int]], ...] = (
        (_RED, lambda point: point.needed_wei),
        (_ORANGE, lambda point: point.expected_wei),
        (_BLUE, lambda point: point.deposit_wei),
    )
    stretches = list(_stretches(points, whole))
    for colour, amount_wei in curves:
        for stretch in stretches:
            places = [(x(point), _y(amount_wei(point), scale_wei)) for point in stretch]
            yield Line(places if len(places) > 1 else [places[0], (places[0][0] + 1, places[0][1])], colour, 2)
    for stretch in stretches:
        yield from _levels(stretch, x)


def _levels(points: Sequence[Point], x: Callable[[Point], float]) -> Iterator[Shape]:
    """The strip: from each snapshot to the next the level of the first."""
    bottom = HEIGHT - _BOTTOM + _STRIP_UNITS
    for point, following in zip(points, [*points[1:], points[-1]], strict=True):
        left, right = x(point), max(x(following), x(point) + 1)
        corners = [(left, bottom), (right, bottom), (right, bottom - _STRIP_UNITS), (left, bottom - _STRIP_UNITS)]
        yield Area(corners, _LEVEL_COLOURS[point.level.value])


def _stretches(points: Sequence[Point], whole: timedelta) -> Iterator[list[Point]]:
    """Runs of snapshots without a gap."""
    longest = max(whole * float(_GAP_SHARE), timedelta(minutes=5))
    stretch: list[Point] = []
    for point in points:
        if stretch and point.observed_at - stretch[-1].observed_at > longest:
            yield stretch
            stretch = []
        stretch.append(point)
    yield stretch


def _eth_grid(scale_wei: int) -> Iterator[Shape]:
    for eth in _round_numbers(Decimal(scale_wei).scaleb(-18)):
        y = _y(int(eth * 10**18), scale_wei)
        yield Line([(_LEFT, y), (WIDTH - _RIGHT, y)], _GREY)
        yield Words(_LEFT - 8, y + 4, f"{eth.normalize():f}", "end")
    yield Words(_LEFT - 8, _TOP - 12, "ETH", "end")


def _day_marks(horizon_days: Decimal) -> Iterator[Shape]:
    for days in _round_numbers(horizon_days):
        x = _x(int(days * 86_400), int(horizon_days * 86_400))
        yield Words(x, HEIGHT - _BOTTOM + 18, f"{days.normalize():f}", "middle")
    yield Words((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12, "days from now", "middle")


def _time_marks(begins_at: datetime, whole: timedelta) -> Iterator[Shape]:
    shown = "%H:%M" if whole < timedelta(days=2) else "%d %b"
    for part in range(5):
        at = begins_at + whole * part / 4
        yield Words(_x(part, 4), HEIGHT - _BOTTOM + 22, at.strftime(shown), "middle")
    ends_at = begins_at + whole
    told = f"{begins_at:%Y-%m-%d %H:%M} to {ends_at:%Y-%m-%d %H:%M} UTC; below: the level"
    yield Words((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, told, "middle", colour=_QUIET)


def _round_numbers(highest: Decimal) -> Iterator[Decimal]:
    """0 and so on to `highest`, in steps of 1, 2 or 5 times a power of ten."""
    power = Decimal(1).scaleb(highest.adjusted() - 1)
    step = next(factor * power for factor in (1, 2, 5, 10, 20, 50) if highest < _GRID_LINES_MAX * factor * power)
    yield from (step * count for count in range(int(highest / step) + 1))


def _x(part: int, of: int) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * part / of, 1)


def _y(part: int, of: int) -> float:
    """Up is more."""
    tenths = 10 * (HEIGHT - _TOP - _BOTTOM) * part // of
    return round(HEIGHT - _BOTTOM - tenths / 10, 1)
