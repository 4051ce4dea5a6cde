"""On which line of a TOML or JSON document each value stands: its parsers do not tell.

A walk over the document's tokens, which does not judge: where the document is not valid the answer means nothing, but
there is one. Nothing here calls itself, so that depth is limited by a count and not by the stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from chain.shallow_json import NESTING_MAX, TooDeep

Path = tuple[str | int, ...]

_TOKEN: Final = re.compile(
    r'(?P<comment>\#[^\n]*)|(?P<text>"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\')'
    r"|(?P<word>[A-Za-z0-9_-]+)|(?P<newline>\n)|(?P<mark>[][{}=:,])",
    re.DOTALL,
)


@dataclass(slots=True)
class _Open:
    """A list or a table that has begun and not ended. `index` counts the values of a list."""

    path: Path
    is_list: bool
    index: int = 0


@dataclass(slots=True)
class _Walk:
    is_toml: bool
    lines: dict[Path, int] = field(default_factory=lambda: {(): 1})
    line: int = 1
    #: Of the last header, [name] or [[name]].
    table: Path = ()
    #: Of tables written [[name]]: how many there are.
    counts: dict[Path, int] = field(default_factory=dict)
    opened: list[_Open] = field(default_factory=list)
    #: The value that is read, or None while a key is.
    value: Path | None = None
    key: list[str] = field(default_factory=list)
    #: 0: no header, 1: [name], 2: [[name]].
    header: int = 0

    def newline(self) -> None:
        if self.is_toml and not self.opened:
            if self.header:
                self.end_header()
            self.value, self.key, self.header = None, [], 0
        self.line += 1

    def end_header(self) -> None:
        path: Path = ()
        for position, name in enumerate(self.key):
            path = (*path, name)
            is_last = position == len(self.key) - 1
            if is_last and self.header == 2:
                self.lines.setdefault(path, self.line)
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
            self.lines.setdefault(path, self.line)
        self.table = path

    def word(self, text: str) -> None:
        if self.value is None:
            self.key.append(text)
        else:
            self.lines.setdefault(self.value, self.line)

    def begin(self, mark: str) -> None:
        if self.value is None:
            self.header += mark == "["
            return
        self.lines.setdefault(self.value, self.line)
        self.opened.append(_Open(self.value, mark == "["))
        if len(self.opened) > NESTING_MAX:
            raise TooDeep("nested too deeply")
        self.value, self.key = ((*self.value, 0), []) if mark == "[" else (None, [])

    def end(self) -> None:
        if self.opened:
            self.value = self.opened.pop().path

    def comma(self) -> None:
        if not self.opened:
            return
        around = self.opened[-1]
        around.index += 1
        self.value, self.key = ((*around.path, around.index), []) if around.is_list else (None, [])

    def equals(self) -> None:
        if self.value is not None:
            return
        path = self.opened[-1].path if self.opened else self.table
        for name in self.key:
            path = (*path, name)
            self.lines.setdefault(path, self.line)
        self.value = path


def line_numbers(text: str, *, is_toml: bool) -> dict[Path, int]:
    """Line, from 1 on, by path: ("rates", 0, "price"). Raises chain.shallow_json.TooDeep."""
    walk = _Walk(is_toml, value=None if is_toml else ())
    for token in _TOKEN.finditer(text):
        match token.lastgroup, token[0]:
            case "newline", _:
                walk.newline()
            case "word", word:
                walk.word(word)
            case "text", quoted:
                walk.word(quoted.strip("\"'"))
                walk.line += quoted.count("\n")
            case "mark", "[" | "{" as mark:
                walk.begin(mark)
            case "mark", "]" | "}":
                walk.end()
            case "mark", ",":
                walk.comma()
            case "mark", _:
                walk.equals()
    walk.newline()
    return walk.lines


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """Of the value, or of what it would stand in where it is missing."""
    while path not in lines:
        path = path[:-1]
    return lines[path]
