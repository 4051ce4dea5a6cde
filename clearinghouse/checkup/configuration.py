"""The settings, once they could be read: what serving still needs, and what deserves a look."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import Settings, missing_for_serving
from clearinghouse.config_sources import warnings_about

NAME: Final = "configuration"


def check(settings: Settings, *, config_file: Path | None) -> list[Finding]:
    """`config_file` is the file that was read, if any."""
    found = [error(NAME, sentence, "Correct the settings; `serve` refuses to start.") for sentence in
             missing_for_serving(settings)]  # fmt: skip
    for text in warnings_about(settings, config_file=config_file):
        detail, _, what_to_do = text.partition(": ")
        found.append(warning(NAME, detail, what_to_do))
    source = f"with {config_file}" if config_file is not None else "from environment and defaults"
    return found or [ok(NAME, f"complete, {source}")]
