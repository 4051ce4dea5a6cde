"""Commands that documents, messages and examples name are there, with the options that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from settlement.cli import app
from tests.test_house import project_files

ROOT: Final = Path(__file__).parents[1]
SUFFIXES: Final = {".md", ".py", ".toml", ".yaml", ".service", ".sh"}
NAMED: Final = re.compile(r"(?:`|^\s*(?:\$ )?|\.venv/bin/)clearinghouse ([a-z][^`\n\"']*)", re.MULTILINE)
COMMANDS: Final[Any] = typer.main.get_command(app)


def wrong_in(line: str) -> str | None:
    """What is not there, of a command line without `clearinghouse`; None where all of it is."""
    command, words = COMMANDS, re.split(r"#| \| ", line, maxsplit=1)[0].split()
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        first, *words = words
        found = [command.commands.get(name.strip(".,:;)")) for name in first.split("|")]
        if None in found:
            return None if command.invoke_without_command and command is not COMMANDS else first
        command = found[0]
    known = {"--help"}.union(*([*option.opts, *option.secondary_opts] for option in command.params))
    options = [re.split(r"[=\]/.,:;)…]", word)[0] for word in words if re.match(r"--[a-z]", word)]
    return next((option for option in options if option not in known), None)


def named_commands() -> Iterator[tuple[Path, str]]:
    for path in project_files():
        if path.suffix in SUFFIXES:
            for found in NAMED.finditer(path.read_text(encoding="utf-8")):
                yield path.relative_to(ROOT), found[1].strip()


def test_every_command_that_is_named_is_there() -> None:
    named = list(named_commands())
    assert len(named) > 300, "the search finds them"
    wrong = [f"{path}: clearinghouse {line} ({what})" for path, line in named if (what := wrong_in(line)) is not None]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("topup send --yes", None),
        ("coverage --watch --every 10", None),
        ("chain events|index", None),
        ("dev --no-worker", None),
        ("topup sent", "sent"),
        ("topup send --force", "--force"),
        ("wallet", "wallet"),
    ],
)
def test_the_search_tells_what_is_not_there(line: str, what: str | None) -> None:
    assert wrong_in(line) == what
