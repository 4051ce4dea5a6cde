"""What the signing flow reads from the database, in batches: callers by key, sessions, stored answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple, TypeVar
from uuid import UUID

from clearinghouse.database.arrays import array_literal
from clearinghouse.database.batching import NaturalBatcher
from clearinghouse.database.hot_connection import HotConnection
from clearinghouse.sessions import RandUse, Session
from clearinghouse.usage import Usage, allowances

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key with its gateway and account, as they were when read."""

    key_id: UUID
    gateway_id: UUID
    secret_hmac: bytes
    expires_at: datetime | None
    revoked_at: datetime | None
    status: str
    status_reason: str
    #: What may not be signed because of what is owed: "none", "new_sessions", "signing"; and why.
    billing_hold: str
    billing_hold_reason: str
    #: The end of free terms: nothing is signed from then on.
    signs_until: datetime | None
    markup_bps: int
    minimum_charge: Decimal
    currency: str
    balance: Decimal
    credit_limit: Decimal
    requests_per_s: int | None
    burst_count: int | None
    key_requests_per_s: int | None
    key_burst_count: int | None
    plan: str
    #: The highest prices that the plan or the gateway has, in wei per unit of the job type.
    price_live_max: Decimal | None
    price_lv2v_max: Decimal | None
    price_fixed_max: Decimal | None
    price_untyped_max: Decimal | None
    #: Which of them are the gateway's own, by name.
    own_ceilings: list[str]
    #: Counts their changes, and those of the next two.
    ceilings_version: int
    #: What its calls are charged by; None is its markup. And whether the card may charge less than tickets cost.
    rate_card: str | None
    below_cost: bool


@dataclass(frozen=True, slots=True)
class WebhookSecretRecord:
    """A webhook secret with its signer, as they were when read."""

    secret_hmac: bytes
    expires_at: datetime | None
    #: Of the secret or of its signer, whichever came first.
    revoked_at: datetime | None
    signer_id: UUID
    name: str
    sender: bytes
    face_value_max_wei: int | None


@dataclass(frozen=True, slots=True)
class KeyedAnswer:
    """What was answered to a request with an idempotency key."""

    request_hash: bytes
    issuance_id: UUID
    answer: bytes


class SessionLookup(NamedTuple):
    """The session a state belongs to (None on a first call), and the recipientRandHash of the request."""

    session_id: UUID | None
    recipient_rand_hash: bytes


class SessionFinding(NamedTuple):
    """The session, the use of the recipientRandHash, and the session that uses it."""

    session: Session | None
    rand: RandUse | None
    newest: Session | None


class Receipt(NamedTuple):
    """What a payment cost; the same whenever it is asked for."""

    issuance_id: UUID
    session_id: UUID
    num_tickets: int
    ev_wei: int
    fee_wei: int
    charge: Decimal
    currency: str
    price: Decimal
    markup_bps: int
    balance: Decimal
    created_at: datetime


class Lookups:
    """Batched reads over one connection. Every method raises DatabaseUnavailable when it cannot be read."""

    def __init__(self, conninfo: str, *, batch_rows_max_count: int) -> None:
        self._connection = HotConnection(conninfo)

        def batched(
            read: Callable[[list[Any]], Awaitable[list[Any]]],
        ) -> NaturalBatcher[Any, Any]:
            return NaturalBatcher(read, rows_max_count=batch_rows_max_count)

        self._keys = batched(self._read_keys)
        self._sessions = batched(self._read_sessions)
        self._answers = batched(self._read_answers)
        self._receipts = batched(self._read_receipts)
        self._usages = batched(self._read_usages)
        self._webhook_secrets = batched(self._read_webhook_secrets)

    async def key(self, public_id: str) -> KeyRecord | None:
        record: KeyRecord | None = await self._keys.submit(public_id)
        return record

    async def webhook_secret(self, public_id: str) -> WebhookSecretRecord | None:
        record: WebhookSecretRecord | None = await self._webhook_secrets.submit(public_id)
        return record

    async def session(self, lookup: SessionLookup) -> SessionFinding:
        finding: SessionFinding = await self._sessions.submit(lookup)
        return finding

    async def keyed_answer(self, gateway_id: UUID, key: str) -> KeyedAnswer | None:
        answer: KeyedAnswer | None = await self._answers.submit((gateway_id, key))
        return answer

    async def receipt(self, gateway_id: UUID, issuance_id: UUID) -> Receipt:
        receipt: Receipt | None = await self._receipts.submit((gateway_id, issuance_id))
        assert receipt is not None, "an answer is stored together with its issuance"
        return receipt

    async def usage(self, gateway_id: UUID, key_id: UUID, orchestrator: bytes) -> Usage:
        """What the gateway and this key of it may use and have used, as of now."""
        usage: Usage | None = await self._usages.submit((gateway_id, key_id, orchestrator))
        assert usage is not None, "a gateway that was charged, or nearly, has an account"
        return usage

    async def close(self) -> None:
        for batcher in (
            self._keys, self._sessions, self._answers, self._receipts, self._usages, self._webhook_secrets,
        ):  # fmt: skip
            await batcher.drain()
        await self._connection.close()

    async def _read_keys(self, public_ids: list[str]) -> list[KeyRecord | None]:
        rows = await self._connection.read(_KEYS, [array_literal("text", public_ids)])
        return _in_order(len(public_ids), rows, lambda row: KeyRecord(*row))

    async def _read_webhook_secrets(self, public_ids: list[str]) -> list[WebhookSecretRecord | None]:
        rows = await self._connection.read(_WEBHOOK_SECRETS, [array_literal("text", public_ids)])
        return _in_order(len(public_ids), rows, _webhook_secret)

    async def _read_sessions(self, lookups: list[SessionLookup]) -> list[SessionFinding]:
        sessions, rands = zip(*lookups, strict=True)
        rows = await self._connection.read(_SESSIONS, [array_literal("uuid", sessions), array_literal("bytea", rands)])
        found = _in_order(len(lookups), rows, _finding)
        return [finding or SessionFinding(None, None, None) for finding in found]

    async def _read_answers(self, keys: list[tuple[UUID, str]]) -> list[KeyedAnswer | None]:
        rows = await self._connection.read(_ANSWERS, _pairs(keys, "text"))
        return _in_order(len(keys), rows, lambda row: KeyedAnswer(*row))

    async def _read_receipts(self, keys: list[tuple[UUID, UUID]]) -> list[Receipt | None]:
        rows = await self._connection.read(_RECEIPTS, _pairs(keys, "uuid"))
        return _in_order(len(keys), rows, lambda row: Receipt(*row)._replace(ev_wei=int(row[3]), fee_wei=int(row[4])))

    async def _read_usages(self, wanted: list[tuple[UUID, UUID, bytes]]) -> list[Usage | None]:
        gateways, keys, orchestrators = zip(*wanted, strict=True)
        columns = [array_literal("uuid", gateways), array_literal("uuid", keys), array_literal("bytea", orchestrators)]
        return _in_order(len(wanted), await self._connection.read(_USAGES, columns), _usage)


# Every look-up is LATERAL with OFFSET 0, so that it goes by its key: planned while a table was small, a join may read
# all of it, and a connection keeps its plans for as long as it lives.

_KEYS: LiteralString = """
    SELECT wanted.ord, api_key.id, api_key.gateway_id, api_key.secret_hmac, api_key.expires_at, api_key.revoked_at,
           gateway.status, gateway.status_reason, gateway.billing_hold, gateway.billing_hold_reason,
           account.signs_until, gateway.markup_bps, gateway.minimum_charge::numeric, account.currency,
           account.balance::numeric, account.credit_limit::numeric, gateway.requests_per_s::integer,
           gateway.burst_count::integer, api_key.requests_per_s::integer, api_key.burst_count::integer, gateway.plan,
           gateway.price_live_max::numeric, gateway.price_lv2v_max::numeric, gateway.price_fixed_max::numeric,
           gateway.price_untyped_max::numeric, gateway.own_ceilings, gateway.ceilings_version,
           gateway.rate_card, gateway.below_cost
      FROM unnest($1::text[]) WITH ORDINALITY AS wanted (public_id, ord)
     CROSS JOIN LATERAL (SELECT * FROM api_key WHERE public_id = wanted.public_id OFFSET 0) AS api_key
     CROSS JOIN LATERAL (SELECT * FROM gateway WHERE id = api_key.gateway_id OFFSET 0) AS gateway
     CROSS JOIN LATERAL (SELECT * FROM account WHERE id = api_key.gateway_id OFFSET 0) AS account
"""

_WEBHOOK_SECRETS: LiteralString = """
    SELECT wanted.ord, secret.secret_hmac, secret.expires_at, least(secret.revoked_at, signer.revoked_at),
           signer.id, signer.name, signer.sender, signer.face_value_max_wei::numeric
      FROM unnest($1::text[]) WITH ORDINALITY AS wanted (public_id, ord)
     CROSS JOIN LATERAL (SELECT * FROM webhook_secret WHERE public_id = wanted.public_id OFFSET 0) AS secret
     CROSS JOIN LATERAL (SELECT * FROM webhook_signer WHERE id = secret.signer_id OFFSET 0) AS signer
"""

_SESSION_FIELDS = (
    "id", "gateway_id", "orchestrator", "recipient", "job_type", "manifest_id", "app", "transcoder",
    "head_state_hash", "request_hash", "issuance_id", "answer", "approved", "pipeline", "model",
)  # fmt: skip

_SESSIONS: LiteralString = (
    "SELECT wanted.ord, "  # noqa: S608
    + ", ".join([f"session.{field}" for field in _SESSION_FIELDS])
    + ", rand.session_id, rand.gateway_id, rand.last_nonce, "
    + ", ".join([f"newest.{field}" for field in _SESSION_FIELDS])
    + """
      FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS wanted (session_id, hash, ord)
      LEFT JOIN LATERAL (SELECT * FROM session WHERE id = wanted.session_id OFFSET 0) AS session ON true
      LEFT JOIN LATERAL (SELECT * FROM recipient_rand AS rand WHERE rand.hash = wanted.hash AND rand.last_nonce > 0
                         OFFSET 0) AS rand ON true
      LEFT JOIN LATERAL (SELECT * FROM session WHERE id = rand.session_id OFFSET 0) AS newest ON true
"""
)

_ANSWERS: LiteralString = """
    SELECT wanted.ord, request_hash, issuance_id, answer
      FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS wanted (gateway_id, key, ord)
     CROSS JOIN LATERAL (SELECT * FROM keyed_answer AS keyed
                          WHERE keyed.gateway_id = wanted.gateway_id AND keyed.key = wanted.key OFFSET 0) AS keyed
"""

_RECEIPTS: LiteralString = """
    SELECT wanted.ord, issued.id, session_id, num_tickets, ev_wei::numeric, fee_wei, charge::numeric, currency, price,
           markup_bps, balance_after::numeric, created_at
      FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS wanted (gateway_id, id, ord)
     CROSS JOIN LATERAL (SELECT * FROM issuance
                          WHERE issuance.gateway_id = wanted.gateway_id AND issuance.id = wanted.id OFFSET 0) AS issued
"""

#: Of every limit, in its order: what is allowed and what was used.
_USAGES: LiteralString = """
    SELECT wanted.ord, now(), gateway.day, gateway.currency,
           gateway.calls_day_max::bigint, gateway.calls_day, gateway.spend_day_max::numeric, gateway.spent_day,
           gateway.spend_month_max::numeric, gateway.spent_month, gateway.ev_open_max_wei::numeric,
           gateway.ev_open_wei, gateway.sessions_open_max::bigint, gateway.sessions_open,
           key.calls_day_max::bigint, key.calls_day, key.spend_day_max::numeric, key.spent_day,
           key.spend_month_max::numeric, key.spent_month, key.ev_open_max_wei::numeric, key.ev_open_wei,
           key.sessions_open_max::bigint, key.sessions_open,
           gateway.sessions_open_per_orchestrator_max::bigint, opened.sessions
      FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) WITH ORDINALITY AS wanted (gateway_id, key_id, orchestrator, ord)
     CROSS JOIN LATERAL (SELECT * FROM gateway_usage WHERE gateway_id = wanted.gateway_id OFFSET 0) AS gateway
      LEFT JOIN LATERAL (SELECT * FROM key_usage AS key
                          WHERE key.gateway_id = wanted.gateway_id AND key.key_id = wanted.key_id
                         OFFSET 0) AS key ON true
      LEFT JOIN LATERAL (SELECT * FROM open_sessions AS opened
                          WHERE opened.gateway_id = wanted.gateway_id AND opened.orchestrator = wanted.orchestrator
                         OFFSET 0) AS opened ON true
"""


def _in_order(count: int, rows: list[tuple[Any, ...]], read: Callable[[tuple[Any, ...]], Row]) -> list[Row | None]:
    found: list[Row | None] = [None] * count
    for ordinal, *row in rows:
        found[ordinal - 1] = read(tuple(row))
    return found


def _usage(row: tuple[Any, ...]) -> Usage:
    read_at, day, currency, *numbers = row
    return Usage(read_at, day, currency, allowances(zip(numbers[::2], numbers[1::2], strict=True)))


def _webhook_secret(row: tuple[Any, ...]) -> WebhookSecretRecord:
    face_value_max_wei = None if row[-1] is None else int(row[-1])
    return WebhookSecretRecord(*(*row[:-1], face_value_max_wei))


def _finding(row: tuple[Any, ...]) -> SessionFinding:
    width = len(_SESSION_FIELDS)
    session, rand, newest = row[:width], row[width : width + 3], row[width + 3 :]
    return SessionFinding(
        Session(*session) if session[0] is not None else None,
        RandUse(*rand) if rand[0] is not None else None,
        Session(*newest) if newest[0] is not None else None,
    )


def _pairs(keys: list[tuple[UUID, Any]], kind: str) -> list[str]:
    gateways, seconds = zip(*keys, strict=True)
    return [array_literal("uuid", gateways), array_literal(kind, seconds)]
