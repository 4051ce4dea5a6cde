"""`clearinghouse key`: API keys. No command takes a whole key: arguments are visible to every user of a machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, in_transaction, pepper_of, settings_of
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.limits import Wanted, key_limit_options, print_limits
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.errors import InvalidRequest
from clearinghouse.instants import parse_rfc3339, parse_span

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.identity.keys import NewApiKey

_HELP = """API keys: a gateway may have any number of them, side by side.

A key is shown once, when it is made. Afterwards it is named by its key id (key_…) or its public id (the 16 digits after
lpch_).

\b
Examples:
  clearinghouse key create acme --name production --expires-in 90d
  clearinghouse key rotate 4f0c9a1be2d37705 --grace 48h
  clearinghouse key revoke 4f0c9a1be2d37705
  clearinghouse key set-limits 4f0c9a1be2d37705 --spend-day 5
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

KeyName = Annotated[str, typer.Argument(metavar="KEY", help="Key id (key_…) or public id; never the key itself.")]
ExpiresIn = Annotated[str | None, typer.Option(metavar="SPAN", help="Ends after 90s, 30m, 12h, 30d or 2w.")]
ExpiresAt = Annotated[str | None, typer.Option(metavar="TIME", help="Ends at a time, such as 2027-01-31T00:00:00Z.")]

Grace = Annotated[str, typer.Option(metavar="SPAN", help="How long the old one still works; 0 for not at all.")]


@app.command()
def create(
    gateway: GatewayName,
    *,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What the key is for.")] = "",
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and show it, once. It does not expire unless you say so.

    \b
    Example: clearinghouse key create acme --name production --expires-in 90d
    """
    from clearinghouse.identity import gateways, keys

    expiry = expiry_of(expires_in, expires_at)
    settings = settings_of(data_dir)

    async def work(connection: AsyncConnection) -> NewApiKey:
        found = await gateways.find(connection, gateway)
        return await keys.create(connection, found.id, pepper=pepper_of(settings), name=name, expires_at=expiry)

    _print_new(in_transaction(settings, work), as_json)


@app.command("list")
def list_all(gateway: GatewayName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List a gateway's keys, newest first, with those that have ended.

    Example: clearinghouse key list acme
    """
    from clearinghouse.documents import key_document
    from clearinghouse.identity import gateways, keys

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        found = await gateways.find(connection, gateway)
        return [key_document(key) for key in await keys.list_keys(connection, found.id)]

    documents = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": documents})
        return
    columns = ("public_id", "key_id", "name", "status", "created_at", "expires_at")
    rows = [[str(document[column] or "") for column in columns] for document in documents]
    print_table(columns, rows, if_empty=f"{gateway} has no keys: clearinghouse key create {gateway}")


@app.command()
def rotate(
    key: KeyName,
    *,
    grace: Grace = "24h",
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key: show a new one now, and let the old one end after a grace period.

    The expiry options are for the new key, which does not expire without them.

    \b
    Example: clearinghouse key rotate 4f0c9a1be2d37705 --grace 48h
    """
    from clearinghouse.identity import keys

    expiry = expiry_of(expires_in, expires_at)
    settings = settings_of(data_dir)

    async def work(connection: AsyncConnection) -> NewApiKey:
        return await keys.rotate(connection, key, pepper=pepper_of(settings), grace=grace_of(grace), expires_at=expiry)

    _print_new(in_transaction(settings, work), as_json)


@app.command()
def revoke(key: KeyName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End a key now. There is no way back: create a new one instead.

    \b
    Example: clearinghouse key revoke 4f0c9a1be2d37705
    """
    from clearinghouse.documents import key_document
    from clearinghouse.identity import keys

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        return key_document(await keys.revoke(connection, key))

    document = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
    else:
        print_details([(name, str(value)) for name, value in document.items() if value])


@app.command("set-limits")
@key_limit_options
def set_limits(
    key: KeyName,
    *,
    wanted: Wanted,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set limits of one key, within what its gateway may use; those not named stay.

    What the key used since the month began and has open now counts, also from before it had a limit.

    \b
    Example: clearinghouse key set-limits 4f0c9a1be2d37705 --spend-day 5 --calls-day none
    """
    from clearinghouse.documents import key_limits_document, limits_document
    from clearinghouse.identity import gateways, keys, limits
    from clearinghouse.ids import show

    async def work(connection: AsyncConnection) -> tuple[dict[str, Any], dict[str, Any]]:
        found = await keys.find(connection, key)
        gateway = await gateways.find(connection, show("gw", found.gateway_id))
        changes = limits.parse_limits(wanted, currency=gateway.currency)
        document = key_limits_document(await limits.set_key_limits(connection, found.id, changes))
        return document, limits_document(await limits.gateway_limits(connection, found.gateway_id))

    document, limits_of_gateway = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
    else:
        print_limits(limits_of_gateway)


def expiry_of(expires_in: str | None, expires_at: str | None) -> datetime | None:
    """The instant two options mean; None where neither is given."""
    if expires_in is not None and expires_at is not None:
        raise InvalidRequest("--expires-in and --expires-at say the same thing: give one of them")
    if expires_at is not None:
        return parse_rfc3339(expires_at)
    return None if expires_in is None else datetime.now(UTC) + parse_span(expires_in)


def grace_of(grace: str) -> timedelta:
    """The span a --grace option means."""
    return timedelta(0) if grace == "0" else parse_span(grace)


def _print_new(new: NewApiKey, as_json: bool) -> None:
    from clearinghouse.documents import new_key_document

    document = new_key_document(new)
    if as_json:
        print_json(document)
        return
    print_details([(name, str(value)) for name, value in document.items() if value])
    typer.echo("\nThis is the only time the key is shown: store it now.", err=True)
