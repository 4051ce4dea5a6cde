"""`clearinghouse work`: the jobs, on their schedule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import (
    BadConfiguration,
    ConfigFile,
    DataDir,
    database_explained,
    embedded_database,
    require_newest_schema,
    settings_of,
)

if TYPE_CHECKING:
    import asyncio

    from prometheus_client import CollectorRegistry

    from clearinghouse.config import Settings

_Running = Callable[["asyncio.Event"], Coroutine[Any, Any, None]]


def work(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", help="Port of /healthz and /metrics; 0 takes a free one.", show_default="8081"),
    ] = None,
) -> None:
    """Do what is due by time, such as checking the books, until SIGTERM or Ctrl-C. `clearinghouse jobs` shows it.

    Run two or more: one leads, and when it ends another takes over within 10 s. What is under way is finished before it
    ends. It needs database_url with the rights of clearinghouse_work, on the server itself: a pooler between would hold
    the locks for others.

    \b
      clearinghouse work --config /etc/clearinghouse/worker.toml
    """
    from clearinghouse.log import configure_logging
    from clearinghouse.process import run

    settings = settings_of(config=config, flags={"data_dir": data_dir, "work.metrics_port": metrics_port})
    configure_logging(settings.log)
    try:
        with database_explained(), _worker_database(settings) as conninfo:
            run(partial(_main, settings, conninfo))
    except OSError as error:
        raise BadConfiguration(
            f"cannot listen on {settings.listen.host}:{settings.work.metrics_port} ({error.strerror or error}): is "
            "another worker running? work.metrics_port (--metrics-port) chooses another port"
        ) from error


@contextmanager
def _worker_database(settings: Settings) -> Iterator[str]:
    """The conninfo of a database with the schema this code needs, up for as long as the block lasts."""
    if settings.database_url is None:
        with embedded_database(settings) as conninfo:
            yield conninfo
    else:
        conninfo = settings.database_url.get_secret_value()
        require_newest_schema(conninfo)
        yield conninfo


async def _main(settings: Settings, conninfo: str, stop: asyncio.Event) -> None:
    from prometheus_client import CollectorRegistry

    from clearinghouse.configured import revealed
    from clearinghouse.readiness import Readiness
    from settlement.jobs import jobs_of
    from settlement.lease import Lease
    from settlement.work_metrics import WorkMetrics
    from settlement.work_port import work_app, work_served
    from settlement.worker import Worker

    async with await Lease.connected(conninfo):
        pass  # what is wrong with the database or the login is said here and now, and not to a log every second
    registry = CollectorRegistry()
    jobs = jobs_of(settings, registry)
    metrics = WorkMetrics(registry, jobs=[job.name for job in jobs])
    shutdown_timeout_s = settings.limits.shutdown_timeout_s
    worker = Worker(conninfo, jobs, observer=metrics, shutdown_timeout_s=shutdown_timeout_s)
    app = work_app(Readiness({"work": worker.probe}), registry, metrics_token=revealed(settings.api.metrics_token))
    async with work_served(app, host=settings.listen.host, port=settings.work.metrics_port) as port:
        typer.echo(f"working, with metrics on {settings.listen.host}:{port}", err=True)
        await _together(stop, worker.run, *_beside_the_jobs(settings, conninfo, registry))


def _beside_the_jobs(settings: Settings, conninfo: str, registry: CollectorRegistry) -> Iterator[_Running]:
    """What every worker does, whether it leads or not."""
    from settlement.billing_watch.metrics import BillingMetrics
    from settlement.billing_watch.watch import BillingWatch

    yield BillingWatch(conninfo, settings.dunning, BillingMetrics(registry)).run
    if settings.stripe.api_key is None:
        return
    from settlement.customers.stripe_copy import ensure_customer
    from settlement.payments.clerk import Clerk
    from settlement.stripe_link.handlers import HANDLERS
    from settlement.stripe_link.inbox_metrics import InboxMetrics
    from settlement.stripe_link.processor import Processor

    metrics, shutdown_timeout_s = InboxMetrics(registry), settings.limits.shutdown_timeout_s
    yield Processor(conninfo, settings.stripe, HANDLERS, metrics=metrics, shutdown_timeout_s=shutdown_timeout_s).run
    yield Clerk(
        conninfo, settings.stripe, settings.payments, ensure_customer, shutdown_timeout_s=shutdown_timeout_s
    ).run


async def _together(stop: asyncio.Event, *running: _Running) -> None:
    """Until all have ended. A bug that ends one ends the others: somebody starts all of them again."""
    import asyncio

    tasks = [asyncio.ensure_future(each(stop)) for each in running]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    stop.set()
    await asyncio.gather(*tasks)


@asynccontextmanager
async def beside_dev(settings: Settings, conninfo: str, stripe_taxes: Sequence[str] | None) -> AsyncIterator[None]:
    """The worker of `clearinghouse dev`, in its process and without a port: what clearinghouse.cli.running.Beside is.

    In the same process, so that one Ctrl-C ends both and the embedded database has one owner.
    """
    import asyncio
    from contextlib import nullcontext

    from prometheus_client import CollectorRegistry

    from settlement.cli.dev_stripe import stripe_beside_dev
    from settlement.jobs import jobs_of
    from settlement.work_metrics import WorkMetrics
    from settlement.worker import Worker

    registry = CollectorRegistry()  # nobody reads it: `clearinghouse jobs` tells the same
    jobs = jobs_of(settings, registry)
    metrics = WorkMetrics(registry, jobs=[job.name for job in jobs])
    worker = Worker(conninfo, jobs, observer=metrics, shutdown_timeout_s=settings.limits.shutdown_timeout_s)
    stop = asyncio.Event()
    running = (worker.run, *_beside_the_jobs(settings, conninfo, registry))
    async with stripe_beside_dev(settings, conninfo, stripe_taxes) if stripe_taxes is not None else nullcontext():
        working = asyncio.create_task(_together(stop, *running), name="worker")
        try:
            yield
        finally:
            stop.set()
            await working
