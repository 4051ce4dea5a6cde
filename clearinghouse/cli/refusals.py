"""How a command says no: the code and the message, what to do next, exit status 1. A bug keeps its traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from clearinghouse.errors import Refusal

EXIT_REFUSED = 1  # 2 is for a command line that cannot be understood


class ExplainedGroup(TyperGroup):
    """The root command: every refusal of every command below it ends here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            typer.echo(explain(refusal), err=True)
            raise typer.Exit(EXIT_REFUSED) from refusal


def explain(refusal: Refusal) -> str:
    """Two lines for people; the code in front is for scripts."""
    return f"{refusal.code}: {refusal.message}\n{refusal.what_next}"
