"""Drawings of lines, areas and words: as SVG without a library, as PNG with Pillow (the extra `plot`)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any, Final, Literal, NamedTuple

WIDTH: Final = 720
HEIGHT: Final = 400
#: Pixels of a PNG for each unit of a drawing.
_PNG_SCALE: Final = 2
_FONT_UNITS: Final = 12
_INK: Final = "#333333"


class NoPillow(Exception):
    """The message says what to install."""


class Line(NamedTuple):
    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 1


class Area(NamedTuple):
    points: Sequence[tuple[float, float]]
    colour: str
    #: 1 hides what is below.
    opacity: float = 1


class Words(NamedTuple):
    """`y` is the line that the letters stand on."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: int = _FONT_UNITS
    colour: str = _INK


Shape = Line | Area | Words


def as_svg(shapes: Iterable[Shape]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            *map(_svg, shapes),
            "</svg>\n",
        ]
    )


def as_png(shapes: Iterable[Shape]) -> bytes:
    """Raises NoPillow where it is not installed."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise NoPillow("a PNG needs the extra `plot`: pip install 'livepeer-clearinghouse[plot]'") from error
    image = Image.new("RGB", (WIDTH * _PNG_SCALE, HEIGHT * _PNG_SCALE), "#ffffff")
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        _paint(canvas, shape)
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _svg(shape: Shape) -> str:
    match shape:
        case Line(points, colour, width):
            return f'<polyline points="{_places(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'
        case Area(points, colour, opacity):
            return f'<polygon points="{_places(points)}" fill="{colour}" fill-opacity="{opacity:g}"/>'
        case Words(x, y, text, anchor, size, colour):
            return (
                f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
                f"{html.escape(text)}</text>"
            )


def _places(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)


def _paint(canvas: Any, shape: Shape) -> None:
    from PIL import ImageFont

    match shape:
        case Line(points, colour, width):
            canvas.line(_pixels(points), fill=colour, width=max(round(width * _PNG_SCALE), 1))
        case Area(points, colour, opacity):
            canvas.polygon(_pixels(points), fill=_on_white(colour, opacity))
        case Words(x, y, text, anchor, size, colour):
            place = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
            font = ImageFont.load_default(size * _PNG_SCALE)
            canvas.text((x * _PNG_SCALE, y * _PNG_SCALE), text, fill=colour, font=font, anchor=place)


def _pixels(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * _PNG_SCALE, y * _PNG_SCALE) for x, y in points]


def _on_white(colour: str, opacity: float) -> tuple[int, ...]:
    """As it looks where nothing else is below it."""
    return tuple(round(255 + (int(colour[at : at + 2], 16) - 255) * opacity) for at in (1, 3, 5))
