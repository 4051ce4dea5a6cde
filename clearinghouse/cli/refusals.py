"""How a command says no: the code and the message, what to do next, exit status 1. A bug keeps its traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from clearinghouse.errors import Refusal

EXIT_REFUSED = 1  # 2 is for a command line that cannot be understood


class ExplainedGroup(TyperGroup):
    """The root command: every refusal of every command below it ends here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, TyperException):
            raise  # it is said already, or will be by whoever reads command lines
        except Exception as error:
            refusal = self.refusal_of(error)
            if refusal is None:
                raise
            typer.echo(explain(refusal), err=True)
            raise typer.Exit(EXIT_REFUSED) from error

    def refusal_of(self, error: Exception) -> Refusal | None:
        """What a command ended with, as something that is explained; None for a bug. The floor above knows more."""
        return error if isinstance(error, Refusal) else None


def explain(refusal: Refusal) -> str:
    """Two lines for people; the code in front is for scripts."""
    return f"{refusal.code}: {refusal.message}\n{refusal.what_next}"
