"""`clearinghouse chain`: what happened to the escrow on the chain."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clearinghouse.cli.context import (
    BadConfiguration,
    ConfigFile,
    DatabaseNotReady,
    DataDir,
    embedded_database,
    in_transaction,
    settings_of,
)
from clearinghouse.cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.config import Settings
    from clearinghouse.indexer import Indexer

_HELP = """What happened on the chain: redeemed tickets, deposits, reserves, rounds.

\b
Example: clearinghouse chain events --foreign
"""
#: In a row, before `chain index --once` gives up.
_FAILURES_MAX_COUNT: Final = 5
_PROGRESS_EVERY_S: Final = 5

app = typer.Typer(no_args_is_help=True, help=_HELP)


@app.command()
def index(  # noqa: PLR0917 - typer's way to have options
    from_block: Annotated[
        int | None,
        typer.Option("--from-block", metavar="BLOCK", min=1, help="First forget this block and later ones."),
    ] = None,
    sender: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Whose events; may be repeated. Default: the signers' own."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when everything was read that there is.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Read the events of our escrows from the chain into the database, until Ctrl-C or, with --once, to the end.

    `serve` does this by itself. Where it runs, it reads and this command stands by; after --from-block `serve` reads
    again from there. Redeemed tickets are compared with what was issued; nothing of it is charged to anybody.

    \b
    Examples:
      clearinghouse chain index --once --json
      clearinghouse chain index --from-block 401000000
    """
    from psycopg import OperationalError

    from chain.quorum import NoDecision
    from clearinghouse.indexer import indexer_of
    from clearinghouse.log import configure_logging
    from clearinghouse.process import run

    settings = settings_of(data_dir, config=config)
    if not settings.chain.is_configured:
        raise BadConfiguration("chain.rpc_urls or chain.rpc_urls_file is needed: there is no chain to read.")
    senders = _senders(settings, sender or [])
    configure_logging(settings.log)
    ended: dict[str, Any] = {}

    async def main(stop: asyncio.Event) -> None:
        async with indexer_of(settings.chain, conninfo, senders) as indexer:
            if from_block is not None:
                await indexer.begin_at(from_block)
            ended.update(await _read(indexer, stop, poll_s=settings.chain.poll_s, once=once))

    try:
        with ExitStack() as stack:
            url = settings.database_url
            conninfo = url.get_secret_value() if url else stack.enter_context(embedded_database(settings))
            run(main)
    except NoDecision as reason:
        raise BadConfiguration(f"the chain cannot be read: {reason}") from reason
    except OperationalError as error:
        raise DatabaseNotReady(f"the database cannot be used: {str(error).strip()}") from error
    if as_json:
        print_json(ended)
    elif ended["standing_by"]:
        typer.echo("Another process reads.")
    else:
        typer.echo(f"{ended['blocks_behind']} blocks are left to read.")


@app.command()
def events(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most, the newest first.")] = 20,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only these, such as ticket_redeemed.")] = None,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="Only redeemed tickets that were not issued as they are.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List what was read of the chain, newest first.

    A redeemed ticket is `matched` with its issuance, or `foreign` (we issued none such) or `altered` (we issued another
    one with its recipientRand and nonce): with these two, somebody else signs with the key.

    \b
    Examples:
      clearinghouse chain events --foreign --json
      clearinghouse chain events --kind withdrawal
    """
    from clearinghouse.chain_events import list_events

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        return await list_events(connection, limit=limit, kind=kind, foreign_only=foreign)

    found = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": found})
        return
    columns = ("block_number", "kind", "status", "party", "amount_wei", "round", "issuance_id", "confirmed")
    rows = [["" if item[column] is None else str(item[column]) for column in columns] for item in found]
    print_table(columns, rows, right=[0, 4, 5], if_empty="Nothing was read.")


def _senders(settings: Settings, given: list[str]) -> list[bytes]:
    """Besides those that the database knows. Raises BadConfiguration."""
    from chain.keystore import KeystoreError
    from chain.signatures import parse_address
    from clearinghouse.running import native_key

    try:
        if given:
            return [parse_address(address) for address in given]
        if settings.signer.kind == "native":
            return [native_key(settings).address]
    except (KeystoreError, ValueError, OSError) as error:
        raise BadConfiguration(str(error)) from error
    expected = settings.signer.go_livepeer.expected_address
    return [parse_address(expected)] if expected is not None else []


async def _read(indexer: Indexer, stop: asyncio.Event, *, poll_s: float, once: bool) -> dict[str, Any]:
    """Until `stop`, or the end. Raises NoDecision where the end cannot be reached, or nothing may be done about it."""
    import asyncio
    import time

    from chain.quorum import NoDecision
    from clearinghouse.indexer import ChainReplaced, Turn

    failures_count, told_at_s, turn = 0, time.monotonic(), None
    while not stop.is_set():
        try:
            turn = await indexer.turn()
            failures_count = 0
        except NoDecision as reason:
            failures_count += 1
            if isinstance(reason, ChainReplaced) or (once and failures_count == _FAILURES_MAX_COUNT):
                raise
            typer.echo(f"waiting: {reason}", err=True)
        if time.monotonic() - told_at_s >= _PROGRESS_EVERY_S:
            told_at_s = time.monotonic()
            typer.echo(f"{indexer.behind_count} blocks are left to read …", err=True)
        is_at_end = turn is not Turn.BEHIND and indexer.behind_count == 0
        if once and failures_count == 0 and is_at_end:
            break
        if failures_count or is_at_end:
            try:
                async with asyncio.timeout(poll_s):
                    await stop.wait()
            except TimeoutError:
                continue
    return {"standing_by": turn is Turn.STANDING_BY, "blocks_behind": indexer.behind_count}
