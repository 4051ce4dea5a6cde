"""The command line, called within this process as people and scripts call it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.testing import CliRunner


@dataclass(frozen=True)
class Answer:
    exit_code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.exit_code == 0, self
        return json.loads(self.out)


def called(app: typer.Typer, arguments: Sequence[str], environment: Mapping[str, str]) -> Answer:
    """Raises what the command does not explain itself."""
    result = CliRunner().invoke(app, list(arguments), env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)
