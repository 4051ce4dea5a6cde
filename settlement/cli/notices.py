"""`clearinghouse notices`: where gateways hear of themselves, what they were told, and telling it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, pepper_of, settings_of
from clearinghouse.cli.keys import Grace, grace_of
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from decimal import Decimal

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.notices.targets import Target

_HELP = """What gateways are told about themselves: balances that are low, used up, sufficient again; keys that end;
suspensions. `clearinghouse work` sends it, by signed webhook and by mail; docs/alerts.md.

\b
Examples:
  clearinghouse notices set acme --webhook https://acme.example/hooks --email billing@acme.example --low-balance 25
  clearinghouse notices secret acme
  clearinghouse notices test acme
  clearinghouse notices list --dead
  clearinghouse notices replay acme --dead
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

GatewayName = Annotated[str, typer.Argument(metavar="GATEWAY", help="Name or id (gw_…).")]
_NONE = "none"


@app.command("set")
def set_target(
    gateway: GatewayName,
    *,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="https URL of a public host, or none.")] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="name@host.example, or none.")] = None,
    low_balance: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Low below it; none: as the settings say.")
    ] = None,
    depleted_below: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Used up below it; none: as the settings say.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say where a gateway hears of itself, and from which amounts on. What is not named stays as it is.

    \b
    Example: clearinghouse notices set acme --webhook https://acme.example/hooks --low-balance 25
    """
    from dataclasses import replace

    from clearinghouse.identity import gateways
    from settlement.notices.targets import set_target, target_of

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        target = await target_of(connection, found.id)
        changed = replace(
            target,
            webhook_url=_changed(target.webhook_url, webhook),
            email=_changed(target.email, email),
            low_balance=_amount(target.low_balance, low_balance, found.currency),
            depleted_below=_amount(target.depleted_below, depleted_below, found.currency),
        )
        await set_target(connection, changed, actor=actor())
        return _document(await target_of(connection, found.id))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def secret(gateway: GatewayName, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show the secret that a gateway's webhook is signed with. It is the gateway's: hand it over like a password.

    \b
    Example: clearinghouse notices secret acme
    """
    from clearinghouse.identity import gateways
    from settlement.notices.targets import secret_of, target_of

    settings = settings_of(data_dir)

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        target = await target_of(connection, found.id)
        return _document(target) | {"secret": secret_of(pepper_of(settings), found.id, target.secret_version)}

    _print(in_transaction(settings, work), as_json)


@app.command()
def rotate(gateway: GatewayName, *, grace: Grace = "24h", data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Replace the secret of a gateway's webhook; for a grace period it is signed with both.

    \b
    Example: clearinghouse notices rotate acme --grace 24h
    """
    from clearinghouse.identity import gateways
    from settlement.notices.targets import rotate_secret, secret_of

    settings = settings_of(data_dir)

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        target = await rotate_secret(connection, found.id, grace=grace_of(grace), actor=actor())
        return _document(target) | {"secret": secret_of(pepper_of(settings), found.id, target.secret_version)}

    _print(in_transaction(settings, work), as_json)


@app.command("test")
def send_test(gateway: GatewayName, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Have a test sent to a gateway: the worker does, within seconds, as it sends notices.

    \b
    Example: clearinghouse notices test acme
    """
    from clearinghouse.database.connect import database_now
    from clearinghouse.identity import gateways
    from clearinghouse.ids import show
    from settlement.notices import sent
    from settlement.notices.messages import test_message
    from settlement.notices.targets import target_of

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        found = await gateways.find(connection, gateway)
        channels = (await target_of(connection, found.id)).channels()
        if not channels:
            raise InvalidRequest("this gateway has neither a webhook nor an address: `clearinghouse notices set`")
        now = await database_now(connection)
        message = test_message(show("gw", found.id), found.name, now=now)
        await sent.send_test(connection, found.id, channels, message, now=now)
        return {"gateway_id": show("gw", found.id), "channels": ", ".join(channels)}

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command("list")
def list_all(
    gateway: Annotated[str | None, typer.Argument(metavar="[GATEWAY]", help="Only of this one.")] = None,
    *,
    dead: Annotated[bool, typer.Option("--dead", help="Only what was given up.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List what gateways were told and how far it got, the newest first.

    \b
    Example: clearinghouse notices list acme --dead
    """
    from clearinghouse.identity import gateways
    from settlement.notices import sent

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        gateway_id = (await gateways.find(connection, gateway)).id if gateway is not None else None
        return await sent.list_notices(connection, gateway_id=gateway_id, only_dead=dead)

    documents = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": documents})
        return
    rows = [
        [each["id"], each["gateway"], each["type"], each["created_at"],
         ", ".join(f"{way['channel']} {way['state']} ({way['attempts']})" for way in each["sent"])]
        for each in documents
    ]  # fmt: skip
    print_table(("id", "gateway", "type", "at", "sent"), rows, if_empty="No gateway was told anything.")


@app.command()
def replay(
    what: Annotated[list[str], typer.Argument(metavar="NOTICE…", help="Ids (ntc_…); or a gateway, with --dead.")],
    *,
    dead: Annotated[bool, typer.Option("--dead", help="All that was given up for the gateway.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send notices again, to where the gateway hears of itself now, under the ids they had.

    \b
    Example: clearinghouse notices replay ntc_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b
    """
    from clearinghouse.database.connect import database_now
    from clearinghouse.identity import gateways
    from clearinghouse.ids import parse
    from settlement.notices import sent

    async def work(connection: AsyncConnection) -> int:
        now = await database_now(connection)
        if dead:
            counts = [
                await sent.replay_dead(connection, (await gateways.find(connection, name)).id, now=now) for name in what
            ]
            return sum(counts)
        try:
            ids = [parse("ntc", text) for text in what]
        except ValueError as error:
            raise InvalidRequest(f"a notice's id is {error}; all that was given up for a gateway: --dead") from error
        return await sent.replay(connection, ids, now=now)

    count = in_transaction(settings_of(data_dir), work)
    _print({"messages": count}, as_json)


def _changed(before: str | None, given: str | None) -> str | None:
    return before if given is None else None if given == _NONE else given


def _amount(before: Decimal | None, given: str | None, currency: str) -> Decimal | None:
    from clearinghouse.ledger.money import parse_amount

    if given is None:
        return before
    return None if given == _NONE else parse_amount(given, currency=currency, may_be_zero=True)


def _document(target: Target) -> dict[str, Any]:
    from clearinghouse.ids import show
    from clearinghouse.ledger.money import show_amount

    amounts = {"low_balance": target.low_balance, "depleted_below": target.depleted_below}
    return {
        "gateway_id": show("gw", target.gateway_id), "webhook": target.webhook_url, "email": target.email,
        **{name: show_amount(amount) if amount is not None else None for name, amount in amounts.items()},
        "secret_version": target.secret_version,
    }  # fmt: skip


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_details((name, str(value)) for name, value in document.items() if value is not None)
