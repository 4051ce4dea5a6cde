"""`clearinghouse alerts`: what is wrong now, who looks after it, what is to be silent; and trying the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import ConfigFile, DataDir, actor, in_transaction, settings_of
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table
from clearinghouse.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.config import Settings
    from settlement.alerts.silences import Silence

_HELP = """What is wrong now. `clearinghouse work` watches, and tells the channels of alerts.channels; docs/alerts.md.

\b
Examples:
  clearinghouse alerts list
  clearinghouse alerts ack alr_0190…
  clearinghouse alerts silence rule=deposit_low --for 2h --reason "topping up"
  clearinghouse alerts replay --channel pager
  clearinghouse alerts test
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)


@app.command("list")
def list_all(
    every: Annotated[bool, typer.Option("--all", help="Also what has ended, up to 200 in all.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List what is wrong now, and the silences in force.

    \b
    Example: clearinghouse alerts list --all
    """
    from clearinghouse.database.connect import database_now
    from settlement.alerts import store
    from settlement.alerts.messages import alert_document

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        alerts = await store.listed(connection, with_resolved=every)
        silences = await store.silences(connection, await database_now(connection))
        return {
            "items": [alert_document(alert) for alert in alerts],
            "silences": [_silence_document(silence) for silence in silences],
        }

    document = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
        return
    rows = [
        [each["id"], each["severity"], each["state"], each["since"], each["acknowledged_by"], each["summary"]]
        for each in document["items"]
    ]
    columns = ("id", "severity", "state", "since", "looked after by", "what")
    print_table(columns, rows, if_empty="Nothing is wrong.")
    for silence in document["silences"]:
        matches = " ".join(f"{name}={value}" for name, value in silence["matches"].items())
        typer.echo(f"silent until {silence['ends_at']}: {matches} ({silence['id']}, {silence['actor']})")


@app.command()
def ack(
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="Id (alr_…) or fingerprint.")],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say that you look after an alert: it is not told again, and not escalated. Its end is.

    \b
    Example: clearinghouse alerts ack alr_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b
    """
    from clearinghouse.database.connect import database_now
    from settlement.alerts import store
    from settlement.alerts.messages import alert_document

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        now = await database_now(connection)
        return alert_document(await store.acknowledge(connection, alert, actor=actor(), now=now))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def silence(
    matches: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE…", help="rule, severity, group, fingerprint, or a label.")
    ],
    *,
    lasts: Annotated[str, typer.Option("--for", metavar="SPAN", help="How long: 30m, 2h, 7d.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with who did it.")] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Tell nobody of what has all these values, for a time. What still holds afterwards is told then.

    \b
    Example: clearinghouse alerts silence rule=deposit_low --for 2h --reason "topping up"
    """
    from clearinghouse.database.connect import database_now
    from clearinghouse.instants import parse_span
    from settlement.alerts import store

    wanted, span = _matches(matches), parse_span(lasts)

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        now = await database_now(connection)
        made = await store.silence(connection, wanted, now=now, ends_at=now + span, reason=reason, actor=actor())
        return _silence_document(made)

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def unsilence(
    silence_id: Annotated[str, typer.Argument(metavar="SILENCE", help="Its id (sil_…).")],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a silence now.

    \b
    Example: clearinghouse alerts unsilence sil_01930c3a5b7c7e8f9a0b1c2d3e4f5a6b
    """
    from clearinghouse.database.connect import database_now
    from settlement.alerts import store

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        now = await database_now(connection)
        return _silence_document(await store.end_silence(connection, silence_id, now=now))

    _print(in_transaction(settings_of(data_dir), work), as_json)


@app.command()
def replay(
    channel: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this channel; of all without it.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send again what was given up, such as after a channel was repaired: the worker does, within seconds.

    \b
    Example: clearinghouse alerts replay --channel pager
    """
    from clearinghouse.database.connect import database_now
    from settlement.alerts import store

    async def work(connection: AsyncConnection) -> int:
        return await store.replay_dead(connection, channel=channel, now=await database_now(connection))

    count = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"messages": count})
    else:
        print_details([("messages", str(count))])


@app.command("test")
def try_channels(
    channel: Annotated[str | None, typer.Option(metavar="NAME", help="Only this channel; all without it.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send an alert and its end to every channel, now, and say how each took it. Exits with 1 if one did not.

    \b
    Examples:
      clearinghouse alerts test
      clearinghouse alerts test --channel pager     the same, of one channel
    """
    import asyncio

    from clearinghouse.log import configure_logging
    from settlement.alerts.trial import tried
    from settlement.delivery.channels import channels_of

    settings: Settings = settings_of(data_dir, config=config)
    configure_logging(settings.log)
    channels = channels_of(settings.alerts)
    if channel is not None and channel not in channels:
        raise InvalidRequest(f"there is no channel {channel[:40]!r}: there are {', '.join(sorted(channels))}")
    chosen = {name: each for name, each in channels.items() if channel in {None, name}}
    outcomes = asyncio.run(tried(chosen, settings.alerts))
    if as_json:
        print_json({"items": [{"channel": name, "error": error or None} for name, error in outcomes.items()]})
    else:
        print_details((name, error or "took it") for name, error in outcomes.items())
    if any(outcomes.values()):
        raise typer.Exit(1)


def _matches(texts: list[str]) -> dict[str, str]:
    from settlement.alerts.silences import require_known

    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InvalidRequest("what is to be silent is written NAME=VALUE, such as rule=deposit_low")
    matches = {name: value for name, _, value in pairs}
    if len(matches) < len(pairs):
        raise InvalidRequest("a name is given twice: a silence has what fits all of its values")
    require_known(matches)
    return matches


def _silence_document(silence: Silence) -> dict[str, Any]:
    from clearinghouse.ids import show
    from clearinghouse.instants import rfc3339

    return {
        "id": show("sil", silence.id), "matches": dict(silence.matches), "starts_at": rfc3339(silence.starts_at),
        "ends_at": rfc3339(silence.ends_at), "reason": silence.reason, "actor": silence.actor,
    }  # fmt: skip


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    flat = [(name, value) for name, value in document.items() if isinstance(value, str) and value]
    nested = [entry for value in document.values() if isinstance(value, dict) for entry in value.items()]
    print_details([*flat, *nested])
