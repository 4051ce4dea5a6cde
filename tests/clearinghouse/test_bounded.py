from __future__ import annotations

from clearinghouse.bounded import Bounded


def test_what_was_remembered_longest_ago_goes_first_and_anew_counts_as_new() -> None:
    known: Bounded[str, int] = Bounded(2)
    known.remember("a", 1)
    known.remember("b", 2)
    known.remember("a", 3)
    known.remember("c", 4)
    assert dict(known) == {"a": 3, "c": 4}
