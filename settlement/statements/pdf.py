"""Statements as PDF, set by Typst: PDF/A, tagged, and the same bytes every time for the same statement.

Only fonts from the wheel and those named are used, never what a machine happens to have. Another version of Typst may
give other bytes.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from settlement.statements.long_words import in_parts
from settlement.statements.page import page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from settlement.statements.statement import Statement

_FOLDER: Final = Path(__file__).parent
_TEMPLATE: Final = _FOLDER / "statement.typ"
_TRIAL: Final = _FOLDER / "trial.typ"
#: Accessible and for archives: every character has a glyph, and the file says which character it is.
_STANDARD: Final = "a-2a"


@dataclass(frozen=True, slots=True)
class Pdf:
    """`missing` are the characters that no font has: they are printed by number, as [U+4E2D]. Add a font for them."""

    content: bytes
    missing: tuple[str, ...]


class Typesetter:
    """Sets one statement at a time, without the interpreter's lock; threads may share it, and wait for each other.

    `font_folders` are searched for what the wheel's fonts (Latin, Greek, Cyrillic, Hebrew…) do not have.
    """

    def __init__(self, font_folders: Sequence[Path] = ()) -> None:
        import typst  # noqa: PLC0415 - eighty megabytes that only those who set a page need

        fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(folder) for folder in font_folders])
        self._compiler = typst.Compiler(str(_TEMPLATE), root=str(_FOLDER), font_paths=fonts)
        self._refused: type[Exception] = typst.TypstError
        self._without_glyph: set[str] = set()  # whatever stands beside it; learned
        self._lock = threading.Lock()

    def pdf(self, statement: Statement) -> Pdf:
        """Raises what the page of a statement raises, and typst.TypstError for a template that cannot be set."""
        page = page_of(statement)
        instant = int(statement.issued_at.timestamp())
        with self._lock:
            shown = _mapped(page, self._numbered)
            try:
                content = self._set(shown, instant)
            except self._refused:
                shown = self._repaired(page)
                content = self._set(shown, instant)  # raises again where it was no glyph
        both = zip(_texts(page), _texts(shown), strict=True)
        gone = {character for before, after in both if before != after for character in set(before) - set(after)}
        return Pdf(content, tuple(sorted(gone)))

    def _repaired(self, page: Any) -> Any:
        """Characters that have no glyph by number, and where each has one, but what they make together has none, all
        but the plainest.
        """
        characters = set("".join(_texts(page))) - self._without_glyph
        self._without_glyph.update(self._unprintable(sorted(characters)))
        shown = _mapped(page, self._numbered)
        odd = set(self._unprintable(sorted(set(_texts(shown)))))
        return _mapped(shown, lambda text: _by_number(text, set(filter(_is_rare, text))) if text in odd else text)

    def _numbered(self, text: str) -> str:
        return _by_number(text, self._without_glyph)

    def _unprintable(self, texts: Sequence[str]) -> list[str]:
        """Those for which a glyph is missing. Asked of the compiler, which alone knows its fonts.

        By halves: one trial where nothing is missing, and some for each where something is.
        """
        if not texts or self._can_be_set(texts):
            return []
        if len(texts) == 1:
            return list(texts)
        half = len(texts) // 2
        return self._unprintable(texts[:half]) + self._unprintable(texts[half:])

    def _can_be_set(self, texts: Sequence[str]) -> bool:
        try:
            self._compile(_TRIAL, {"texts": texts}, 0)
        except self._refused:
            return False
        return True

    def _set(self, page: Any, instant_unix_s: int) -> bytes:
        """What the file says of itself stays plain text; what stands on the page may break where it must."""
        file = {"title": f"{page['title']} {page['number']}", "author": page["issuer"]["name"]}
        return self._compile(_TEMPLATE, {"page": _mapped(page, in_parts), "file": file}, instant_unix_s)

    def _compile(self, template: Path, data: dict[str, Any], instant_unix_s: int) -> bytes:
        """`data` reaches the template as JSON: there is nothing in it that could be markup."""
        inputs = {name: json.dumps(value) for name, value in data.items()}
        content = self._compiler.compile(
            str(template), format="pdf", sys_inputs=inputs, timestamp=instant_unix_s, pdf_standards=_STANDARD
        )
        assert isinstance(content, bytes), "one PDF, not pages of pictures"
        return content


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from (text for part in value.values() for text in _texts(part))
        case list():
            yield from (text for part in value for text in _texts(part))


def _mapped(value: Any, change: Callable[[str], Any]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {name: _mapped(part, change) for name, part in value.items()}
        case list():
            return [_mapped(part, change) for part in value]
    return value


def _by_number(text: str, characters: set[str]) -> str:
    if characters.isdisjoint(text):
        return text
    return text.translate({ord(character): f"[U+{ord(character):04X}]" for character in characters})


def _is_rare(character: str) -> bool:
    return not character.isascii()
