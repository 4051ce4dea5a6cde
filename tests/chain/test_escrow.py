"""A declared escrow says what it was told, and that it was told."""

from __future__ import annotations

from typing import Any

import pytest

from chain.escrow import DeclaredEscrow, EscrowReading, EscrowView

DECLARED: dict[str, Any] = {
    "sender": b"\x01" * 20,
    "deposit_wei": 10**18,
    "reserve_wei": 10**17,
    "last_initialized_round": 4100,
    "last_initialized_round_block_hash": b"\x02" * 32,
    "last_seen_l1_block": 21_000_000,
}


def test_a_declared_escrow_is_always_fresh_and_always_marked_simulated() -> None:
    clock = iter([1000, 2000])
    escrow: EscrowView = DeclaredEscrow(**DECLARED, now_unix_s=lambda: next(clock))
    common: dict[str, Any] = DECLARED | {"claimed_in_round_wei": 0, "withdraw_round": 0, "simulated": True}
    assert escrow.read() == EscrowReading(**common, observed_at_unix_s=1000)
    assert escrow.read() == EscrowReading(**common, observed_at_unix_s=2000)


def test_a_declared_escrow_is_read_anew_when_the_second_changes_in_either_direction() -> None:
    clock = iter([1000, 1000, 1001, 1000])
    escrow = DeclaredEscrow(**DECLARED, now_unix_s=lambda: next(clock))
    assert [escrow.read().observed_at_unix_s for _ in range(4)] == [1000, 1000, 1001, 1000]


@pytest.mark.parametrize(
    ("name", "value"),
    [("deposit_wei", -1), ("reserve_wei", 2**256), ("last_seen_l1_block", -1), ("withdraw_round", -1)],
)
def test_a_declaration_out_of_range_names_the_setting_and_its_value(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be in .* got {value}"):
        DeclaredEscrow(**(DECLARED | {name: value}))


@pytest.mark.parametrize("name", ["sender", "last_initialized_round_block_hash"])
def test_a_declaration_of_the_wrong_length_names_the_setting(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must have"):
        DeclaredEscrow(**(DECLARED | {name: b"\x01"}))
