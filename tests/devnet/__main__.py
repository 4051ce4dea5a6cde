"""python -m tests.devnet: the devnet's commands. `start` runs until Ctrl-C; the others talk to it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from clearinghouse.cli.output import AsJson, print_details, print_json
from clearinghouse.cli.quantities import amount_wei, eth
from clearinghouse.cli.refusals import ExplainedGroup
from clearinghouse.cli.signing_clients import Declined
from tests.devnet import terms
from tests.devnet.control import NoDevnet, Running
from tests.devnet.gateway import Gateway, Session, gateway, session_of
from tests.devnet.known import wait_until_matched
from tests.devnet.listening import MAIL_PORT, WEBHOOK_PORT, WEBHOOK_SECRET, in_words, listen

app = typer.Typer(
    name="python -m tests.devnet", cls=ExplainedGroup, no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False, help="A chain of one's own with a clearinghouse over it; docs/devnet.md.",
)  # fmt: skip

Folder = Annotated[
    Path,
    typer.Option("--dir", envvar="DEVNET_DIR", help="The devnet's directory. `start` makes it anew."),
]
Name = Annotated[
    str | None, typer.Option("--session", metavar="NAME", help="Begin or go on with it. Without: a new one, once.")
]
FOLDER = Path(".clearinghouse-devnet")
#: Between two looks at the deposit.
DRAIN_PAYMENTS = 4


# --- running ----------------------------------------------------------------------------------------------------------


@app.command()
def start(
    folder: Folder = FOLDER,
    http_port: Annotated[int, typer.Option(help="Of the service; 0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Of the service; 0 takes a free one.")] = 9090,
    round_s: Annotated[int, typer.Option(min=0, help="How long a round lasts; 0: until the command `round`.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Start a chain, an orchestrator and `clearinghouse dev` over both, and run until Ctrl-C.

    What a devnet before had is removed: its chain has ended with it.
    """
    from clearinghouse.config import LogSettings
    from clearinghouse.log import configure_logging
    from tests.devnet.running import NotStarted, Wanted, running_devnet, wait_for
    from tests.parts.devnet import AnvilMissing

    configure_logging(LogSettings(format="console"))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the orchestrator's; the service speaks for itself
    wanted = Wanted(folder, http_port, grpc_port, round_s)
    try:
        told = _Told()
        with running_devnet(wanted) as (running, service):
            told.is_started = True
            _welcome(wanted.config, running, round_s, as_json=as_json)
            while not told.wait(0.2) and service.poll() is None:
                pass
            if not told.is_set():
                raise NotStarted(f"`clearinghouse dev` has ended with {service.returncode}; it says why above")
            typer.echo("stopping", err=True)
            if told.by is signal.SIGINT:
                wait_for(service)
    except AnvilMissing as reason:
        typer.echo(
            f"no devnet: {reason}. Its chain is an anvil node, which npm installs: get Node.js 20 or newer from "
            "nodejs.org or your system's packages (it brings npm), on Linux on x86-64. `make run` needs none of it.",
            err=True,
        )
        raise typer.Exit(1) from reason
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


class _Told(threading.Event):
    """Set by Ctrl-C or SIGTERM, which interrupt a start that is not through yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_started = False
        self.by: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: Any) -> None:
        self.by = self.by or signal.Signals(number)
        self.set()
        if not self.is_started:
            raise KeyboardInterrupt


def _welcome(config: Path, running: Running, round_s: int, *, as_json: bool) -> None:
    if as_json:
        facts = {name: getattr(running, name) for name in ("http_url", "grpc_target", "rpc_url", "sender", "api_key")}
        typer.echo(json.dumps({**facts, "orchestrator_url": running.orchestrator_url, "config": str(config)}))
        return
    rounds = f"a round every {round_s} s" if round_s else "rounds by command"
    python, clearinghouse = (_from_here(Path(sys.executable).parent / name) for name in ("python", "clearinghouse"))
    typer.echo(f"""
The devnet is running. Its chain is new, and so are the books over it.

  chain         {running.rpc_url}   (a block a second, {rounds})
  sender        {running.sender}   (deposit {eth(terms.DEPOSIT_WEI)}, reserve {eth(terms.RESERVE_WEI)})
  orchestrator  {running.orchestrator_url}   (one in ten of its tickets wins {eth(terms.ONE_IN_TEN.face_value_wei)})
  HTTP          {running.http_url}
  gRPC          {running.grpc_target}
  gateway       demo, with {terms.CREDIT_USD + 10} USD of credit
  API key       {running.api_key}

In another terminal, here:

  alias devnet="{python} -m tests.devnet"
  export CLEARINGHOUSE_CONFIG={_from_here(config)}
""")
    print_details((f"  {command}", meaning) for command, meaning in _commands(clearinghouse))
    typer.echo("\nCtrl-C stops all of it. The next start begins with a fresh chain and empty books.\n")


def _commands(clearinghouse: str) -> list[tuple[str, str]]:
    return [
        ("devnet pay", "a payment of ten tickets: signed, charged, handed over"),
        ("devnet pay 46 --session mine", "a session that goes on, with winners in it"),
        ("devnet redeem", "the winners, to the contract: the deposit pays"),
        (f"{clearinghouse} coverage", "what is left to cover the tickets that are open"),
        ("devnet drain --to 0.00103eth --session mine", "99 in 100 win, until the deposit is down to that"),
        ("devnet fund --deposit 0.002eth", "or --reserve"),
        ("devnet round", "the next one: tickets of the round before the last expire"),
        ("devnet unlock", "the sender begins to leave; `devnet lock` takes it back"),
        ("devnet status", "what the chain and the orchestrator have"),
        (f"{clearinghouse} doctor", "whether all is well"),
        (f"{clearinghouse} work", "alerts and top-ups, which `devnet listen` hears of"),
    ]


def _from_here(path: Path) -> str:
    """As short as it can be pasted."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# --- a gateway --------------------------------------------------------------------------------------------------------


@app.command()
def pay(
    count: Annotated[int, typer.Argument(min=1, help="Payments, one after another.")] = 1,
    session: Name = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Pay the orchestrator: tickets are signed by the service, charged to the demo gateway, and handed over."""
    running = Running.read(folder)
    with gateway(running) as by:
        paid, declined = _pay(by, folder, session, count)
    told = running.do("status")
    if as_json:
        refused = {"code": declined.code, "message": declined.message} if declined is not None else None
        print_json({"payments": paid, "refused": refused, "winners_waiting": told["winners_waiting"]})
    else:
        _print_paid(paid, told["winners_waiting"])
        if declined is not None:
            typer.echo(str(declined), err=True)
    if declined is not None:
        raise typer.Exit(1)


def _pay(by: Gateway, folder: Path, name: str | None, count: int) -> tuple[list[dict[str, Any]], Declined | None]:
    """The receipts, and why there are not as many as were wanted."""
    paid: list[dict[str, Any]] = []
    with session_of(name, folder, by) as session:
        try:
            for _ in range(count):
                paid.append(by.pay(session))
        except Declined as declined:
            return paid, declined
    return paid, None


def _print_paid(paid: list[dict[str, Any]], waiting: int) -> None:
    if not paid:
        return
    currency = paid[-1]["currency"]
    print_details([
        ("payments", str(len(paid))),
        ("tickets", str(sum(receipt["num_tickets"] for receipt in paid))),
        ("expected value", eth(sum(int(receipt["ev_wei"]) for receipt in paid))),
        ("charged", f"{sum(Decimal(receipt['charge']) for receipt in paid)} {currency}"),
        ("balance", f"{paid[-1]['balance']} {currency}"),
        ("winners waiting", str(waiting)),
    ])  # fmt: skip


@app.command()
def drain(
    to: Annotated[str, typer.Option("--to", metavar="AMOUNT", help="The deposit at which to stop, such as 0.001eth.")],
    session: Name = None,
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Take the deposit down: tickets of which 99 in 100 win, redeemed at once. They are charged like any others."""
    target_wei, running = amount_wei(to), Running.read(folder)
    running.do("odds", nearly_always=True)
    try:
        with gateway(running) as by, session_of(session, folder, by) as going_on:
            declined = _drain(running, by, going_on, target_wei)
    finally:
        told = running.do("odds", nearly_always=False)
    _show(told, as_json=as_json)
    if declined is not None:
        typer.echo(str(declined), err=True)
        raise typer.Exit(1)


def _drain(running: Running, by: Gateway, session: Session, target_wei: int) -> Declined | None:
    while int(running.do("status")["deposit_wei"]) > target_wei:
        try:
            for _ in range(DRAIN_PAYMENTS):
                by.pay(session)
        except Declined as declined:
            return declined
        finally:
            told = running.do("redeem")
        # Until then tickets that were paid count as open, and the deposit that paid them is gone: coverage would seem
        # lower than it is, the more the faster this goes.
        wait_until_matched(running.http_url, told["winners_redeemed"])
    return None


# --- the chain --------------------------------------------------------------------------------------------------------


@app.command()
def redeem(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Send every winner that waits to the TicketBroker: the deposit pays, and then the reserve."""
    done = Running.read(folder).do("redeem")
    if not as_json:
        refused = "".join(f", {count} refused ({reason})" for reason, count in done["refused"].items())
        typer.echo(f"{done['redeemed']} winners redeemed, {eth(int(done['paid_wei']))} paid{refused}\n")
    _show(done, as_json=as_json)


@app.command()
def fund(
    deposit: Annotated[str, typer.Option(metavar="AMOUNT", help="Into the deposit, such as 0.002eth.")] = "0",
    reserve: Annotated[str, typer.Option(metavar="AMOUNT", help="Into the reserve.")] = "0",
    folder: Folder = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Give the sender more deposit or reserve."""
    amounts = {"deposit_wei": str(amount_wei(deposit)), "reserve_wei": str(amount_wei(reserve))}
    _show(Running.read(folder).do("fund", **amounts), as_json=as_json)


@app.command("round")
def next_round(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """Begin the next round: a ticket is valid in its own and in the one after."""
    _show(Running.read(folder).do("round"), as_json=as_json)


@app.command()
def unlock(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """The sender begins to take its funds out: orchestrators and the service count them as gone."""
    _show(Running.read(folder).do("unlock"), as_json=as_json)


@app.command()
def lock(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """The sender stays after all."""
    _show(Running.read(folder).do("lock"), as_json=as_json)


@app.command()
def status(folder: Folder = FOLDER, as_json: AsJson = False) -> None:
    """What the chain and the orchestrator have."""
    _show(Running.read(folder).do("status"), as_json=as_json)


# --- who is told ------------------------------------------------------------------------------------------------------


@app.command("listen")
def listen_(
    folder: Folder = FOLDER,
    mail_port: Annotated[int, typer.Option(help="Of the mail server; 0 takes a free one.")] = MAIL_PORT,
    webhook_port: Annotated[int, typer.Option(help="Of the webhook; 0 takes a free one.")] = WEBHOOK_PORT,
    as_json: AsJson = False,
) -> None:
    """Be who is told: take the mails and the signed webhooks of `clearinghouse work`, and show them, until Ctrl-C."""

    def ready(mail_port: int, webhook_port: int) -> None:
        if as_json:
            typer.echo(json.dumps({"mail_port": mail_port, "webhook_port": webhook_port}))
        else:
            typer.echo(f"listening for mail at port {mail_port} and for webhooks at port {webhook_port}\n")

    def tell(message: dict[str, Any]) -> None:
        typer.echo(json.dumps({"at": time.time(), **message}) if as_json else in_words(message))

    secret_file = folder / "secrets" / WEBHOOK_SECRET
    try:
        asyncio.run(listen(secret_file, mail_port=mail_port, webhook_port=webhook_port, tell=tell, ready=ready))
    except FileNotFoundError:
        raise NoDevnet(f"no devnet runs in {folder}") from None
    except OSError as error:
        raise typer.BadParameter(f"cannot listen: {error.strerror or error}; --mail-port, --webhook-port") from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    winners = f"{told['winners_waiting']} waiting, {told['winners_redeemed']} redeemed, {told['winners_lost']} lost"
    print_details([
        ("block", str(told["block"])),
        ("round", str(told["round"])),
        ("deposit", eth(int(told["deposit_wei"]))),
        ("reserve", f"{eth(int(told['reserve_wei']))}, {eth(int(told['claimed_in_round_wei']))} claimed in the round"),
        ("funds", told["lock"]),
        ("tickets", str(told["tickets"])),
        ("winners", winners),
        ("earned", eth(int(told["fees_wei"]))),
    ])  # fmt: skip


if __name__ == "__main__":
    app()
