"""The webhook: from the state that a signer shows to a verdict that is paid for, durably, before it is given.

`approve` is the whole flow, in its order, beside that of signing.py: there we ask a signer, here a signer asks us. It
has signed already and shows no ticket; what they are worth is derived from the states. Up to `commit` nothing is spent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from chain.fees import PRICE_UNITS
from chain.payment_state import PaymentState
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.approved_states import Kept, Kind, Step, judge, keep, read_approved, write_approved
from clearinghouse.charging import CHAIN_CODES, LEAVES_SESSION, Charging, Quote, may_be_paid_for, session_after
from clearinghouse.commits import Issuance, Outcome
from clearinghouse.deadlines import Deadlines
from clearinghouse.derivation import DerivationError, require_clock
from clearinghouse.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LimitReached,
    Refusal,
    SessionMismatch,
    SessionNotYours,
    StateConflict,
)
from clearinghouse.gates import Gates
from clearinghouse.identity.authenticate import Authenticator, Caller
from clearinghouse.identity.webhook_signers import WebhookSigner
from clearinghouse.ids import uuid7
from clearinghouse.instants import rfc3339
from clearinghouse.lookups import Lookups, SessionFinding, SessionLookup
from clearinghouse.metrics import Metrics, Stages
from clearinghouse.policy import Rule, require_type
from clearinghouse.rates.usage import Usage, usage_beyond, usage_of_call
from clearinghouse.requests import require_label
from clearinghouse.session_cache import SessionCache
from clearinghouse.sessions import Pins, Session, auth_id, require_pins, session_of
from clearinghouse.turns import Turns
from clearinghouse.verdicts import approval

#: Where a session went on while it was judged, it is judged again, so often.
ATTEMPTS_COUNT: Final = 3


@dataclass(slots=True)
class Question:
    """What a signer shows. `authorization` and `end_user` are its own caller's headers, "" when absent."""

    signer: WebhookSigner
    authorization: str
    end_user: str
    state: PaymentState
    #: time.perf_counter() when the question had arrived.
    received_at_s: float = field(default_factory=time.perf_counter)


class Approval(NamedTuple):
    """What the signer is told. `kind` None: the same question was answered before, so nothing happened."""

    body: bytes
    num_tickets: int
    kind: Kind | None


class _Shown(NamedTuple):
    """A question that may be judged."""

    question: Question
    kept: Kept
    #: Of the state as shown: it names the question, and then the newest state of its session.
    hash: bytes
    #: None where the state is a session's first.
    session_id: UUID | None

    @property
    def state(self) -> PaymentState:
        return self.question.state


class _Going(NamedTuple):
    """The session that a state belongs to, if there is one, and what the state is to it."""

    session: Session | None
    step: Step


class Approving:
    """The core of the webhook. `repeats_max_count`: lost answers that a gateway has for nothing, in an hour."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        lookups: Lookups,
        sessions: SessionCache,
        gates: Gates,
        charging: Charging,
        metrics: Metrics,
        deadline_s: float,
        repeats_max_count: int,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._authenticator = authenticator
        self._lookups = lookups
        self._sessions = sessions
        self._gates = gates
        self._charging = charging
        self._metrics = metrics
        self._deadlines = Deadlines(deadline_s)
        self._repeats_max_count = repeats_max_count
        self._unix_ns = unix_ns
        self._turns = Turns()

    async def approve(self, question: Question) -> Approval:
        """Raises a Refusal, and then nothing was debited by this question."""
        self._metrics.in_flight_count += 1
        try:
            given = await self._deadlines.run(self._approve, question)
        except TimeoutError:
            raise DeadlineExceeded("The answer took too long.", retry_after_s=1) from None
        finally:
            self._metrics.in_flight_count -= 1
        if given.kind is None:
            self._metrics.replayed()
        else:
            self._metrics.approved(given.kind, num_tickets=given.num_tickets)
        return given

    async def _approve(self, question: Question) -> Approval:
        stages = self._metrics.stages(question.received_at_s)
        stages.done("decode")
        caller = await self._authenticator.authenticate(question.authorization)
        stages.done("authenticate")
        shown = self._require_shown(question, caller)

        name = shown.session_id or shown.state.pm_session_id
        await self._turns.take(name)
        try:
            for _ in range(ATTEMPTS_COUNT):
                given = await self._attempt(shown, caller, stages)
                if given is not None:
                    stages.overhead_s()
                    return given
        finally:
            self._turns.give(name)
        raise StateConflict("The session went on while this payment was judged.")

    async def _attempt(self, shown: _Shown, caller: Caller, stages: Stages) -> Approval | None:
        """Decide and pay. None where the session went on meanwhile, or may have at another process."""
        decision, is_remembered = await self._decide(shown, caller)
        stages.done("lookup")
        if isinstance(decision, Session):
            return Approval(decision.answer, 0, None)
        try:
            return await self._pay(shown, caller, decision, stages)
        except Refusal as refusal:
            if not may_be_paid_for(refusal):
                raise
            # This very payment may have been approved elsewhere: then it is shown again, and that costs nothing.
            self._forget(decision.session)
            if is_remembered:
                return None
            confirmed, _ = await self._decide(shown, caller)
            if isinstance(confirmed, Session):
                return Approval(confirmed.answer, 0, None)
            raise

    async def _pay(self, shown: _Shown, caller: Caller, going: _Going, stages: Stages) -> Approval | None:
        """Policy, quote, commit. None where the session went on meanwhile."""
        session, step = going
        self._gates.require_shown(**step.shown._asdict())
        # A signer takes no price above the session's first, so that is the one to judge.
        judge = partial(self._gates.require_price, shown.state.type, [shown.state.initial_price])
        caller = await self._charging.require_terms(caller, judge)
        stages.done("gates")
        orchestrator, ev_wei = shown.state.orchestrator_address, _ev_wei(step)
        if step.charged.num_tickets:
            caller, quote = await self._charging.quote(
                caller,
                judge,
                ev_wei=ev_wei,
                usage=_usage(shown.state, step),
                sender=shown.question.signer.sender,
                face_value_wei=None,
                orchestrator=orchestrator,
                is_new_session=session is None,
            )
        else:
            quote = self._charging.nothing_due(caller, orchestrator=orchestrator)
        issuance = self._issuance(shown, caller, session, step, quote)
        stages.done("quote")

        caller, issuance, outcome = await self._charging.commit(caller, issuance, quote.price, quote.usage, judge)
        stages.done("commit")
        if outcome.code is None:
            return self._given(caller, session, issuance, outcome, step)
        if outcome.code == "replayed":
            assert outcome.stored_answer is not None, "a replay comes with its answer"
            return Approval(outcome.stored_answer, 0, None)
        if outcome.code not in LEAVES_SESSION:
            self._sessions.forget(issuance.session_id)
        if outcome.code in CHAIN_CODES:
            return None
        if outcome.code == "repeats_used_up":
            raise self._repeats_used_up(outcome.created_at)
        raise await self._charging.refusal(caller, issuance, outcome, quote)

    def _require_shown(self, question: Question, caller: Caller) -> _Shown:
        """What can be said of a state by itself. Raises a Refusal."""
        state = question.state
        require_label("Clearinghouse-End-User", question.end_user)
        require_label("App", state.app)
        require_type(state.type)
        if state.type not in PRICE_UNITS:
            raise InvalidRequest("invalid job type")
        if not state.pm_session_id:
            raise InvalidRequest("The state has no PMSessionID.")
        try:
            require_clock(state, now_unix_ns=self._unix_ns())
        except DerivationError as error:
            raise InvalidRequest(f"The state {error}") from error
        session_id = session_of(state, caller.gateway_id) if state.auth_id else None
        kept = keep(state)
        return _Shown(question, kept, hashlib.sha256(kept.line).digest(), session_id)

    async def _decide(self, shown: _Shown, caller: Caller) -> tuple[Session | _Going, bool]:
        """A session where it has just answered this very question; and whether that is by what is remembered here."""
        lookup = SessionLookup(shown.session_id, shown.state.pm_session_id)
        if (remembered := self._sessions.find(lookup)) is not None:
            try:
                return decide(shown, caller.gateway_id, remembered), True
            except Refusal:  # another process may know better
                self._forget(remembered.session, remembered.newest)
        return decide(shown, caller.gateway_id, await self._lookups.session(lookup)), False

    def _forget(self, *sessions: Session | None) -> None:
        for session in sessions:
            if session is not None:
                self._sessions.forget(session.id)

    def _issuance(self, shown: _Shown, caller: Caller, session: Session | None, step: Step, quote: Quote) -> Issuance:
        state, price = shown.state, quote.price
        session_id = session.id if session is not None else uuid7()
        ceiling = self._gates.price_max_wei_per_unit(state.type, caller)
        return Issuance(
            gateway_id=caller.gateway_id,
            key_id=caller.key_id,
            ceilings_version=caller.ceilings_version,
            session_id=session_id,
            is_new_session=session is None,
            base_state_hash=session.head_state_hash if session is not None else None,
            head_state_hash=shown.hash,
            sequence=state.sequence_number,
            request_hash=shown.hash,
            idempotency_key=None,
            recipient_rand_hash=state.pm_session_id,
            first_nonce=step.charged.first_nonce,
            num_tickets=step.charged.num_tickets,
            face_value_wei=None,
            win_prob=None,
            creation_round=None,
            sender=shown.question.signer.sender,
            recipient=None,
            orchestrator=state.orchestrator_address,
            ev_wei=quote.use.ev_wei,
            fee_wei=step.fee_wei,
            charge=quote.use.charge,
            price=price.value,
            price_source=price.cited,
            price_observed_at=price.observed_at,
            markup_bps=caller.markup_bps,
            minimum_charge=caller.minimum_charge,
            job_type=state.type,
            manifest_id=None,
            app=state.app,
            transcoder="",
            pipeline="",
            model="",
            end_user=shown.question.end_user,
            id=uuid7(),
            answer=approval(auth_id(caller.gateway_id, session_id), state.type, ceiling),
            approved=write_approved(step.approved),
            ev_numerator=step.charged.ev_numerator,
            repeats_max_count=self._repeats_max_count if step.kind is Kind.REPEAT else None,
            rate_rule=quote.priced.rule_id,
            quantity=quote.priced.quantity,
        )

    def _given(
        self, caller: Caller, session: Session | None, issuance: Issuance, outcome: Outcome, step: Step
    ) -> Approval:
        self._charging.settled(caller, issuance, outcome)
        now = session_after(issuance)
        if session is not None and not issuance.num_tickets:
            now = now._replace(issuance_id=session.issuance_id)
        last_nonce = issuance.first_nonce + issuance.num_tickets - 1
        self._sessions.remember(now, issuance.recipient_rand_hash, last_nonce)
        return Approval(issuance.answer, issuance.num_tickets, step.kind)

    def _repeats_used_up(self, at: datetime) -> LimitReached:
        next_hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return LimitReached(
            f"{self._repeats_max_count} payments were shown again within an hour, as if their answers had been lost; "
            "that is as often as it is free. A fresh OrchestratorInfo goes on, and is charged in full.",
            retry_after_s=max(1, -((at - next_hour) // timedelta(seconds=1))),
            rule=Rule.REPEATS,
            allowed=str(self._repeats_max_count),
            used=str(self._repeats_max_count),
            unit="repeats",
            resets_at=rfc3339(next_hour),
        )


def decide(shown: _Shown, gateway_id: UUID, found: SessionFinding) -> Session | _Going:
    """The session that answered this question already, or what the state is to the one it belongs to.

    Raises SessionNotYours, InvalidRequest or SessionMismatch (pins), or StateConflict.
    """
    state, newest = shown.state, found.newest
    if newest is not None and newest.gateway_id == gateway_id and newest.request_hash == shown.hash:
        return newest
    session = found.session
    if shown.session_id is not None and (session is None or session.gateway_id != gateway_id):
        raise SessionNotYours("The session of this state is not known here.")
    if (
        shown.session_id is None
        and newest is not None
        and (newest.gateway_id, newest.orchestrator) == (gateway_id, state.orchestrator_address)
    ):
        session = newest  # a first payment, shown again: its answer was lost, and with it the AuthID
    if found.rand is not None and (session is None or found.rand.session_id != session.id):
        raise StateConflict("These ticket parameters are already used by another session.")
    last_nonce = found.rand.last_nonce if found.rand is not None else 0
    if session is None:
        return _Going(None, judge(shown.kept, None, last_nonce))
    if session.approved is None:
        raise SessionMismatch("The session goes on where it began: in front of a signer, or at the webhook.")
    require_pins(Pins(state.orchestrator_address, state.app, state.type, None, None, None), session)
    return _Going(session, judge(shown.kept, read_approved(session.approved), last_nonce))


def _ev_wei(step: Step) -> int:
    return -(-step.charged.ev_numerator // WIN_PROB_CERTAIN)


def _usage(state: PaymentState, step: Step) -> Usage:
    """A signer shows neither pipeline nor model. Of a repeat it is what was not charged before."""
    is_first = state.sequence_number == 0
    usage = usage_of_call(state.type, step.work, is_first=is_first, application=state.app)
    if step.work_before is None:
        return usage
    return usage_beyond(usage, usage_of_call(state.type, step.work_before, is_first=is_first, application=state.app))
