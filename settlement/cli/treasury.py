"""`clearinghouse treasury`: what ETH was bought for, what moved by hand, what is earned, how much ETH to buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import (
    ConfigFile,
    DataDir,
    actor,
    in_transaction,
    settings_of,
    with_engine,
    with_engine_and_conninfo,
)
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.cli.quantities import amount_wei, eth
from clearinghouse.errors import InvalidRequest
from settlement.cli.spans import Month, To, UtcFrom

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from settlement.treasury.advise import Purchase
    from settlement.treasury.records import Conversion, Movement, Record, Records, Written
    from settlement.treasury.report import TreasuryReport

_HELP = """The treasury: what ETH was bought for, what moved by hand, what is earned, and how much ETH to buy.

`buy` and `accept` write down what only you know; nothing of it is ever changed, `void` takes it back. `report` says
what a period earned, `advise` how much ETH to buy now. Nothing here sends money: `clearinghouse topup` does.
docs/treasury.md.

\b
Examples:
  clearinghouse treasury buy 2.5eth --paid 8012.50 --currency USD --venue kraken --reference TX-1 --at 2026-10-05
  clearinghouse treasury accept 0x5e0f… --note "from cold storage, Ann"
  clearinghouse treasury list
  clearinghouse treasury report --month 2026-10
  clearinghouse treasury advise
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

_Hash = Annotated[str, typer.Argument(metavar="TRANSACTION", help="Its hash: 0x and 64 hexadecimal digits.")]
_Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Who moved it, and why; kept with the record.")]


_OF_CONVERSIONS = (
    "traded_at", "id", "bought_wei", "paid", "fee", "currency", "price_with_fee", "venue", "reference"
)  # fmt: skip
_OF_PURCHASES = ("bought with", "trades", "paid", "of it fees", "bought", "average price", "conversions")
_OF_MARGINS = (
    "gateway", "", "calls", "charged", "re-rated", "expected value", "cost as priced", "margin", "cost as bought",
    "margin",
)  # fmt: skip
_OF_MOVEMENTS = ("block_number", "id", "kind", "amount_wei", "sender", "transaction_hash")


@app.command()
def buy(
    bought: Annotated[str, typer.Argument(metavar="AMOUNT", help="The ETH that came, such as 2.5eth.")],
    *,
    paid: Annotated[str, typer.Option(metavar="AMOUNT", help="All that left the bank for it, the fee included.")],
    currency: Annotated[str, typer.Option(metavar="CURRENCY", help="What it was paid in: USD, EUR …")],
    fee: Annotated[str, typer.Option(metavar="AMOUNT", help="The part of what was paid that was the fee.")] = "0",
    venue: Annotated[str, typer.Option(metavar="NAME", help="Where it was bought.")],
    reference: Annotated[str, typer.Option(metavar="TEXT", help="What the trade is known by there; recorded once.")],
    at: Annotated[str, typer.Option(metavar="TIME", help="When: an instant such as 2026-10-05T12:00:00Z, or a day.")],
    note: Annotated[str, typer.Option(metavar="TEXT", help="What else there is to say of it.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Record that ETH was bought. The same trade twice is recorded once; with other values it is refused.

    \b
    Example:
      clearinghouse treasury buy 2.5eth --paid 8012.50 --currency USD --venue kraken --reference TX-1 --at 2026-10-05
    """
    from settlement.reconciliation.months import instant
    from settlement.treasury import records

    bought_wei, traded_at = amount_wei(bought), instant(at)
    if not bought_wei:
        raise InvalidRequest("nothing was bought: give the ETH that came, such as 2.5eth")

    async def work(connection: AsyncConnection) -> Written[Conversion]:
        known = await records.currency_of(connection, currency)
        paid_minor = records.minor_of(paid, known)
        fee_minor = records.minor_of(fee, known, may_be_zero=True)
        trade = records.Trade(venue, reference, currency, paid_minor, fee_minor, bought_wei, traded_at)
        return await records.buy(connection, trade, note=note, actor=actor())

    written = in_transaction(settings_of(data_dir), work)
    _print_written([written], as_json, alone=True)


@app.command()
def accept(transaction: _Hash, *, note: _Note, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Record what a transaction moved in an escrow, as the chain's index has it: all of it, each movement once.

    Of payments that no top-up of ours made, and of withdrawals: reconciliation then knows them.

    \b
    Example:
      clearinghouse treasury accept 0x5e0f… --note "from cold storage, Ann"
    """
    from settlement.treasury import records

    hash_ = records.parse_hash(transaction)

    async def work(connection: AsyncConnection) -> list[Written[Movement]]:
        return await records.accept(connection, hash_, note=note, actor=actor())

    _print_written(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def move(
    transaction: _Hash,
    *,
    block: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="The block that it is in.")],
    note: _Note,
    deposit: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Paid into the deposit: 1eth.")] = None,
    reserve: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Paid into the reserve: 0.5eth.")] = None,
    withdrawn: Annotated[str | None, typer.Option(metavar="AMOUNT", help="Withdrawn, deposit and reserve.")] = None,
    sender: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Whose escrow. Default: topups.sender of the settings.")
    ] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Record what a transaction moved where the chain's index does not have it: amounts and block are yours to give.

    \b
    Example:
      clearinghouse treasury move 0x5e0f… --block 401223344 --deposit 1eth --note "before the index began"
    """
    from chain.networks import NETWORKS
    from settlement.treasury import records

    settings, hash_ = settings_of(data_dir, config=config), records.parse_hash(transaction)
    chain_id, owner = NETWORKS[settings.chain.network].chain_id, _sender(settings, sender)
    given = {records.DEPOSIT: deposit, records.RESERVE: reserve, records.WITHDRAWAL: withdrawn}
    moved = [
        records.Moved(chain_id, hash_, block, kind, owner, wei)
        for kind, amount in given.items()
        if amount is not None and (wei := amount_wei(amount))
    ]
    if not moved:
        raise InvalidRequest("nothing moved: give --deposit, --reserve or --withdrawn with an amount such as 1eth")

    async def work(connection: AsyncConnection) -> list[Written[Movement]]:
        return [await records.move(connection, each, note=note, actor=actor()) for each in moved]

    _print_written(in_transaction(settings, work), as_json)


@app.command()
def void(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Its id: cnv_… or mov_…")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What was wrong with it; kept.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a record back that was wrong: it counts no more, and can be recorded again. It stays in the list.

    \b
    Example: clearinghouse treasury void cnv_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b --reason "the amount of another trade"
    """
    from settlement.treasury import records

    async def work(connection: AsyncConnection) -> Written[Record]:
        return await records.void(connection, record, reason=reason, actor=actor())

    _print_written([in_transaction(settings_of(data_dir), work)], as_json, alone=True)


@app.command("list")
def list_records(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many of each at most, the newest first.")] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List conversions and movements as they were recorded, those that are voided too.

    \b
    Example: clearinghouse treasury list --json
    """
    from settlement.treasury import records
    from settlement.treasury.documents import conversion_document, movement_document

    async def work(connection: AsyncConnection) -> Records:
        return await records.listed(connection, limit=limit)

    found = in_transaction(settings_of(data_dir), work)
    conversions = [conversion_document(each) for each in found.conversions]
    movements = [movement_document(each) for each in found.movements]
    if as_json:
        print_json({"conversions": conversions, "movements": movements})
        return
    _print_records(_OF_CONVERSIONS, conversions, right=(2, 3, 4, 6), if_empty="No conversions.")
    typer.echo("")
    _print_records(_OF_MOVEMENTS, movements, right=(0, 3), if_empty="No movements.")


@app.command()
def report(
    *,
    month: Month = None,
    begin: UtcFrom = None,
    end: To = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What a period earned: by gateway and currency what its calls were charged, their cost, and the margin.

    The cost is the expected value of the tickets, in two ways: as priced, each call at the price of ETH that it was
    charged at; as bought, at the average price of the period's conversions, fees included. Beside it the luck: what was
    redeemed so far of the period's tickets against what was expected.

    \b
    Examples:
      clearinghouse treasury report
      clearinghouse treasury report --month 2026-10 --json
      clearinghouse treasury report --from 2026-10-01 --to 2026-10-15
    """
    from datetime import UTC, datetime

    from settlement.reconciliation.months import chosen
    from settlement.treasury.documents import report_document
    from settlement.treasury.report import treasury_report

    period = chosen(month, begin, end, now=datetime.now(UTC))
    settings = settings_of(data_dir, config=config)

    async def work(engine: AsyncEngine) -> TreasuryReport:
        return await treasury_report(engine, settings, period)

    found = report_document(with_engine(settings, work))
    if as_json:
        print_json(found)
    else:
        _print_report(found)


@app.command()
def advise(
    *,
    horizon_hours: Annotated[
        int | None, typer.Option(min=1, max=8760, help="How long it is to last. Default: coverage.horizon_hours.")
    ] = None,
    target_bps: Annotated[
        int | None,
        typer.Option(
            min=10_000,
            max=1_000_000,
            help="Coverage to reach at once, in basis points. Default: where the level is ok.",
        ),
    ] = None,
    held: Annotated[
        str, typer.Option(metavar="AMOUNT", help="ETH that the treasury has besides, such as in cold storage.")
    ] = "0",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """How much ETH to buy now, so that the escrow lasts for the horizon, and what that costs at the present price.

    What coverage advises, less what the wallet of top-ups has beyond its gas, and less --held: the reserve to its
    target first, then the deposit. Refused, with the reason, where top-ups would not act: on readings that are too old,
    over an escrow that is only declared or is being unlocked, while a top-up is under way. It buys and sends nothing.

    \b
    Examples:
      clearinghouse treasury advise
      clearinghouse treasury advise --horizon-hours 720 --target-bps 25000 --held 3eth --json
    """
    from clearinghouse.config import LogSettings
    from clearinghouse.log import configure_logging
    from settlement.treasury.advise import advised_purchase
    from settlement.treasury.documents import purchase_document

    settings, held_wei = settings_of(data_dir, config=config), amount_wei(held)
    configure_logging(LogSettings(format="console", level="warning"))

    async def work(engine: AsyncEngine, conninfo: str) -> Purchase:
        return await advised_purchase(
            engine, conninfo, settings, horizon_s=horizon_hours * 3600 if horizon_hours is not None else None,
            target_bps=target_bps, held_wei=held_wei,
        )  # fmt: skip

    found = purchase_document(with_engine_and_conninfo(settings, work))
    if as_json:
        print_json(found)
    else:
        _print_purchase(found)


# --- what they share --------------------------------------------------------------------------------------------------


def _sender(settings: Any, given: str | None) -> bytes:
    from chain.signatures import parse_address
    from settlement.topups.advice import escrow_to_fund

    if given is None:
        return escrow_to_fund(settings)
    try:
        return parse_address(given)
    except ValueError as error:
        raise InvalidRequest(f"--sender: {error}") from None


def _print_records(
    columns: tuple[str, ...], documents: list[dict[str, Any]], *, right: tuple[int, ...], if_empty: str
) -> None:
    rows = [
        [*(str(each[name]) for name in columns), each["recorded_by"], each["note"], _voided(each)] for each in documents
    ]
    print_table((*columns, "by", "note", "voided"), rows, right=right, if_empty=if_empty)


def _voided(document: dict[str, Any]) -> str:
    voided = document["voided"]
    return "" if voided is None else f"by {voided['by']}: {voided['reason']}"


def _print_written(written: Sequence[Written[Any]], as_json: bool, *, alone: bool = False) -> None:
    from settlement.treasury.documents import record_document

    documents = [{**record_document(each.record), "was_there": each.was_there} for each in written]
    if as_json:
        print_json(documents[0] if alone else {"items": documents})
        return
    for document in documents:
        was_there, shown = document["was_there"], {**document, "was_there": "", "voided": _voided(document)}
        print_details([(name, str(value)) for name, value in shown.items() if value != ""])
        if was_there:
            typer.echo("This was there before; nothing was written.")


def _print_report(found: dict[str, Any]) -> None:
    typer.echo(f"From {found['begins_at']} until {found['ends_at']}, books as they were at {found['taken_at']}\n")
    rows = [
        [each["currency"], str(len(each["conversions"])), each["paid"], each["fee"], _eth(each["bought_wei"]),
         _money(each["average_price"], each["currency"]), ", ".join(each["conversions"])]
        for each in found["bought"]
    ]  # fmt: skip
    print_table(_OF_PURCHASES, rows, right=(1, 2, 3, 4, 5), if_empty="No conversion is recorded in this period.")
    typer.echo("")
    rows = [[each["gateway"], *_margin_row(each)] for each in found["gateways"]]
    rows += [["TOTAL", *_margin_row(each)] for each in found["totals"]]
    print_table(_OF_MARGINS, rows, right=range(2, 10), if_empty="There were no calls in this period.")
    if (luck := found["luck"]) is not None:
        away = f", {luck['deviations']} standard deviations" if luck["deviations"] is not None else ""
        typer.echo("")
        print_details(
            [
                ("tickets", f"{luck['tickets_count']}, expected to cost {_eth(luck['expected_wei'])}"),
                ("redeemed so far", f"{luck['redeemed_count']}, which cost {_eth(luck['redeemed_wei'])}"),
                ("luck", f"{_eth(luck['spread_wei'])} more than expected (below 0: less){away}"),
            ]
        )
    typer.echo("")
    for missing in found["not_known"]:
        typer.echo(f"not known: {missing}")
    typer.echo("Amounts of money are rounded here, half away from zero, from those that --json has.")


def _margin_row(margin: dict[str, Any]) -> list[str]:
    names = ("cost_as_priced", "margin_as_priced", "cost_as_bought", "margin_as_bought")
    currency = margin["currency"]
    return [
        currency, str(margin["calls_count"]), _money(margin["charged"], currency), _money(margin["rerated"], currency),
        _eth(margin["ev_wei"]), *(_money(margin[name], currency) for name in names),
    ]  # fmt: skip


def _money(amount: str | None, currency: str) -> str:
    """As people write it: `-12.50`."""
    from decimal import Decimal

    from settlement.currencies import account_currency
    from settlement.rounding import rounded

    if amount is None:
        return "not known"
    return f"{rounded(Decimal(amount), account_currency(currency).shown_decimals):f}"


def _eth(amount: str) -> str:
    return eth(int(amount))


def _print_purchase(found: dict[str, Any]) -> None:
    escrow, target, missing, wallet, bought = (
        found[name] for name in ("escrow", "target", "missing", "wallet", "buy")
    )  # fmt: skip
    in_wallet = f"not known, and not counted: {found['wallet_not_known']}"
    if wallet is not None:
        in_wallet = f"{_eth(wallet['usable_wei'])} beyond its gas, read at {wallet['balance_at']} ({wallet['payer']})"
    print_details(
        [
            ("escrow of", found["sender"]),
            (
                "it has",
                f"{_eth(escrow['reserve_wei'])} of reserve, {_eth(escrow['deposit_wei'])} of deposit; block "
                f"{found['block_number']}, read at {found['observed_at']}",
            ),
            ("is to last", f"{target['horizon_s'] // 3600} h, with {_percent(target['confidence_bps'])}"),
            ("coverage at once", f"{_percent(target['coverage_bps'])} at least"),
            ("burn", f"{_eth(found['burn_wei_per_day'])} per day"),
            ("missing", f"{_eth(missing['reserve_wei'])} of reserve, {_eth(missing['deposit_wei'])} of deposit"),
            ("in the wallet", in_wallet),
            ("held besides", _eth(found["held_wei"])),
            (
                "buy",
                f"{_eth(bought['total_wei'])}: {_eth(bought['reserve_wei'])} for the reserve, first, then "
                f"{_eth(bought['deposit_wei'])} for the deposit",
            ),
        ]
    )
    for cost in found["costs"]:
        price = f"{cost['amount']} {cost['currency']} at {cost['price']} ({cost['source']})"
        typer.echo(f"it costs {price if cost['missing'] is None else 'not known: ' + cost['missing']}")


def _percent(bps: int) -> str:
    return f"{bps // 100}.{bps % 100:02d} %"
