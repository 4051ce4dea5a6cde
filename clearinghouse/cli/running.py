"""`dev`, `serve`, `signer` and `migrate`: what runs, and what prepares it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from clearinghouse.cli.context import BadConfiguration, ConfigFile, DataDir, pepper_of, settings_of
from clearinghouse.cli.output import AsJson, print_json

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable

    from clearinghouse.api.wiring import Routes
    from clearinghouse.chain_watch import ChainWatch
    from clearinghouse.config import NativeSignerSettings, Settings
    from clearinghouse.demo import Demo
    from clearinghouse.service import RunningService
    from clearinghouse.signers.asking import AskingSigner
    from clearinghouse.signers.native import NativeSigner

#: What the floor above runs beside `dev`, given the settings, the owner's way into the database and the taxes of a
#: local Stripe, where one is wanted.
Beside = Callable[["Settings", str, Sequence[str] | None], AbstractAsyncContextManager[None]]


class Above(NamedTuple):
    """What the floor above adds. The console script hands it to the app as its `obj`: nothing here knows that floor."""

    beside: Beside
    #: Routes for operators; called when something is served.
    routes: Callable[[], Sequence[Routes]]


HttpPort = Annotated[
    int | None, typer.Option("--http-port", help="HTTP port; 0 takes a free one.", show_default="8080")
]
GrpcPort = Annotated[
    int | None, typer.Option("--grpc-port", help="gRPC port; 0 takes a free one.", show_default="9090")
]


def dev(
    context: typer.Context,
    *,
    data_dir: DataDir = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    config: ConfigFile = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Without: leave its jobs to a `clearinghouse work` beside it.")
    ] = True,
    stripe_local: Annotated[
        bool, typer.Option("--stripe-local", help="Buy credit at a local Stripe: test mode, no money moves.")
    ] = False,
    taxes: Annotated[
        list[str] | None,
        typer.Option("--tax", help="With --stripe-local: a percentage by country, such as DE=19. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run everything embedded: database, signer, worker, and a demo gateway with a key and credit.

    The price of ETH is declared, and the escrow is simulated unless [chain] names endpoints: tickets signed over a
    simulated escrow are real in form and cannot be redeemed.
    Data stays in the data directory; Ctrl-C stops all of it and the next start finds it again.

    \b
      clearinghouse dev
      clearinghouse dev --data-dir /tmp/try --http-port 0 --grpc-port 0
      clearinghouse dev --stripe-local
    """
    from clearinghouse.demo import ensure_demo, for_development, with_local_stripe

    flags = {
        "data_dir": data_dir,
        "listen.http_port": http_port,
        "listen.grpc_port": grpc_port,
        "log.format": "console",
    }
    settings = for_development(settings_of(config=config, flags=flags))
    above: Above | None = context.find_root().obj
    if stripe_local and (not worker or not settings.listen.http_port):
        raise BadConfiguration("--stripe-local needs the worker, and an HTTP port that is known beforehand")
    if above is None and stripe_local:
        raise BadConfiguration("--stripe-local is not in the service alone: `clearinghouse dev` has it, and the worker")
    if taxes and not stripe_local:
        raise BadConfiguration("--tax is of the local Stripe, and goes with --stripe-local")
    if stripe_local:
        settings = with_local_stripe(settings)
    demos: list[Demo] = []
    conninfos: list[str] = []

    async def prepare(conninfo: str) -> None:
        conninfos.append(conninfo)
        demos.append(await ensure_demo(conninfo, settings, pepper_of(settings)))

    def started(service: RunningService) -> None:
        if above is None:
            typer.echo("This is the service alone: no worker runs beside it. `clearinghouse dev` has one.", err=True)
        _welcome(settings, service, demos[0], sells=above is not None, as_json=as_json)

    def besides() -> AbstractAsyncContextManager[None]:
        if above is None or not worker:
            return nullcontext()
        return above.beside(settings, conninfos[0], (taxes or ()) if stripe_local else None)

    _serve(settings, started, above, prepare, besides)


def serve(
    context: typer.Context,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
) -> None:
    """Serve HTTP and gRPC with the configured database and signers, until SIGTERM or Ctrl-C.

    Accepted calls are finished before it ends. Settings come from flags, the environment (CLEARINGHOUSE_…), the file
    of --config, and defaults, in this order; `clearinghouse doctor` checks them all.

    \b
      clearinghouse serve --config /etc/clearinghouse/clearinghouse.toml
    """
    from clearinghouse.config import missing_for_serving

    flags = {"data_dir": data_dir, "listen.http_port": http_port, "listen.grpc_port": grpc_port}
    settings = settings_of(config=config, flags=flags)
    if missing := missing_for_serving(settings):
        raise BadConfiguration("\n".join(missing))
    _warn(settings, config)

    def started(service: RunningService) -> None:
        typer.echo(
            f"serving HTTP on {settings.listen.host}:{service.http_port} and gRPC on "
            f"{settings.listen.host}:{service.grpc_port}, tickets of {service.sender_address}",
            err=True,
        )

    _serve(settings, started, context.find_root().obj)


def signer(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    host: Annotated[str, typer.Option(help="Address to listen on: loopback or a private network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8935,
) -> None:
    """Run the native signer alone, with go-livepeer's own HTTP API and, like it, without authentication.

    It signs for whoever reaches it: keep it on loopback or a private network behind the clearinghouse. The key is that
    of signer.native.keystore_file, or one in the data directory; signers of one pool share one key.
    With signer.native.webhook_url a payment leaves only after that webhook has agreed to it, as with go-livepeer's
    -remoteSignerWebhookUrl.

    \b
      clearinghouse signer --port 8935
      CLEARINGHOUSE_SIGNER__KIND=go_livepeer \\
      CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS=http://127.0.0.1:8935 clearinghouse serve
    """
    from chain.keystore import KeystoreError
    from chain.signatures import checksum_address
    from clearinghouse.configured import escrow_of, native_signer
    from clearinghouse.log import configure_logging
    from clearinghouse.process import run, settle_memory
    from clearinghouse.running import native_key
    from clearinghouse.signers.server import signer_served

    settings = settings_of(config=config, flags={"data_dir": data_dir})
    native = settings.signer.native
    if native.webhook_headers is not None and native.webhook_url is None:
        raise BadConfiguration(
            "signer.native.webhook_headers needs signer.native.webhook_url: no webhook would be asked."
        )
    _warn(settings, config)
    configure_logging(settings.log)

    async def main(stop: asyncio.Event) -> None:
        key = native_key(settings)
        async with (
            _watched(settings, key.address) as watch,
            _asking(native_signer(key, native, escrow_of(key.address, settings.escrow, watch)), native) as asking,
            signer_served(asking, host=host, port=port) as url,
        ):
            settle_memory()
            kind = f"escrow on {settings.chain.network}" if watch is not None else "simulated escrow"
            typer.echo(f"signing for {checksum_address(key.address)} ({kind}) at {url}", err=True)
            await stop.wait()

    try:
        run(main)
    except (KeystoreError, ValueError, OSError) as error:
        raise BadConfiguration(str(error)) from error


@asynccontextmanager
async def _watched(settings: Settings, sender: bytes) -> AsyncIterator[ChainWatch | None]:
    """The chain, where it is configured."""
    from clearinghouse.chain_watch import chain_watched

    if not settings.chain.is_configured:
        yield None
        return
    async with chain_watched(settings.chain, sender) as watch:
        yield watch


@asynccontextmanager
async def _asking(signer: NativeSigner, native: NativeSignerSettings) -> AsyncIterator[NativeSigner | AskingSigner]:
    """The signer, behind the webhook where there is one."""
    from clearinghouse.signers.asking import AskingSigner, Webhook

    if native.webhook_url is None:
        yield signer
        return
    headers = {name: value.get_secret_value() for name, value in (native.webhook_headers or {}).items()}
    webhook = Webhook(native.webhook_url, headers)
    typer.echo(f"every payment is asked for at {webhook.name}", err=True)
    try:
        yield AskingSigner(signer, webhook)
    finally:
        await webhook.close()


def migrate(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the database to the schema of this release. Safe to repeat and to run from several places at once.

    Uses admin_database_url, else database_url; the login needs the owner's rights, and CREATEROLE where the roles are
    not there yet. Run it before the new release serves.

    Example: clearinghouse migrate --config /etc/clearinghouse/clearinghouse.toml
    """
    from sqlalchemy.exc import DBAPIError

    from clearinghouse.cli.context import DatabaseNotReady, embedded_database
    from clearinghouse.database.migrate import migrate as migrate_database
    from clearinghouse.database.migrate import newest_revision

    settings = settings_of(config=config, flags={"data_dir": data_dir})
    url = settings.admin_database_url or settings.database_url
    if url is None:
        with embedded_database(settings):
            revision = newest_revision()
    else:
        try:
            revision = migrate_database(url.get_secret_value())
        except DBAPIError as error:
            raise DatabaseNotReady(f"the database cannot be migrated: {str(error.orig).strip()}") from error
    if as_json:
        print_json({"revision": revision})
    else:
        typer.echo(f"the database is at revision {revision}")


def _serve(
    settings: Settings,
    started: Callable[[RunningService], None],
    above: Above | None,
    prepare: Callable[[str], Awaitable[None]] | None = None,
    beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> None:
    from chain.keystore import KeystoreError
    from clearinghouse.cli.context import DatabaseNotReady
    from clearinghouse.configured import ServiceError
    from clearinghouse.database.postgres_programs import EmbeddedPostgresError
    from clearinghouse.log import configure_logging
    from clearinghouse.process import run
    from clearinghouse.running import service_of
    from clearinghouse.secrets import SecretMissing
    from clearinghouse.signers.pool import SignerPoolError

    configure_logging(settings.log)
    routes = above.routes() if above is not None else ()

    async def main(stop: asyncio.Event) -> None:
        async with service_of(settings, prepare=prepare, routes=routes) as service, beside():
            started(service)
            await stop.wait()

    try:
        run(main)
    except EmbeddedPostgresError as error:
        raise DatabaseNotReady(str(error)) from error
    except (ServiceError, SignerPoolError, KeystoreError, SecretMissing, OSError) as error:
        raise BadConfiguration(str(error)) from error


def _warn(settings: Settings, config: Path | None) -> None:
    from clearinghouse.config_sources import warnings_about

    for warning in warnings_about(settings, config_file=config):
        typer.echo(f"warning: {warning}", err=True)
    if settings.topups.wallet != "none":
        typer.echo(
            "warning: topups.wallet is set, and what signs payments has no use for a wallet: give it to "
            "`clearinghouse work` and the commands alone",
            err=True,
        )


def _welcome(settings: Settings, service: RunningService, demo: Demo, *, sells: bool, as_json: bool) -> None:
    """What a newcomer needs next. One line of JSON with --json, for whoever starts it from a script. `sells`: whether
    there is a worker, which sells credit."""
    scheme = "http" if settings.listen.tls_cert_file is None else "https"
    http_url = f"{scheme}://{settings.listen.host}:{service.http_port}"
    if as_json:
        import json

        facts = {
            "http_url": http_url,
            "grpc_target": f"{settings.listen.host}:{service.grpc_port}",
            "gateway_id": demo.gateway_id,
            "gateway": demo.name,
            "api_key": demo.api_key,
            "available": demo.available,
            "currency": demo.currency,
            "sender": service.sender_address,
            "data_dir": str(settings.data_dir.absolute()),
        }
        typer.echo(json.dumps(facts))
        return
    program = sys.argv[0]
    escrow = (
        f"read from {settings.chain.network}"
        if settings.chain.is_configured
        else "simulated: tickets are real in form and cannot be redeemed"
    )
    typer.echo(f"""
The clearinghouse is running. Its escrow is {escrow}.

  HTTP      {http_url}   (docs: {http_url}/docs, metrics: {http_url}/metrics)
  gRPC      {settings.listen.host}:{service.grpc_port}
  sender    {service.sender_address}
  data      {settings.data_dir.absolute()}

  gateway   {demo.name} ({demo.gateway_id})
  API key   {demo.api_key}
  credit    {demo.available} {demo.currency}

Sign a ticket, see the receipt and the new balance:

  CLEARINGHOUSE_API_KEY={demo.api_key} {program} sign-demo --url {http_url}

{_how_to_pay(settings, http_url, demo) if sells else ""}Point a gateway at it:

  go-livepeer   -remoteSignerUrl {http_url} -remoteSignerHeaders 'Authorization:Bearer {demo.api_key}'
  Python SDK    signer_url="{http_url}", signer_headers={{"Authorization": "Bearer {demo.api_key}"}}

Ctrl-C stops everything; the next start finds the same data.
""")


def _how_to_pay(settings: Settings, http_url: str, demo: Demo) -> str:
    """Where Stripe is a local one."""
    if not settings.stripe.api_url.startswith("http://127.0.0.1"):
        return ""
    return f"""Buy credit in TEST MODE (a local Stripe, no money moves): open the `url` that this answers, take a card:

  curl {http_url}/v1/topups -H 'Authorization: Bearer {demo.api_key}' -d '{{"method": "checkout", "amount": "25"}}'

Commands on the same data directory ask that Stripe, too, such as:

  {sys.argv[0]} invoices run --data-dir {settings.data_dir.absolute()}

"""
