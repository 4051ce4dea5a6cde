"""One JSON-RPC endpoint of an Ethereum node: a batch of calls up, one result for each of them down.

A batch is answered whole or not at all. The URL is a secret, because providers put their keys into it: no error, log or
repr has it. What a node says in words is not passed on either, for it may quote what it was asked.

The ordinary libraries are not used here on purpose: a batch through web3 costs ten times as much and fails as a whole
with its first member, its errors quote URLs, and importing it takes a second that every serving process would wait.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from chain import shallow_json
from chain.http_client import ExchangeError, HttpAnswer, TimeIsUpError, TooLargeError
from chain.http_target import parse_target
from chain.rpc_budget import BudgetSpent, RequestBudget

#: A batch of a hundred calls has some 30 KB.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
#: EIP-1474's "limit exceeded", and the HTTP status that some put into the error instead.
_LIMIT_CODES: Final = frozenset({-32005, -32029, 429})
_RETRY_AFTER_MAX_S: Final = 300


class Failure(StrEnum):
    """Why an endpoint's answer is of no use: a closed set, fit for a metric's label."""

    CONNECTION_FAILED = "connection_failed"
    TIMED_OUT = "timed_out"
    RATE_LIMITED = "rate_limited"
    #: Any other status than 200: a wrong key, a proxy's error page.
    HTTP_STATUS = "http_status"
    #: Not JSON-RPC, half a batch, or a result that is not of the kind asked for.
    MALFORMED = "malformed"
    #: More than is read of an answer.
    TOO_LARGE = "too_large"
    #: A member of the batch failed.
    CALL_FAILED = "call_failed"
    #: The node is of another chain.
    WRONG_CHAIN = "wrong_chain"
    #: It does not know the block that was asked about: it is behind, or the block never was.
    UNKNOWN_BLOCK = "unknown_block"
    #: Its newest block is too old.
    STALE_HEAD = "stale_head"
    #: Nothing was sent: it was sent as much already as it may be, or asked for patience.
    BUDGET_SPENT = "budget_spent"


class RpcError(Exception):
    """There is no answer to use. `retry_after_s` is the endpoint's own word, where it gave one."""

    def __init__(self, failure: Failure, *, retry_after_s: int | None = None) -> None:
        super().__init__(failure.value)
        self.failure = failure
        self.retry_after_s = retry_after_s


class RpcCall(NamedTuple):
    """A method and its parameters, as they go into JSON."""

    method: str
    params: Sequence[Any]


class MemberFailed(NamedTuple):
    """Stands in the place of a result. `code` is the node's."""

    code: int


class RpcEndpoint:
    """A keep-alive client of one endpoint. Belongs to one event loop.

    `name` is what logs and metrics call it; `budget` may be shared by several clients of the endpoint, and without one
    there is no limit. Raises ValueError, without quoting it, for a URL that cannot be used.
    """

    def __init__(self, url: str, *, name: str, budget: RequestBudget | None = None) -> None:
        self.name = name
        self._budget = budget
        target = parse_target(url, name=name)
        self._head = target.head("POST")
        self._client = target.client(body_max_bytes=ANSWER_BYTES_MAX)

    async def batch(self, calls: Sequence[RpcCall], *, timeout_s: float) -> list[Any]:
        """The results in the order of the calls; a member that failed is a MemberFailed. One HTTP request.

        Raises RpcError. `timeout_s` covers everything from waiting for a turn and connecting to the last byte.
        """
        give_up_at_s = time.monotonic() + timeout_s
        await self._take_turn(timeout_s)
        body = json.dumps(
            [{"jsonrpc": "2.0", "id": number, "method": method, "params": params}
             for number, (method, params) in enumerate(calls)]
        ).encode()  # fmt: skip
        request = b"%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)
        try:
            answer = await self._client.exchange(request, timeout_s=max(give_up_at_s - time.monotonic(), 0))
        except ExchangeError as error:  # not chained: its cause may quote an address
            raise RpcError(_failure_of(error)) from None
        try:
            _require_ok(answer)
        except RpcError as error:
            if self._budget is not None and error.retry_after_s is not None:
                self._budget.be_patient(error.retry_after_s)
            raise
        return _results(answer.body, len(calls))

    def wait_s(self) -> float:
        """How long a request would wait for its turn now."""
        return self._budget.wait_s() if self._budget is not None else 0

    async def close(self) -> None:
        """May be called twice."""
        await self._client.close()

    async def _take_turn(self, timeout_s: float) -> None:
        if self._budget is None:
            return
        try:
            await self._budget.take(timeout_s=timeout_s)
        except BudgetSpent:
            raise RpcError(Failure.BUDGET_SPENT) from None

    def __repr__(self) -> str:
        return f"RpcEndpoint({self.name})"


def _failure_of(error: ExchangeError) -> Failure:
    if isinstance(error, TimeIsUpError):
        return Failure.TIMED_OUT
    return Failure.TOO_LARGE if isinstance(error, TooLargeError) else Failure.CONNECTION_FAILED


def _require_ok(answer: HttpAnswer) -> None:
    if answer.status == 429:
        said = answer.headers.get(b"retry-after", b"")
        retry_after_s = min(int(said), _RETRY_AFTER_MAX_S) if said.isdigit() and len(said) < 10 else None
        raise RpcError(Failure.RATE_LIMITED, retry_after_s=retry_after_s)
    if answer.status != 200:
        raise RpcError(Failure.HTTP_STATUS)


def _results(body: bytes, count: int) -> list[Any]:
    try:
        answers = shallow_json.loads(body)
    except ValueError:
        raise RpcError(Failure.MALFORMED) from None
    if isinstance(answers, dict):  # one word for the whole batch: a limit, or a node that knows no batches
        raise RpcError(Failure.RATE_LIMITED if _error_code(answers) in _LIMIT_CODES else Failure.MALFORMED)
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        raise RpcError(Failure.MALFORMED)
    by_id = {answer["id"]: answer for answer in answers if type(answer.get("id")) is int}
    if len(answers) != count or by_id.keys() != set(range(count)):
        raise RpcError(Failure.MALFORMED)
    return [_result(by_id[number]) for number in range(count)]


def _result(answer: dict[str, Any]) -> Any:
    code = _error_code(answer)
    if code in _LIMIT_CODES:
        raise RpcError(Failure.RATE_LIMITED)
    if code is not None:
        return MemberFailed(code)
    if "result" not in answer:
        raise RpcError(Failure.MALFORMED)
    return answer["result"]


def _error_code(answer: dict[str, Any]) -> int | None:
    """None where there is no error; 0 for one without a code."""
    error = answer.get("error")
    if error is None:
        return None
    code = error.get("code") if isinstance(error, dict) else 0
    return code if type(code) is int else 0
