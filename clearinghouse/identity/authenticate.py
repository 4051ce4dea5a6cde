"""Who is calling: from an Authorization header to a gateway, its terms, and what it can spend.

Keys are remembered, so that a known caller costs no round trip. That memory only ever lets a caller go on: the commit
asks the database again before anything is debited or released, and whoever would be refused from memory is looked up
first, or was less than a second ago. So a revocation, a suspension and a billing hold hold for the next call, and their
end within a second.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from time import monotonic
from uuid import UUID

from clearinghouse.bounded import Bounded
from clearinghouse.errors import BillingHold, Suspended, Unauthenticated
from clearinghouse.identity.keys import API_KEY
from clearinghouse.identity.secret_texts import SecretDigests, secret_hmac
from clearinghouse.instants import rfc3339
from clearinghouse.lookups import KeyRecord, Lookups
from clearinghouse.policy import CEILINGS, Ceiling
from clearinghouse.request_rates import KEY_LOOKUPS, KEY_REQUESTS, REQUESTS, Rate, RequestRates, rate_of

REMEMBERED_MAX_COUNT = 50_000
#: A refusal is repeated from memory for this long, so that a refused caller cannot make us read all the time.
REFUSAL_REMEMBERED_S = 1.0
#: A commit confirms all that it judges by, but not the rates: a changed one holds after this long at the latest.
RATES_REMEMBERED_S = 60
#: Keys that were made here and are not in this database (it was restored, or another one shares the pepper) cost a
#: look-up each. Beyond so many, only callers who are remembered get in. Keys that were made up cost none.
UNKNOWN_KEYS = Rate(per_s=2000, burst_count=4000)


@dataclass(slots=True)
class Caller:
    """An authenticated gateway. `available` is what it could spend when last heard of; the commit decides."""

    key_id: UUID
    public_id: str
    gateway_id: UUID
    currency: str
    markup_bps: int
    minimum_charge: Decimal
    available: Decimal
    rate: Rate | None = None
    key_rate: Rate | None = None
    #: Highest prices of the gateway and its plan, by job type.
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)
    #: Which change of these: the commit compares it, so that a lowered one holds for the next ticket.
    ceilings_version: int = 0
    #: Why no new session is opened for it; None where one may be.
    hold_reason: str | None = None
    #: What its calls are charged by; None is its markup. ceilings_version counts changes of these two as well.
    rate_card: str | None = None
    may_be_below_cost: bool = False


@dataclass(slots=True)
class _Remembered:
    record: KeyRecord
    caller: Caller
    read_at_s: float
    #: When it was read, or when a commit found it to be so.
    confirmed_at_s: float


class Authenticator:
    """Checks API keys against the database's record of them, in constant time."""

    def __init__(
        self,
        lookups: Lookups,
        *,
        pepper: bytes,
        remember_s: int,
        processes_count: int = 1,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lookups = lookups
        self._pepper = pepper
        self._remember_s = remember_s
        self._now = now
        self._rates = RequestRates(processes_count=processes_count)
        self._remembered: Bounded[str, _Remembered] = Bounded(REMEMBERED_MAX_COUNT)
        self._digests = SecretDigests()
        #: By the digest of an Authorization header: the key it proved to be, and the stored secret it proved it to.
        self._proven: Bounded[bytes, tuple[str, bytes]] = Bounded(REMEMBERED_MAX_COUNT)

    async def authenticate(self, authorization: str, *, may_be_suspended: bool = False) -> Caller:
        """The caller behind an Authorization header value.

        Raises Unauthenticated, Suspended, BillingHold or LimitReached.
        `may_be_suspended`: for reads of what is the gateway's own. Neither it nor a billing hold stops looking.
        """
        digest = self._digests.digest(authorization)
        public_id, proven_hmac = self._proven.get(digest, _NOTHING_PROVEN)
        known = self._lately(public_id)
        if known is None and public_id:
            known = await self._read(public_id)
        if known is None or known.record.secret_hmac != proven_hmac:
            known = await self._prove(authorization, digest)
        refusal = self._refusal(known.record, may_be_suspended=may_be_suspended)
        if refusal is not None and monotonic() - known.read_at_s > REFUSAL_REMEMBERED_S:
            known = await self._read_again(known.caller)
            refusal = self._refusal(known.record, may_be_suspended=may_be_suspended)
        if refusal is not None:
            raise refusal
        self._require_rates(known.caller)
        return known.caller

    def _require_rates(self, caller: Caller) -> None:
        """Counts a request. One that is refused counts for neither the gateway nor the key."""
        if caller.key_rate is not None:
            self._rates.require(KEY_REQUESTS, caller.key_id.int, caller.key_rate)
        if caller.rate is not None:
            self._rates.require(REQUESTS, caller.gateway_id.int, caller.rate)
            self._rates.take(REQUESTS, caller.gateway_id.int, caller.rate)
        if caller.key_rate is not None:
            self._rates.take(KEY_REQUESTS, caller.key_id.int, caller.key_rate)

    async def _prove(self, authorization: str, digest: bytes) -> _Remembered:
        key = API_KEY.read(bearer(authorization))
        if not API_KEY.was_made_here(self._pepper, key):
            raise Unauthenticated("The API key is not known.")
        if key.public_id in self._remembered:
            known = await self._known(key.public_id)
        else:
            known = await self._rates.count_misses(KEY_LOOKUPS, UNKNOWN_KEYS, lambda: self._known(key.public_id))
        if known is None or not hmac.compare_digest(secret_hmac(self._pepper, key.secret), known.record.secret_hmac):
            raise Unauthenticated("The API key is not known.")
        self._proven.remember(digest, (key.public_id, known.record.secret_hmac))
        return known

    async def refresh(self, caller: Caller) -> Caller:
        """Reads the caller's record anew, before it is refused for something that may have changed."""
        known = await self._read_again(caller)
        if (refusal := self._refusal(known.record)) is not None:
            raise refusal
        return known.caller

    async def newer(self, caller: Caller) -> Caller:
        """As `refresh`, for what is refused often: what was read less than a second ago is not read again."""
        known = self._remembered.get(caller.public_id)
        if known is not None and known.caller is caller and monotonic() - known.read_at_s <= REFUSAL_REMEMBERED_S:
            return caller
        return await self.refresh(caller)

    def confirm(self, caller: Caller) -> None:
        """The database has just found the key, the gateway and its terms as remembered: nearly as good as read."""
        known = self._remembered.get(caller.public_id)
        if known is not None and known.caller is caller:
            known.confirmed_at_s = monotonic()

    def forget(self, caller: Caller) -> None:
        """The database knows better: read it again next time."""
        self._remembered.pop(caller.public_id, None)

    def _lately(self, public_id: str) -> _Remembered | None:
        """What was read or confirmed lately; None: it has to be read."""
        known = self._remembered.get(public_id)
        if known is None:
            return None
        now_s = monotonic()
        if now_s - known.confirmed_at_s > self._remember_s or now_s - known.read_at_s > RATES_REMEMBERED_S:
            return None
        return known

    async def _known(self, public_id: str) -> _Remembered | None:
        return self._lately(public_id) or await self._read(public_id)

    async def _read_again(self, caller: Caller) -> _Remembered:
        known = await self._read(caller.public_id)
        if known is None:
            raise Unauthenticated("The API key is not known.")
        return known

    async def _read(self, public_id: str) -> _Remembered | None:
        now_s = monotonic()  # before the database is asked: its answer may be long under way
        record = await self._lookups.key(public_id)
        if record is None:
            self._remembered.pop(public_id, None)
            return None
        known = _Remembered(record, _caller(record, public_id), now_s, now_s)
        self._remembered.remember(public_id, known)
        return known

    def _refusal(
        self, record: KeyRecord, *, may_be_suspended: bool = False
    ) -> Unauthenticated | Suspended | BillingHold | None:
        if record.revoked_at is not None and record.revoked_at <= self._now():
            return Unauthenticated("The API key was revoked.")
        if record.expires_at is not None and record.expires_at <= self._now():
            return Unauthenticated("The API key has expired.")
        if may_be_suspended:
            return None
        if record.status != "active":
            reason = f": {record.status_reason}" if record.status_reason else "."
            return Suspended(f"The gateway is suspended{reason}")
        if record.billing_hold == "signing":
            return BillingHold(f"Nothing is signed for the gateway: {record.billing_hold_reason}", hold="signing")
        if record.signs_until is not None and record.signs_until <= self._now():
            ended_at = rfc3339(record.signs_until)
            return BillingHold(f"Nothing is signed for free any more: that ended at {ended_at}.", hold="signing")
        return None


_NOTHING_PROVEN = ("", b"")


def bearer(authorization: str) -> str:
    """The API key in an Authorization header: `Bearer KEY`, or Basic with the key as user name or password.

    Basic is what go-livepeer's gateway makes of a signer URL with userinfo (spec 9.1).
    """
    scheme, _, credential = authorization.strip().partition(" ")
    credential = credential.strip()
    if not scheme:
        raise Unauthenticated("There is no Authorization header.")
    if scheme.lower() == "bearer" and credential:
        return credential
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(credential, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthenticated("The Basic credentials are not base64 of user:password.") from None
        return password or user
    raise Unauthenticated("The Authorization header is neither Bearer nor Basic.")


def _caller(record: KeyRecord, public_id: str) -> Caller:
    return Caller(
        key_id=record.key_id,
        public_id=public_id,
        gateway_id=record.gateway_id,
        currency=record.currency,
        markup_bps=record.markup_bps,
        minimum_charge=record.minimum_charge,
        available=record.balance + record.credit_limit,
        rate=rate_of(record.requests_per_s, record.burst_count),
        key_rate=rate_of(record.key_requests_per_s, record.key_burst_count),
        ceilings=dict(_ceilings(record)),
        ceilings_version=record.ceilings_version,
        hold_reason=record.billing_hold_reason if record.billing_hold != "none" else None,
        rate_card=record.rate_card,
        may_be_below_cost=record.below_cost,
    )


def _ceilings(record: KeyRecord) -> Iterator[tuple[str, Ceiling]]:
    prices = (record.price_live_max, record.price_lv2v_max, record.price_fixed_max, record.price_untyped_max)
    for (name, job_type), price in zip(CEILINGS.items(), prices, strict=True):
        if price is not None:
            yield job_type, Ceiling(price, plan=None if name in record.own_ceilings else record.plan)
