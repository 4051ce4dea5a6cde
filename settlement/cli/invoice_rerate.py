"""`clearinghouse invoices rerate`: a closed period by corrected rates."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import ConfigFile, DataDir, actor
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.errors import InvalidRequest
from settlement.cli.invoice_desk import as_worker, require_period, walker
from settlement.cli.stripe_of_dev import settings_with_stripe

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from settlement.rerating.store import RatedLine, Rerating


def rerate(
    *,
    gateway: Annotated[str, typer.Option("--gateway", metavar="GATEWAY", help="Name or id (gw_…).")],
    period: Annotated[str, typer.Option("--period", metavar="DAY", help="A closed one: 2026-10, or 2026-10-05.")],
    as_of: Annotated[str, typer.Option("--as-of", metavar="CARD@VERSION", help="The correction, as it was applied.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; credit note and invoice say so.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every line, old and new; nothing is kept.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Charge every call of a closed period anew, by the rate cards as they were once that version was applied. A credit
    note takes back the period's invoice, and another one takes its place; where nobody was asked, the difference goes
    into the books. Issuances keep what they were charged. The same again does nothing more.

    \b
    Examples:
      clearinghouse rates apply standard-corrected.toml --correction
      clearinghouse invoices rerate --gateway acme --period 2026-10 --as-of standard@2 --reason "wrong tiers" --dry-run
      clearinghouse invoices rerate --gateway acme --period 2026-10 --as-of standard@2 --reason "wrong tiers"
    """  # fmt: skip
    settings = settings_with_stripe(data_dir, config=config)
    named = re.fullmatch(r"([a-z0-9][a-z0-9_.-]*)@([1-9][0-9]{0,8})", as_of)
    if named is None:
        raise InvalidRequest(f"--as-of names a version of a rate card, such as standard@2, not {as_of[:64]!r}")
    require_period(period)
    card, version = named[1], int(named[2])

    async def work(engine: AsyncEngine) -> tuple[Rerating, list[RatedLine]]:
        from clearinghouse.identity.gateways import find
        from settlement.invoices.defaults import InvoiceDefaults
        from settlement.rerating.finish import finish
        from settlement.rerating.plan import Order, find_or_plan

        async with engine.connect() as connection:
            gateway_id = (await find(connection, gateway)).id
        order = Order(gateway_id, period, card, version, reason, actor())
        async with walker(settings, engine) as walking:
            found, lines = await find_or_plan(walking.desk, order, only_try=dry_run)
            if not dry_run:
                found = await finish(walking, found.id, defaults=InvoiceDefaults.by(settings))
            return found, lines

    found, lines = as_worker(settings, work)
    _print(found, lines, as_json=as_json, is_kept=not dry_run)


def _print(found: Rerating, lines: list[RatedLine], *, as_json: bool, is_kept: bool) -> None:
    from settlement.rerating.documents import rated_line_document, rerating_document

    document: dict[str, Any] = rerating_document(found, is_kept=is_kept)
    items = [rated_line_document(line) for line in lines]
    if as_json:
        print_json({**document, "lines": items})
        return
    print_details([(name.replace("_", " "), str(value)) for name, value in document.items() if value is not None])
    typer.echo("")
    columns = ("app", "pipeline", "model", "rule", "calls", "charged", "anew", "difference")
    rows = [
        [each["app"], each["pipeline"], each["model"], each["rate_rule"], str(each["calls"]), each["charged"],
         each["charge"], each["difference"]]
        for each in items
    ]  # fmt: skip
    print_table(columns, rows, right=[4, 5, 6, 7], if_empty="There was no usage.")
