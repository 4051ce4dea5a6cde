"""`clearinghouse customers terms`: the way a gateway is billed, and from when on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, actor, in_transaction, settings_of
from clearinghouse.cli.gateways import GatewayName
from clearinghouse.cli.output import AsJson, print_details, print_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.identity.gateways import Gateway
    from settlement.customers.changes import Schedule


def terms(
    gateway: GatewayName,
    *,
    way: Annotated[
        str | None, typer.Option(metavar="WAY", help="prepaid, automatic, postpaid, subscription or free.")
    ] = None,
    begins: Annotated[
        str,
        typer.Option("--from", metavar="WHEN", help="Of a period: next, 2026-12, 2026-12-15; start: of a new gateway."),
    ] = "next",
    cadence: Annotated[
        str | None, typer.Option(metavar="PERIODS", help="weekly, weekly:thu, monthly, monthly:15.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="Whose midnight it is: Europe/Berlin.")] = None,
    credit_limit: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Of postpaid and subscription: the most that may be owed.")
    ] = None,
    refill_below: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Automatic: a balance below it is topped up.")
    ] = None,
    refill_to: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Up to this.")] = None,
    refill_cooldown: Annotated[
        str | None, typer.Option(metavar="SPAN", help="The least time between two.", show_default="1h")
    ] = None,
    refill_day_max: Annotated[str | None, typer.Option(metavar="AMOUNT", help="The most in a day of UTC.")] = None,
    refill_month_max: Annotated[str | None, typer.Option(metavar="AMOUNT", help="The most in a month of UTC.")] = None,
    fee: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Subscription: its price, in advance.")] = None,
    included: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Usage that is in it.")] = None,
    ends_at: Annotated[str | None, typer.Option(metavar="TIME", help="Free: when nothing is signed any more.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the way a gateway is billed, or agree on another from the end of a period on.

    What is not named stays as it is until then; another way begins with nothing of the old one. What was to change then
    or later is replaced. What has begun is never changed.

    \b
    Examples:
      clearinghouse customers terms acme
      clearinghouse customers terms acme --way postpaid --credit-limit 500 --cadence weekly:thu --time-zone Asia/Tokyo
      clearinghouse customers terms acme --way subscription --fee 100 --included 120 --from 2026-12
      clearinghouse customers terms acme --way free --ends-at 2026-12-31T00:00:00Z --from start
    """
    named = {
        "way": way, "cadence": cadence, "time_zone": time_zone, "credit_limit": credit_limit,
        "refill_below": refill_below, "refill_to": refill_to, "refill_cooldown": refill_cooldown,
        "refill_day_max": refill_day_max, "refill_month_max": refill_month_max, "fee": fee, "included": included,
        "ends_at": ends_at,
    }  # fmt: skip
    given = {name: value for name, value in named.items() if value is not None}

    async def work(connection: AsyncConnection, found: Gateway) -> Schedule:
        from settlement.customers.changes import change_terms, schedule

        if not given:
            return await schedule(connection, found)
        return await change_terms(connection, found, given, begins=begins, actor=actor())

    _run(gateway, work, data_dir, as_json)


def cancel_terms(gateway: GatewayName, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take back what is still to change of the way a gateway is billed.

    Example: clearinghouse customers cancel-terms acme
    """

    async def work(connection: AsyncConnection, found: Gateway) -> Schedule:
        from settlement.customers.changes import cancel_changes

        return await cancel_changes(connection, found)

    _run(gateway, work, data_dir, as_json)


def end_free(
    gateway: GatewayName,
    ends_at: Annotated[str, typer.Argument(metavar="TIME", help="RFC 3339, still to come; never: no end.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Move the end of the free terms that hold; where they have ended, they go on.

    Example: clearinghouse customers end-free acme 2027-01-31T00:00:00Z
    """

    async def work(connection: AsyncConnection, found: Gateway) -> Schedule:
        from settlement.customers.changes import parse_end, set_end_of_free_terms

        return await set_end_of_free_terms(connection, found, parse_end(ends_at))

    _run(gateway, work, data_dir, as_json)


def _run(
    gateway: str,
    work: Callable[[AsyncConnection, Gateway], Awaitable[Schedule]],
    data_dir: DataDir,
    as_json: bool,
) -> None:
    async def described(connection: AsyncConnection) -> dict[str, Any]:
        from clearinghouse.identity import gateways
        from settlement.customers.documents import schedule_document

        return schedule_document(await work(connection, await gateways.find(connection, gateway)))

    document = in_transaction(settings_of(data_dir), described)
    if as_json:
        print_json(document)
        return
    period = document["period"]
    print_details([("period", f"{period['first_day']} to {period['last_day']}, until {period['ends_at']}")])
    for title, terms_ in [("now", document["terms"]), *(("then", each) for each in document["to_come"])]:
        print_details([(title, sentence(terms_))])


def sentence(terms: dict[str, Any]) -> str:
    """Terms on one line."""
    words = [terms["way"], terms["cadence"], terms["time_zone"]]
    if terms["credit_limit"] != "0":
        words.append(f"credit limit {terms['credit_limit']}")
    if terms["fee"] is not None:
        words.append(f"fee {terms['fee']} with {terms['included']} included")
    if refill := terms["refill"]:
        caps = f"at most {refill['day_max']} a day and {refill['month_max']} a month"
        words.append(f"topped up below {refill['below']} to {refill['to']}, {caps}")
    if terms["ends_at"] is not None:
        words.append(f"until {terms['ends_at']}")
    since = f" from {terms['begins_at']}" if terms["begins_at"] is not None else ""
    return ", ".join(words) + since
