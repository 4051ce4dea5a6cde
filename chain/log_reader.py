"""The contracts' logs of a range of blocks, as the quorum has them: all endpoints say the same, or nothing is known.

One request to each endpoint of the quorum reads a range:

    block at    the one the reader stands on: still the one we know?
    block end   the last of the range
    logs        of the TicketBroker about our senders, and of the RoundsManager
    block end   again: the members of a batch are answered one after another, and a reorganisation may come between

Endpoints refuse ranges that are too wide, each in its own way. The width goes down by half with each refusal, up again
by doubling as far as half of what was refused, and slowly from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from chain.contracts import Contracts, resolve
from chain.events import (
    ESCROW_TOPICS,
    NEW_ROUND,
    Event,
    EventError,
    Log,
    decode_escrow_log,
    decode_round_log,
    parse_log,
)
from chain.networks import Network
from chain.quorum import Block, NoDecision, Quorum, TooFewAnswers, read_known_block
from chain.rpc import Failure, MemberFailed, RpcCall, RpcError

#: What an endpoint does with a range that is too wide for it, besides refusing it.
_PERHAPS_TOO_WIDE: Final = frozenset(
    {Failure.TOO_LARGE, Failure.TIMED_OUT, Failure.RATE_LIMITED, Failure.HTTP_STATUS, Failure.CALL_FAILED}
)
#: Of one request for headers.
HEADERS_PER_BATCH_MAX: Final = 100


class RangeRefused(NoDecision):
    """An endpoint does not give the logs of even one block."""


@dataclass(frozen=True, slots=True)
class Point:
    """A block by number and hash: what lies below it is settled with it."""

    number: int
    hash: bytes


@dataclass(slots=True)
class RangeWidth:
    """How many blocks to ask for at once."""

    max_count: int
    count: int = 0
    _fast_until_count: int = 0

    def __post_init__(self) -> None:
        self.count = self._fast_until_count = self.max_count

    def refused(self) -> None:
        self._fast_until_count = self.count = max(1, self.count // 2)

    def answered(self) -> None:
        doubled = self.count * 2
        step = max(1, self._fast_until_count // 8)
        grown = doubled if doubled <= self._fast_until_count else self.count + step
        self.count = min(self.max_count, grown)


class Range(NamedTuple):
    """What the quorum says of the blocks above `at`, up to and with `end`, in the order of the chain.

    `at_hash` is the hash that block has now: another one than before means that the chain was reorganised, and then
    nothing else counts. `head_number`: the newest block that all of the quorum know of.
    """

    at_hash: bytes
    end: Block
    head_number: int
    events: tuple[Event, ...]


class _Said(NamedTuple):
    """One endpoint's answer. `logs` is None where it refused the range."""

    head: Block
    at_hash: bytes
    end: Block
    logs: tuple[Log, ...] | None


class LogReader:
    """Belongs to the quorum's event loop, and serves one reading at a time. `senders` are addresses of 20 bytes."""

    def __init__(self, quorum: Quorum, network: Network, *, width_max_count: int) -> None:
        self._quorum, self._network = quorum, network
        self.width = RangeWidth(width_max_count)
        self._contracts: Contracts | None = None

    async def head(self) -> Block:
        """The newest block that all endpoints of the quorum know of. Raises NoDecision."""
        return _lowest(list((await self._quorum.ask([], lambda head, _: head)).values()))

    async def points(self, numbers: Sequence[int]) -> list[Point]:
        """The blocks of these numbers, as the quorum has them. Raises NoDecision, also where one is not there."""
        found: list[Point] = []
        for start in range(0, len(numbers), HEADERS_PER_BATCH_MAX):
            found += await self._points(numbers[start : start + HEADERS_PER_BATCH_MAX])
        return found

    async def read(self, at_number: int, end_number: int, senders: Sequence[bytes]) -> Range:
        """The events of the blocks after `at_number`, up to and with `end_number` or an earlier one (see `width`).

        Raises NoDecision: Disagreement, RangeRefused or TooFewAnswers.
        """
        contracts = await self._known_contracts()
        while True:
            upto_number = min(end_number, at_number + self.width.count)
            try:
                said = await self._ask(contracts, at_number, upto_number, senders)
            except TooFewAnswers as error:
                if error.failures & _PERHAPS_TOO_WIDE:
                    self.width.refused()
                if error.failures == {Failure.TOO_LARGE} and upto_number > at_number + 1:
                    continue
                raise
            if said is not None:
                # A range that was narrow for want of blocks says nothing of how wide one may be.
                if upto_number - at_number >= self.width.count:
                    self.width.answered()
                return _range(said, contracts)
            if upto_number <= at_number + 1:
                raise RangeRefused(f"the logs of block {upto_number} alone are refused")
            self.width.count = upto_number - at_number
            self.width.refused()

    async def _known_contracts(self) -> Contracts:
        if self._contracts is None:
            self._contracts = await resolve(self._quorum, await self._quorum.newest_block_hash(), self._network)
        return self._contracts

    async def _ask(
        self, contracts: Contracts, at_number: int, end_number: int, senders: Sequence[bytes]
    ) -> _Said | None:
        """What all endpoints say; None where one of them refused."""

        def read(head: Block, results: Sequence[Any]) -> _Said:
            return _read(head, results, contracts, range(at_number + 1, end_number + 1))

        answers = await self._quorum.ask(_calls(contracts, at_number, end_number, senders), read)
        if any(said.logs is None for said in answers.values()):
            return None
        first, *others = answers.values()
        if any(said[1:] != first[1:] for said in others):
            raise self._quorum.disagreed(f"the logs of blocks {at_number + 1} to {end_number}", list(answers))
        return first._replace(head=_lowest([said.head for said in answers.values()]))

    async def _points(self, numbers: Sequence[int]) -> list[Point]:
        calls = [_block_call(number) for number in numbers]
        answers = await self._quorum.ask(calls, lambda _, results: [read_known_block(result) for result in results])
        first, *others = answers.values()
        if any(other != first for other in others):
            raise self._quorum.disagreed(f"blocks {min(numbers)} to {max(numbers)}", list(answers))
        return [Point(number, block.hash) for number, block in zip(numbers, first, strict=True)]


def filters(contracts: Contracts, senders: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which logs matter, as nodes are told: those of the TicketBroker about our senders, and new rounds."""
    assert senders, "a topic that is not named would match everybody"
    about = [f"0x{sender.rjust(32, bytes(1)).hex()}" for sender in senders]
    escrow_topics = [f"0x{topic.hex()}" for topic in ESCROW_TOPICS]
    return (
        {"address": f"0x{contracts.ticket_broker.hex()}", "topics": [escrow_topics, about]},
        {"address": f"0x{contracts.rounds_manager.hex()}", "topics": [f"0x{NEW_ROUND.hex()}"]},
    )


def _lowest(heads: Sequence[Block]) -> Block:
    return min(heads, key=lambda head: head.number)


def _calls(contracts: Contracts, at_number: int, end_number: int, senders: Sequence[bytes]) -> list[RpcCall]:
    span = {"fromBlock": hex(at_number + 1), "toBlock": hex(end_number)}
    broker, rounds = filters(contracts, senders)
    return [
        _block_call(at_number),
        _block_call(end_number),
        RpcCall("eth_getLogs", [{**span, **broker}]),
        RpcCall("eth_getLogs", [{**span, **rounds}]),
        _block_call(end_number),
    ]


def _block_call(number: int) -> RpcCall:
    return RpcCall("eth_getBlockByNumber", [hex(number), False])


def _read(head: Block, results: Sequence[Any], contracts: Contracts, numbers: range) -> _Said:
    """Of the answers to `_calls`. Raises RpcError."""
    at, end, broker_logs, round_logs, end_again = results
    at_block, end_block = read_known_block(at), read_known_block(end)
    if read_known_block(end_again).hash != end_block.hash:
        raise RpcError(Failure.UNKNOWN_BLOCK)  # it was replaced at this moment
    if isinstance(broker_logs, MemberFailed) or isinstance(round_logs, MemberFailed):
        return _Said(head, at_block.hash, end_block, None)
    logs = [
        *_logs(broker_logs, contracts.ticket_broker, numbers),
        *_logs(round_logs, contracts.rounds_manager, numbers),
    ]
    logs.sort(key=lambda log: log.place)
    if any(log.place.block_number == end_block.number and log.place.block_hash != end_block.hash for log in logs):
        raise RpcError(Failure.MALFORMED)
    if len({(log.place.block_number, log.place.index) for log in logs}) != len(logs):
        raise RpcError(Failure.MALFORMED)
    return _Said(head, at_block.hash, end_block, tuple(logs))


def _logs(results: Any, address: bytes, numbers: range) -> list[Log]:
    if not isinstance(results, list):
        raise RpcError(Failure.MALFORMED)
    try:
        logs = [parse_log(result) for result in results]
    except EventError:
        raise RpcError(Failure.MALFORMED) from None
    if any(log.address != address or log.place.block_number not in numbers for log in logs):
        raise RpcError(Failure.MALFORMED)
    return logs


def _range(said: _Said, contracts: Contracts) -> Range:
    """Raises NoDecision where all of them say what these contracts do not."""
    assert said.logs is not None, "it was not refused"
    try:
        events = tuple(
            decode_escrow_log(log) if log.address == contracts.ticket_broker else decode_round_log(log)
            for log in said.logs
        )
    except EventError as error:
        raise NoDecision(f"a log up to block {said.end.number} is not of the protocol that is known: {error}") from None
    return Range(said.at_hash, said.end, said.head.number, events)
