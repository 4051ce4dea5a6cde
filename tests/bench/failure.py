"""What ends a run with exit code 1."""

from __future__ import annotations


class BenchFailed(Exception):
    """Something did not work, so that no number of this run means anything. The text says what."""
