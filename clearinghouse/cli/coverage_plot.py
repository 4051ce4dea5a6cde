"""The deposit over time as an SVG of a few lines, without a library: what half of the futures have, and nine in ten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

_WIDTH: Final = 720
_HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 20, 50, 50
_GRID_LINES_MAX: Final = 8


def deposit_svg(deposit_wei: int, drawn_wei: tuple[Sequence[int], Sequence[int], Sequence[int]], step_s: float) -> str:
    """`drawn_wei`: by the end of each step, in the luckiest 5 %, half and 95 % of the futures."""
    low, half, high = ([max(deposit_wei - drawn, 0) for drawn in curve] for curve in drawn_wei)
    steps = max(len(half) - 1, 1)
    scale_wei = deposit_wei or 1

    def points(curve: Sequence[int]) -> list[str]:
        return [f"{_x(step, steps)},{_y(wei, scale_wei)}" for step, wei in enumerate(curve)]

    band = " ".join(points(low) + points(high)[::-1])
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" font-family="sans-serif" font-size="12" fill="#333">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
            f'<text x="{_LEFT}" y="24" font-size="15">Deposit without a top-up</text>',
            f'<text x="{_LEFT}" y="41" fill="#666">line: half of the futures; band: 9 in 10 of them</text>',
            *_grid(Decimal(scale_wei).scaleb(-18), Decimal(round(steps * step_s)) / 86_400),
            f'<polygon points="{band}" fill="#1f77b4" fill-opacity="0.25"/>',
            f'<polyline points="{" ".join(points(half))}" fill="none" stroke="#1f77b4" stroke-width="2"/>',
            "</svg>\n",
        ]
    )


def _grid(deposit_eth: Decimal, horizon_days: Decimal) -> list[str]:
    lines = []
    for eth in _round_numbers(deposit_eth):
        y = _y(int(eth * 10**18), int(deposit_eth * 10**18))
        lines += [
            f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#ddd"/>',
            f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{eth.normalize():f}</text>',
        ]
    for days in _round_numbers(horizon_days):
        x = _x(int(days * 86_400), int(horizon_days * 86_400))
        lines.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{days.normalize():f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) // 2
    return [
        *lines,
        f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">days from now</text>',
        f'<text x="{_LEFT - 8}" y="{_TOP - 12}" text-anchor="end">ETH</text>',
    ]


def _round_numbers(highest: Decimal) -> Iterator[Decimal]:
    """0 and so on to `highest`, in steps of 1, 2 or 5 times a power of ten."""
    power = Decimal(1).scaleb(highest.adjusted() - 1)
    step = next(factor * power for factor in (1, 2, 5, 10, 20, 50) if highest < _GRID_LINES_MAX * factor * power)
    yield from (step * count for count in range(int(highest / step) + 1))


def _x(part: int, of: int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * part / of, 1)


def _y(part: int, of: int) -> float:
    """Up is more."""
    tenths = 10 * (_HEIGHT - _TOP - _BOTTOM) * part // of
    return round(_HEIGHT - _BOTTOM - tenths / 10, 1)
