"""A hint buys a few looks, ends when its block was seen, and none of them spoils the next."""

from __future__ import annotations

from clearinghouse.hint import LOOKS_MAX_COUNT, Hint


def test_without_a_word_no_look_is_due() -> None:
    assert not Hint().is_open


def test_a_hint_ends_with_the_look_that_saw_its_block() -> None:
    hint = Hint()
    hint.heard(100)
    hint.looked(99)
    assert hint.is_open
    hint.looked(100)
    assert not hint.is_open


def test_a_block_that_never_comes_buys_a_few_looks_and_a_true_word_is_followed_afterwards() -> None:
    hint = Hint()
    hint.heard(2**256 - 1)
    looks_count = 0
    while hint.is_open:
        hint.looked(100)
        looks_count += 1
    assert looks_count == LOOKS_MAX_COUNT
    hint.heard(101)
    assert hint.is_open
    hint.looked(101)
    assert not hint.is_open
