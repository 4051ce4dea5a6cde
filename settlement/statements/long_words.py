"""Words that would run out of their column, such as names without spaces: where they stand in a text.

The template may break them after every few letters. To find them is cheaper here than by a rule of the template, which
Typst tries anew on every text: that took a sixth of the time of a long statement.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

#: As many letters as the narrowest column of names surely has room for.
_ROOM: Final = 20
#: A break keeps letters from joining, as in Arabic: a word of another script is only broken where it has to be.
_ROOM_FOR_JOINED: Final = 29
_LONG: Final = re.compile(rf"(\S{{{_ROOM + 1},}})")
_SEPARATE: Final = ("LATIN ", "GREEK ", "CYRILLIC ")


def in_parts(text: str) -> str | dict[str, Any]:
    """The text itself; where it has long words, all of it in order as `{"parts": [{"text": …, "is_long": …}, …]}`."""
    parts = _LONG.split(text)
    if len(parts) == 1:
        return text
    return {"parts": [{"text": part, "is_long": _is_long(part)} for part in parts if part]}


def _is_long(part: str) -> bool:
    if not _LONG.fullmatch(part):
        return False
    return len(part) > _ROOM_FOR_JOINED or not any(map(_may_join, part))


def _may_join(character: str) -> bool:
    return character.isalpha() and not unicodedata.name(character, "").startswith(_SEPARATE)
