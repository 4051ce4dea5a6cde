"""Registries of recipients, by values alone: what each of them tells, and what several tell together."""

from __future__ import annotations

from itertools import product
from types import MappingProxyType
from typing import Any

import pytest

from chain.chain_reading import ChainReading, Rounds
from chain.contracts import Contracts
from chain.escrow import EscrowUnknown
from chain.orchestrators import Orchestrator, Orchestrators
from chain.quorum import Block
from clearinghouse.registry import ActiveOrchestrators, EveryRegistry, Registration

ACTIVE, RETIRED, STRANGER = b"\x0a" * 20, b"\x0b" * 20, b"\x0c" * 20
ALLOWED, NOT_ALLOWED, UNKNOWN = Registration.ALLOWED, Registration.NOT_ALLOWED, Registration.UNKNOWN
BEGAN_UNIX_S, STALE_MAX_S = 1_800_000_000, 60


def reading(round_: int, *, after_s: int = 0) -> ChainReading:
    return ChainReading(
        block=Block(b"\x01" * 32, 1, 1, BEGAN_UNIX_S + after_s),
        contracts=Contracts(*[bytes(20)] * 4),
        rounds=Rounds(round_, round_, bytes(32), bytes(32), 2, 2),
        pool_size=1,
        escrows={},
    )


class Read:
    """The newest reading, or none that is fresh."""

    def __init__(self, newest: ChainReading | None) -> None:
        self.now = newest

    def newest(self) -> ChainReading:
        if self.now is None:
            raise EscrowUnknown("too old")
        return self.now


def registry(read: Any, *, of_round: int | None = 7) -> ActiveOrchestrators:
    made = ActiveOrchestrators(read, stale_max_s=STALE_MAX_S)
    if of_round is not None:
        found = {ACTIVE: Orchestrator(ACTIVE, "", True, True), RETIRED: Orchestrator(RETIRED, "", False, True)}
        made.learn(Orchestrators(of_round, MappingProxyType(found)))
        made.confirm(reading(of_round))
    return made


def found_by(of: ActiveOrchestrators) -> tuple[Registration, ...]:
    return tuple(of.find(address) for address in (ACTIVE, RETIRED, STRANGER))


def test_in_the_round_of_its_list_a_registry_says_yes_or_no() -> None:
    assert found_by(registry(Read(reading(7, after_s=100_000)))) == (ALLOWED, NOT_ALLOWED, NOT_ALLOWED)


@pytest.mark.parametrize(
    ("after_s", "known"), [(0, (ALLOWED, UNKNOWN, UNKNOWN)), (60, (ALLOWED, UNKNOWN, UNKNOWN)), (61, (UNKNOWN,) * 3)]
)
def test_in_a_new_round_those_who_were_active_are_paid_for_a_while_and_of_others_nothing_is_known(
    after_s: int, known: tuple[Registration, ...]
) -> None:
    assert found_by(registry(Read(reading(8, after_s=after_s)))) == known


def test_without_a_list_or_a_fresh_reading_nothing_is_known() -> None:
    assert found_by(registry(Read(reading(7)), of_round=None)) == (UNKNOWN,) * 3
    assert found_by(registry(Read(None))) == (UNKNOWN,) * 3


class Says:
    def __init__(self, word: Registration) -> None:
        self._word = word

    def find(self, _recipient: bytes) -> Registration:
        return self._word


def test_together_a_no_beats_everything_and_a_doubt_beats_a_yes() -> None:
    order = [NOT_ALLOWED, UNKNOWN, ALLOWED]
    for first, second in product(order, order):
        together = EveryRegistry(Says(first), Says(second)).find(ACTIVE)
        assert together is order[min(order.index(first), order.index(second))]
