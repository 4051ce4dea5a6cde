"""The job `invoices`: what is due is planned, and what is planned goes on to Stripe, a part of it each turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final, Literal, NamedTuple, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter

from clearinghouse.config import Settings
from clearinghouse.errors import Refusal
from clearinghouse.hot_metrics import NAMESPACE
from clearinghouse.ids import show
from settlement.invoices.crediting import finish
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.not_credited import BeingPaid
from settlement.invoices.note_store import CreditNote, notes_under_way
from settlement.invoices.run import Planned, Walked, held_words, plan_due, waiting_invoices, walk_all
from settlement.invoices.store import Choice, held
from settlement.invoices.walk import CustomerOf, Walker
from settlement.rerating.finish import finish as finish_rerating
from settlement.rerating.finish import note_reason
from settlement.rerating.refusals import ReratingBusy
from settlement.rerating.store import reratings_under_way
from settlement.schedule import Job, JobFailed, Tick
from settlement.stripe_link.client import StripeAway
from settlement.stripe_link.desk import Desk, desk_of

log = structlog.get_logger(__name__)

EVERY_S: Final = 60
#: What was planned waits meanwhile: no longer than this at a time.
_PLAN_FOR_S: Final = 10
#: From the beginning of a turn. Then the next one goes on, almost at once: a job that takes for hours would look late,
#: and one that pauses would not use Stripe's rate.
_WALK_UNTIL_S: Final = 57
#: What was held up is tried again so much later, unless somebody runs it by hand.
_HELD_FOR: Final = timedelta(minutes=15)
_NAMED_MAX_COUNT: Final = 3
Outcome = Literal["planned", "carried", "nothing_due", "issued", "held", "not_planned"]


class InvoicesHeld(JobFailed):
    """Some periods are not asked for before somebody has looked. `clearinghouse invoices list` has them."""


class InvoiceMetrics:
    """What this process did. The labels are all there from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "invoices", "Periods that invoices were planned for, issued, or not.", ["outcome"],
            namespace=NAMESPACE, registry=registry,
        )  # fmt: skip
        self._counters = {outcome: counter.labels(outcome) for outcome in get_args(Outcome)}

    def saw(self, planned: Planned, walked: Walked) -> None:
        for state in ("planned", "carried", "nothing_due"):
            self._counters[state].inc(planned.count(state))
        self._counters["not_planned"].inc(len(planned.problems))
        self._counters["held"].inc(len(walked.held))
        self._counters["issued"].inc(sum(each.state in {"open", "paid"} for each in walked.invoices))


def invoice_jobs(settings: Settings, registry: CollectorRegistry, *, customer_of: CustomerOf) -> tuple[Job, ...]:
    """None without an account at Stripe."""
    if settings.stripe.api_key is None:
        return ()
    metrics = InvoiceMetrics(registry)

    async def tick(tick: Tick) -> str:
        async with desk_of(settings.stripe, tick) as desk:
            return await turn(tick, Walker(desk, customer_of), settings, metrics)

    return (Job("invoices", EVERY_S, tick),)


async def turn(tick: Tick, walker: Walker, settings: Settings, metrics: InvoiceMetrics) -> str:
    """One turn. Raises InvoicesHeld, and JobFailed where Stripe does not answer: the next turn goes on."""
    engine, planned, defaults = walker.desk.engine, Planned(), InvoiceDefaults.by(settings)
    clock = asyncio.get_running_loop().time
    until_s = clock() + _WALK_UNTIL_S
    if settings.invoices.automatic:
        planned = await plan_due(engine, Choice(), defaults=defaults, within_s=_PLAN_FOR_S)
    waiting = await waiting_invoices(engine, Choice(), tick.now, not_since=tick.now - _HELD_FOR)
    left_s = max(0, int(until_s - clock()))
    walked = await walk_all(walker, waiting, in_flight_count=settings.invoices.in_flight_count, within_s=left_s)
    metrics.saw(planned, walked)
    said = said_of(planned, walked)
    begun = await _finish_all(walker, defaults, until_s) if walked.away is None else Begun([], 0, [])
    if begun.waiting_count:
        said += f", {begun.waiting_count} begun and waiting"
    if begun.gave_back:
        said += f", given back since it was paid meanwhile: {'; '.join(begun.gave_back[:_NAMED_MAX_COUNT])}"
    async with engine.connect() as connection:
        words = [*planned.problems, *(held_words(invoice) for invoice in await held(connection)), *begun.held]
    if walked.away is not None:
        raise JobFailed("; ".join((said, str(walked.away), *words[:_NAMED_MAX_COUNT])))
    if words:
        more = f" and {len(words) - _NAMED_MAX_COUNT} more" if len(words) > _NAMED_MAX_COUNT else ""
        raise InvoicesHeld(f"{len(words)} held up: {'; '.join(words[:_NAMED_MAX_COUNT])}{more}")
    return said


class Begun(NamedTuple):
    """Credit notes and re-ratings: why some are held up, and how many wait for what ends by itself, such as a bank's
    answer to a debit. `gave_back`: notes that were to leave less to pay of what was paid meanwhile."""

    held: list[str]
    waiting_count: int
    gave_back: list[str]


async def _finish_all(walker: Walker, defaults: InvoiceDefaults, until_s: float) -> Begun:
    """Those that somebody began and did not live to finish: one that cannot go on keeps no other. After `until_s` by
    the loop's clock no further one is begun, until the next turn."""
    async with walker.desk.engine.connect() as connection:
        notes, reratings = await notes_under_way(connection), await reratings_under_way(connection)
    theirs = {(each.invoice_id, note_reason(each)) for each in reratings}  # which go on with their notes themselves
    gave_back = list[str]()
    waiting: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        *(
            (_name_of(each), partial(_finish_note, walker.desk, each, gave_back))
            for each in notes
            if (each.invoice_id, each.reason) not in theirs
        ),
        *((each.name, partial(finish_rerating, walker, each.id, defaults=defaults)) for each in reratings),
    ]
    words, waiting_count = list[str](), 0
    for name, go_on in waiting:
        if asyncio.get_running_loop().time() >= until_s:
            break
        try:
            await go_on()
        except (BeingPaid, ReratingBusy) as reason:
            log.info("credit_waits", what=name, reason=str(reason))
            waiting_count += 1
        except (Refusal, StripeAway) as reason:
            words.append(f"{name}: {reason}")
        except Exception as bug:
            log.exception("credit_not_finished", what=name)
            words.append(f"{name}: {bug!r}")
    return Begun(words, waiting_count, gave_back)


async def _finish_note(desk: Desk, begun: CreditNote, gave_back: list[str]) -> None:
    """Raises as `finish` does."""
    made = await finish(desk, begun.id)
    if made.id != begun.id:
        gave_back.append(f"{_name_of(made)}, {made.gives}")


def _name_of(note: CreditNote) -> str:
    """What may be looked up."""
    return f"credit note {show('crn', note.id)} on {show('inv', note.invoice_id)}"


def said_of(planned: Planned, walked: Walked) -> str:
    """In one line."""
    counts = {
        "planned": planned.count("planned"), "carried": planned.count("carried"),
        "with nothing due": planned.count("nothing_due"), "walked": len(walked.invoices),
        "not planned yet": planned.left_count, "gateways planned for elsewhere": len(planned.busy),
        "left for later": walked.left_count, "at others": walked.elsewhere_count,
    }  # fmt: skip
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing was due"
