"""What operators write down: conversions of money into ETH, and movements of an escrow that no top-up of ours made.

Runs in the caller's transaction, in role clearinghouse_admin. Nothing is changed or removed: what was wrong is voided,
and recorded again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from psycopg.errors import NoDataFound
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.database.connect import database_now
from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.ids import parse, show, uuid7
from clearinghouse.ledger.money import EXACT, parse_amount, parse_currency, show_amount
from settlement.currencies import Currency, account_currency, currency

DEPOSIT: Final = "deposit_funded"
RESERVE: Final = "reserve_funded"
WITHDRAWAL: Final = "withdrawal"
#: As the chain's index has them, and as people say it.
KINDS: Final = {DEPOSIT: "into the deposit", RESERVE: "into the reserve", WITHDRAWAL: "withdrawn"}

_TEXT_CHARS_MAX: Final = {"a venue": 100, "a reference": 200, "a note": 1000, "a reason": 1000}
_HASH: Final = re.compile(r"0x([0-9a-fA-F]{64})", re.ASCII)
#: A trade of a moment ago, by clocks that differ.
_AHEAD_MAX: Final = timedelta(minutes=5)
#: PostgreSQL's bigint.
_BLOCK_MAX: Final = 2**63 - 1


class RecordedOtherwise(Conflict):
    """There is a record of the same thing that says something else."""

    what_next = (
        "See `clearinghouse treasury list`. Where the record is wrong, `clearinghouse treasury void` it, then run this "
        "again; where this is another trade, give the reference it has."
    )


class IsATopup(Conflict):
    """The transaction is one of our own top-ups, which is its record."""

    what_next = "Nothing needs to be recorded: `clearinghouse topup show` has it, and reconciliation knows it."


class Trade(NamedTuple):
    """`paid_minor` is all that left the bank, `fee_minor` the part of it that was the fee, both in minor units."""

    venue: str
    reference: str
    currency: str
    paid_minor: int
    fee_minor: int
    bought_wei: int
    traded_at: datetime


class Moved(NamedTuple):
    """All of one kind that one transaction moved in one escrow. `sender` says whose escrow it is."""

    chain_id: int
    transaction_hash: bytes
    block_number: int
    kind: str
    sender: bytes
    amount_wei: int


@dataclass(frozen=True, slots=True)
class Record:
    """`voided_at` is None while it counts."""

    id: UUID
    note: str
    recorded_by: str
    recorded_at: datetime
    voided_at: datetime | None
    voided_by: str | None
    void_reason: str | None


@dataclass(frozen=True, slots=True)
class Conversion(Record):
    trade: Trade


@dataclass(frozen=True, slots=True)
class Movement(Record):
    moved: Moved


R = TypeVar("R", bound=Record)


class Written(NamedTuple, Generic[R]):
    """`was_there`: the same was recorded before, and nothing was written now."""

    record: R
    was_there: bool


class Records(NamedTuple):
    """The newest first, those that are voided too."""

    conversions: Sequence[Conversion]
    movements: Sequence[Movement]


def minor_of(amount: str, of: Currency, *, may_be_zero: bool = False) -> int:
    """Minor units, exactly. InvalidRequest for what is no amount, and for parts of a minor unit."""
    parsed = parse_amount(amount, currency=of.code, may_be_zero=may_be_zero)
    minor = EXACT.scaleb(parsed, of.decimals)
    if minor != int(minor):
        raise InvalidRequest(f"{show_amount(parsed)} {of.code} is too fine: {of.code} has {of.decimals} decimals")
    return int(minor)


async def currency_of(connection: AsyncConnection, code: str) -> Currency:
    """What ETH may be bought with: a currency of payments, or one that a gateway's account is in. Or InvalidRequest."""
    if parse_currency(code) == "ETH":
        raise InvalidRequest("ETH is not bought with ETH: name what was paid, such as USD")
    try:
        return currency(code)
    except InvalidRequest:
        query = text("SELECT EXISTS (SELECT FROM account WHERE gateway_id IS NOT NULL AND currency = :code)")
        if (await connection.execute(query, {"code": code})).scalar_one():
            return account_currency(code)
        raise


def parse_hash(written: str) -> bytes:
    """InvalidRequest for what is not the hash of a transaction."""
    found = _HASH.fullmatch(written)
    if found is None:
        raise InvalidRequest(f"a transaction is named by 0x and 64 hexadecimal digits, not {written[:80]!r}")
    return bytes.fromhex(found[1])


async def buy(connection: AsyncConnection, trade: Trade, *, note: str, actor: str) -> Written[Conversion]:
    """Record a conversion, once by venue and reference. RecordedOtherwise where it is there with other values."""
    _require_line("a venue", trade.venue)
    _require_line("a reference", trade.reference)
    _require_line("a note", note, may_be_empty=True)
    if trade.fee_minor >= trade.paid_minor:
        raise InvalidRequest("the fee is a part of what was paid: paid is all that left the bank, fee included")
    if trade.traded_at > await database_now(connection) + _AHEAD_MAX:
        raise InvalidRequest("the trade is of a time to come: give when it was, such as 2026-10-05T12:00:00Z")
    values = {"id": uuid7(), "note": note, "actor": actor, **trade._asdict()}
    row = (await connection.execute(text(_BUY), values)).one()
    found = _conversion(row)
    differing = [
        name for name in ("currency", "paid_minor", "fee_minor", "bought_wei", "traded_at")
        if getattr(found.trade, name) != getattr(trade, name)
    ]  # fmt: skip
    if differing:
        raise RecordedOtherwise(
            f"{trade.reference} at {trade.venue} is recorded as {show('cnv', found.id)} with another "
            f"{', '.join(_SAID[name] for name in differing)}"
        )
    return Written(found, found.id != values["id"])


async def move(connection: AsyncConnection, moved: Moved, *, note: str, actor: str) -> Written[Movement]:
    """Record a movement, once. RecordedOtherwise where it is there with another amount; IsATopup."""
    _require_line("a note", note)
    if not 0 <= moved.block_number <= _BLOCK_MAX:
        raise InvalidRequest(f"a block has a number, not {moved.block_number}")
    values = {"id": uuid7(), "note": note, "actor": actor, **moved._asdict()}
    try:
        row = (await connection.execute(text(_MOVE), values)).one()
    except DBAPIError as error:
        diagnosis: Any = getattr(error.orig, "diag", None)
        if getattr(diagnosis, "constraint_name", None) == "movement_is_no_top_up":
            ours = f"top-up {diagnosis.message_primary}"
            raise IsATopup(f"0x{moved.transaction_hash.hex()} is a transaction of {ours}") from error
        raise
    found = _movement(row)
    if found.moved.amount_wei != moved.amount_wei:
        raise RecordedOtherwise(
            f"{show('mov', found.id)} says that 0x{moved.transaction_hash.hex()} has {found.moved.amount_wei} wei "
            f"{KINDS[moved.kind]}, and not {moved.amount_wei}"
        )
    return Written(found, found.id != values["id"])


async def accept(connection: AsyncConnection, hash_: bytes, *, note: str, actor: str) -> list[Written[Movement]]:
    """Record all that a transaction moved as the chain's index has it. NotFound where it has nothing of it."""
    rows = (await connection.execute(text(_INDEXED), {"hash": hash_})).all()
    if not rows:
        (read,) = (await connection.execute(text("SELECT max(number) FROM chain_block"))).one()
        until = f"was read up to block {read}" if read is not None else "was never read"
        raise NotInIndex(f"no movement of 0x{hash_.hex()} is known: the chain {until}")
    return [
        await move(
            connection,
            Moved(row.chain_id, hash_, row.block_number, row.kind, bytes(row.sender), int(row.amount_wei)),
            note=note, actor=actor,
        )
        for row in rows
    ]  # fmt: skip


class NotInIndex(NotFound):
    what_next = (
        "Wait until `clearinghouse serve` or `clearinghouse chain index` has read it; `clearinghouse treasury move` "
        "records what it does not read."
    )


async def void(connection: AsyncConnection, shown: str, *, reason: str, actor: str) -> Written[Record]:
    """The record is from now on as if it were not. Done once: whoever did it first is kept."""
    _require_line("a reason", reason)
    id_ = _record_id(shown)
    values = {"id": id_, "reason": reason, "actor": actor}
    try:
        row = (await connection.execute(text(_VOID), values)).one()
    except DBAPIError as error:
        if isinstance(error.orig, NoDataFound):
            raise NotFound(f"there is no record {shown}") from error
        raise
    found = await listed(connection, id_=id_)
    records: list[Record] = [*found.conversions, *found.movements]
    return Written(records[0], row.was_there)


async def listed(connection: AsyncConnection, *, id_: UUID | None = None, limit: int = 1000) -> Records:
    """All, or the one with this identifier."""
    values = {"id": id_, "limit": limit}
    conversions = (await connection.execute(text(_CONVERSIONS), values)).all()
    movements = (await connection.execute(text(_MOVEMENTS), values)).all()
    return Records([_conversion(row) for row in conversions], [_movement(row) for row in movements])


async def conversions_between(connection: AsyncConnection, begins_at: datetime, ends_at: datetime) -> list[Conversion]:
    """Those of [begins_at, ends_at) that count, in the order of their times."""
    values = {"begins_at": begins_at, "ends_at": ends_at}
    return [_conversion(row) for row in await connection.execute(text(_IN_FORCE), values)]


def _record_id(shown: str) -> UUID:
    try:
        return parse("cnv" if shown.startswith("cnv_") else "mov", shown)
    except ValueError:
        raise InvalidRequest(
            f"a record is named cnv_… or mov_…, as `clearinghouse treasury list` shows it, not {shown[:80]!r}"
        ) from None


def _require_line(what: str, written: str, *, may_be_empty: bool = False) -> None:
    most = _TEXT_CHARS_MAX[what]
    if not written and may_be_empty:
        return
    if not (0 < len(written) <= most and written.isprintable() and written.strip() == written):
        raise InvalidRequest(f"{what} is one line of at most {most} characters, without spaces at its ends")


def _conversion(row: Any) -> Conversion:
    trade = Trade(
        row.venue, row.reference, row.currency, int(row.paid_minor), int(row.fee_minor), int(row.bought_wei),
        row.traded_at,
    )  # fmt: skip
    return Conversion(**_record(row), trade=trade)


def _movement(row: Any) -> Movement:
    moved = Moved(
        row.chain_id, bytes(row.transaction_hash), row.block_number, row.kind, bytes(row.sender), int(row.amount_wei)
    )
    return Movement(**_record(row), moved=moved)


def _record(row: Any) -> dict[str, Any]:
    """What is just written has no columns of a void."""
    return {field.name: getattr(row, field.name, None) for field in fields(Record)}


_SAID: Final = {
    "currency": "currency", "paid_minor": "amount paid", "fee_minor": "fee", "bought_wei": "amount bought",
    "traded_at": "time",
}  # fmt: skip
_BUY: Final = """
    SELECT * FROM record_conversion(:id, :venue, :reference, :currency, :paid_minor, :fee_minor, :bought_wei,
                                    :traded_at, :note, :actor)
"""
_MOVE: Final = """
    SELECT id, chain_id, transaction_hash::bytea, block_number, kind, sender::bytea, amount_wei, note, recorded_by,
           recorded_at
      FROM record_movement(:id, :chain_id, :transaction_hash, :block_number, :kind, :sender, :amount_wei, :note, :actor)
"""
#: What moves nothing is no movement: who pays into the deposit alone is told to have paid 0 into the reserve, too.
_INDEXED: Final = """
    SELECT (SELECT chain_id FROM chain_follower) AS chain_id, kind, sender::bytea AS sender,
           min(block_number) AS block_number,
           sum(coalesce(amount_wei::numeric, 0) + coalesce(reserve_wei::numeric, 0)) AS amount_wei
      FROM escrow_event
     WHERE transaction_hash = :hash AND kind IN ('deposit_funded', 'reserve_funded', 'withdrawal')
     GROUP BY kind, sender
    HAVING sum(coalesce(amount_wei::numeric, 0) + coalesce(reserve_wei::numeric, 0)) > 0
     ORDER BY sender, kind
"""
#: What this transaction writes has its time.
_VOID: Final = "SELECT voided_at <> now() AS was_there FROM void_treasury_record(:id, :reason, :actor)"
_VOIDED: Final = """
      LEFT JOIN treasury_void AS void ON void.record_id = record.id
     WHERE CAST(:id AS uuid) IS NULL OR record.id = :id
"""
_CONVERSIONS: Final = f"""
    SELECT record.*, voided_at, voided_by, void.reason AS void_reason FROM treasury_conversion AS record {_VOIDED}
     ORDER BY record.traded_at DESC, record.id DESC LIMIT :limit
"""  # noqa: S608 - of our own texts
_MOVEMENTS: Final = f"""
    SELECT record.id, chain_id, transaction_hash::bytea, block_number, kind, sender::bytea, amount_wei, note,
           recorded_by, recorded_at, voided_at, voided_by, void.reason AS void_reason
      FROM treasury_movement AS record {_VOIDED}
     ORDER BY record.block_number DESC, record.id DESC LIMIT :limit
"""  # noqa: S608
_IN_FORCE: Final = """
    SELECT * FROM treasury_conversion_in_force WHERE traded_at >= :begins_at AND traded_at < :ends_at
     ORDER BY traded_at, id
"""
