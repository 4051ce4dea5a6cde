"""`clearinghouse topup`: money from a wallet into the sender's escrow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from clearinghouse.cli.context import BadConfiguration, ConfigFile, DataDir, actor, settings_of, with_engine
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.cli.quantities import amount_wei, eth
from clearinghouse.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from chain.funding import Amounts
    from chain.wallets import Wallet
    from clearinghouse.config import Settings
    from settlement.topups.flow import Topups
    from settlement.topups.pursuing import Topup
    from settlement.topups.store import Planned, TopupStore

_HELP = """Pay into the sender's deposit and reserve, from a wallet of yours.

`plan` shows what would be sent and sends nothing. `send` asks before it sends. It pays what coverage advises, or
amounts that you name, within topups.transaction_max_wei and topups.day_max_wei, which hold for both. One is in flight
at a time; it is sent once, whatever happens on the way: a command that was interrupted goes on with `follow`.

The wallet is configured in [topups]: an encrypted keystore, or a signer elsewhere. Its key is never an argument.

\b
Examples:
  clearinghouse topup plan
  clearinghouse topup send --deposit 0.5eth --reserve 0.1eth --reason "before the launch"
  clearinghouse topup list
"""
#: How often one that is in flight is looked at.
_LOOK_EVERY_S: Final = 3

app = typer.Typer(no_args_is_help=True, help=_HELP)

_Deposit = Annotated[
    str | None, typer.Option("--deposit", metavar="AMOUNT", help="Into the deposit, such as 0.5eth. Not as advised.")
]
_Reserve = Annotated[
    str | None, typer.Option("--reserve", metavar="AMOUNT", help="Into the reserve, such as 0.1eth. Not as advised.")
]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask. Needed where there is no terminal to ask at.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="As `clearinghouse topup list` has it.")]
_NoWait = Annotated[
    bool, typer.Option("--no-wait", help="End when it is sent; `clearinghouse work` or `follow` sees to the rest.")
]


class _Plan(NamedTuple):
    planned: Planned
    document: dict[str, Any]


@app.command()
def plan(
    deposit: _Deposit = None,
    reserve: _Reserve = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what would be sent now, and from what that follows. Nothing is signed or sent.

    Everything is checked as before a real one: coverage is fresh, endpoints agree, the contract would take it, the
    caps allow it, the wallet can pay it. Exit status 1 where something stands in the way.

    \b
    Examples:
      clearinghouse topup plan
      clearinghouse topup plan --deposit 0.5eth --json
    """
    settings, amounts = settings_of(data_dir, config=config), _amounts(deposit, reserve)

    async def work(engine: AsyncEngine) -> _Plan:
        async with _opened(settings, engine) as (topups, store):
            return await _planned(settings, engine, topups, store, amounts)

    found = with_engine(settings, work)
    if as_json:
        print_json(found.document)
    else:
        _print_plan(found.planned, found.document)


@app.command()
def send(  # noqa: PLR0917 - typer's way to have options
    deposit: _Deposit = None,
    reserve: _Reserve = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with who did it.")] = "",
    yes: _Yes = False,
    no_wait: _NoWait = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Pay into the escrow: what coverage advises, or the amounts given. Asks first, and waits until it is there.

    Interrupted, it is not lost and not sent twice: `clearinghouse topup follow` or `clearinghouse work` goes on.

    \b
    Examples:
      clearinghouse topup send
      clearinghouse topup send --deposit 0.5eth --yes --json
    """
    settings, amounts = settings_of(data_dir, config=config), _amounts(deposit, reserve)

    async def work(engine: AsyncEngine) -> Topup:
        async with _opened(settings, engine) as (topups, store):
            found = await _planned(settings, engine, topups, store, amounts)
            if not as_json:
                _print_plan(found.planned, found.document)
            _require_yes(yes, f"Send {eth(found.planned.amounts.total_wei)}?")
            id_ = await topups.begin(found.planned, await store.now(), reason=reason)
            return await _followed(topups, store, id_, until_sent=no_wait)

    _print_topup(with_engine(settings, work), as_json)


@app.command()
def follow(
    no_wait: _NoWait = False, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """See the one in flight to its end: send it where that was not done, replace it where it is stuck.

    \b
    Example: clearinghouse topup follow
    """
    settings = settings_of(data_dir, config=config)

    async def work(engine: AsyncEngine) -> Topup:
        async with _opened(settings, engine, only_follows=True) as (topups, store):
            found = await store.in_flight()
            if found is None:
                raise NotFound("No top-up is in flight.")
            return await _followed(topups, store, found.id, until_sent=no_wait)

    _print_topup(with_engine(settings, work), as_json)


@app.command()
def cancel(  # noqa: PLR0917 - typer's way to have options
    id_: _Id,
    yes: _Yes = False,
    no_wait: _NoWait = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep one that is not mined yet from paying: an empty transaction of the wallet to itself takes its place.

    It costs gas. Which of the two the chain takes shows when one is mined; until then nothing else can be sent. One of
    which nothing was signed is forgotten, and costs nothing.

    \b
    Example: clearinghouse topup cancel 0c1d2e3f-0000-4000-8000-000000000000
    """
    settings, wanted = settings_of(data_dir, config=config), _id(id_)

    async def work(engine: AsyncEngine) -> Topup:
        async with _opened(settings, engine, only_follows=True) as (topups, store):
            await _found(store, wanted)
            _require_yes(yes, "Cancel it?")
            await topups.cancel(wanted, await store.now())
            return await _followed(topups, store, wanted, until_sent=no_wait)

    _print_topup(with_engine(settings, work), as_json)


@app.command("list")
def list_topups(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most, the newest first.")] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List top-ups, and tell how things stand by the last look of `clearinghouse work`.

    \b
    Example: clearinghouse topup list --json
    """

    async def work(engine: AsyncEngine) -> tuple[list[Topup], dict[str, Any] | None]:
        from settlement.topups.documents import standing_document
        from settlement.topups.store import TopupStore, read_standing

        async with engine.connect() as connection:
            stands = await read_standing(connection)
        return await TopupStore(engine, actor=actor()).newest(limit), standing_document(stands)

    found, stands = with_engine(settings_of(data_dir), work)
    if as_json:
        print_json({"items": [_document(topup) for topup in found], "standing": stands})
        return
    columns = ("id", "created", "state", "deposit", "reserve", "by", "transaction")
    rows = [
        [str(each.id), f"{each.created_at:%Y-%m-%d %H:%M:%S}", each.state.value, eth(each.amounts.deposit_wei),
         eth(each.amounts.reserve_wei), each.actor, f"0x{each.attempts[-1].hash.hex()}" if each.attempts else ""]
        for each in found
    ]  # fmt: skip
    print_table(columns, rows, right=[3, 4], if_empty="Nothing was ever topped up.")
    if stands is not None:
        typer.echo(f"\n{stands['mode']}, as of {stands['observed_at']}: {stands['said']}")


@app.command()
def show(id_: _Id, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show one: every transaction that was signed for it, and who did what, when and why.

    \b
    Example: clearinghouse topup show 0c1d2e3f-0000-4000-8000-000000000000
    """
    wanted = _id(id_)

    async def work(engine: AsyncEngine) -> tuple[Topup, list[dict[str, Any]]]:
        from settlement.topups.documents import event_documents
        from settlement.topups.store import TopupStore

        store = TopupStore(engine, actor=actor())
        return await _found(store, wanted), event_documents(await store.events(wanted))

    found, events = with_engine(settings_of(data_dir), work)
    if as_json:
        print_json({**_document(found), "events": events})
        return
    _print_topup(found, as_json)
    typer.echo("")
    rows = [[event["at"], event["kind"], event["actor"], _facts(event["facts"])] for event in events]
    print_table(("at", "what", "who", "with"), rows, if_empty="")


@app.command("new-wallet")
def new_wallet(
    keystore: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the keystore is written; nothing is there yet.")
    ],
    password_file: Annotated[
        Path,
        typer.Option(
            "--password-file", metavar="FILE", help="File with the password; line ends at its end do not count."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Make a wallet to pay from: a new key, in an encrypted keystore that any Ethereum tool opens. Prints its address.

    Keep a copy of both files elsewhere before you send money there.

    \b
    Example:
      openssl rand -hex 32 > wallet_password && chmod 600 wallet_password
      clearinghouse topup new-wallet treasury.json --password-file wallet_password
    """
    from chain.keystore import KeystoreError, create_keystore
    from chain.signatures import checksum_address

    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\r\n")
        address = checksum_address(create_keystore(keystore, password))
    except (KeystoreError, OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(str(error)) from error
    if as_json:
        print_json({"address": address, "keystore_file": str(keystore)})
    else:
        typer.echo(address)


@asynccontextmanager
async def _opened(
    settings: Settings, engine: AsyncEngine, *, only_follows: bool = False
) -> AsyncIterator[tuple[Topups, TopupStore]]:
    """With the wallet; to follow what is in flight it need not be there any more. Raises TopupRefused."""
    from clearinghouse.config import LogSettings
    from clearinghouse.log import configure_logging
    from settlement.topups.conditions import TopupRefused
    from settlement.topups.store import TopupStore
    from settlement.topups.wired import absent_wallet, topups_of, wallet_of

    configure_logging(LogSettings(format="console", level="warning"))
    store = TopupStore(engine, actor=actor())
    wallet: Wallet
    try:
        wallet = wallet_of(settings.topups)
    except TopupRefused as refused:
        if not only_follows:
            raise
        wallet = await absent_wallet(store, refused)
    async with topups_of(settings, store, wallet) as topups:
        yield topups, store


async def _planned(
    settings: Settings, engine: AsyncEngine, topups: Topups, store: TopupStore, amounts: Amounts | None
) -> _Plan:
    """As advised, or the amounts that were named. Raises TopupRefused."""
    from settlement.topups.advice import escrow_to_fund, newest_advice
    from settlement.topups.documents import planned_document
    from settlement.topups.wired import rules_of

    sender = escrow_to_fund(settings)
    async with engine.connect() as connection:
        advice = await newest_advice(connection, sender)
    standing, now = await topups.standing(sender), await store.now()
    if amounts is not None:
        planned = await topups.plan_named(sender, amounts, standing, now)
    else:
        planned = await topups.plan_advised(sender, advice, standing, now)
    rules = rules_of(settings.topups)
    return _Plan(planned, planned_document(planned, rules, day_wei=await store.day_wei(now)))


async def _followed(topups: Topups, store: TopupStore, id_: UUID, *, until_sent: bool) -> Topup:
    """Until it has ended, or is sent. What hinders it is told once."""
    import asyncio

    told = ""
    while True:
        pursued = await topups.pursue(await store.now())
        found = await _found(store, id_)
        trouble = pursued.trouble.message if pursued is not None and pursued.trouble is not None else ""
        state = trouble or found.state.value
        if state != told:
            typer.echo(f"{state} …" if found.is_open else state, err=True)
        told = state
        if not found.is_open or (until_sent and found.state.value == "sent"):
            return found
        await asyncio.sleep(_LOOK_EVERY_S)


async def _found(store: TopupStore, id_: UUID) -> Topup:
    found = await store.find(id_)
    if found is None:
        raise NotFound(f"There is no top-up {id_}.")
    return found


def _amounts(deposit: str | None, reserve: str | None) -> Amounts | None:
    from chain.funding import Amounts

    if deposit is None and reserve is None:
        return None
    return Amounts(amount_wei(deposit or "0"), amount_wei(reserve or "0"))


def _id(text: str) -> UUID:
    from uuid import UUID

    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest(f"{text[:64]!r} is no identifier of a top-up") from None


def _require_yes(yes: bool, question: str) -> None:
    """Raises InvalidRequest where nobody can be asked, and typer.Abort where the answer is no."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest("There is no terminal to ask at: give --yes if it is meant.")
    typer.confirm(question, abort=True, err=True)


def _document(topup: Topup) -> dict[str, Any]:
    from settlement.topups.documents import topup_document

    return topup_document(topup)


def _print_plan(planned: Planned, document: dict[str, Any]) -> None:
    standing, amounts = planned.standing, planned.amounts
    advised = document["advised_at"]
    print_details(
        [
            ("into the deposit", eth(amounts.deposit_wei)),
            ("into the reserve", eth(amounts.reserve_wei)),
            ("gas", f"at most {eth(planned.gas_max_wei)}"),
            ("escrow of", document["sender"]),
            (
                "it has",
                f"{eth(standing.deposit_wei)} and {eth(standing.reserve_wei)}, at block {standing.block.number}",
            ),
            ("paid by", document["payer"]),
            ("which has", eth(standing.balance_wei)),
            ("because", f"coverage advises it, as of {advised}" if advised else "you named the amounts"),
            ("sent in a day", f"{eth(int(document['sent_within_a_day_wei']))} of {eth(int(document['day_max_wei']))}"),
        ]
    )


def _print_topup(topup: Topup, as_json: bool) -> None:
    document = _document(topup)
    if as_json:
        print_json(document)
        return
    shown = [(name.replace("_", " "), value) for name, value in document.items() if name != "transactions"]
    print_details([(name, str(value)) for name, value in shown if value is not None and value is not False])
    rows = [
        [str(each["attempt"]), each["purpose"], each["hash"], each["max_fee_per_gas_wei"], each["signed_at"]]
        for each in document["transactions"]
    ]
    if rows:
        typer.echo("")
        print_table(("attempt", "purpose", "transaction", "fee per gas", "signed"), rows, right=[0, 3], if_empty="")


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in facts.items() if value is not None and value != "")
