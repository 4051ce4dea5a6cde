"""signTicket: from a decoded request to an answer that is paid for, durably, before it is released.

`sign_ticket` is the whole flow, in its order. Up to `commit` nothing is spent and everything may be refused; when it
returns, everything is recorded.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from chain.fees import JobTypeError, billable_units, tickets_needed
from chain.messages import MessageError, capability_names
from chain.payment_state import PaymentState, StateError, read_state
from chain.tickets import batch_ev_wei, ticket_ev
from clearinghouse.charging import CHAIN_CODES, LEAVES_SESSION, NOTHING, Charging, Quote, may_be_paid_for, session_after
from clearinghouse.commits import Issuance, Outcome
from clearinghouse.deadlines import Deadlines
from clearinghouse.derivation import Fee
from clearinghouse.errors import DeadlineExceeded, IdempotencyConflict, InvalidRequest, Refusal
from clearinghouse.gates import Gates
from clearinghouse.identity.authenticate import Authenticator, Caller
from clearinghouse.ids import uuid7
from clearinghouse.lookups import Lookups, Receipt, SessionFinding, SessionLookup
from clearinghouse.metrics import Metrics, Stages
from clearinghouse.orchestrators import CrossCheck
from clearinghouse.rates.usage import Usage, Work, usage_of_call
from clearinghouse.rating import Priced
from clearinghouse.requests import PaymentRequest, require_manifest_and_capabilities
from clearinghouse.session_cache import SessionCache
from clearinghouse.sessions import Proceed, Replay, Session, auth_id, decide, refresh, session_of
from clearinghouse.signers.base import Signer
from clearinghouse.signers.refusals import refusal_of
from clearinghouse.turns import Turns
from clearinghouse.unreleased import Asking, Keep
from clearinghouse.verification import AnswerParts, SignedPayment, verify_answer

IDEMPOTENCY_KEY_MAX_CHARS = 255
END_USER_MAX_CHARS = 255
LABEL_MAX_CHARS = 256
#: Of the answers in a running session, one in so many has its signatures recovered.
SIGNATURE_SAMPLE = 16
_NO_BALANCE: Final = Fraction(0)


class Asked(NamedTuple):
    """What a call asks for."""

    request: PaymentRequest
    idempotency_key: str = ""
    end_user: str = ""


@dataclass(slots=True)
class SignCall:
    """One call, whichever way it came in. `authorization` is the header's value, "" when absent.

    `asked` reads what is asked for and raises the refusals of a bad body. It is called once the caller is known:
    nothing is decoded for strangers.
    """

    authorization: str
    asked: Callable[[], Asked]
    #: time.perf_counter() when the request had arrived.
    received_at_s: float = field(default_factory=time.perf_counter)


class SignedAnswer(NamedTuple):
    """What is released: the signer's body to the byte, and what it cost."""

    body: bytes
    receipt: Receipt
    replayed: bool
    #: Time spent here, without the signer's.
    overhead_s: float
    #: What the body says, where it was just read.
    parts: AnswerParts | None = None


class _Base(NamedTuple):
    """The state a call goes on from."""

    state: PaymentState
    hash: bytes
    session_id: UUID


class _Labels(NamedTuple):
    """What the work of a session is, as it is attributed and sold."""

    pipeline: str
    model: str


class _Due(NamedTuple):
    """What a call should take to pay for."""

    num_tickets: int
    ev_wei: int
    usage: Usage


class Signing:
    """The core that every way in shares."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        lookups: Lookups,
        sessions: SessionCache,
        gates: Gates,
        charging: Charging,
        signer: Signer,
        metrics: Metrics,
        deadline_s: float,
        crosscheck: CrossCheck | None = None,
        keep_unreleased: Keep | None = None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._authenticator = authenticator
        self._lookups = lookups
        self._sessions = sessions
        self._gates = gates
        self._charging = charging
        self._signer = signer
        self._metrics = metrics
        self._crosscheck = crosscheck
        self._keep_unreleased = keep_unreleased
        self._deadlines = Deadlines(deadline_s)
        self._unix_ns = unix_ns
        self._turns = Turns()

    async def sign_ticket(self, call: SignCall) -> SignedAnswer:
        """Raises a Refusal, and then nothing was debited by this call; a SignerRefusal carries the signer's bytes."""
        self._metrics.in_flight_count += 1
        try:
            signed = await self._deadlines.run(self._sign_ticket, call)
        except TimeoutError:
            raise DeadlineExceeded("The answer took too long.", retry_after_s=1) from None
        finally:
            self._metrics.in_flight_count -= 1
        if signed.replayed:
            self._metrics.replayed()
        else:
            self._metrics.released(num_tickets=signed.receipt.num_tickets)
        return signed

    async def _sign_ticket(self, call: SignCall) -> SignedAnswer:
        stages = self._metrics.stages(call.received_at_s)
        caller = await self._authenticator.authenticate(call.authorization)
        stages.done("authenticate")

        asked = call.asked()
        request = asked.request
        require_manifest_and_capabilities(request)
        _require_labels(asked)
        request_hash = hashlib.sha256(request.canonical).digest()
        base = _base_of(request, caller)
        stages.done("decode")

        # One call at a time for the same ticket parameters: identical ones find the answer of the first, and a signer
        # never works on one PM session twice at once (spec 10-A16).
        recipient_rand_hash = request.params.recipient_rand_hash
        await self._turns.take(recipient_rand_hash)
        try:
            decision = await self._decide(asked, caller, request_hash, base)
            stages.done("lookup")
            if isinstance(decision, Replay):
                return await self._repeat(decision, caller, stages)
            try:
                with Asking(self._keep_unreleased) as asking:
                    return await self._pay(
                        asked,
                        caller,
                        request_hash,
                        base,
                        going=decision,
                        asking=asking,
                        stages=stages,
                    )
            except Refusal as refusal:
                if not may_be_paid_for(refusal):
                    raise
                # Another process may have gone on meanwhile, perhaps by this very request: then it is paid for.
                confirmed = await self._decide_anew(asked, caller, request_hash, base)
                if isinstance(confirmed, Proceed):
                    raise
                return await self._repeat(confirmed, caller, stages)
        finally:
            self._turns.give(recipient_rand_hash)

    async def _repeat(self, decision: Replay, caller: Caller, stages: Stages) -> SignedAnswer:
        receipt = await self._lookups.receipt(caller.gateway_id, decision.issuance_id)
        return SignedAnswer(decision.answer, receipt, True, stages.overhead_s())

    async def _pay(
        self,
        asked: Asked,
        caller: Caller,
        request_hash: bytes,
        base: _Base | None,
        *,
        going: Proceed,
        asking: Asking,
        stages: Stages,
    ) -> SignedAnswer:
        """Policy, quote, sign, verify, commit, release."""
        request, first_nonce = asked.request, going.first_nonce
        self._gates.require_offer(request)
        judge = self._judge(request, base)
        caller = await self._charging.require_terms(caller, judge)
        labels = _labels(request, going.session)
        due = self._due(request, base, labels)
        self._gates.require_call(request, ev_wei=due.ev_wei, first_nonce=first_nonce, num_tickets=due.num_tickets)
        stages.done("gates")
        caller, quote = await self._charging.quote(
            caller,
            judge,
            ev_wei=due.ev_wei,
            usage=due.usage,
            sender=self._signer.address,
            face_value_wei=request.params.face_value_wei,
            orchestrator=request.info.address,
            is_new_session=base is None,
        )
        stages.done("quote")

        if self._crosscheck is not None and base is None:
            await self._crosscheck.require(request, caller.gateway_id)
            stages.done("crosscheck")
        session_id = base.session_id if base is not None else uuid7()
        body, signed = await self._sign(
            request, caller, base, session_id, first_nonce=first_nonce, asking=asking, stages=stages
        )
        if signed.num_tickets != due.num_tickets:
            self._gates.require_call(
                request, ev_wei=signed.ev_wei, first_nonce=first_nonce, num_tickets=signed.num_tickets
            )
        usage = _usage(request, signed.work, labels, is_first=base is None)
        issuance = _issuance(
            asked,
            caller,
            request_hash=request_hash,
            base=base,
            session_id=session_id,
            signed=signed,
            quote=quote,
            priced=self._charging.reprice(caller, quote, signed.ev_wei, usage),
            labels=labels,
            body=body,
        )
        stages.done("verify")

        caller, issuance, outcome = await self._charging.commit(caller, issuance, quote.price, usage, judge)
        stages.done("commit")
        if outcome.code is None or outcome.stored_issuance_id == issuance.id:
            asking.released()
        if outcome.code == "replayed":
            return await self._stored(caller, outcome, stages.overhead_s())
        if outcome.code is not None:
            raise await self._refusal(caller, issuance, outcome, quote, request)
        return self._release(caller, issuance, outcome, signed, stages.overhead_s())

    def _judge(self, request: PaymentRequest, base: _Base | None) -> Callable[[Caller], None]:
        """Whether a caller may pay these prices, on the terms it has at that moment."""
        prices = (request.price,) if base is None else (request.price, base.state.initial_price)
        return partial(self._gates.require_price, request.type, prices)

    async def _sign(
        self,
        request: PaymentRequest,
        caller: Caller,
        base: _Base | None,
        session_id: UUID,
        *,
        first_nonce: int,
        asking: Asking,
        stages: Stages,
    ) -> tuple[bytes, SignedPayment]:
        """The signer's body, and what it was found to say. Raises the refusal that any other answer stands for."""
        identity = base.state.auth_id if base is not None else auth_id(caller.gateway_id, session_id)
        asking.begins(
            caller.gateway_id,
            session_id,
            sequence=base.state.sequence_number + 1 if base is not None else 0,
            recipient_rand_hash=request.params.recipient_rand_hash,
        )
        answer = await self._signer.generate_payment(request, auth_id=identity)
        asking.answered(answer)
        stages.signed()
        self._metrics.signer_answered(answer.status)
        if answer.status != 200:
            raise refusal_of(answer, request)
        signed = verify_answer(
            answer.body,
            request,
            sender=self._signer.address,
            auth_id=identity,
            base=base.state if base is not None else None,
            first_nonce=first_nonce,
            recover_signatures=base is None or random.randrange(SIGNATURE_SAMPLE) == 0,  # noqa: S311 - a sample
            now_unix_ns=self._unix_ns(),
        )
        return answer.body, signed

    async def _refusal(
        self, caller: Caller, issuance: Issuance, outcome: Outcome, quote: Quote, request: PaymentRequest
    ) -> Refusal:
        if outcome.code not in LEAVES_SESSION:
            self._sessions.forget(issuance.session_id)
        if outcome.code in CHAIN_CODES:
            return refresh(request, "Tickets with these parameters were issued meanwhile.")
        return await self._charging.refusal(caller, issuance, outcome, quote)

    async def _decide(self, asked: Asked, caller: Caller, request_hash: bytes, base: _Base | None) -> Replay | Proceed:
        if asked.idempotency_key:
            keyed = await self._lookups.keyed_answer(caller.gateway_id, asked.idempotency_key)
            if keyed is not None and keyed.request_hash != request_hash:
                raise IdempotencyConflict("This idempotency key was used with another request.")
            if keyed is not None:
                return Replay(keyed.answer, keyed.issuance_id)

        def judge(found: SessionFinding) -> Replay | Proceed:
            return decide(
                asked.request,
                gateway_id=caller.gateway_id,
                request_hash=request_hash,
                base=base.state if base is not None else None,
                base_hash=base.hash if base is not None else None,
                session=found.session,
                rand=found.rand,
                newest=found.newest,
            )

        lookup = SessionLookup(base.session_id if base is not None else None, asked.request.params.recipient_rand_hash)
        if (remembered := self._sessions.find(lookup)) is not None:
            try:
                return judge(remembered)
            except Refusal:
                if base is not None:
                    self._sessions.forget(base.session_id)  # another process may know better
        return judge(await self._lookups.session(lookup))

    async def _decide_anew(
        self, asked: Asked, caller: Caller, request_hash: bytes, base: _Base | None
    ) -> Replay | Proceed:
        """By what the database has, not by what is remembered here. Raises the refusal that comes first now."""
        if base is not None:
            self._sessions.forget(base.session_id)
        return await self._decide(asked, caller, request_hash, base)

    def _due(self, request: PaymentRequest, base: _Base | None, labels: _Labels) -> _Due:
        """n and n·EV as of now. The signer looks at its clock a moment later and may find one ticket more to be due."""
        params, price = request.params, request.price
        balance, last_ns = None, None
        if base is not None:
            price, balance, last_ns = base.state.initial_price, base.state.balance, base.state.last_update_unix_ns
        elapsed_ns = max(self._unix_ns() - last_ns, 0) if last_ns is not None else 0
        if price.price_per_unit <= 0 or price.pixels_per_unit <= 0:
            return _Due(0, 0, NOTHING)  # no signer wrote this state, and the signer says so
        try:
            units = billable_units(request.type, elapsed_ns, request.in_pixels)
        except JobTypeError:
            return _Due(0, 0, NOTHING)  # the signer refuses it, in its own words
        fee = Fee(units * price.price_per_unit, price.pixels_per_unit)
        ev = ticket_ev(params.face_value_wei, params.win_prob)
        count = tickets_needed(balance=balance or _NO_BALANCE, fee=fee, ev=ev) if units > 0 else 0
        usage = _usage(request, Work(max(units, 0), elapsed_ns), labels, is_first=base is None)
        return _Due(count, batch_ev_wei(params.face_value_wei, params.win_prob, count), usage)

    async def _stored(self, caller: Caller, outcome: Outcome, overhead_s: float) -> SignedAnswer:
        assert outcome.stored_issuance_id is not None, "a replay comes with its issuance"
        assert outcome.stored_answer is not None, "a replay comes with its answer"
        receipt = await self._lookups.receipt(caller.gateway_id, outcome.stored_issuance_id)
        return SignedAnswer(outcome.stored_answer, receipt, True, overhead_s)

    def _release(
        self, caller: Caller, issuance: Issuance, outcome: Outcome, signed: SignedPayment, overhead_s: float
    ) -> SignedAnswer:
        self._sessions.remember(session_after(issuance), issuance.recipient_rand_hash, signed.payment.nonces[-1])
        receipt = self._charging.receipt(caller, issuance, outcome)
        return SignedAnswer(issuance.answer, receipt, False, overhead_s, signed.parts)


def _base_of(request: PaymentRequest, caller: Caller) -> _Base | None:
    if request.state is None:
        return None
    try:
        read = read_state(request.state.state)
    except StateError as error:
        raise InvalidRequest(f"invalid state: {error}") from error
    return _Base(read.state, read.hash, session_of(read.state, caller.gateway_id))


def _require_labels(asked: Asked) -> None:
    if not asked.idempotency_key and not asked.end_user:
        return
    for name, text, chars_max in (
        ("idempotency key", asked.idempotency_key, IDEMPOTENCY_KEY_MAX_CHARS),
        ("end user", asked.end_user, END_USER_MAX_CHARS),
    ):
        if len(text) > chars_max or not text.isprintable():
            raise InvalidRequest(f"The {name} must be at most {chars_max} printable characters.")


def _issuance(
    asked: Asked,
    caller: Caller,
    *,
    request_hash: bytes,
    base: _Base | None,
    session_id: UUID,
    signed: SignedPayment,
    quote: Quote,
    priced: Priced,
    labels: _Labels,
    body: bytes,
) -> Issuance:
    request, payment, price = asked.request, signed.payment, quote.price
    return Issuance(
        gateway_id=caller.gateway_id,
        key_id=caller.key_id,
        ceilings_version=caller.ceilings_version,
        session_id=session_id,
        is_new_session=base is None,
        base_state_hash=base.hash if base is not None else None,
        head_state_hash=signed.state_hash,
        sequence=signed.state.sequence_number,
        request_hash=request_hash,
        idempotency_key=asked.idempotency_key or None,
        recipient_rand_hash=payment.recipient_rand_hash,
        first_nonce=payment.nonces[0],
        num_tickets=signed.num_tickets,
        face_value_wei=payment.face_value_wei,
        win_prob=payment.win_prob,
        creation_round=payment.creation_round,
        sender=payment.sender,
        recipient=payment.recipient,
        orchestrator=request.info.address,
        ev_wei=signed.ev_wei,
        fee_wei=signed.fee_wei,
        charge=priced.charge,
        price=price.value,
        price_source=price.cited,
        price_observed_at=price.observed_at,
        markup_bps=caller.markup_bps,
        minimum_charge=caller.minimum_charge,
        job_type=request.type,
        manifest_id=request.manifest_id or None,
        app=request.app,
        transcoder=request.info.transcoder,
        pipeline=labels.pipeline,
        model=labels.model,
        end_user=asked.end_user,
        id=uuid7(),
        answer=body,
        rate_rule=priced.rule_id,
        quantity=priced.quantity,
    )


def _labels(request: PaymentRequest, session: Session | None) -> _Labels:
    """As the session began. At first: where the capabilities name exactly one pipeline, whose name can be recorded."""
    if session is not None:
        return _Labels(session.pipeline, session.model)
    if not request.capabilities:
        return _Labels("", "")
    try:
        pipeline, model = capability_names(request.capabilities)
    except MessageError:
        return _Labels("", "")
    return _Labels(pipeline, model if len(model) <= LABEL_MAX_CHARS and model.isprintable() else "")


def _usage(request: PaymentRequest, work: Work, labels: _Labels, *, is_first: bool) -> Usage:
    return usage_of_call(
        request.type,
        work,
        is_first=is_first,
        application=request.app,
        pipeline=labels.pipeline,
        model=labels.model,
    )
