"""`clearinghouse invoices`: what closed periods owe, asked for through Stripe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import ConfigFile, DataDir, actor, settings_of, with_engine
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.cli.refusals import explain
from clearinghouse.errors import NotFound
from settlement.cli import invoice_credit, invoice_rerate
from settlement.cli.invoice_desk import InvoiceId, as_worker, invoice_id, require_period, walker
from settlement.cli.refusals import explained
from settlement.cli.stripe_of_dev import settings_with_stripe

if TYPE_CHECKING:
    from rich.progress import Progress
    from sqlalchemy.ext.asyncio import AsyncEngine

    from clearinghouse.config import Settings
    from settlement.invoices.run import Looked, Planned, Told, Walked
    from settlement.invoices.store import Choice, Invoice
    from settlement.invoices.walk import Walker

_HELP = """Invoices for closed periods of gateways that pay afterwards, and for subscriptions: docs/invoices.md.
`clearinghouse work` makes them by itself; here they are looked at, made now, and taken back.

\b
Examples:
  clearinghouse invoices run --dry-run
  clearinghouse invoices preview acme
  clearinghouse invoices list --period 2026-10
  clearinghouse invoices void inv_0190c0ffee0123456789abcdef012345 --reason "wrong address" --reissue
  clearinghouse invoices credit inv_0190c0ffee0123456789abcdef012345 --amount 12.50 --reason "an outage on the 12th"
  clearinghouse invoices rerate --gateway acme --period 2026-10 --as-of standard@2 --reason "wrong tiers" --dry-run
"""
_EXIT_HELD = 1

app = typer.Typer(no_args_is_help=True, help=_HELP)
app.command("credit")(invoice_credit.credit)
app.command("rerate")(invoice_rerate.rerate)

_Period = Annotated[
    str, typer.Option("--period", metavar="DAY", help="Periods whose first day begins so: 2026-10, or 2026-10-05.")
]
_Gateway = Annotated[str | None, typer.Option("--gateway", metavar="GATEWAY", help="Name or id (gw_…).")]


@app.command()
def run(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be asked for; nothing is kept.")] = False,
    period: _Period = "",
    gateway: _Gateway = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Plan what is due, and see all of it through at Stripe, within its rate. Interrupted, it goes on the next time.

    Of a chosen gateway, earlier periods that have no invoice yet come first: what a later one carries follows from
    them. Exit status 1 if something was held up. Needs a login with the rights of clearinghouse_work.

    \b
    Examples:
      clearinghouse invoices run --dry-run --period 2026-10
      clearinghouse invoices run --gateway acme
    """
    settings = settings_with_stripe(data_dir, config=config)

    async def work(engine: AsyncEngine) -> tuple[Planned, Walked | None]:
        from settlement.invoices.defaults import InvoiceDefaults
        from settlement.invoices.run import plan_due

        choice = await _choice(engine, period, gateway)
        ours = InvoiceDefaults.by(settings)
        if dry_run:
            with _planning() as looked:
                return await plan_due(engine, choice, defaults=ours, only_try=True, looked=looked), None
        async with walker(settings, engine) as walking:
            with _planning() as looked:
                planned = await plan_due(engine, choice, defaults=ours, looked=looked)
            return planned, await _walked(settings, walking, choice)

    planned, walked = as_worker(settings, work)
    _print_run(planned, walked, as_json)
    if planned.problems or (walked is not None and (walked.held or walked.away)):
        raise typer.Exit(_EXIT_HELD)


@app.command("list")
def list_invoices(
    *,
    period: _Period = "",
    gateway: _Gateway = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="open, paid, void …; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest periods first.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List invoices: what they ask for, how far they have got, and what keeps them from going on.

    \b
    Example: clearinghouse invoices list --state open --state uncollectible
    """

    async def work(engine: AsyncEngine) -> list[Invoice]:
        from settlement.invoices.store import newest

        choice = await _choice(engine, period, gateway)
        async with engine.connect() as connection:
            return await newest(connection, choice, state or [], limit)

    _print_invoices(with_engine(settings_of(data_dir), work), as_json)


@app.command()
def show(id_: InvoiceId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one: its lines, exact and as they are asked for, credit notes of ours, re-ratings of its period, and every
    state it was in.

    \b
    Example: clearinghouse invoices show inv_0190c0ffee0123456789abcdef012345
    """
    from settlement.invoices import documents

    wanted = invoice_id(id_)

    async def work(engine: AsyncEngine) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        from settlement.invoices.note_store import notes_of
        from settlement.invoices.store import events_of, find, lines_of
        from settlement.rerating.documents import rerating_document
        from settlement.rerating.store import all_reratings_of

        async with engine.connect() as connection:
            found = await find(connection, wanted)
            if found is None:
                raise NotFound(f"There is no invoice {id_}.")
            return documents.invoice_document(found), {
                "lines": documents.line_documents(await lines_of(connection, wanted), found.decimals),
                "credit_notes": [documents.note_document(each, found) for each in await notes_of(connection, wanted)],
                "reratings": [
                    rerating_document(each, is_kept=True)
                    for each in await all_reratings_of(connection, found.gateway_id, found.begins_at)
                    if found.kind == "usage"
                ],
                "events": documents.event_documents(await events_of(connection, wanted)),
            }

    document, parts = with_engine(settings_of(data_dir), work)
    if as_json:
        print_json({**document, **parts})
        return
    print_details([(name.replace("_", " "), str(value)) for name, value in document.items() if value is not None])
    typer.echo("")
    _print_lines(parts["lines"])
    for note in parts["credit_notes"]:
        what = note["number"] or note["id"]
        typer.echo(f"credit note {what}: {note['amount']}, {note['gives']}, {note['state']}: {note['reason']}")
    for each in parts["reratings"]:
        what = f"re-rating {each['id']} by {each['as_of']}"
        typer.echo(f"{what}: {each['difference']}, {each['state']}: {each['problem'] or each['reason']}")
    typer.echo("")
    rows = [[event["at"], event["state"], event["said"]] for event in parts["events"]]
    print_table(("at", "state", "said"), rows, if_empty="")


@app.command()
def preview(
    gateway: Annotated[str, typer.Argument(metavar="GATEWAY", help="Name or id (gw_…).")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a gateway would be asked for if its period ended now, with what is carried from periods before.

    \b
    Example: clearinghouse invoices preview acme
    """

    async def work(engine: AsyncEngine) -> dict[str, Any]:
        from clearinghouse.database.connect import database_now
        from clearinghouse.identity.gateways import find
        from settlement.currencies import account_currency
        from settlement.customers.store import is_manual
        from settlement.invoices.documents import owed_document
        from settlement.invoices.preview import preview as look

        async with engine.connect() as connection:
            found = await find(connection, gateway)
            period, owed = await look(connection, found.id, await database_now(connection))
            by_stripe = not await is_manual(connection, found.id)
        document = owed_document(owed, period.currency, account_currency(period.currency).decimals)
        return {"gateway": found.name, "period": period.id, "way": period.way, "by_stripe": by_stripe, **document}

    document = with_engine(settings_of(data_dir), work)
    if as_json:
        print_json(document)
        return
    print_details([(name, str(value)) for name, value in document.items() if name != "lines"])
    typer.echo("")
    _print_lines(document["lines"])


@app.command()
def void(
    id_: InvoiceId,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with it.")],
    reissue: Annotated[
        bool, typer.Option("--reissue", help="Then ask for the same period once more, with the customer as it is now.")
    ] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take back one that is not paid: at Stripe, and in the books. What it asked for is owed again, and is carried to
    the next invoice unless it is reissued. One that is paid is corrected by a credit note.

    \b
    Examples:
      clearinghouse invoices void inv_0190c0ffee0123456789abcdef012345 --reason "wrong address" --reissue
    """
    from settlement.invoices.documents import invoice_document

    settings, wanted = settings_with_stripe(data_dir, config=config), invoice_id(id_)

    async def work(engine: AsyncEngine) -> list[Invoice]:
        from settlement.invoices.defaults import InvoiceDefaults
        from settlement.invoices.void import reissue as issue_again
        from settlement.invoices.void import void as take_back

        async with walker(settings, engine) as walking:
            done = [await take_back(walking, wanted, reason=f"{actor()}: {reason}")]
            if reissue:
                again = await issue_again(walking.desk, done[0], defaults=InvoiceDefaults.by(settings))
                done.append(await walking.walk(again.id) or again)
            return done

    done = as_worker(settings, work)
    if as_json:
        print_json({"items": [invoice_document(each) for each in done]})
    else:
        _print_invoices(done, as_json=False)


async def _walked(settings: Settings, walker: Walker, choice: Choice) -> Walked:
    from settlement.invoices.run import waiting_invoices, walk_all

    waiting = await waiting_invoices(walker.desk.engine, choice, await walker.desk.now(), not_since=None)
    with _progress(len(waiting)) as told:
        return await walk_all(walker, waiting, in_flight_count=settings.invoices.in_flight_count, told=told)


@contextmanager
def _planning() -> Iterator[Looked]:
    """Until it is known how much there is to plan, the bar says only that somebody is at it."""
    with _bar() as bar:
        task = bar.add_task("planning", total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)


@contextmanager
def _progress(count: int) -> Iterator[Told]:
    with _bar() as bar:
        task = bar.add_task("invoices", total=count)
        yield lambda invoice: bar.update(task, advance=1, description=f"{invoice.gateway_name}: {invoice.state}")


def _bar() -> Progress:
    """On standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)


async def _choice(engine: AsyncEngine, period: str, gateway: str | None) -> Choice:
    """Raises InvalidRequest, NotFound."""
    from clearinghouse.identity.gateways import find
    from settlement.invoices.store import Choice

    if period:
        require_period(period)
    if gateway is None:
        return Choice(period)
    async with engine.connect() as connection:
        return Choice(period, (await find(connection, gateway)).id)


def _print_run(planned: Planned, walked: Walked | None, as_json: bool) -> None:
    from settlement.invoices.documents import invoice_document

    shown = {each.id: each for each in [*planned.invoices, *(walked.invoices if walked is not None else ())]}
    problems = [*planned.problems, *(walked.held if walked is not None else ())]
    refusal = explained(walked.away) if walked is not None and walked.away is not None else None
    if as_json:
        items = [invoice_document(each) for each in shown.values()]
        away = refusal.message if refusal is not None else None
        print_json(
            {"items": items, "problems": problems, "stripe_is_away": away, "planned_for_elsewhere": planned.busy}
        )
        return
    _print_invoices(list(shown.values()), as_json=False, if_empty="Nothing is due.")
    for problem in [*problems, *([explain(refusal)] if refusal is not None else [])]:
        typer.echo(problem, err=True)
    for gateway in planned.busy:
        typer.echo(f"{gateway} is planned for by somebody else, such as a re-rating: run it again.", err=True)
    if walked is not None and walked.elsewhere_count:
        typer.echo(f"{walked.elsewhere_count} are being seen to by another process.", err=True)


def _print_invoices(invoices: list[Invoice], as_json: bool, *, if_empty: str = "There are no invoices.") -> None:
    from settlement.invoices.documents import invoice_document

    documents = [invoice_document(each) for each in invoices]
    if as_json:
        print_json({"items": documents})
        return
    columns = ("id", "gateway", "period", "state", "number", "total", "currency", "due", "problem")
    rows = [
        [each["id"], each["gateway"], each["period"], each["state"], each["number"] or "", each["total"],
         each["currency"], (each["due_at"] or "")[:10], each["problem"] or ""]
        for each in documents
    ]  # fmt: skip
    print_table(columns, rows, right=[5], if_empty=if_empty)


def _print_lines(lines: list[dict[str, Any]]) -> None:
    rows = [[line["description"], line["amount"], line["exact"]] for line in lines]
    print_table(("line", "amount", "exact"), rows, right=[1, 2], if_empty="It asks for nothing.")
