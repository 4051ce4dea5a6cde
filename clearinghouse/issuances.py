"""Issuances as their gateway sees them: what was signed, for whom, and what it cost. Newest first, page by page.

Reads only, in the caller's transaction; the role needs SELECT.
"""

from __future__ import annotations

import base64
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from chain.signatures import checksum_address
from clearinghouse import ids
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount
from clearinghouse.rates.units import Per, from_base, show_fraction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000

#: Rows that are read at a time where all of them are.
STREAM_BATCH_ROWS: Final = 1000
#: A condition on issuances of one gateway: no index has created_at, so their ids say where to look.
BETWEEN: Final = """
    AND issuance.id >= :first_id AND issuance.id < :end_id
    AND issuance.created_at >= :begin AND issuance.created_at < :end
"""

#: Says what the 16 bytes after it mean, so that a later kind of cursor can be told from this one.
_CURSOR_VERSION: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class Issuance:
    """One released payment. `charge` is in `currency`; `price` is `currency` per ETH; `balance_after` includes it.

    What the webhook approved has no recipient, face value and probability: it is not shown them.
    """

    id: UUID
    session_id: UUID
    key_id: UUID
    num_tickets: int
    ev_wei: int
    fee_wei: int
    charge: Decimal
    currency: str
    price: Decimal
    price_source: str
    price_observed_at: datetime
    markup_bps: int
    balance_after: Decimal
    created_at: datetime
    manifest_id: str
    app: str
    job_type: str
    pipeline: str
    model: str
    orchestrator: bytes
    recipient: bytes | None
    transcoder: str
    end_user: str
    first_nonce: int
    face_value_wei: int | None
    win_prob: int | None
    #: What its charge follows from, None where that is the markup: a version of a rate card, what its rate is per, and
    #: how much of that was charged, in the base of the unit. The latter is None where the rate is per cost.
    rate_card: str | None
    rate_version: int | None
    rate_per: str | None
    quantity: int | None
    #: What it costs since its period was rated anew, and by which version of a card; None where that was not done. The
    #: difference is an entry of its own in the books.
    rerated_charge: Decimal | None
    rerated_by: str | None

    @property
    def rate_quantity(self) -> str | None:
        """In the unit, exactly: a third of a minute is 1/3."""
        if self.rate_per is None or self.quantity is None:
            return None
        return show_fraction(from_base(self.quantity, Per(self.rate_per)))

    @property
    def way(self) -> str:
        """How it came to be: signed by a signer that was asked, or approved for one that asked the webhook."""
        return "webhook" if self.face_value_wei is None else "proxy"


@dataclass(frozen=True, slots=True)
class Page:
    """`next_cursor` is None on the last page."""

    items: tuple[Issuance, ...]
    next_cursor: str | None


_SELECT: Final = """
    SELECT issuance.id, issuance.session_id, issuance.key_id, issuance.num_tickets, issuance.ev_wei, issuance.fee_wei,
           issuance.charge, issuance.currency, issuance.price, issuance.price_source, issuance.price_observed_at,
           issuance.markup_bps, issuance.balance_after, issuance.created_at, issuance.end_user, issuance.first_nonce,
           issuance.face_value_wei, issuance.win_prob, coalesce(session.manifest_id, '') AS manifest_id, session.app,
           session.job_type, session.pipeline, session.model, session.orchestrator, session.recipient,
           session.transcoder, rule.card AS rate_card, rule.version AS rate_version, rule.per AS rate_per,
           issuance.quantity, anew.charge AS rerated_charge, anew.rerated_by
      FROM issuance JOIN session ON session.id = issuance.session_id
                    LEFT JOIN rate_rule AS rule ON rule.id = issuance.rate_rule
                    LEFT JOIN LATERAL (
                        SELECT call.charge, rerating.card || '@' || rerating.version AS rerated_by
                          FROM rerated_call AS call
                          JOIN rerating ON rerating.id = call.rerating_id AND rerating.state = 'done'
                         WHERE call.issuance_id = issuance.id ORDER BY rerating.as_of DESC LIMIT 1) AS anew ON true
     WHERE issuance.gateway_id = :gateway_id
"""


async def list_issuances(
    connection: AsyncConnection,
    gateway_id: UUID,
    *,
    limit: int = PAGE_SIZE_DEFAULT,
    cursor: str | None = None,
    session_id: UUID | None = None,
) -> Page:
    """A page of the gateway's issuances, newest first; only one session's where `session_id` is given.

    `cursor` is `next_cursor` of the page before. What is issued meanwhile comes before the first page and never shifts
    a later one. InvalidRequest for a limit outside 1 to 1000 or a cursor that is not ours.
    """
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise InvalidRequest(f"limit must be 1 to {PAGE_SIZE_MAX}, not {limit}")
    conditions = ""
    parameters: dict[str, Any] = {"gateway_id": gateway_id, "rows_max": limit + 1}
    if cursor:
        conditions += " AND issuance.id < :before"
        parameters["before"] = _read_cursor(cursor)
    if session_id is not None:
        conditions += " AND issuance.session_id = :session_id"
        parameters["session_id"] = session_id
    query = text(f"{_SELECT} {conditions} ORDER BY issuance.id DESC LIMIT :rows_max")
    rows = (await connection.execute(query, parameters)).mappings().all()
    items = tuple(_issuance(row) for row in rows[:limit])
    return Page(items, _show_cursor(items[-1].id) if len(rows) > limit else None)


async def get_issuance(connection: AsyncConnection, gateway_id: UUID, issuance_id: UUID) -> Issuance:
    """One issuance of this gateway. NotFound also where it exists and is another gateway's."""
    query = text(f"{_SELECT} AND issuance.id = :id")
    result = await connection.execute(query, {"gateway_id": gateway_id, "id": issuance_id})
    row = result.mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no issuance {ids.show('iss', issuance_id)}")
    return _issuance(row)


async def count_issuances(connection: AsyncConnection, gateway_id: UUID, begin: datetime, end: datetime) -> int:
    """How many there are with begin <= created_at < end."""
    query = text(f"SELECT count(*) FROM issuance WHERE gateway_id = :gateway_id {BETWEEN}")  # noqa: S608
    return int((await connection.execute(query, between(gateway_id, begin, end))).scalar_one())


async def stream_issuances(
    connection: AsyncConnection, gateway_id: UUID, begin: datetime, end: datetime
) -> AsyncIterator[list[Issuance]]:
    """All issuances with begin <= created_at < end in the order of their ids, which is nearly that of their times.

    In batches, by a cursor of the server: however many they are, a batch is held. Always in the same order.
    """
    query = text(f"{_SELECT} {BETWEEN} ORDER BY issuance.id")
    async with connection.stream(query, between(gateway_id, begin, end)) as result:
        async for rows in result.mappings().partitions(STREAM_BATCH_ROWS):
            yield [_issuance(row) for row in rows]


def between(gateway_id: UUID, begin: datetime, end: datetime) -> dict[str, Any]:
    """The parameters of BETWEEN, and the gateway's."""
    first_id, end_id = ids.made_between(begin, end)
    return {"gateway_id": gateway_id, "begin": begin, "end": end, "first_id": first_id, "end_id": end_id}


def parse_issuance_id(issuance: str) -> UUID:
    """NotFound for what cannot be the id of an issuance: to a caller it is the same as one that does not exist."""
    try:
        return ids.parse("iss", issuance)
    except ValueError as error:
        raise NotFound(f"{issuance[:64]!r} is {error}") from error


def issuance_json(issuance: Issuance) -> dict[str, Any]:
    """As GET /v1/issuances shows it: amounts and wei as decimal strings, times in RFC 3339, addresses in EIP-55."""
    return {
        "id": ids.show("iss", issuance.id),
        "session_id": ids.show("ses", issuance.session_id),
        "key_id": ids.show("key", issuance.key_id),
        "num_tickets": issuance.num_tickets,
        "ev_wei": str(issuance.ev_wei),
        "fee_wei": str(issuance.fee_wei),
        "charge": show_amount(issuance.charge),
        "currency": issuance.currency,
        "price": show_amount(issuance.price),
        "price_source": issuance.price_source,
        "price_observed_at": rfc3339(issuance.price_observed_at),
        "markup_bps": issuance.markup_bps,
        "balance_after": show_amount(issuance.balance_after),
        "created_at": rfc3339(issuance.created_at),
        "manifest_id": issuance.manifest_id,
        "app": issuance.app,
        "job_type": issuance.job_type,
        "pipeline": issuance.pipeline,
        "model": issuance.model,
        "orchestrator": checksum_address(issuance.orchestrator),
        "recipient": checksum_address(issuance.recipient) if issuance.recipient is not None else None,
        "transcoder": issuance.transcoder,
        "end_user": issuance.end_user,
        "first_nonce": issuance.first_nonce,
        "face_value_wei": str(issuance.face_value_wei) if issuance.face_value_wei is not None else None,
        "win_prob": str(issuance.win_prob) if issuance.win_prob is not None else None,
        "way": issuance.way,
        "rate_card": issuance.rate_card,
        "rate_version": issuance.rate_version,
        "rate_per": issuance.rate_per,
        "rate_quantity": issuance.rate_quantity,
        "rerated_charge": show_amount(issuance.rerated_charge) if issuance.rerated_charge is not None else None,
        "rerated_by": issuance.rerated_by,
    }


def page_json(page: Page) -> dict[str, Any]:
    """`{"items": […], "next_cursor": …}`; the cursor is null on the last page."""
    return {"items": [issuance_json(item) for item in page.items], "next_cursor": page.next_cursor}


def _issuance(row: RowMapping) -> Issuance:
    whole = {
        name: int(row[name]) if row[name] is not None else None
        for name in ("ev_wei", "fee_wei", "face_value_wei", "win_prob", "quantity")
    }
    raw = {name: bytes(row[name]) if row[name] is not None else None for name in ("orchestrator", "recipient")}
    return Issuance(**{**row, **whole, **raw})


def _show_cursor(last_id: UUID) -> str:
    return base64.urlsafe_b64encode(_CURSOR_VERSION + last_id.bytes).decode("ascii").rstrip("=")


def _read_cursor(cursor: str) -> UUID:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (Base64Error, ValueError):
        raw = b""
    if len(raw) != len(_CURSOR_VERSION) + 16 or not raw.startswith(_CURSOR_VERSION):
        raise InvalidRequest("the cursor is not one that a page of issuances ended with")
    return UUID(bytes=raw[len(_CURSOR_VERSION) :])
