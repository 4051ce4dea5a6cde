"""What a service does beside the calls: nothing here is waited for by one, and all of it has connections of its own."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.chain_senders import KnownSenders
from clearinghouse.chain_watch import ChainWatch
from clearinghouse.configured import ServiceError, expected_payments, kafka_source
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.fee_watch import FeeWatch
from clearinghouse.ground import Ground
from clearinghouse.heartbeat import Heartbeat
from clearinghouse.housekeeping import Housekeeping
from clearinghouse.indexer import IndexWatch, indexer_of
from clearinghouse.probes import probe_members
from clearinghouse.readiness import Probe, Readiness
from clearinghouse.signer_events.kafka import KafkaIntake, KafkaNotInstalled
from clearinghouse.signer_events.store import Intake, log_bad_event
from clearinghouse.signer_events.watch import SignerEventWatch
from clearinghouse.signers.base import Signer
from clearinghouse.signers.pool import SignerPool


def follow_senders(ground: Ground, engine: AsyncEngine, watch: ChainWatch | None) -> None:
    if watch is not None:
        ground.stops(KnownSenders(engine, watch.follow)).start()


async def keep_house(ground: Ground, engine: AsyncEngine, embedded: EmbeddedPostgres | None) -> None:
    settings = ground.settings
    housekeeping = Housekeeping(
        engine,
        keyed_answers_kept=timedelta(hours=settings.limits.keyed_answer_hours),
        price_observations_kept=timedelta(days=settings.price.observations_kept_days),
        coverage_snapshots_kept=timedelta(days=settings.coverage.snapshots_kept_days),
        fee_watch=FeeWatch(settings.policy.fee_watch_ratio_min_bps, settings.policy.fee_watch_ev_min_wei),
        embedded=embedded,
        metrics=ground.metrics,
    )
    await housekeeping.start()
    ground.stops(housekeeping)


def beat(ground: Ground, readiness: Readiness, signer: Signer, watch: ChainWatch | None) -> None:
    """What readiness shows, and what is no reason to be avoided."""
    probes: dict[str, Probe] = {}
    if isinstance(signer, SignerPool):
        probes["signer_members"] = partial(probe_members, signer)
    if watch is not None:
        probes["chain_agreement"] = watch.agreement_probe
    ground.stops(Heartbeat(ground.engine(pool_size=1), readiness, probes)).start()


def watch_signer_events(ground: Ground) -> None:
    settings, metrics = ground.settings, ground.metrics
    engine = ground.engine()
    watch = SignerEventWatch(
        engine,
        expected=expected_payments(settings),
        grace=timedelta(seconds=settings.signer_events.grace_s),
        kept=timedelta(days=settings.signer_events.keep_days),
        shown=metrics.signer_events,
    )
    ground.stops(watch).start()
    if (source := kafka_source(settings.signer_events)) is None:
        return
    try:
        intake = Intake(engine, on_kinds=metrics.signer_events.read, on_bad=log_bad_event)
        consumer = KafkaIntake(source, intake, on_lag=metrics.signer_events.lag)
    except KafkaNotInstalled as error:
        raise ServiceError(str(error)) from error
    ground.stops(consumer).start()


async def index_chain(ground: Ground, sender: bytes, watch: ChainWatch | None) -> None:
    chain = ground.settings.chain
    if watch is None or not chain.index_enabled:
        return
    indexer = await ground.stack.enter_async_context(
        indexer_of(chain, ground.conninfo, [sender], observer=ground.metrics.chain, budgets=ground.budgets)
    )
    reading = IndexWatch(indexer, poll_s=chain.poll_s)
    reading.start()
    watch.also_wake(reading.wake)
    ground.stops(reading)
