"""The one place where everything is put together: settings in, a running clearinghouse out.

Whoever wants to know how the parts depend on one another reads `running_service` from top to bottom. configured.py
makes what the settings speak of, beside.py starts what goes on beside the calls, ports.py opens what listens. What is
started is stopped in reverse, also when a start fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.escrow import EscrowView
from chain.rates import PriceSource
from chain.signatures import SigningKey, checksum_address
from clearinghouse.api.grpc_server import GrpcApi
from clearinghouse.api.http import HttpApi
from clearinghouse.api.management import management_app
from clearinghouse.api.stripe_webhook import StripeWebhook, stripe_webhook_of
from clearinghouse.api.webhook import Webhook
from clearinghouse.api.wiring import Routes
from clearinghouse.approving import Approving
from clearinghouse.beside import beat, follow_senders, index_chain, keep_house, watch_signer_events
from clearinghouse.chain_watch import ChainWatch, budgets_of, chain_watched
from clearinghouse.charging import Charging
from clearinghouse.commits import GroupCommit
from clearinghouse.config import WEBHOOK_NOT_IN_PROCESS, Settings, missing_for_prices
from clearinghouse.configured import (
    ServiceError,
    endpoints,
    escrow_of,
    is_coverage_enforced,
    maybe_address,
    native_signer,
    payment_budget,
    policy_of,
    recipients_of,
    revealed,
)
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.coverage.running import coverage_watched
from clearinghouse.database.connect import ADMIN_ROLE
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import current_revision, newest_revision
from clearinghouse.gates import Gates
from clearinghouse.ground import Ground
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.identity.webhook_signers import SignerAuthenticator
from clearinghouse.lookups import Lookups
from clearinghouse.metrics import Metrics
from clearinghouse.open_ev import OpenEvCeiling
from clearinghouse.orchestrators import CrossCheck
from clearinghouse.ports import open_ports
from clearinghouse.price_watch import prices_watched
from clearinghouse.probes import probe_database, probe_native, probe_pool
from clearinghouse.process import settle_memory
from clearinghouse.rate_watch import RateWatch
from clearinghouse.readiness import Probe, Readiness
from clearinghouse.rpc.limits import RpcLimits
from clearinghouse.session_cache import SessionCache
from clearinghouse.signers.base import Signer
from clearinghouse.signers.pool import SignerPool
from clearinghouse.signing import Signing
from clearinghouse.unreleased import UnreleasedLog

#: How long a key and its terms are taken as they were last read or confirmed by a commit. It bounds only how long a
#: revoked key may still read: the commit compares key, gateway and terms with the database each time.
CALLERS_REMEMBER_S = 30
#: About 3 KiB each.
SESSIONS_REMEMBERED_MAX_COUNT = 20_000
LOOKUP_BATCH_ROWS = 512
#: Of their own: a burst of Stripe's events takes none from whoever pays.
STRIPE_CONNECTIONS_COUNT = 2


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
    routes: Sequence[Routes] = (),
) -> AsyncIterator[RunningService]:
    """A clearinghouse that answers until the block ends.

    `conninfo` needs the rights of clearinghouse_serve, `admin_conninfo` those of clearinghouse_admin (None: no
    management API); `routes` are further ones of that. Raises ServiceError, SignerPoolError or OSError (an address
    that is taken).
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics(CollectorRegistry(), version=version("livepeer-clearinghouse"))
        budgets = budgets_of(settings.chain, waited=metrics.chain.rpc_waited)
        ground = Ground(stack, settings, conninfo, metrics, budgets)
        engine = ground.engine()
        # What gateways read has connections of its own: whoever takes all of them keeps nobody from being paid for.
        reads = ground.engine()
        admin_engine = ground.engine(admin_conninfo, ADMIN_ROLE) if admin_conninfo is not None else None
        await _require_schema(engine)

        books = _books(ground, secrets)
        keys = await _keys(ground, secrets)
        follow_senders(ground, engine, keys.watch)
        sender = keys.signer.address
        watched = coverage_watched(
            settings, conninfo, sender, chain=keys.watch, declared=keys.escrow, metrics=metrics.coverage
        )
        cover = await stack.enter_async_context(watched)
        if missing := missing_for_prices(settings):
            raise ServiceError(" ".join(missing))
        prices = await stack.enter_async_context(
            prices_watched(settings, engine, metrics=metrics.prices, quorum_observer=metrics.chain, budgets=budgets)
        )
        rates = await _rates(ground, engine)
        judged = await _judged(ground, books, keys, prices=prices.prices, cover=cover, rates=rates)
        signing = _signing(ground, engine, books, keys, judged)

        probes: dict[str, Probe] = {
            "database": partial(probe_database, engine),
            "signer": keys.probe,
            "price": prices.probe,
            "coverage": cover.probe,
        }
        readiness = Readiness(probes if keys.watch is None else {**probes, "chain": keys.watch.probe})
        await keep_house(ground, engine, embedded)
        beat(ground, readiness, keys.signer, keys.watch)
        watch_signer_events(ground)
        await index_chain(ground, sender, keys.watch)

        core = _Core(signing, books.authenticator, keys.signer, reads, readiness, metrics)
        webhook = _webhook(ground, secrets, books, judged) if settings.webhook.enabled else None
        stripe = stripe_webhook_of(settings.stripe, ground.engine(pool_size=STRIPE_CONNECTIONS_COUNT))
        http = _http_api(
            settings, secrets, core, prices=prices.prices, cover=cover, admin_engine=admin_engine, webhook=webhook,
            stripe=stripe, routes=routes,
        )  # fmt: skip
        grpc_api = GrpcApi(
            **core._asdict(),
            limits=RpcLimits(
                read_timeout_s=settings.listen.read_timeout_s, idle_timeout_s=settings.listen.idle_timeout_s
            ),
        )
        http_port, grpc_port = await open_ports(stack, settings, http, grpc_api, metrics)
        settle_memory()
        yield RunningService(http_port, grpc_port, checksum_address(sender), readiness)


class _Books(NamedTuple):
    """What a call reads from the database, and how it is written there."""

    lookups: Lookups
    commits: GroupCommit
    authenticator: Authenticator


def _books(ground: Ground, secrets: Secrets) -> _Books:
    limits = ground.settings.limits
    lookups = Lookups(ground.conninfo, batch_rows_max_count=LOOKUP_BATCH_ROWS)
    ground.stack.push_async_callback(lookups.close)
    commits = GroupCommit(
        ground.conninfo,
        batch_rows_max_count=limits.commit_batch_rows,
        deadline_s=limits.request_deadline_s,
        metrics=ground.metrics,
        is_coverage_enforced=is_coverage_enforced(ground.settings),
    )
    ground.stack.push_async_callback(commits.close)
    authenticator = Authenticator(
        lookups,
        pepper=secrets.api_key_pepper,
        remember_s=CALLERS_REMEMBER_S,
        processes_count=limits.processes_count,
    )
    return _Books(lookups, commits, authenticator)


class _Keys(NamedTuple):
    """Who signs, and what is known of the escrow that stands behind it."""

    signer: Signer
    probe: Probe
    #: None: nobody has said what is in it.
    escrow: EscrowView | None
    #: None: the chain is not read.
    watch: ChainWatch | None


async def _keys(ground: Ground, secrets: Secrets) -> _Keys:
    settings = ground.settings
    if settings.signer.kind == "native":
        if secrets.native_key is None:
            raise ServiceError("signer.kind is native, but there is no key to sign with.")
        if settings.signer.native.webhook_url is not None:
            raise ServiceError(WEBHOOK_NOT_IN_PROCESS)
        watch = await _watch(ground, secrets.native_key.address)
        escrow = escrow_of(secrets.native_key.address, settings.escrow, watch)
        native = native_signer(secrets.native_key, settings.signer.native, escrow)
        return _Keys(native, partial(probe_native, native, is_simulated=watch is None), escrow, watch)
    pool = SignerPool(
        endpoints(settings.signer.go_livepeer),
        expected_address=maybe_address(settings.signer.go_livepeer.expected_address),
        payment_budget=payment_budget(settings.signer.go_livepeer.timeout_s),
        observer=ground.metrics,
    )
    await pool.start()
    ground.stack.push_async_callback(pool.close)
    watch = await _watch(ground, pool.address)
    return _Keys(pool, partial(probe_pool, pool), watch.escrow if watch is not None else None, watch)


async def _watch(ground: Ground, sender: bytes) -> ChainWatch | None:
    chain, observer = ground.settings.chain, ground.metrics.chain
    if not chain.is_configured:
        return None
    watch = await ground.stack.enter_async_context(
        chain_watched(chain, sender, observer=observer, feed_observer=observer, budgets=ground.budgets)
    )
    observer.watch(chain.network, watch.age_s)
    return watch


class _Judged(NamedTuple):
    """What both ways in share: policy, money and the sessions that are remembered."""

    gates: Gates
    charging: Charging
    sessions: SessionCache


async def _judged(
    ground: Ground, books: _Books, keys: _Keys, *, prices: PriceSource, cover: EarlyGate, rates: RateWatch
) -> _Judged:
    policy = ground.settings.policy
    gates = Gates(policy_of(policy), recipients=recipients_of(policy, keys.watch), escrow=keys.escrow)
    charging = Charging(
        authenticator=books.authenticator,
        prices=prices,
        commits=books.commits,
        usage=books.lookups,
        ceiling=await _ceiling(ground),
        cover=cover,
        rates=rates,
    )
    return _Judged(gates, charging, SessionCache(sessions_max_count=SESSIONS_REMEMBERED_MAX_COUNT))


async def _rates(ground: Ground, engine: AsyncEngine) -> RateWatch:
    watch = RateWatch(engine)
    await watch.start()
    return ground.stops(watch)


async def _ceiling(ground: Ground) -> OpenEvCeiling | None:
    """With a connection of its own: without its readings nothing is signed."""
    if (max_wei := ground.settings.policy.ev_open_max_wei) is None:
        return None
    ceiling = OpenEvCeiling(ground.engine(pool_size=1), max_wei=max_wei)
    await ceiling.start()
    return ground.stops(ceiling)


def _signing(ground: Ground, engine: AsyncEngine, books: _Books, keys: _Keys, judged: _Judged) -> Signing:
    unreleased = ground.stops(UnreleasedLog(engine, ground.metrics.signer_events))
    unreleased.start()
    return Signing(
        authenticator=books.authenticator,
        lookups=books.lookups,
        **judged._asdict(),
        signer=keys.signer,
        metrics=ground.metrics,
        deadline_s=ground.settings.limits.request_deadline_s,
        crosscheck=_crosscheck(ground, keys.signer),
        # In process nothing is reported, so nothing has to be explained.
        keep_unreleased=unreleased.keep if isinstance(keys.signer, SignerPool) else None,
    )


def _crosscheck(ground: Ground, signer: Signer) -> CrossCheck | None:
    policy = ground.settings.policy
    if policy.crosscheck == "off":
        return None
    crosscheck = CrossCheck(
        signer,
        mode=policy.crosscheck,
        timeout_s=policy.crosscheck_timeout_s,
        remember_s=policy.crosscheck_remember_s,
        private_hosts_allowed=policy.crosscheck_private_hosts_allowed,
        metrics=ground.metrics,
    )
    ground.stack.callback(crosscheck.close)
    return crosscheck


def _webhook(ground: Ground, secrets: Secrets, books: _Books, judged: _Judged) -> Webhook:
    approving = Approving(
        authenticator=books.authenticator,
        lookups=books.lookups,
        **judged._asdict(),
        metrics=ground.metrics,
        deadline_s=ground.settings.webhook.deadline_s,
        repeats_max_count=ground.settings.webhook.repeats_per_hour_count,
    )
    signers = SignerAuthenticator(books.lookups, pepper=secrets.api_key_pepper)
    return Webhook(approving, signers, metrics=ground.metrics)


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
    cover: EarlyGate,
    admin_engine: AsyncEngine | None,
    webhook: Webhook | None,
    stripe: StripeWebhook | None,
    routes: Sequence[Routes],
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
        cover=cover,
        notices=settings.notices,
        dunning=settings.dunning,
        above=routes,
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
        stripe=stripe,
    )


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


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).partition("\n")[0]
