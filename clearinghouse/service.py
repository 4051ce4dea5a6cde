"""The one place where everything is put together: settings in, a running clearinghouse out.

Nothing below this module reaches for settings or for each other; whoever wants to know how the parts depend on one
another reads `running_service` from top to bottom. What is started is stopped in reverse, also when a start fails.
"""

from __future__ import annotations

import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import grpc
import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.escrow import DeclaredEscrow, EscrowView
from chain.fees import FIXED, LIVE, LV2V, UNTYPED
from chain.rates import DeclaredPrices, FreshPrices, PriceSource, PriceUnknown
from chain.signatures import SigningKey, checksum_address, parse_address
from clearinghouse.api.grpc_bounds import CallBounds
from clearinghouse.api.grpc_server import GrpcApi
from clearinghouse.api.http import HttpApi, busy
from clearinghouse.api.management import management_app
from clearinghouse.api.webhook import Webhook
from clearinghouse.approving import Approving
from clearinghouse.chain_watch import ChainWatch, chain_watched
from clearinghouse.charging import Charging
from clearinghouse.commits import GroupCommit
from clearinghouse.config import (
    WEBHOOK_NOT_IN_PROCESS,
    ChainSettings,
    EscrowSettings,
    GoLivepeerSettings,
    ListenSettings,
    NativeSignerSettings,
    PolicySettings,
    Settings,
    SignerEventSettings,
)
from clearinghouse.connections import Connections
from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import current_revision, newest_revision
from clearinghouse.fee_watch import FeeWatch
from clearinghouse.file_limit import Fitting, fitting, needed_count, raise_limit
from clearinghouse.gates import Gates
from clearinghouse.housekeeping import Housekeeping
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.identity.webhook_signers import SignerAuthenticator
from clearinghouse.indexer import IndexWatch, indexer_of
from clearinghouse.listener import HttpListener
from clearinghouse.lookups import Lookups
from clearinghouse.metrics import Metrics
from clearinghouse.open_ev import OpenEvCeiling
from clearinghouse.orchestrators import CrossCheck
from clearinghouse.policy import Policy
from clearinghouse.readiness import NotReady, Probe, Readiness
from clearinghouse.registry import DeclaredRecipients, EveryRegistry, Recipients
from clearinghouse.session_cache import SessionCache
from clearinghouse.signer_events.kafka import KafkaIntake, KafkaNotInstalled, KafkaSource
from clearinghouse.signer_events.reconcile import Expected
from clearinghouse.signer_events.store import Intake, log_bad_event
from clearinghouse.signer_events.watch import SignerEventWatch
from clearinghouse.signers.base import Signer
from clearinghouse.signers.go_livepeer import SignerEndpoint
from clearinghouse.signers.native import NativeSigner, SignerLimits
from clearinghouse.signers.pool import PAYMENT_BUDGET, Budget, SignerPool
from clearinghouse.signing import Signing
from clearinghouse.unreleased import UnreleasedLog

log = structlog.get_logger(__name__)

#: How long a key and its terms are taken as they were last read or confirmed by a commit. It bounds only how long a
#: revoked key may still read: the commit compares key, gateway and terms with the database each time.
CALLERS_REMEMBER_S = 30
#: About 3 KiB each.
SESSIONS_REMEMBERED_MAX_COUNT = 20_000
LOOKUP_BATCH_ROWS = 512


class ServiceError(Exception):
    """The service cannot start; the text says what to do."""


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
        prices = FreshPrices(
            DeclaredPrices(settings.price.declared, declared_at=datetime.now(UTC)), max_age_s=settings.price.max_age_s
        )
        charging = Charging(
            authenticator=authenticator,
            prices=prices,
            commits=commits,
            usage=lookups,
            ceiling=await _ceiling(stack, settings.policy, engine),
        )
        unreleased = UnreleasedLog(engine, metrics.signer_events)
        unreleased.start()
        stack.push_async_callback(unreleased.stop)
        gates = Gates(_policy(settings.policy), recipients=_recipients(settings.policy, watch), escrow=escrow)
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
            keep_unreleased=unreleased.keep
            if isinstance(signer, SignerPool)
            else None,  # in process nothing is reported
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
            "price": partial(_probe_price, prices, settings),
        }
        readiness = Readiness(probes if watch is None else {**probes, "chain": watch.probe})
        housekeeping = Housekeeping(
            engine,
            keyed_answers_kept=timedelta(hours=settings.limits.keyed_answer_hours),
            fee_watch=FeeWatch(settings.policy.fee_watch_ratio_min_bps, settings.policy.fee_watch_ev_min_wei),
            embedded=embedded,
            metrics=metrics,
        )
        await housekeeping.start()
        stack.push_async_callback(housekeeping.stop)

        _watch_signer_events(stack, settings, conninfo, metrics)
        await _index_chain(stack, settings.chain, conninfo, signer.address, metrics)
        core = _Core(signing, authenticator, signer, engine, readiness, metrics)
        signers = SignerAuthenticator(lookups, pepper=secrets.api_key_pepper)
        webhook = Webhook(approving, signers, metrics=metrics) if settings.webhook.enabled else None
        http = _http_api(settings, secrets, core, admin_engine, webhook)
        grpc_api = GrpcApi(**core._asdict(), bounds=CallBounds(read_timeout_s=settings.listen.read_timeout_s))
        http_port, grpc_port = await _listen(stack, settings, http, grpc_api, metrics)
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
    settings: Settings, secrets: Secrets, core: _Core, admin_engine: AsyncEngine | None, webhook: Webhook | None
) -> HttpApi:
    body_max_bytes, read_timeout_s = settings.listen.body_max_bytes, settings.listen.read_timeout_s
    management = management_app(
        authenticator=core.authenticator,
        engine=core.engine,
        admin_engine=admin_engine,
        pepper=secrets.api_key_pepper,
        admin_token=_revealed(settings.api.admin_token),
        metrics=core.metrics,
        metrics_token=_revealed(settings.api.metrics_token),
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


def kafka_source(settings: SignerEventSettings) -> KafkaSource | None:
    """Where signers' events are read from; None where that is not configured."""
    if settings.kafka_topic is None:
        return None
    return KafkaSource(
        settings.kafka_bootstrap_servers,
        settings.kafka_topic,
        settings.kafka_group,
        username=settings.kafka_username,
        password=_revealed(settings.kafka_password),
        tls=settings.kafka_tls,
        tls_ca_file=settings.kafka_tls_ca_file,
    )


def expected_payments(settings: Settings) -> Expected:
    """What every payment that a signer reports must keep to."""
    return Expected(
        sender=_address(settings.signer.go_livepeer.expected_address),
        recipients=tuple(map(parse_address, settings.policy.recipients)),
        face_value_max_wei=settings.policy.face_value_max_wei,
    )


def declared_escrow(sender: bytes, escrow: EscrowSettings) -> DeclaredEscrow:
    """The escrow of `sender` as the configuration has it."""
    previous_block_hash = escrow.previous_initialized_round_block_hash
    return DeclaredEscrow(
        sender=sender,
        deposit_wei=escrow.deposit_wei,
        reserve_wei=escrow.reserve_wei,
        claimed_in_round_wei=escrow.claimed_in_round_wei,
        withdraw_round=escrow.withdraw_round,
        last_initialized_round=escrow.last_initialized_round,
        last_initialized_round_block_hash=_block_hash(escrow.last_initialized_round_block_hash),
        previous_initialized_round=escrow.previous_initialized_round,
        previous_initialized_round_block_hash=_block_hash(previous_block_hash) if previous_block_hash else None,
        last_seen_l1_block=escrow.last_seen_l1_block,
    )


def native_signer(key: SigningKey, limits: NativeSignerSettings, escrow: EscrowView) -> NativeSigner:
    """The signer in process, over the key's escrow: one that is read from the chain, or one by declaration."""
    return NativeSigner(
        key=key,
        escrow=escrow,
        limits=SignerLimits(
            max_ticket_ev_wei=limits.max_ticket_ev_wei,
            max_total_ev_wei=limits.max_total_ev_wei,
            deposit_multiplier=limits.deposit_multiplier_count,
            max_price_per_unit=(
                Fraction(limits.max_price_wei_per_unit) if limits.max_price_wei_per_unit is not None else None
            ),
        ),
    )


def _policy(policy: PolicySettings) -> Policy:
    ceilings = {
        LIVE: policy.price_live_max_wei_per_unit,
        LV2V: policy.price_lv2v_max_wei_per_unit,
        FIXED: policy.price_fixed_max_wei_per_unit,
        UNTYPED: policy.price_untyped_max_wei_per_unit,
    }
    return Policy(
        ticket_ev_max_wei=policy.ticket_ev_max_wei,
        call_ev_max_wei=policy.call_ev_max_wei,
        face_value_divisor_count=policy.face_value_divisor_count,
        face_value_max_wei=policy.face_value_max_wei,
        price_max_wei_per_unit={job_type: price for job_type, price in ceilings.items() if price is not None},
    )


async def _ceiling(stack: AsyncExitStack, policy: PolicySettings, engine: AsyncEngine) -> OpenEvCeiling | None:
    if policy.ev_open_max_wei is None:
        return None
    ceiling = OpenEvCeiling(engine, max_wei=policy.ev_open_max_wei)
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


def _recipients(policy: PolicySettings, watch: ChainWatch | None) -> Recipients:
    """The operator's list, and where the chain is read its active orchestrators."""
    declared = DeclaredRecipients(map(parse_address, policy.recipients))
    return declared if watch is None else EveryRegistry(declared, watch.recipients)


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
        expected_address=_address(settings.signer.go_livepeer.expected_address),
        payment_budget=_payment_budget(settings.signer.go_livepeer.timeout_s),
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


def escrow_of(sender: bytes, declared: EscrowSettings, watch: ChainWatch | None) -> EscrowView:
    """The chain's word where it is read, else the configuration's."""
    return watch.escrow if watch is not None else declared_escrow(sender, declared)


def endpoints(pool: GoLivepeerSettings) -> list[SignerEndpoint]:
    """The configured members of a pool of go-livepeer signers. Raises ServiceError for a file that cannot be read."""
    try:
        ca_pem = pool.tls_ca_file.read_bytes() if pool.tls_ca_file is not None else None
        identity_pem = None
        if pool.tls_client_cert_file is not None and pool.tls_client_key_file is not None:
            identity_pem = pool.tls_client_cert_file.read_bytes() + b"\n" + pool.tls_client_key_file.read_bytes()
    except OSError as error:
        raise ServiceError(f"A TLS file of signer.go_livepeer cannot be read: {error}.") from error
    headers = {name: value.get_secret_value() for name, value in (pool.headers or {}).items()}
    return [SignerEndpoint(url, headers=headers, ca_pem=ca_pem, identity_pem=identity_pem) for url in pool.urls]


def _payment_budget(total_s: float) -> Budget:
    """A hung signer leaves time to ask another: the same share of the budget as by default."""
    return Budget(total_s=total_s, attempt_s=total_s * PAYMENT_BUDGET.attempt_s / PAYMENT_BUDGET.total_s)


async def _listen(
    stack: AsyncExitStack, settings: Settings, http: HttpApi, grpc_api: GrpcApi, metrics: Metrics
) -> tuple[int, int]:
    listen, shutdown_timeout_s = settings.listen, settings.limits.shutdown_timeout_s
    _require_usable_certificates(listen)
    fits = _connections_that_fit(listen)
    connections = Connections(fits.http_count)
    metrics.watch_connections(connections)
    listener = HttpListener(
        http,
        host=listen.host,
        port=listen.http_port,
        read_timeout_s=listen.read_timeout_s,
        idle_timeout_s=listen.idle_timeout_s,
        shutdown_timeout_s=shutdown_timeout_s,
        hot=http.hot_routes(),
        connections=connections,
        busy=busy(),
        tls_cert_file=listen.tls_cert_file,
        tls_key_file=listen.tls_key_file,
        tls_client_ca_file=listen.tls_client_ca_file,
    )
    try:
        http_port = await listener.start()
    except OSError as error:
        raise ServiceError(
            f"Cannot listen for HTTP on {listen.host}:{listen.http_port} ({error.strerror or error}): is another "
            "instance running? listen.http_port (--http-port) chooses another."
        ) from error
    stack.push_async_callback(listener.stop)
    try:
        grpc_port = await grpc_api.start(
            listen.host, listen.grpc_port, _grpc_credentials(listen), connections_max_count=fits.grpc_count
        )
    except (OSError, RuntimeError) as error:
        raise ServiceError(
            f"Cannot listen for gRPC on {listen.host}:{listen.grpc_port} ({error}): is another instance running? "
            "listen.grpc_port (--grpc-port) chooses another."
        ) from error
    stack.push_async_callback(grpc_api.stop, shutdown_timeout_s)
    return http_port, grpc_port


def _connections_that_fit(listen: ListenSettings) -> Fitting:
    """Fewer than configured rather than none at all: without files, the database could not be reached either."""
    needed = needed_count(listen)
    limit = raise_limit(needed)
    fits = fitting(listen, limit)
    if limit < needed:
        log.warning("file_limit_low", limit=limit, needed=needed, http=fits.http_count, grpc=fits.grpc_count)
    return fits


def _require_usable_certificates(listen: ListenSettings) -> None:
    """Before anything listens, where a bad certificate could look like an address that is taken."""
    if listen.tls_cert_file is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(listen.tls_cert_file, listen.tls_key_file)
        if listen.tls_client_ca_file is not None:
            context.load_verify_locations(listen.tls_client_ca_file)
    except OSError as error:
        raise ServiceError(
            f"listen.tls_cert_file {listen.tls_cert_file}, tls_key_file {listen.tls_key_file} or tls_client_ca_file "
            f"{listen.tls_client_ca_file or '(none)'} cannot be used: {error}"
        ) from error


def _grpc_credentials(listen: ListenSettings) -> grpc.ServerCredentials | None:
    if listen.tls_cert_file is None or listen.tls_key_file is None:
        return None
    client_ca = listen.tls_client_ca_file.read_bytes() if listen.tls_client_ca_file is not None else None
    return grpc.ssl_server_credentials(
        [(listen.tls_key_file.read_bytes(), listen.tls_cert_file.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def _engine(stack: AsyncExitStack, conninfo: str, role: str) -> AsyncEngine:
    engine = async_engine(in_role(conninfo, role))
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


async def _probe_price(prices: PriceSource, settings: Settings) -> str:
    try:
        found = [prices.price(currency) for currency in settings.price.declared]
    except PriceUnknown as error:
        raise NotReady(str(error)) from None
    return ", ".join(f"{price.value:f} {price.currency} per ETH ({price.source})" for price in found)


def _settle_memory() -> None:
    """What was made at start stays: the collector need not look at it again, which halves the 99th percentile."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _address(text_: str | None) -> bytes | None:
    return parse_address(text_) if text_ is not None else None


def _block_hash(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.removeprefix("0x"))


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).partition("\n")[0]
