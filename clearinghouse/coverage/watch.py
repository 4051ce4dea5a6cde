"""Evaluates every sender again and again: level, cap and shares into the gates, and snapshots for people.

Of all processes over a database one evaluates a sender, whoever has its lock (lead.py). What keeps it from doing so,
keeps the gates from being renewed, and calls are refused until somebody can: nothing is guessed, and nothing that fails
for one sender stops the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import psycopg
import structlog

from chain.coverage import Level
from chain.escrow import EscrowUnknown
from chain.signatures import checksum_address
from clearinghouse.background import Repeated, end
from clearinghouse.config_chain import CoverageSettings
from clearinghouse.coverage.book import open_parameters
from clearinghouse.coverage.escrows import Escrow, Escrows, EscrowState
from clearinghouse.coverage.evaluate import Evaluation, Rules, evaluate, snapshot_of
from clearinghouse.coverage.lead import Lead
from clearinghouse.coverage.looking import Looked, question_of
from clearinghouse.coverage.outcomes import Evaluated, Look
from clearinghouse.coverage.outlooks import PROGRAM, look_ahead
from clearinghouse.coverage.payees import Payee, quotes
from clearinghouse.coverage.snapshots import Snapshot
from clearinghouse.database.connect import SERVE_ROLE, in_role

log = structlog.get_logger(__name__)

#: How long a start waits for the first evaluation. Without one the service starts all the same, and refuses.
FIRST_TURN_TIMEOUT_S: Final = 5
#: The first snapshot ever of a sender: not before a service has come up.
FIRST_SNAPSHOT_AFTER_S: Final = 5
#: After something happened while somebody looked ahead.
NEXT_LOOK_AFTER_S: Final = 5


class CoverageObserver(Protocol):
    """What metrics need to hear. Called from the event loop: it must not wait, and must not raise."""

    def coverage_evaluated(self, outcome: Evaluated) -> None: ...

    def coverage_leads(self, senders: list[bytes]) -> None: ...

    def coverage_is(self, evaluation: Evaluation) -> None: ...

    def outlook_ended(self, look: Look) -> None: ...

    def snapshot_taken(self, snapshot: Snapshot) -> None: ...


@dataclass(slots=True)
class _Sender:
    """What is remembered of a sender that is evaluated here."""

    level: Level | None
    #: Level and escrow of the newest snapshot, recorded or under way, or else of the first evaluation; None before it.
    seen: tuple[Level, EscrowState] | None
    #: When a snapshot is due, whatever happens.
    due_at: datetime
    looking: asyncio.Task[Snapshot] | None = None
    #: Whom the tickets go to, read again at `payees_due_at`; None: it never was.
    payees: list[Payee] = field(default_factory=list)
    payees_due_at: datetime | None = None
    #: Snapshots without an outlook, to be recorded.
    exact: list[Snapshot] = field(default_factory=list)


class CoverageWatch:
    """`start` before use, `stop` after; both belong to one event loop. `told` is called after each turn."""

    def __init__(
        self,
        conninfo: str,
        escrows: Escrows,
        rules: Rules,
        settings: CoverageSettings,
        *,
        is_enforced: bool,
        observer: CoverageObserver,
        told: Callable[[], Awaitable[None]],
        role: str = SERVE_ROLE,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """`program` answers the question that looks ahead."""
        self._conninfo, self._role, self._program = conninfo, role, program
        self._escrows, self._rules, self._settings = escrows, rules, settings
        self._is_enforced = is_enforced
        self._observer = observer
        self._told = told
        self._lead: Lead | None = None
        self._senders: dict[bytes, _Sender] = {}
        #: Those whose escrow was unknown when it was last asked for here.
        self._unread: set[bytes] = set()
        self._trouble: str | None = None
        self._repeated = Repeated("watch-coverage", self._try_turn, every_s=settings.evaluate_s)

    async def start(self) -> None:
        """Waits for the first evaluation, but not for long."""
        try:
            async with asyncio.timeout(FIRST_TURN_TIMEOUT_S):
                await self._try_turn()
        except TimeoutError:
            self._be_in_trouble(f"no evaluation within {FIRST_TURN_TIMEOUT_S} s")
        self._repeated.start(at_once=False)

    async def stop(self) -> None:
        """May be called twice. Another process may evaluate from here on."""
        await self._repeated.stop()
        await self._resign()

    async def turn(self) -> None:
        """Evaluates every sender once that nobody else does. Raises psycopg.OperationalError."""
        if self._lead is None:
            self._lead = await Lead.connected(
                self._conninfo, role=self._role, silent_max_s=self._settings.gate_valid_s / 2
            )
        led = await self._lead.take(self._escrows.senders())
        self._observer.coverage_leads(led)
        for sender in led:
            await self._turn_of(self._lead, sender)

    async def _try_turn(self) -> None:
        try:
            await self.turn()
        except psycopg.OperationalError:
            await self._resign()
            self._be_in_trouble("the database does not answer")
        else:
            if self._trouble is not None:
                log.info("coverage_evaluated_again")
            self._trouble = None
        await self._told()

    async def _resign(self) -> None:
        """Everything that is remembered may be another process's business from here on."""
        lead, self._lead = self._lead, None
        known, self._senders = list(self._senders.values()), {}
        self._observer.coverage_leads([])
        await _ended(known)
        if lead is not None:
            with contextlib.suppress(psycopg.OperationalError):  # it has ended already
                await lead.close()

    async def _turn_of(self, lead: Lead, sender: bytes) -> None:
        """Whatever goes wrong for one sender is not the others' concern, unless the connection is gone.

        Who cannot evaluate it gives it back: another process may have the reading that this one lacks.
        """
        outcome = Evaluated.DONE
        try:
            known = self._senders.get(sender) or await self._remembered(lead, sender)
            self._senders[sender] = known
            await self._keep_snapshots(lead, known)
            await self._evaluate(lead, known, self._escrows.read(sender))
            self._unread.discard(sender)
        except EscrowUnknown as reason:
            outcome = Evaluated.ESCROW_UNKNOWN
            if sender not in self._unread:
                log.warning("coverage_escrow_unknown", sender=checksum_address(sender), reason=str(reason))
            self._unread.add(sender)
        except Exception as error:
            if isinstance(error, psycopg.OperationalError) and lead.is_closed:
                raise
            outcome = Evaluated.FAILED
            log.exception("coverage_not_evaluated", sender=checksum_address(sender))
        self._observer.coverage_evaluated(outcome)
        if outcome is not Evaluated.DONE:
            await lead.give_back(sender)
            await _ended([self._senders.pop(sender, None)])

    async def _remembered(self, lead: Lead, sender: bytes) -> _Sender:
        last = await lead.newest_snapshot(sender)
        if last is None:
            due_at = datetime.now(UTC) + timedelta(seconds=min(FIRST_SNAPSHOT_AFTER_S, self._settings.snapshot_s))
        else:
            due_at = last.observed_at + timedelta(seconds=self._settings.snapshot_s)
        return _Sender(await lead.level(sender), (last.level, last.state) if last is not None else None, due_at)

    async def _evaluate(self, lead: Lead, known: _Sender, escrow: Escrow) -> None:
        unseen_wei = self._rules.unseen_face_value_wei(escrow)
        # Shares are divided by what the same moment shows, and that is read only where it is likely to be needed.
        with_payers = known.level in {Level.LOW, Level.CRITICAL}
        book = await lead.book(escrow, unseen_face_value_wei=unseen_wei, with_payers=with_payers)
        evaluation = evaluate(known.level, escrow, book, self._rules)
        if evaluation.standing.level is Level.CRITICAL and not with_payers:
            book = await lead.book(escrow, unseen_face_value_wei=unseen_wei, with_payers=True)
            evaluation = evaluate(known.level, escrow, book, self._rules)
        standing = evaluation.standing
        await lead.set_gate(
            escrow.sender,
            standing.level,
            face_value_max_wei=standing.face_value_max_wei,
            valid_s=self._settings.gate_valid_s,
            shares=evaluation.shares,
        )
        # Only then what is shown to people: no call waits for it.
        evaluation = await self._with_quotes(lead, known, evaluation)
        self._note(known, evaluation)
        self._snapshot_if_due(known, evaluation, unseen_wei)

    async def _with_quotes(self, lead: Lead, known: _Sender, evaluation: Evaluation) -> Evaluation:
        """Whom the tickets go to changes slowly, and who claimed matters only while somebody has."""
        escrow, now = evaluation.escrow, datetime.now(UTC)
        if escrow.claimed_in_round_wei or known.payees_due_at is None or now >= known.payees_due_at:
            known.payees = await lead.payees(escrow)
            known.payees_due_at = now + timedelta(seconds=self._settings.snapshot_s)
            self._escrows.want_claims(escrow.sender, [payee.recipient for payee in known.payees])
        return replace(evaluation, quotes=quotes(escrow, evaluation.standing, known.payees))

    def _note(self, known: _Sender, evaluation: Evaluation) -> None:
        standing, sender = evaluation.standing, evaluation.escrow.sender
        self._observer.coverage_is(evaluation)
        if known.level is not standing.level:
            facts = {"before": known.level, "level": standing.level, "coverage_bps": standing.coverage_bps}
            is_worse = standing.level.is_worse_than(known.level or Level.OK)
            say = log.warning if is_worse and self._is_enforced else log.info
            say("coverage_level", sender=checksum_address(sender), simulated=evaluation.escrow.simulated, **facts)
        known.level = standing.level

    # --- snapshots ---

    def _snapshot_if_due(self, known: _Sender, evaluation: Evaluation, unseen_wei: int) -> None:
        """Once in a while, and on each redemption, funding, lock and change of level that is seen."""
        now, seen = datetime.now(UTC), (evaluation.standing.level, evaluation.escrow.state)
        known.seen = known.seen or seen
        if seen == known.seen and (now < known.due_at or known.looking is not None):
            return
        known.seen = seen
        snapshot = snapshot_of(evaluation, observed_at=now, is_enforced=self._is_enforced)
        if known.looking is not None:
            # One process at a time looks ahead. What is known without it is kept now, and the next look is soon.
            known.exact.append(snapshot)
            known.due_at = min(known.due_at, now + timedelta(seconds=NEXT_LOOK_AFTER_S))
            return
        known.due_at = now + timedelta(seconds=self._settings.snapshot_s)
        known.looking = asyncio.create_task(self._with_outlook(snapshot, evaluation, unseen_wei), name="look-ahead")

    async def _with_outlook(self, snapshot: Snapshot, evaluation: Evaluation, unseen_wei: int) -> Snapshot:
        settings = self._settings
        question = question_of(
            in_role(self._conninfo, self._role, application_name="clearinghouse-outlook"),
            open_parameters=open_parameters(evaluation.escrow),
            unseen_face_value_wei=unseen_wei,
            funds=evaluation.standing.funds,
            thresholds=self._rules.thresholds,
            divisor_count=self._rules.divisor_count,
            horizon_s=settings.horizon_hours * 3600,
            confidence_bps=settings.confidence_bps,
        )
        look, looked = await look_ahead(question, timeout_s=settings.outlook_timeout_s, program=self._program)
        self._observer.outlook_ended(look)
        return snapshot if looked is None else with_outlook(snapshot, looked, confidence_bps=settings.confidence_bps)

    async def _keep_snapshots(self, lead: Lead, known: _Sender) -> None:
        """Over the connection that has the lock, by the turn: nothing else writes."""
        taken, known.exact = known.exact, []
        if known.looking is not None and known.looking.done():
            looking, known.looking = known.looking, None
            taken.append(looking.result())
        for snapshot in taken:
            await lead.record(snapshot)
            self._observer.snapshot_taken(snapshot)

    def _be_in_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            log.warning("coverage_not_watched", reason=reason)
        self._trouble = reason


async def _ended(senders: Iterable[_Sender | None]) -> None:
    """Nobody looks ahead for them any more."""
    await end(*(each.looking for each in senders if each is not None and each.looking is not None))


def with_outlook(snapshot: Snapshot, looked: Looked, *, confidence_bps: int) -> Snapshot:
    """The same, with what was seen ahead. Where nothing was issued yet, nothing is burnt."""
    outlook, present = looked.outlook, looked.outlook.present
    return replace(
        snapshot,
        posterior_expected_wei=looked.posterior_expected_wei,
        posterior_deviation_wei=looked.posterior_deviation_wei,
        posterior_coverage_bps=looked.posterior_coverage_bps,
        delays_count=looked.delays_count,
        exhausted_probability=outlook.exhausted_probability,
        posterior_exhausted_probability=outlook.posterior_exhausted_probability,
        horizon_s=outlook.horizon_s,
        confidence_bps=confidence_bps,
        exhausted_in_horizon_probability=(
            present.exhausted_probability if present else outlook.posterior_exhausted_probability
        ),
        burn_wei_per_day=present.burn_wei_per_day if present else 0,
        empty_median_s=present.empty_median_s if present else None,
        empty_pessimistic_s=present.empty_pessimistic_s if present else None,
        windows=outlook.windows,
        top_up_reserve_wei=outlook.top_up.reserve_wei,
        top_up_deposit_wei=outlook.top_up.deposit_wei,
    )
