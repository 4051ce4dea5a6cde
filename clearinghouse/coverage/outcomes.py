"""How work for coverage ends: closed sets, for metrics. Of their own, because metrics need nothing else of it."""

from __future__ import annotations

from enum import StrEnum


class Evaluated(StrEnum):
    """An evaluation of a sender."""

    DONE = "done"
    #: There is no fresh reading of the escrow.
    ESCROW_UNKNOWN = "escrow_unknown"
    FAILED = "failed"


class Look(StrEnum):
    """A look ahead."""

    DONE = "done"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
