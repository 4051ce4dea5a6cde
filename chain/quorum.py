"""Several endpoints that must say the same about one block, or nothing is known.

Everything that money depends on is read at one block, named by its hash (EIP-1898), from as many endpoints as the
quorum has. The block is one that the endpoints called their newest when they were asked the time before: by then all
of them know it, although blocks come four times a second and no two endpoints see one at the same instant. So a steady
poll is one request to each endpoint of the quorum:

    poll n      A: newest? + calls at block X      B: newest? + calls at block X      X agreed, lower newest is Y
    poll n+1    A: newest? + calls at block Y      B: newest? + calls at block Y      …

An endpoint that fails is left alone for a while and another is asked in its place. Endpoints that answer differently
about the same block make no decision: nobody can tell from here which of them lies. Which endpoints are asked first
goes round, so that a liar among three is met, and counted, and does not hide the two others for ever.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from chain.rpc import Failure, MemberFailed, RpcCall, RpcEndpoint, RpcError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Of one request; providers refuse batches beyond some hundreds.
CALLS_PER_BATCH_MAX: Final = 100
_BACKOFF_FIRST_S: Final = 1
_BACKOFF_MAX_S: Final = 15
_UINT: Final = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)
_BYTES: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)
#: With another question, or a moment later, the same endpoint may well answer: it is not left alone.
_SAYS_NOTHING_OF_IT: Final = frozenset({Failure.UNKNOWN_BLOCK, Failure.TOO_LARGE, Failure.BUDGET_SPENT})


class NoDecision(Exception):
    """Nothing is known now. The text says why, for the operator; it has no URL and no amounts."""


class TooFewAnswers(NoDecision):
    """`failures` are those of the endpoints that were asked just now; none where all of them are left alone."""

    def __init__(self, text: str, failures: Collection[Failure]) -> None:
        super().__init__(text)
        self.failures = frozenset(failures)


class Disagreement(NoDecision):
    """Endpoints gave different answers about the same block."""


@dataclass(frozen=True, slots=True)
class Block:
    """`l1_number` is the L1 block that the chain's contracts see as their own number (protocol, section 8.4)."""

    hash: bytes
    number: int
    l1_number: int
    time_unix_s: int


class Call(NamedTuple):
    """A reading function of a contract: its address and its calldata."""

    to: bytes
    data: bytes


class Agreed(NamedTuple):
    """What the quorum says of one block: raw return data, in the order of the calls."""

    block: Block
    results: tuple[bytes, ...]


class QuorumObserver(Protocol):
    """What metrics need to hear. Called from the event loop: it must not wait, and must not raise."""

    def rpc_ended(self, endpoint: str, outcome: str, elapsed_s: float) -> None:
        """`outcome` is "ok" or a Failure value. The time has the wait for a turn in it."""
        ...

    def rpc_disagreed(self) -> None: ...


class SilentObserver:
    """Hears nothing."""

    def rpc_ended(self, endpoint: str, outcome: str, elapsed_s: float) -> None: ...

    def rpc_disagreed(self) -> None: ...


@dataclass(eq=False)
class _Member:
    """One endpoint and how it has fared."""

    endpoint: RpcEndpoint
    failures_in_a_row: int = 0
    last_failure: Failure | None = None
    asked_again_from_s: float = 0

    def answered(self) -> None:
        if self.last_failure is not None:
            logger.info("rpc endpoint %s answers again", self.endpoint.name)
        self.failures_in_a_row, self.last_failure = 0, None

    def failed(self, error: RpcError, now_s: float) -> None:
        if error.failure is not self.last_failure:
            logger.warning("rpc endpoint %s failed: %s", self.endpoint.name, error.failure.value)
        self.last_failure = error.failure
        if error.failure in _SAYS_NOTHING_OF_IT:
            return  # such as a block that was never seen again, or not yet: the next one may be known
        backoff_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(self.failures_in_a_row, 10))
        self.failures_in_a_row += 1
        self.asked_again_from_s = now_s + (error.retry_after_s or backoff_s)


class _Answer(NamedTuple):
    """`pinned` is what the endpoints must agree on; None where nothing but the newest block was asked for."""

    newest: Block
    pinned: Agreed | None


class Quorum:
    """Reads blocks of one chain. Belongs to one event loop, and serves one reading at a time.

    `count` endpoints must agree; an endpoint whose newest block is older than `head_age_max_s` does not count.
    Raises ValueError where there are fewer endpoints than that.
    """

    def __init__(
        self,
        endpoints: Sequence[RpcEndpoint],
        *,
        chain_id: int,
        count: int,
        timeout_s: float,
        head_age_max_s: int,
        observer: QuorumObserver | None = None,
        unix_s: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        if not 1 <= count <= len(endpoints):
            raise ValueError(f"a quorum of {count} needs as many endpoints, and there are {len(endpoints)}")
        self._members = [_Member(endpoint) for endpoint in endpoints]
        self._chain_id, self._count = chain_id, count
        self._timeout_s, self._head_age_max_s = timeout_s, head_age_max_s
        self._observer = observer or SilentObserver()
        self._unix_s = unix_s
        self._turn = 0
        self._newest: bytes | None = None

    async def newest_block_hash(self, *, of_now: bool = False) -> bytes:
        """Of a block that was the newest of all endpoints a moment ago. Asks them only where that is not known.

        A poll begins here, and with it another endpoint's turn to be asked first. `of_now`: asks them in any case,
        because what was the newest at the poll before is not new enough.
        """
        self._turn = (self._turn + 1) % len(self._members)
        if self._newest is None or of_now:
            answers = await self._ask([], lambda head, _: _Answer(head, None))
            self._newest = _lowest(answers)
        return self._newest

    async def ask(self, calls: Sequence[RpcCall], read: Callable[[Block, Sequence[Any]], Answer]) -> dict[str, Answer]:
        """As many answers to any calls as the quorum has, by the endpoint's name: the caller sees whether they agree.

        `read` makes an answer of an endpoint's newest block and its results, and raises RpcError where they are of no
        use. Each time it is another endpoint's turn to be asked first. Raises TooFewAnswers.
        """
        self._turn = (self._turn + 1) % len(self._members)
        answers = await self._ask(calls, read)
        return {member.endpoint.name: answer for member, answer in answers.items()}

    def disagreed(self, about: str, names: Sequence[str]) -> Disagreement:
        """To be raised: the endpoints of these names say different things `about` something. Tells the observer."""
        self._observer.rpc_disagreed()
        listed = ", ".join(names)
        logger.error("rpc endpoints disagree about %s: %s", about, listed)
        return Disagreement(f"the endpoints {listed} disagree about {about}")

    async def read(self, block_hash: bytes, calls: Sequence[Call]) -> Agreed:
        """The agreed answers at this block, more than CALLS_PER_BATCH_MAX of them in several requests.

        Raises NoDecision or Disagreement; the next reading then begins with another block.
        """
        try:
            first = await self._agreed(block_hash, calls[:CALLS_PER_BATCH_MAX])
            results = list(first.results)
            for start in range(CALLS_PER_BATCH_MAX, len(calls), CALLS_PER_BATCH_MAX):
                results += (await self._agreed(block_hash, calls[start : start + CALLS_PER_BATCH_MAX])).results
        except NoDecision:
            self._newest = None
            raise
        return Agreed(first.block, tuple(results))

    async def close(self) -> None:
        """May be called twice."""
        await asyncio.gather(*(member.endpoint.close() for member in self._members))

    async def _agreed(self, block_hash: bytes, calls: Sequence[Call]) -> Agreed:
        answers = await self._ask(_pinned(calls, block_hash), lambda head, results: _read(head, results, block_hash))
        said = [answer.pinned for answer in answers.values()]
        first = said[0]
        assert first is not None, "a block was asked about"
        if any(other != first for other in said[1:]):
            names = [member.endpoint.name for member in answers]
            raise self.disagreed(f"block 0x{block_hash.hex()}", names)
        self._newest = _lowest(answers)
        return first

    async def _ask(
        self, calls: Sequence[RpcCall], read: Callable[[Block, Sequence[Any]], Answer]
    ) -> dict[_Member, Answer]:
        """As many answers as the quorum has. An endpoint that fails is replaced by one that was not asked yet."""
        spare = self._askable()
        answers: dict[_Member, Answer] = {}
        failures: list[Failure] = []
        while (missing_count := self._count - len(answers)) > 0:
            asked, spare = spare[:missing_count], spare[missing_count:]
            if len(asked) < missing_count:  # not worth a request: the quorum cannot be had
                raise TooFewAnswers(f"fewer than {self._count} endpoints answer: {self._complaints()}", failures)
            outcomes = await asyncio.gather(*(self._ask_one(member, calls, read) for member in asked))
            for member, outcome in zip(asked, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                else:
                    answers[member] = outcome
        return answers

    def _askable(self) -> list[_Member]:
        """All but those that are left alone, in the order of this poll; those last that may not be asked at once."""
        now_s = time.monotonic()
        in_turn = self._members[self._turn :] + self._members[: self._turn]
        askable = [member for member in in_turn if member.asked_again_from_s <= now_s]
        return sorted(askable, key=lambda member: member.endpoint.wait_s() > 0)

    def _complaints(self) -> str:
        failing = [f"{m.endpoint.name} {m.last_failure.value}" for m in self._members if m.last_failure is not None]
        return ", ".join(failing)

    async def _ask_one(
        self, member: _Member, calls: Sequence[RpcCall], read: Callable[[Block, Sequence[Any]], Answer]
    ) -> Answer | Failure:
        """The answer, or how it failed."""
        started_s = time.monotonic()
        outcome = "cancelled"
        try:
            results = await member.endpoint.batch([*_HEAD, *calls], timeout_s=self._timeout_s)
            answer = read(self._head(results), results[len(_HEAD) :])
        except RpcError as error:
            outcome = error.failure.value
            member.failed(error, time.monotonic())
            return error.failure
        else:
            outcome = "ok"
            member.answered()
            return answer
        finally:
            self._observer.rpc_ended(member.endpoint.name, outcome, time.monotonic() - started_s)

    def _head(self, results: Sequence[Any]) -> Block:
        """The newest block, of the answers to _HEAD."""
        chain_id, newest = results[: len(_HEAD)]
        if read_uint(chain_id) != self._chain_id:
            raise RpcError(Failure.WRONG_CHAIN)
        head = read_block(newest)
        if self._unix_s() - head.time_unix_s > self._head_age_max_s:
            raise RpcError(Failure.STALE_HEAD)
        return head


#: Begins every batch.
_HEAD: Final = (RpcCall("eth_chainId", []), RpcCall("eth_getBlockByNumber", ["latest", False]))


def _pinned(calls: Sequence[Call], block_hash: bytes) -> list[RpcCall]:
    pin = {"blockHash": f"0x{block_hash.hex()}"}
    block = RpcCall("eth_getBlockByHash", [pin["blockHash"], False])
    return [
        block,
        *(RpcCall("eth_call", [{"to": f"0x{to.hex()}", "data": f"0x{data.hex()}"}, pin]) for to, data in calls),
    ]


def _read(head: Block, results: Sequence[Any], block_hash: bytes) -> _Answer:
    """Of the answers to `_pinned`."""
    block_result, *call_results = results
    block = read_known_block(block_result)
    if block.hash != block_hash:
        raise RpcError(Failure.MALFORMED)
    return _Answer(head, Agreed(block, tuple(read_data(result) for result in call_results)))


def _lowest(answers: dict[_Member, _Answer]) -> bytes:
    """The newest block of the endpoint that is furthest behind: the others know it too."""
    return min((answer.newest for answer in answers.values()), key=lambda block: block.number).hash


def read_known_block(result: Any) -> Block:
    """A block that was asked for. Raises RpcError, also where the endpoint does not know it."""
    if result is None or isinstance(result, MemberFailed):
        raise RpcError(Failure.UNKNOWN_BLOCK)
    return read_block(result)


def read_block(result: Any) -> Block:
    """A result as a block. Raises RpcError.

    Arbitrum's headers have the L1 block beside their own number; other chains are their own L1.
    """
    if isinstance(result, MemberFailed):
        raise RpcError(Failure.CALL_FAILED)
    if not isinstance(result, dict):
        raise RpcError(Failure.MALFORMED)
    number = read_uint(result.get("number"))
    l1_number = read_uint(result["l1BlockNumber"]) if "l1BlockNumber" in result else number
    hash_ = _data(result.get("hash"))
    if len(hash_) != 32:
        raise RpcError(Failure.MALFORMED)
    return Block(hash_, number, l1_number, read_uint(result.get("timestamp")))


def read_data(result: Any) -> bytes:
    """A result as bytes. Raises RpcError."""
    if isinstance(result, MemberFailed):
        raise RpcError(Failure.CALL_FAILED)
    return _data(result)


def read_uint(result: Any) -> int:
    """A result as a number. Raises RpcError."""
    if isinstance(result, MemberFailed):
        raise RpcError(Failure.CALL_FAILED)
    if not isinstance(result, str) or not _UINT.fullmatch(result):  # int() alone takes signs, spaces and underscores
        raise RpcError(Failure.MALFORMED)
    return int(result, 16)


def _data(result: Any) -> bytes:
    if not isinstance(result, str) or not _BYTES.fullmatch(result):  # fromhex() alone takes spaces
        raise RpcError(Failure.MALFORMED)
    return bytes.fromhex(result[2:])
