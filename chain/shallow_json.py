"""JSON from others, read without trusting the interpreter's own bound on recursion.

That bound is a setting which libraries raise (one that opens keystores sets 100,000); above what the stack holds, a
deeply nested document ends the process instead of raising RecursionError.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: Deeper than any document of the protocol, by far.
NESTING_MAX: Final = 64
#: Brackets, and the strings in which they would not count; an unfinished string reaches to the end.
_NESTING: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[][{}]', re.DOTALL)


class TooDeep(ValueError):
    """The document is nested deeper than NESTING_MAX."""


def require_shallow(text: str) -> None:
    """Raises TooDeep. Costs next to nothing where there are few brackets."""
    if _has_few_brackets(text):
        return
    depth = 0
    for token in _NESTING.finditer(text):
        depth += 1 if token[0] in "{[" else -1 if token[0] in "}]" else 0
        if depth > NESTING_MAX:
            raise TooDeep("nested too deeply")


def _has_few_brackets(text: str) -> bool:
    """Not more than may be open at once. To find the next of few is quicker than to look at each character."""
    count = 0
    for bracket in "{[":
        at = text.find(bracket)
        while at >= 0:
            count += 1
            if count > NESTING_MAX:
                return False
            at = text.find(bracket, at + 1)
    return True


def loads(data: bytes | str) -> Any:
    """json.loads for UTF-8. Raises ValueError, of which TooDeep is one, and never RecursionError."""
    text = data if isinstance(data, str) else data.decode()
    require_shallow(text)
    return decoded(text, _DECODER)


def decoded(text: str, decoder: json.JSONDecoder) -> Any:
    """`decoder.decode(text)`, without looking for space around the document where there is none but Go's line break."""
    if text[:1] in "{[":
        document, end = decoder.raw_decode(text)
        if text[end:] in ("", "\n"):
            return document
    return decoder.decode(text)


_DECODER: Final = json.JSONDecoder()
