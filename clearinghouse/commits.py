"""The durable step: records what was signed and debits for it, before anything is released (promise 1).

Calls that arrive while a transaction is in flight go into the next one together; `commit_issuances` in
migrations/sql judges and applies them one by one. A usual one that comes alone is carried out by `commit_next`, which
takes PostgreSQL a third less; what that cannot carry out, `commit_issuances` judges. A commit whose outcome is unknown
because the connection was lost is sent again: if it had been carried out, the stored answer comes back and nothing is
debited twice (promise 3).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

import psycopg
import structlog

from clearinghouse.database.arrays import array_parameter, value_parameter
from clearinghouse.database.batching import NaturalBatcher
from clearinghouse.database.hot_connection import RECONNECT_PAUSE_S, HotConnection, is_of_the_statement
from clearinghouse.database.statements import Parameter
from clearinghouse.errors import DatabaseUnavailable
from clearinghouse.metrics import Metrics

log = structlog.get_logger(__name__)

RETRIES_MAX_COUNT = 5
#: Calls on an account that was found locked by somebody else are turned away for this long, not sent to wait again:
#: each wait is everybody's.
BUSY_REMEMBERED_S = 1
#: Where commit_issuances carried out what commit_next left, as a rule the key has limits or the deposit is critical:
#: payments by that key are not tried for this long. A try takes the account's lock, written to disk as a payment is.
LEFT_REMEMBERED_S = 10


class Issuance(NamedTuple):
    """One payment, to be recorded and debited. The fields are the parameters of commit_issuances, in order.

    The webhook is shown no tickets: then what only they tell is None, and `ev_numerator` says what they are worth.
    """

    gateway_id: UUID
    key_id: UUID
    #: Of the price ceilings by which the payment was judged.
    ceilings_version: int
    session_id: UUID
    is_new_session: bool
    base_state_hash: bytes | None
    head_state_hash: bytes
    sequence: int
    request_hash: bytes
    idempotency_key: str | None
    recipient_rand_hash: bytes
    first_nonce: int
    num_tickets: int
    face_value_wei: int | None
    win_prob: int | None
    creation_round: int | None
    sender: bytes
    recipient: bytes | None
    orchestrator: bytes
    ev_wei: int
    fee_wei: int
    charge: Decimal
    price: Decimal
    price_source: str
    price_observed_at: datetime
    markup_bps: int
    minimum_charge: Decimal
    job_type: str
    manifest_id: str | None
    app: str
    transcoder: str
    pipeline: str
    model: str
    end_user: str
    id: UUID
    answer: bytes
    #: The states that the session's next one can go on from (clearinghouse.approved_states).
    approved: bytes | None = None
    #: Expected value of all tickets together, times 2^256 - 1.
    ev_numerator: int | None = None
    #: Of a payment that was approved before, shown again: how many such repeats a gateway has in an hour.
    repeats_max_count: int | None = None
    #: The rule that the charge follows from, None: the markup; and what it is applied to (clearinghouse.rating).
    rate_rule: int | None = None
    quantity: int | None = None


class Outcome(NamedTuple):
    """`code` is None when the payment is recorded and may be released; otherwise nothing was debited."""

    code: str | None
    balance: Decimal
    credit_limit: Decimal
    #: The database's time of the batch, which is the issuance's created_at.
    created_at: datetime
    #: With code "replayed": the answer that was recorded for this request, and its issuance.
    stored_issuance_id: UUID | None = None
    stored_answer: bytes | None = None
    #: What was debited, or would be. By a rule that counts, the issuance only says how much that is at most.
    charge: Decimal = Decimal(0)


#: The types of commit_issuances' parameters: one array per field of Issuance.
_TYPES = (
    "uuid", "uuid", "bigint",
    "uuid", "boolean", "bytea", "bytea", "bigint", "bytea", "text", "bytea", "bigint", "integer",
    "numeric", "numeric", "bigint", "bytea", "bytea", "bytea", "numeric", "numeric", "numeric", "numeric", "text",
    "timestamptz", "integer", "numeric", "text", "text", "text", "text", "text", "text", "text", "uuid", "bytea",
    "bytea", "numeric", "integer", "bigint", "numeric",
)  # fmt: skip
assert len(_TYPES) == len(Issuance._fields)


def _statement(parameter: LiteralString) -> LiteralString:
    """`parameter` is how each parameter is written, with its {number} and its {kind}."""
    given = [parameter.format(number=number, kind=kind) for number, kind in enumerate(_TYPES, start=1)]
    flags = [f"${len(_TYPES) + number}::boolean" for number in (1, 2)]
    return (
        "SELECT o_ord, o_code, o_balance, o_credit_limit, o_created_at, o_issuance_id, o_answer, o_charge "
        + "FROM commit_issuances("
        + ", ".join(given + flags)
        + ")"
    )


_COMMIT = _statement("${number}::{kind}[]")
#: Of a batch of one: values that stand in no array take both sides less time.
_COMMIT_ONE = _statement("ARRAY[${number}::{kind}]")

#: What a payment has to say here for commit_next to carry it out.
_USUAL: Final = {
    "is_new_session": False, "idempotency_key": None, "approved": None, "repeats_max_count": None, "rate_rule": None,
}  # fmt: skip
_values_that_tell = itemgetter(*map(Issuance._fields.index, _USUAL))
_VALUES_IF_USUAL = tuple(_USUAL.values())
#: The parameters of commit_next: the other fields, but for what only a session's first payment says.
_values_of_next = itemgetter(
    *(at for at, name in enumerate(Issuance._fields) if name not in (*_USUAL, "pipeline", "model"))
)
_TYPES_OF_NEXT = _values_of_next(_TYPES)
#: Of a usual payment that comes alone. Its last parameter is whether coverage is enforced.
COMMIT_NEXT: LiteralString = (
    "SELECT o_balance, o_credit_limit, o_created_at "
    + "FROM commit_next("
    + ", ".join(f"${number}::{kind}" for number, kind in enumerate((*_TYPES_OF_NEXT, "boolean"), start=1))
    + ")"
)


class GroupCommit:
    """Commits issuances in batches.

    There are two lanes, each with a connection. In the first a batch takes the accounts it can have at once and waits
    for none: while it waited, it would keep the others' from everybody else. What it left out goes into the second,
    where a batch is of one gateway and waits its turn.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        batch_rows_max_count: int,
        deadline_s: float,
        metrics: Metrics,
        is_coverage_enforced: bool = False,
    ) -> None:
        """`is_coverage_enforced`: refuse what the sender's deposit does not cover (clearinghouse.exposure_book)."""
        self._is_covered = "t" if is_coverage_enforced else "f"
        self._flags = {waits: ["t" if waits else "f", self._is_covered] for waits in (True, False)}
        self._connection, self._waiting_connection = HotConnection(conninfo), HotConnection(conninfo)
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._batcher = NaturalBatcher(
            partial(self._execute, waits=False), rows_max_count=batch_rows_max_count, exclusive=_touches
        )
        self._waiting = NaturalBatcher(
            partial(self._execute, waits=True),
            rows_max_count=batch_rows_max_count,
            exclusive=_touches,
            group=_gateway_of,
        )
        self._busy: dict[UUID, tuple[float, Outcome]] = {}
        #: By key: until when commit_next is not tried.
        self._left_until_s: dict[UUID, float] = {}

    async def commit(self, issuance: Issuance) -> Outcome:
        """Returns when the outcome is durable. DatabaseUnavailable: unknown; the same request again reveals it."""
        if self._busy and (busy := self._busy_outcome(issuance.gateway_id)) is not None:
            return busy
        outcome = await self._batcher.submit(issuance)
        if outcome.code == "account_busy":
            outcome = await self._waiting.submit(issuance)
        if outcome.code == "account_busy":
            self._busy[issuance.gateway_id] = time.monotonic() + BUSY_REMEMBERED_S, outcome
        return outcome

    def _busy_outcome(self, gateway_id: UUID) -> Outcome | None:
        busy = self._busy.get(gateway_id)
        if busy is None:
            return None
        until_s, outcome = busy
        if time.monotonic() >= until_s:
            del self._busy[gateway_id]
            return None
        return outcome

    async def close(self) -> None:
        await self._batcher.drain()
        await self._waiting.drain()
        await self._connection.close()
        await self._waiting_connection.close()

    async def _execute(self, batch: list[Issuance], *, waits: bool) -> Sequence[Outcome | Exception]:
        started = time.perf_counter()
        try:
            outcomes: Sequence[Outcome | Exception] = await self._until_known(batch, waits=waits)
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError) and not is_of_the_statement(error):  # everybody's trouble
                log.exception("commit_failed", rows=len(batch), sqlstate=error.sqlstate)
                raise DatabaseUnavailable("The database did not carry out the commit.", retry_after_s=1) from error
            if len(batch) == 1:
                log.exception("commit_failed", issuance_id=str(batch[0].id), sqlstate=error.sqlstate)
                return [error]
            middle = len(batch) // 2  # one bad row, not all: it is found by halves
            halves = batch[:middle], batch[middle:]
            return [outcome for half in halves for outcome in await self._execute(half, waits=waits)]
        self._metrics.commit(rows=len(batch), elapsed_s=time.perf_counter() - started)
        return outcomes

    async def _until_known(self, batch: list[Issuance], *, waits: bool) -> list[Outcome]:
        """Repeats a commit whose outcome is unknown, until it is known or the callers' time is up."""
        give_up_at = time.monotonic() + self._deadline_s
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._call(batch, waits=waits)
            except DatabaseUnavailable:
                if time.monotonic() + RECONNECT_PAUSE_S > give_up_at:
                    raise
                self._metrics.commit_retried()
                await asyncio.sleep(RECONNECT_PAUSE_S)
            except psycopg.OperationalError as error:
                if is_of_the_statement(error) or attempts >= RETRIES_MAX_COUNT or time.monotonic() > give_up_at:
                    raise
                self._metrics.commit_retried()

    async def _call(self, batch: list[Issuance], *, waits: bool) -> list[Outcome]:
        if len(batch) > 1:
            return await self._judge(batch, waits=waits)
        (issuance,) = batch
        is_tried = not waits and _is_usual(issuance) and not self._was_left(issuance.key_id)
        if is_tried and (outcome := await self._commit_next(issuance)) is not None:
            return [outcome]
        (outcome,) = await self._judge(batch, waits=waits)
        if is_tried and outcome.code is None:
            self._left_until_s[issuance.key_id] = time.monotonic() + LEFT_REMEMBERED_S
        return [outcome]

    async def _judge(self, batch: list[Issuance], *, waits: bool) -> list[Outcome]:
        if len(batch) == 1:
            query, columns = _COMMIT_ONE, list(map(value_parameter, _TYPES, batch[0]))
        else:
            query, columns = _COMMIT, list(map(array_parameter, _TYPES, zip(*batch, strict=True)))
        connection = self._waiting_connection if waits else self._connection
        rows = await connection.fetch(query, [*columns, *self._flags[waits]])
        outcomes: list[Outcome | None] = [None] * len(batch)
        for ordinal, *judgement in rows:
            outcomes[ordinal - 1] = Outcome(*judgement)
        known = [outcome for outcome in outcomes if outcome is not None]
        assert len(known) == len(batch), "commit_issuances judges every item"
        return known

    def _was_left(self, key_id: UUID) -> bool:
        until_s = self._left_until_s.get(key_id)
        if until_s is None:
            return False
        if time.monotonic() < until_s:
            return True
        del self._left_until_s[key_id]
        return False

    async def _commit_next(self, issuance: Issuance) -> Outcome | None:
        """None: nothing was changed, and commit_issuances has to judge."""
        parameters = [*parameters_of_next(issuance), self._is_covered]
        ((balance, credit_limit, created_at),) = await self._connection.fetch(COMMIT_NEXT, parameters)
        if balance is None:
            return None
        return Outcome(None, balance, credit_limit, created_at, charge=issuance.charge)


def parameters_of_next(issuance: Issuance) -> Iterable[Parameter]:
    """Those of COMMIT_NEXT, but for its last."""
    return map(value_parameter, _TYPES_OF_NEXT, _values_of_next(issuance))


def _is_usual(issuance: Issuance) -> bool:
    """Whether commit_next may carry it out, as far as the payment itself says."""
    return bool(_values_that_tell(issuance) == _VALUES_IF_USUAL)


def _gateway_of(issuance: Issuance) -> Hashable:
    return issuance.gateway_id.int


def _touches(issuance: Issuance) -> Iterator[Hashable]:
    yield issuance.session_id.int
    yield issuance.recipient_rand_hash
    if issuance.idempotency_key is not None:
        yield issuance.gateway_id.int, issuance.idempotency_key
