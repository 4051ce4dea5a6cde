"""Somebody's word that a block is worth a look now. Nobody's word is trusted: it buys a few looks, and no more."""

from __future__ import annotations

from typing import Final

#: Endpoints may be a moment behind the one that gave the word.
LOOKS_MAX_COUNT: Final = 3


class Hint:
    """The newest word, and how often it may still be followed."""

    def __init__(self) -> None:
        self._block_number = -1
        self._looks_left_count = 0

    @property
    def is_open(self) -> bool:
        """Whether a look is due on account of it."""
        return self._looks_left_count > 0

    def heard(self, block_number: int) -> None:
        self._block_number, self._looks_left_count = block_number, LOOKS_MAX_COUNT

    def looked(self, at_number: int) -> None:
        """Everything up to this block has been looked at."""
        self._looks_left_count = self._looks_left_count - 1 if at_number < self._block_number else 0
