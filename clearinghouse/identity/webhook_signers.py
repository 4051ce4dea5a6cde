"""Signers that ask our webhook before they release a payment: registered, given secrets, recognised, revoked.

    create ──▶ one secret ──rotate──▶ two, the older until its grace has passed ──▶ one ──▶ …
                                                  revoke: one secret, or the signer with all of them

Two secrets are valid at once while one replaces the other, so that a signer changes over when it suits it, and never
more than two: a third would be one that somebody has forgotten. A secret is made and kept as secret_texts says.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from chain.signatures import parse_address
from clearinghouse import ids
from clearinghouse.bounded import Bounded
from clearinghouse.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from clearinghouse.identity.authenticate import bearer
from clearinghouse.identity.names import check_name
from clearinghouse.identity.secret_texts import DEFAULT_GRACE, SecretDigests, SecretForm, check_grace, secret_hmac
from clearinghouse.lookups import Lookups, WebhookSecretRecord
from clearinghouse.request_rates import KEY_LOOKUPS, Rate, RequestRates

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

WEBHOOK_SECRET: Final = SecretForm("lpws_", "webhook secret", "a webhook secret")
#: Where a signer asks.
WEBHOOK_PATH: Final = "/webhooks/remote-signer"
#: How long a secret is taken as it was last read: so long at most does one that was revoked still open the webhook.
SECRETS_REMEMBER_S: Final = 30
#: Signers are few. This is what may be remembered of them, each by its whole Authorization header.
REMEMBERED_MAX_COUNT: Final = 1000
#: Secrets that were made here and are not in this database cost a look-up each; what was made up costs none. Who was
#: recognised before is not kept out by them.
UNKNOWN_SECRETS: Final = Rate(per_s=200, burst_count=400)

_VALID_MAX_COUNT: Final = 2
_FACE_VALUE_DIGITS_MAX: Final = 30

SecretStatus = Literal["active", "expired", "revoked"]


class WebhookSigner(NamedTuple):
    """A signer that may ask. `sender` signs its tickets; None: no face value was set as its largest."""

    id: UUID
    name: str
    sender: bytes
    face_value_max_wei: int | None


# --- registering: in the caller's transaction, in role clearinghouse_admin --------------------------------------------


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """What is known of a secret, which is never the secret."""

    public_id: str
    status: SecretStatus
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class RegisteredSigner:
    """A signer with all secrets it ever had, newest first."""

    signer: WebhookSigner
    created_at: datetime
    revoked_at: datetime | None
    secrets: tuple[WebhookSecret, ...]


@dataclass(frozen=True, slots=True)
class NewWebhookSecret:
    """A secret just made. `webhook_secret` is its full text, here and nowhere else."""

    registered: RegisteredSigner
    webhook_secret: str = field(repr=False)


async def create(
    connection: AsyncConnection, name: str, *, sender: bytes, pepper: bytes, face_value_max_wei: int | None = None
) -> NewWebhookSecret:
    """A signer and its first secret. Conflict if the name is taken, also by one that was revoked."""
    check_name(name, whose="webhook signer", id_prefix="whs_")
    signer_id = ids.uuid7()
    insert = """INSERT INTO webhook_signer (id, name, sender, face_value_max_wei)
                VALUES (:id, :name, :sender, :face_value_max_wei)"""
    parameters = {"id": signer_id, "name": name, "sender": sender, "face_value_max_wei": face_value_max_wei}
    try:
        await connection.execute(text(insert), parameters)
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation):
            raise Conflict(f"there is a webhook signer named {name} already") from error
        raise
    return await _with_new_secret(connection, signer_id, pepper)


async def list_signers(connection: AsyncConnection) -> list[RegisteredSigner]:
    """All signers that ever were registered, in the order of their names."""
    rows = (await connection.execute(text(f"{_SIGNERS} ORDER BY name"))).mappings().all()
    return [await _registered(connection, row) for row in rows]


async def find(connection: AsyncConnection, signer: str) -> RegisteredSigner:
    """By id (`whs_…`) or name. NotFound if there is none."""
    return await _find(connection, signer, locked=False)


async def rotate(
    connection: AsyncConnection, signer: str, *, pepper: bytes, grace: timedelta = DEFAULT_GRACE
) -> NewWebhookSecret:
    """A new secret, valid now; the others end after `grace`, or before.

    Conflict for a revoked signer, and where the new secret would be a third valid one.
    """
    check_grace(grace)
    found = await _find(connection, signer, locked=True)
    name = found.signer.name
    if found.revoked_at is not None:
        raise Conflict(f"webhook signer {name} is revoked; register it anew under another name")
    valid = [secret.public_id for secret in found.secrets if secret.status == "active"]
    if grace and len(valid) >= _VALID_MAX_COUNT:
        raise Conflict(
            f"webhook signer {name} has {len(valid)} valid secrets, {' and '.join(valid)}: revoke the one it no longer "
            "uses, wait until it expires, or rotate without a grace period, which ends both"
        )
    await connection.execute(
        text("UPDATE webhook_secret SET expires_at = least(expires_at, now() + :grace) WHERE signer_id = :id"),
        {"id": found.signer.id, "grace": grace},
    )
    return await _with_new_secret(connection, found.signer.id, pepper)


async def revoke(connection: AsyncConnection, signer: str, *, secret: str | None = None) -> RegisteredSigner:
    """End a signer for ever, or only the secret with this public id. Again it changes nothing: the first time stands.

    Processes that remember the secret go by it for SECRETS_REMEMBER_S at most.
    """
    found = await _find(connection, signer, locked=True)
    if secret is None:
        update = "UPDATE webhook_signer SET revoked_at = coalesce(revoked_at, now()) WHERE id = :id"
        await connection.execute(text(update), {"id": found.signer.id})
    else:
        WEBHOOK_SECRET.refuse_whole(secret)
        public_id = secret.removeprefix(WEBHOOK_SECRET.prefix)
        if public_id not in {known.public_id for known in found.secrets}:
            raise NotFound(f"webhook signer {found.signer.name} has no secret {public_id}")
        update = "UPDATE webhook_secret SET revoked_at = coalesce(revoked_at, now()) WHERE public_id = :public_id"
        await connection.execute(text(update), {"public_id": public_id})
    return await _by_id(connection, found.signer.id)


def parse_sender(sender: str) -> bytes:
    """An Ethereum address as an operator writes it. InvalidRequest says what is wrong with it."""
    try:
        return parse_address(sender)
    except ValueError as error:
        raise InvalidRequest(f"sender: {error}") from error


def parse_face_value(face_value_max_wei: str | None) -> int | None:
    """Wei in digits. InvalidRequest for anything else, and for 0, which no ticket could have."""
    if face_value_max_wei is None:
        return None
    is_number = face_value_max_wei.isascii() and face_value_max_wei.isdigit()
    if not is_number or len(face_value_max_wei) > _FACE_VALUE_DIGITS_MAX or int(face_value_max_wei) == 0:
        raise InvalidRequest("face_value_max_wei: a whole number of wei above 0 is needed, in digits alone")
    return int(face_value_max_wei)


_SIGNERS: Final = "SELECT id, name, sender, face_value_max_wei, created_at, revoked_at FROM webhook_signer"
_SECRETS: Final = """
    SELECT public_id, created_at, expires_at, revoked_at,
           CASE WHEN revoked_at <= now() THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END
               AS status
      FROM webhook_secret WHERE signer_id = :signer_id ORDER BY id DESC
"""


async def _with_new_secret(connection: AsyncConnection, signer_id: UUID, pepper: bytes) -> NewWebhookSecret:
    webhook_secret, public_id, secret = WEBHOOK_SECRET.new(pepper)
    insert = """INSERT INTO webhook_secret (id, signer_id, public_id, secret_hmac)
                VALUES (:id, :signer_id, :public_id, :secret_hmac)"""
    parameters = {"id": ids.uuid7(), "signer_id": signer_id, "public_id": public_id}
    await connection.execute(text(insert), {**parameters, "secret_hmac": secret_hmac(pepper, secret)})
    return NewWebhookSecret(await _by_id(connection, signer_id), webhook_secret)


async def _find(connection: AsyncConnection, signer: str, *, locked: bool) -> RegisteredSigner:
    if not signer.startswith("whs_"):
        return await _one(connection, "name", signer, shown=signer, locked=locked)
    try:
        signer_id = ids.parse("whs", signer)
    except ValueError as error:
        raise InvalidRequest(f"{signer[:64]!r} is {error}") from error
    return await _one(connection, "id", signer_id, shown=signer, locked=locked)


async def _by_id(connection: AsyncConnection, signer_id: UUID) -> RegisteredSigner:
    return await _one(connection, "id", signer_id, shown=ids.show("whs", signer_id))


async def _one(
    connection: AsyncConnection, column: Literal["id", "name"], value: Any, *, shown: str, locked: bool = False
) -> RegisteredSigner:
    query = f"{_SIGNERS} WHERE {column} = :value {'FOR NO KEY UPDATE' if locked else ''}"
    row = (await connection.execute(text(query), {"value": value})).mappings().one_or_none()
    if row is None:
        WEBHOOK_SECRET.refuse_whole(shown)
        raise NotFound(f"there is no webhook signer {shown[:128]}")
    return await _registered(connection, row)


async def _registered(connection: AsyncConnection, row: RowMapping) -> RegisteredSigner:
    face_value_max_wei = None if row["face_value_max_wei"] is None else int(row["face_value_max_wei"])
    secrets = (await connection.execute(text(_SECRETS), {"signer_id": row["id"]})).mappings()
    return RegisteredSigner(
        WebhookSigner(row["id"], row["name"], bytes(row["sender"]), face_value_max_wei),
        row["created_at"],
        row["revoked_at"],
        tuple(WebhookSecret(**secret) for secret in secrets),
    )


# --- recognising: on the way of every payment -------------------------------------------------------------------------


class WebhookSecretNeeded(Unauthenticated):
    """A signer that asks must be one of ours."""

    what_next: ClassVar[str] = (
        "Give the signer -remoteSignerWebhookHeaders 'Authorization:Bearer <webhook secret>'; "
        "`clearinghouse webhook-signer rotate` makes a new one."
    )


class _Remembered(NamedTuple):
    record: WebhookSecretRecord
    signer: WebhookSigner
    read_at_s: float


class SignerAuthenticator:
    """Checks webhook secrets against the database's record of them, in constant time, and remembers the right ones."""

    def __init__(
        self,
        lookups: Lookups,
        *,
        pepper: bytes,
        remember_s: float = SECRETS_REMEMBER_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lookups = lookups
        self._pepper = pepper
        self._remember_s = remember_s
        self._now = now
        self._rates = RequestRates()
        self._digests = SecretDigests()
        #: By the digest of a whole Authorization header that proved to be right.
        self._remembered: Bounded[bytes, _Remembered] = Bounded(REMEMBERED_MAX_COUNT)

    async def authenticate(self, authorization: str) -> WebhookSigner:
        """The signer behind an Authorization header value. Raises WebhookSecretNeeded, LimitReached where too many
        secrets are tried that do not exist, or DatabaseUnavailable."""
        digest = self._digests.digest(authorization)
        known = self._remembered.get(digest)
        if known is None or monotonic() - known.read_at_s > self._remember_s:
            known = await self._proven(authorization, digest, was_right=known is not None)
        self._require_valid(known.record)
        return known.signer

    async def _proven(self, authorization: str, digest: bytes, *, was_right: bool) -> _Remembered:
        try:
            given = WEBHOOK_SECRET.read(bearer(authorization))
        except Unauthenticated as refusal:
            raise WebhookSecretNeeded(refusal.message) from None
        if not WEBHOOK_SECRET.was_made_here(self._pepper, given):
            raise WebhookSecretNeeded("The webhook secret is not known.")

        async def look_up() -> WebhookSecretRecord | None:
            return await self._lookups.webhook_secret(given.public_id)

        record = await (look_up() if was_right else self._rates.count_misses(KEY_LOOKUPS, UNKNOWN_SECRETS, look_up))
        stored_hmac = record.secret_hmac if record is not None else bytes(32)
        if not hmac.compare_digest(secret_hmac(self._pepper, given.secret), stored_hmac) or record is None:
            self._remembered.pop(digest, None)
            raise WebhookSecretNeeded("The webhook secret is not known.")
        signer = WebhookSigner(record.signer_id, record.name, record.sender, record.face_value_max_wei)
        known = _Remembered(record, signer, monotonic())
        self._remembered.remember(digest, known)
        return known

    def _require_valid(self, record: WebhookSecretRecord) -> None:
        if record.revoked_at is not None and record.revoked_at <= self._now():
            raise WebhookSecretNeeded("The webhook secret was revoked.")
        if record.expires_at is not None and record.expires_at <= self._now():
            raise WebhookSecretNeeded("The webhook secret has expired.")
