"""The one place where everything is put together: settings in, a running clearinghouse out.

Whoever wants to know how the parts depend on one another reads `running_service` from top to bottom. configured.py
makes what the settings speak of, ports.py opens what listens. What is started is stopped in reverse, also when a start
fails.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.escrow import EscrowView
from chain.rates import PriceSource
from chain.signatures import SigningKey, checksum_address
from clearinghouse.api.grpc_bounds import CallBounds
from clearinghouse.api.grpc_server import GrpcApi
from clearinghouse.api.http import HttpApi
from clearinghouse.api.management import management_app
from clearinghouse.api.webhook import Webhook
from clearinghouse.approving import Approving
from clearinghouse.chain_watch import ChainWatch, chain_watched
from clearinghouse.charging import Charging
from clearinghouse.commits import GroupCommit
from clearinghouse.config import WEBHOOK_NOT_IN_PROCESS, ChainSettings, PolicySettings, Settings, missing_for_prices
from clearinghouse.configured import (
    ServiceError,
    endpoints,
    escrow_of,
    expected_payments,
    kafka_source,
    maybe_address,
    native_signer,
    payment_budget,
    policy_of,
    recipients_of,
    revealed,
)
from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import current_revision, newest_revision
from clearinghouse.fee_watch import FeeWatch
from clearinghouse.gates import Gates
from clearinghouse.housekeeping import Housekeeping
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.identity.webhook_signers import SignerAuthenticator
from clearinghouse.indexer import IndexWatch, indexer_of
from clearinghouse.lookups import Lookups
from clearinghouse.metrics import Metrics
from clearinghouse.open_ev import OpenEvCeiling
from clearinghouse.orchestrators import CrossCheck
from clearinghouse.ports import open_ports
from clearinghouse.price_watch import prices_watched
from clearinghouse.readiness import NotReady, Probe, Readiness
from clearinghouse.session_cache import SessionCache
from clearinghouse.signer_events.kafka import KafkaIntake, KafkaNotInstalled
from clearinghouse.signer_events.store import Intake, log_bad_event
from clearinghouse.signer_events.watch import SignerEventWatch
from clearinghouse.signers.base import Signer
from clearinghouse.signers.native import NativeSigner
from clearinghouse.signers.pool import SignerPool
from clearinghouse.signing import Signing
from clearinghouse.unreleased import UnreleasedLog

#: How long a key and its terms are taken as they were last read or confirmed by a commit. It bounds only how long a
#: revoked key may still read: the commit compares key, gateway and terms with the database each time.
CALLERS_REMEMBER_S = 30
#: About 3 KiB each.
SESSIONS_REMEMBERED_MAX_COUNT = 20_000
LOOKUP_BATCH_ROWS = 512


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the service must know and nobody else may."""

    api_key_pepper: bytes
    #: The ticket key, for a native signer.
    native_key: SigningKey | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True, slots=True)
class RunningService:
    """What others need to know of a service that runs."""

    http_port: int
    grpc_port: int
    #: EIP-55 hex.
    sender_address: str
    readiness: Readiness


@asynccontextmanager
async def running_service(
    settings: Settings,
    *,
    conninfo: str,
    admin_conninfo: str | None,
    secrets: Secrets,
    embedded: EmbeddedPostgres | None = None,
) -> AsyncIterator[RunningService]:
    """A clearinghouse that answers until the block ends.

    `conninfo` needs the rights of clearinghouse_serve, `admin_conninfo` those of clearinghouse_admin (None: no
    management API). Raises ServiceError, SignerPoolError or OSError (an address that is taken).
    """
    async with AsyncExitStack() as stack:
        registry = CollectorRegistry()
        metrics = Metrics(registry, version=version("livepeer-clearinghouse"))
        engine = _engine(stack, conninfo, SERVE_ROLE)
        # What gateways read has connections of its own: whoever takes all of them keeps nobody from being paid for.
        reads = _engine(stack, conninfo, SERVE_ROLE)
        admin_engine = _engine(stack, admin_conninfo, ADMIN_ROLE) if admin_conninfo is not None else None
        await _require_schema(engine)

        lookups = Lookups(conninfo, batch_rows_max_count=LOOKUP_BATCH_ROWS)
        stack.push_async_callback(lookups.close)
        commits = GroupCommit(
            conninfo,
            batch_rows_max_count=settings.limits.commit_batch_rows,
            deadline_s=settings.limits.request_deadline_s,
            metrics=metrics,
        )
        stack.push_async_callback(commits.close)
        authenticator = Authenticator(
            lookups,
            pepper=secrets.api_key_pepper,
            remember_s=CALLERS_REMEMBER_S,
            processes_count=settings.limits.processes_count,
        )
        signer, signer_probe, escrow, watch = await _signer(stack, settings, secrets, metrics)
        if missing := missing_for_prices(settings):
            raise ServiceError(" ".join(missing))
        watched = prices_watched(settings, engine, metrics=metrics.prices, quorum_observer=metrics.chain)
        prices = await stack.enter_async_context(watched)
        charging = Charging(
            authenticator=authenticator,
            prices=prices.prices,
            commits=commits,
            usage=lookups,
            ceiling=await _ceiling(stack, settings.policy, conninfo),
        )
        unreleased = UnreleasedLog(engine, metrics.signer_events)
        unreleased.start()
        stack.push_async_callback(unreleased.stop)
        gates = Gates(policy_of(settings.policy), recipients=recipients_of(settings.policy, watch), escrow=escrow)
        sessions = SessionCache(sessions_max_count=SESSIONS_REMEMBERED_MAX_COUNT)
        signing = Signing(
            authenticator=authenticator,
            lookups=lookups,
            sessions=sessions,
            gates=gates,
            charging=charging,
            signer=signer,
            metrics=metrics,
            deadline_s=settings.limits.request_deadline_s,
            crosscheck=_crosscheck(stack, settings.policy, signer, metrics),
            # In process nothing is reported, so nothing has to be explained.
            keep_unreleased=unreleased.keep if isinstance(signer, SignerPool) else None,
        )
        approving = Approving(
            authenticator=authenticator,
            lookups=lookups,
            sessions=sessions,
            gates=gates,
            charging=charging,
            metrics=metrics,
            deadline_s=settings.webhook.deadline_s,
            repeats_max_count=settings.webhook.repeats_per_hour_count,
        )
        probes: dict[str, Probe] = {
            "database": partial(_probe_database, engine),
            "signer": signer_probe,
            "price": prices.probe,
        }
        readiness = Readiness(probes if watch is None else {**probes, "chain": watch.probe})
        housekeeping = Housekeeping(
            engine,
            keyed_answers_kept=timedelta(hours=settings.limits.keyed_answer_hours),
            price_observations_kept=timedelta(days=settings.price.observations_kept_days),
            fee_watch=FeeWatch(settings.policy.fee_watch_ratio_min_bps, settings.policy.fee_watch_ev_min_wei),
            embedded=embedded,
            metrics=metrics,
        )
        await housekeeping.start()
        stack.push_async_callback(housekeeping.stop)

        _watch_signer_events(stack, settings, conninfo, metrics)
        await _index_chain(stack, settings.chain, conninfo, signer.address, metrics)
        core = _Core(signing, authenticator, signer, reads, readiness, metrics)
        signers = SignerAuthenticator(lookups, pepper=secrets.api_key_pepper)
        webhook = Webhook(approving, signers, metrics=metrics) if settings.webhook.enabled else None
        http = _http_api(settings, secrets, core, prices=prices.prices, admin_engine=admin_engine, webhook=webhook)
        grpc_api = GrpcApi(**core._asdict(), bounds=CallBounds(read_timeout_s=settings.listen.read_timeout_s))
        http_port, grpc_port = await open_ports(stack, settings, http, grpc_api, metrics)
        _settle_memory()
        yield RunningService(http_port, grpc_port, checksum_address(signer.address), readiness)


class _Core(NamedTuple):
    """What every way in leads to."""

    signing: Signing
    authenticator: Authenticator
    signer: Signer
    engine: AsyncEngine
    readiness: Readiness
    metrics: Metrics


def _http_api(
    settings: Settings,
    secrets: Secrets,
    core: _Core,
    *,
    prices: PriceSource,
    admin_engine: AsyncEngine | None,
    webhook: Webhook | None,
) -> HttpApi:
    body_max_bytes, read_timeout_s = settings.listen.body_max_bytes, settings.listen.read_timeout_s
    management = management_app(
        authenticator=core.authenticator,
        engine=core.engine,
        admin_engine=admin_engine,
        prices=prices,
        pepper=secrets.api_key_pepper,
        admin_token=revealed(settings.api.admin_token),
        metrics=core.metrics,
        metrics_token=revealed(settings.api.metrics_token),
        readiness=core.readiness,
        docs_enabled=settings.api.docs_enabled,
        body_max_bytes=body_max_bytes,
        read_timeout_s=read_timeout_s,
    )
    return HttpApi(
        signing=core.signing,
        authenticator=core.authenticator,
        signer=core.signer,
        metrics=core.metrics,
        management=management,
        body_max_bytes=body_max_bytes,
        read_timeout_s=read_timeout_s,
        webhook=webhook,
    )


def _watch_signer_events(stack: AsyncExitStack, settings: Settings, conninfo: str, metrics: Metrics) -> None:
    """Beside the calls, over connections of its own."""
    engine = _engine(stack, conninfo, SERVE_ROLE)
    watch = SignerEventWatch(
        engine,
        expected=expected_payments(settings),
        grace=timedelta(seconds=settings.signer_events.grace_s),
        kept=timedelta(days=settings.signer_events.keep_days),
        shown=metrics.signer_events,
    )
    watch.start()
    stack.push_async_callback(watch.stop)
    if (source := kafka_source(settings.signer_events)) is None:
        return
    try:
        intake = Intake(engine, on_kinds=metrics.signer_events.read, on_bad=log_bad_event)
        consumer = KafkaIntake(source, intake, on_lag=metrics.signer_events.lag)
    except KafkaNotInstalled as error:
        raise ServiceError(str(error)) from error
    consumer.start()
    stack.push_async_callback(consumer.stop)


async def _ceiling(stack: AsyncExitStack, policy: PolicySettings, conninfo: str) -> OpenEvCeiling | None:
    """With a connection of its own: without its readings nothing is signed."""
    if policy.ev_open_max_wei is None:
        return None
    ceiling = OpenEvCeiling(_engine(stack, conninfo, SERVE_ROLE, pool_size=1), max_wei=policy.ev_open_max_wei)
    await ceiling.start()
    stack.push_async_callback(ceiling.stop)
    return ceiling


def _crosscheck(stack: AsyncExitStack, policy: PolicySettings, signer: Signer, metrics: Metrics) -> CrossCheck | None:
    if policy.crosscheck == "off":
        return None
    crosscheck = CrossCheck(
        signer,
        mode=policy.crosscheck,
        timeout_s=policy.crosscheck_timeout_s,
        remember_s=policy.crosscheck_remember_s,
        private_hosts_allowed=policy.crosscheck_private_hosts_allowed,
        metrics=metrics,
    )
    stack.callback(crosscheck.close)
    return crosscheck


async def _signer(
    stack: AsyncExitStack, settings: Settings, secrets: Secrets, metrics: Metrics
) -> tuple[Signer, Probe, EscrowView | None, ChainWatch | None]:
    """With the escrow of its sender, where it can be read, and the watch over the chain, where there is one."""
    if settings.signer.kind == "native":
        if secrets.native_key is None:
            raise ServiceError("signer.kind is native, but there is no key to sign with.")
        if settings.signer.native.webhook_url is not None:
            raise ServiceError(WEBHOOK_NOT_IN_PROCESS)
        watch = await _watch(stack, settings.chain, secrets.native_key.address, metrics)
        escrow = escrow_of(secrets.native_key.address, settings.escrow, watch)
        native = native_signer(secrets.native_key, settings.signer.native, escrow)
        return native, partial(_probe_native, native, is_simulated=watch is None), escrow, watch
    pool = SignerPool(
        endpoints(settings.signer.go_livepeer),
        expected_address=maybe_address(settings.signer.go_livepeer.expected_address),
        payment_budget=payment_budget(settings.signer.go_livepeer.timeout_s),
        observer=metrics,
    )
    await pool.start()
    stack.push_async_callback(pool.close)
    watch = await _watch(stack, settings.chain, pool.address, metrics)
    return pool, partial(_probe_pool, pool), watch.escrow if watch is not None else None, watch


async def _watch(stack: AsyncExitStack, chain: ChainSettings, sender: bytes, metrics: Metrics) -> ChainWatch | None:
    if not chain.is_configured:
        return None
    watch = await stack.enter_async_context(chain_watched(chain, sender, observer=metrics.chain))
    metrics.chain.watch(chain.network, watch.age_s)
    return watch


async def _index_chain(
    stack: AsyncExitStack, chain: ChainSettings, conninfo: str, sender: bytes, metrics: Metrics
) -> None:
    """Beside the calls, over connections of its own."""
    if not (chain.is_configured and chain.index_enabled):
        return
    indexer = await stack.enter_async_context(indexer_of(chain, conninfo, [sender], observer=metrics.chain))
    watch = IndexWatch(indexer, poll_s=chain.poll_s)
    watch.start()
    stack.push_async_callback(watch.stop)


def _engine(stack: AsyncExitStack, conninfo: str, role: str, *, pool_size: int = 4) -> AsyncEngine:
    engine = async_engine(in_role(conninfo, role), pool_size=pool_size)
    stack.push_async_callback(engine.dispose)
    return engine


async def _require_schema(engine: AsyncEngine) -> None:
    """Raises ServiceError when the database cannot be used as it is."""
    try:
        async with engine.connect() as connection:
            revision = await connection.run_sync(current_revision)
    except DBAPIError as error:
        raise ServiceError(f"The database cannot be used: {_first_line(error)}") from error
    if revision != newest_revision():
        raise ServiceError(
            f"The database is at revision {revision or 'none'}, this release needs {newest_revision()}: "
            "run `clearinghouse migrate`."
        )


async def _probe_database(engine: AsyncEngine) -> str:
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (DBAPIError, PoolTimeoutError):
        raise NotReady("the database does not answer: check that it runs and that database_url is right") from None
    return "answers"


async def _probe_native(signer: NativeSigner, *, is_simulated: bool) -> str:
    escrow = "a simulated escrow" if is_simulated else "the escrow that is read from the chain"
    return f"native, signs as {checksum_address(signer.address)} over {escrow}"


async def _probe_pool(pool: SignerPool) -> str:
    members = pool.members()
    healthy = [member for member in members if member.healthy]
    if not healthy:
        raise NotReady("no signer is healthy: " + ", ".join(f"{member.name} {member.last_error}" for member in members))
    return f"{len(healthy)} of {len(members)} signers healthy"


def _settle_memory() -> None:
    """What was made at start stays: the collector need not look at it again, which halves the 99th percentile."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).partition("\n")[0]
