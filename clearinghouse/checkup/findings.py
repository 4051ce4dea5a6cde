"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """A warning works today and deserves a look; with an error something does not work or is not safe."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. No text holds a secret; `what_to_do` is empty where there is nothing to do."""

    name: str
    status: Status
    detail: str
    what_to_do: str = ""


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Status.OK, detail)


def warning(name: str, detail: str, what_to_do: str) -> Finding:
    return Finding(name, Status.WARNING, detail, what_to_do)


def error(name: str, detail: str, what_to_do: str) -> Finding:
    return Finding(name, Status.ERROR, detail, what_to_do)
