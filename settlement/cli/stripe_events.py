"""`clearinghouse stripe events`: what Stripe told us, what became of it, and having it done again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, settings_of
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_STRIPE_HELP = """Stripe, as far as it is not about payments or invoices: docs/stripe.md.

\b
Example: clearinghouse stripe events list --state parked
"""
_HELP = """Stripe's events: received, processing, done, or parked with a reason.

`clearinghouse work` acts upon them. One that is parked waits for a person: mend what it says,
then have it done again; or close what was settled otherwise.

\b
Examples:
  clearinghouse stripe events list --state parked
  clearinghouse stripe events show evt_1Nv0FGQ9RKHgCVdK
  clearinghouse stripe events redrive
"""

app = typer.Typer(no_args_is_help=True, help=_STRIPE_HELP)
events_app = typer.Typer(no_args_is_help=True, help=_HELP)
app.add_typer(events_app, name="events")

_Type = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Such as invoice.paid.")]


@events_app.command("list")
def list_events(  # noqa: PLR0917 - typer's way to have options
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="received, processing, done or parked.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Such as invoice.paid, or 'invoice.*'.")
    ] = None,
    object_id: Annotated[
        str | None, typer.Option("--object", metavar="ID", help="About this object of Stripe's: in_…, pi_…, cus_….")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, the newest first.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List events, the newest first.

    \b
    Examples:
      clearinghouse stripe events list --state parked
      clearinghouse stripe events list --object in_1Nv0FGQ9RKHgCVdK --json
    """
    from settlement.stripe_link import inbox_reading

    if state is not None and state not in inbox_reading.STATES:
        raise InvalidRequest(f"There is no state {state[:40]!r}: {', '.join(inbox_reading.STATES)}.")

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        return await inbox_reading.list_events(connection, state=state, object_id=object_id, kind=kind, count=limit)

    documents = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": documents})
        return
    columns = ("id", "type", "object", "state", "received", "tries", "said")
    rows = [
        [each["id"], each["type"], each["object_id"] or each["object_type"], each["state"], each["received_at"],
         str(each["attempts_count"]), each["said"] or ""]
        for each in documents
    ]  # fmt: skip
    print_table(columns, rows, right=[5], if_empty="There are no such events.")


@events_app.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="As `clearinghouse stripe events list` has it.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show an event, with what Stripe sent. What that says of the object is how it was then, and is not acted upon.

    Example: clearinghouse stripe events show evt_1Nv0FGQ9RKHgCVdK
    """

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        from settlement.stripe_link import inbox_reading

        return await inbox_reading.show_event(connection, event_id)

    document = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
        return
    payload = document.pop("payload")
    print_details([(name, str(value)) for name, value in document.items() if value is not None])
    typer.echo(f"\n{payload}")


@events_app.command()
def replay(
    event_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Events, whatever became of them.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Have events acted upon once more: Stripe is asked again, and what is there already stays as it is.

    Example: clearinghouse stripe events replay evt_1Nv0FGQ9RKHgCVdK
    """

    async def work(connection: AsyncConnection) -> int:
        from settlement.stripe_link import inbox_reading

        return await inbox_reading.replay(connection, event_ids, actor=actor())

    _told(in_transaction(settings_of(data_dir), work), as_json)


@events_app.command()
def redrive(kind: _Type = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Have all that is parked acted upon once more, or what is parked of one type.

    \b
    Examples:
      clearinghouse stripe events redrive
      clearinghouse stripe events redrive --type charge.refunded
    """

    async def work(connection: AsyncConnection) -> int:
        from settlement.stripe_link import inbox_reading

        return await inbox_reading.redrive(connection, kind=kind, actor=actor())

    _told(in_transaction(settings_of(data_dir), work), as_json)


@events_app.command()
def close(
    event_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Parked events.")],
    reason: Annotated[str, typer.Option("--reason", help="How it was settled: it stays with the event.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say that parked events were settled otherwise, so that nothing waits for them any more.

    What an event stands for stays as it is in the books: correct that first.

    Example: clearinghouse stripe events close evt_1Nv0FGQ9RKHgCVdK --reason "settled with the bank, see ticket 12"
    """

    async def work(connection: AsyncConnection) -> int:
        from settlement.stripe_link import inbox_reading

        return await inbox_reading.close(connection, event_ids, reason=reason, actor=actor())

    count = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"events_count": count})
    else:
        typer.echo(f"{count} event{'s' if count != 1 else ''} closed.")


def _told(count: int, as_json: bool) -> None:
    if as_json:
        print_json({"events_count": count})
    else:
        typer.echo(f"{count} event{'s' if count != 1 else ''} to be acted upon again by `clearinghouse work`.")
