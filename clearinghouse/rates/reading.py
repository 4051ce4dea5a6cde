"""The fields of a document, read one by one: what is wrong is noted with its line, and reading goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar

from clearinghouse.errors import InvalidRequest
from clearinghouse.instants import parse_rfc3339
from clearinghouse.rates.card import CardProblem
from clearinghouse.rates.lines import Path, line_of

NAME_CHARS_MAX: Final = 200
_HINT_DIGITS_MAX: Final = 40

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)


class Problem(NamedTuple):
    """What is wrong, and where. `field` is a path such as rates[1].tiers[0].up_to; "" is the document."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field} {self.message}" if self.field else f"line {self.line}: {self.message}"


class Wrong(Exception):
    """This field cannot be used; it was noted why."""


class Reader:
    """One table of the document. A field that is wrong is noted, and reading goes on with the next."""

    def __init__(self, table: dict[str, Any], path: Path, lines: dict[Path, int], problems: list[Problem]) -> None:
        self._table = table
        self._path = path
        self._lines = lines
        self._problems = problems
        self._known: list[str] = []

    def note(self, path: Path, message: str) -> Wrong:
        whole = (*self._path, *path)
        self._problems.append(Problem(line_of(whole, self._lines), _show(whole), message))
        return Wrong()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What is found wrong within is noted once and ends it."""
        try:
            yield
        except CardProblem as problem:
            self.note(problem.path, problem.message)
        except Wrong:
            pass

    def has(self, name: str) -> bool:
        self._known.append(name)
        return name in self._table

    def text(self, name: str, *, chars_max: int = NAME_CHARS_MAX) -> str:
        value = self._value(name)
        if not isinstance(value, str):
            raise self.note((name,), f"is a string, not {_kind(value)}{_in_quotes(value)}")
        if len(value) > chars_max or not value.isprintable():
            raise self.note((name,), f"has at most {chars_max} characters, all of them printable")
        return value

    def integer(self, name: str, *, low: int, high: int) -> int:
        value = self._value(name)
        if type(value) is not int:
            raise self.note((name,), f"is a whole number, not {_kind(value)}")
        if not low <= value <= high:
            raise self.note((name,), f"is {low} to {high}, not {value if abs(value) < 10**20 else 'so large'}")
        return value

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        """Of a string. `parse` raises InvalidRequest or ValueError with what is wrong."""
        text = self.text(name)
        try:
            return parse(text)
        except InvalidRequest as refusal:
            raise self.note((name,), f"is wrong: {refusal.message}") from None
        except ValueError as error:
            raise self.note((name,), f"is wrong: {error}") from None

    def choice(self, name: str, kind: type[E]) -> E:
        text = self.text(name)
        choices = [member.value for member in kind]
        if text not in choices:
            raise self.note((name,), f"is one of {', '.join(choices)}, not {text!r}{_meant(text, choices)}")
        return kind(text)

    def instant(self, name: str) -> datetime:
        """An RFC 3339 string, or TOML's own date and time; both with a zone."""
        value = self._value(name)
        if not isinstance(value, datetime):
            return self.parsed(name, parse_rfc3339)
        if value.tzinfo is None:
            raise self.note((name,), "needs a time zone: add Z for UTC")
        return value

    def tables(self, name: str, *, count_max: int) -> list[Reader]:
        """At least one."""
        values = self._value(name)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.note((name,), f"is a list of tables: write [[{name}]]")
        if not values:
            raise self.note((name,), "is empty")
        if len(values) > count_max:
            raise self.note((name,), f"has at most {count_max} tables, not {len(values)}")
        path = (*self._path, name)
        return [Reader(value, (*path, index), self._lines, self._problems) for index, value in enumerate(values)]

    def end(self) -> None:
        """Notes what nobody asked for."""
        for name in self._table:
            if name not in self._known:
                self.note((name,), f"is not a field here{_meant(name, self._known)}")

    def _value(self, name: str) -> Any:
        if not self.has(name):
            raise self.note((name,), "is missing")
        return self._table[name]


def _kind(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", Decimal: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "null" if value is None else "a date")


def _in_quotes(value: object) -> str:
    """What to write instead of a bare number. Of one with thousands of digits, which may be slow to show: nothing."""
    is_short = (isinstance(value, Decimal) and len(value.as_tuple().digits) <= _HINT_DIGITS_MAX) or (
        type(value) is int and abs(value) < 10**_HINT_DIGITS_MAX
    )
    return f': write "{value}"' if is_short else ""


def _meant(text: str, choices: Sequence[str]) -> str:
    close = get_close_matches(text, choices, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _show(path: Path) -> str:
    shown = ""
    for step in path:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}" if shown else step
    return shown
