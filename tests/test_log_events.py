"""What is logged as a warning or worse wakes or worries somebody: docs/monitoring.md says what to do about each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
WORRYING: Final = {"warning", "error", "critical", "exception"}


def worrying_events(source: str) -> Iterator[str]:
    """The names in `log.warning("name", …)` and its kin. What is logged as a sentence, below the services, has none."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(value=str(event)), *_]
            ) if level in WORRYING:
                yield event


def test_every_worrying_event_is_explained() -> None:
    explained = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    silent = [
        f"{path.relative_to(ROOT)}: {event}"
        for package in ("clearinghouse", "settlement")
        for path in sorted((ROOT / package).rglob("*.py"))
        for event in worrying_events(path.read_text(encoding="utf-8"))
        if f"`{event}`" not in explained
    ]
    assert not silent, f"docs/monitoring.md does not say what to do about {', '.join(silent)}"


def test_the_search_for_events_finds_them() -> None:
    assert list(worrying_events('log.warning("one", a=1)\nlog.info("two")\nlog.exception("three")')) == ["one", "three"]
