"""Promise 4: no nonce twice, no state for strangers. What a request may do is decided here from values alone.

The database decides the same again inside the commit (migrations/sql, `commit_issuances`); this decision comes before
anything is signed, so that what cannot succeed costs no signature and a lost answer is found again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from chain.payment_state import PaymentState
from chain.signatures import checksum_address
from clearinghouse.errors import InvalidRequest, RefreshSession, SessionMismatch, SessionNotYours
from clearinghouse.ids import parse, show
from clearinghouse.requests import PaymentRequest

#: An orchestrator remembers so many nonces of one recipientRandHash and refuses further ones, which the caller would
#: have paid for (spec 10-A24).
NONCES_PER_RAND_MAX: Final = 600


class Session(NamedTuple):
    """A session as of its newest answer."""

    id: UUID
    gateway_id: UUID
    orchestrator: bytes
    #: None where signers ask the webhook about it.
    recipient: bytes | None
    job_type: str
    manifest_id: str | None
    app: str
    transcoder: str
    head_state_hash: bytes
    request_hash: bytes
    issuance_id: UUID
    answer: bytes
    #: Of the webhook: the states that the next one can go on from (clearinghouse.approved_states).
    approved: bytes | None = None
    #: As its first payment named them: what all of it is charged as.
    pipeline: str = ""
    model: str = ""


class RandUse(NamedTuple):
    """How far the nonces of a recipientRandHash are used, and by which session."""

    session_id: UUID
    gateway_id: UUID
    last_nonce: int


class Pins(NamedTuple):
    """What of a call its session must have begun with. None: this call does not say, and so breaks nothing."""

    orchestrator: bytes
    app: str
    job_type: str
    recipient: bytes | None
    transcoder: str | None
    manifest_id: str | None


class Replay(NamedTuple):
    """The request was answered before: this is the answer."""

    answer: bytes
    issuance_id: UUID


class Proceed(NamedTuple):
    """The request may be signed; `first_nonce` is the nonce its first ticket must have."""

    first_nonce: int
    #: The one that it goes on with; None begins one.
    session: Session | None = None


def auth_id(gateway_id: UUID, session_id: UUID) -> str:
    """The AuthID that the signer puts into every state of a session: it ties the state to its owner (spec 10-A7)."""
    return f"{show('gw', gateway_id)}/{show('ses', session_id)}"


def session_of(state: PaymentState, gateway_id: UUID) -> UUID:
    """The session a state belongs to. Raises SessionNotYours for a state of another gateway or of no session of ours.

    The AuthID is trusted only because the signer verifies the state's signature before it signs anything.
    """
    try:
        owner_id, session_id = read_auth_id(state.auth_id)
    except ValueError:
        raise SessionNotYours("The state was not issued by this clearinghouse.") from None
    if owner_id.int != gateway_id.int:
        raise SessionNotYours("The state belongs to another gateway.")
    return session_id


@lru_cache(20_000)
def read_auth_id(text: str) -> tuple[UUID, UUID]:
    """The reverse of `auth_id`, remembered: a stream presents the same one with every call. Raises ValueError."""
    owner, _, session = text.partition("/")
    return parse("gw", owner), parse("ses", session)


def decide(
    request: PaymentRequest,
    *,
    gateway_id: UUID,
    request_hash: bytes,
    base: PaymentState | None,
    base_hash: bytes | None,
    session: Session | None,
    rand: RandUse | None,
    newest: Session | None,
) -> Replay | Proceed:
    """What to do with a request. Raises SessionNotYours, InvalidRequest or SessionMismatch (pins), or
    RefreshSession (480).

    `session` is the one the presented state belongs to, `rand` the use of the request's recipientRandHash so far and
    `newest` the session that uses it. The order of the checks is that of the commit.
    """
    if newest is not None and newest.gateway_id == gateway_id and newest.request_hash == request_hash:
        return Replay(newest.answer, newest.issuance_id)
    if base is not None:
        if session is None or session.gateway_id != gateway_id:
            raise SessionNotYours("The session of this state is not known here.")
        require_pins(pins_of(request), session)
    used = rand.last_nonce if rand is not None else 0
    if rand is not None and used and (session is None or rand.session_id != session.id):
        raise refresh(request, "These ticket parameters are already used by another session.")
    if used and (session is None or session.head_state_hash != base_hash):
        raise refresh(request, "This state is not the newest of its session, and these ticket parameters were used.")
    if first_nonce(request, base) != used + 1:
        raise refresh(request, "Tickets with these parameters and nonces were issued before.")
    return Proceed(used + 1, session if base is not None else None)


def first_nonce(request: PaymentRequest, base: PaymentState | None) -> int:
    """The nonce a signer will begin with (spec 2, "Restore"): it goes on where the state ends, else from 1."""
    if base is not None and base.pm_session_id == request.params.recipient_rand_hash:
        return base.sender_nonce + 1
    return 1


def pins_of(request: PaymentRequest) -> Pins:
    """A payment request says all of it."""
    info = request.info
    recipient = request.params.recipient
    return Pins(info.address, request.app, request.type, recipient, info.transcoder, request.manifest_id)


def require_pins(pins: Pins, session: Session) -> None:
    """A session keeps what it began with: orchestrator, app, type, recipient, transcoder, and the manifest once named.

    The first three are go-livepeer's own checks and keep its status and words (spec 1.2, steps 7c to 7e).
    """
    if session.orchestrator != pins.orchestrator:
        raise InvalidRequest("orchestratorAddress mismatch")
    if session.app != pins.app:
        raise InvalidRequest("app mismatch")
    if session.job_type != pins.job_type:
        raise InvalidRequest("job type mismatch")
    if (session.recipient is None) != (pins.recipient is None):
        raise SessionMismatch("The session goes on where it began: in front of a signer, or at the webhook.")
    if session.recipient is not None and pins.recipient is not None and session.recipient != pins.recipient:
        raise SessionMismatch(
            f"recipient mismatch: the session pays {checksum_address(session.recipient)}, "
            f"these ticket parameters pay {checksum_address(pins.recipient)}"
        )
    if pins.transcoder is not None and session.transcoder != pins.transcoder:
        raise SessionMismatch(
            f"transcoder mismatch: the session has {session.transcoder!r}, this call has {pins.transcoder!r}"
        )
    if pins.manifest_id is not None and session.manifest_id not in (None, pins.manifest_id):
        raise SessionMismatch(
            f"ManifestID mismatch: the session has {session.manifest_id!r}, this call has {pins.manifest_id!r}"
        )


def refresh(request: PaymentRequest, message: str) -> RefreshSession:
    """480, with the orchestrator to ask."""
    return RefreshSession(message, orchestrator_url=request.info.transcoder)
