"""`clearinghouse sign-demo`: a payment signed through the running service, and what it cost."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clearinghouse.cli.context import BadConfiguration, DataDir, settings_of
from clearinghouse.cli.output import AsJson, print_details, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clearinghouse.cli.signing_clients import Client

_EXIT_DECLINED: Final = 1
_NOTHING_DUE: Final = "no_tickets"
#: As often as clients pay while a job is metered by time.
_INTERVAL_S: Final = 3.0


class JobType(StrEnum):
    """What a call is billed by: the call, seconds, or pixels of 720p video."""

    FIXED = "fixed"
    LIVE = "live"
    LV2V = "lv2v"


def sign_demo(
    *,
    url: Annotated[
        str, typer.Option(envvar="CLEARINGHOUSE_URL", metavar="URL", help="Where the service answers HTTP.")
    ] = "http://127.0.0.1:8080",
    grpc_target: Annotated[
        str | None, typer.Option("--grpc-target", metavar="HOST:PORT", help="Sign over gRPC instead.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            metavar="FILE",
            help="File with the API key. Default: CLEARINGHOUSE_API_KEY, else the demo gateway's key in the data "
            "directory. A key on the command line would be visible to every user of the machine.",
            show_default=False,
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="PEM", help="Authority of the service's TLS certificate; TLS for gRPC."),
    ] = None,
    job_type: Annotated[JobType, typer.Option("--type", help="What is paid for.")] = JobType.FIXED,
    count: Annotated[int, typer.Option(min=1, help="Payments of one session, one after another.")] = 1,
    interval: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Between two payments.", show_default="3, or 0 for fixed"),
    ] = None,
    payments: Annotated[bool, typer.Option("--payments", help="Show the headers an orchestrator would get.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Sign a payment through the running service; show the receipt and the new balance.

    The orchestrator is made up, so nobody can redeem the tickets; they are charged like any other.

    \b
      clearinghouse sign-demo
      clearinghouse sign-demo --type live --count 5 --json
      CLEARINGHOUSE_API_KEY=lpch_… clearinghouse sign-demo --url http://127.0.0.1:8080
    """
    from clearinghouse.cli.signing_clients import Declined, GrpcClient, HttpClient

    api_key = _api_key(api_key_file, data_dir)
    client: Client = (
        GrpcClient(grpc_target, api_key, ca_file) if grpc_target is not None else HttpClient(url, api_key, ca_file)
    )
    if interval is None:
        interval = 0 if job_type is JobType.FIXED else _INTERVAL_S
    signed: list[dict[str, Any]] = []
    try:
        with client:
            for payment in _session(client, job_type, count=count, interval_s=interval):
                signed.append(payment if payments else {k: v for k, v in payment.items() if k not in _HEADERS})
                if not as_json:
                    _print_payment(signed[-1], number=len(signed), count=count)
            balance = client.balance()
    except Declined as declined:
        typer.echo(str(declined), err=True)
        raise typer.Exit(_EXIT_DECLINED) from declined
    if as_json:
        print_json({"payments": signed, "balance": balance})
    else:
        typer.echo(f"\nbalance now {balance['balance']} {balance['currency']}, available {balance['available']}")


_HEADERS: Final = ("payment", "seg_creds")


def _session(client: Client, job_type: JobType, *, count: int, interval_s: float) -> Iterator[dict[str, Any]]:
    """A payment each, continuing one session; where nothing was due, the refusal that says so."""
    import base64
    import secrets
    import time

    from clearinghouse.cli.signing_clients import Declined
    from clearinghouse.demo_orchestrator import demo_orchestrator_info

    session_id = secrets.token_hex(4)
    orchestrator = demo_orchestrator_info(
        job_type.value,
        recipient_rand=secrets.randbits(256),
        seed=secrets.randbits(256),
        session_id=session_id,
        now_unix_s=int(time.time()),
    )
    request: dict[str, Any] = {
        "orchestrator": base64.b64encode(orchestrator).decode(),
        "manifest_id": f"demo-{session_id}",
        "app": "sign-demo",
        "type": job_type.value,
    }
    for index in range(count):
        if index > 0:
            time.sleep(interval_s)
        try:
            answer = client.sign(request)
        except Declined as declined:
            if declined.code != _NOTHING_DUE or "state" not in request:
                raise
            yield {"code": declined.code, "message": declined.message}
            continue
        request["state"] = answer["state"]
        yield {"receipt": answer["receipt"], "payment": answer["payment"], "seg_creds": answer["seg_creds"]}


def _print_payment(payment: dict[str, Any], *, number: int, count: int) -> None:
    if count > 1:
        typer.echo(f"{'' if number == 1 else chr(10)}payment {number} of {count}")
    if "receipt" not in payment:
        typer.echo("nothing is due yet, nothing was charged")
        return
    receipt = payment["receipt"]
    currency = receipt["currency"]
    details = [
        ("issuance", receipt["issuance_id"]),
        ("session", receipt["session_id"]),
        ("tickets", str(receipt["num_tickets"])),
        ("expected value", f"{receipt['ev_wei']} wei"),
        ("price", f"{receipt['price']} {currency} per ETH"),
        ("charge", f"{receipt['charge']} {currency}"),
        ("balance", f"{receipt['balance']} {currency}"),
    ]
    if payment_header := payment.get("payment"):
        details += [("Livepeer-Payment", payment_header), ("Livepeer-Segment", payment["seg_creds"])]
    print_details(details)


def _api_key(api_key_file: Path | None, data_dir: Path | None) -> str:
    """The key of --api-key-file, else of the environment, else of the demo gateway. BadConfiguration without one."""
    from clearinghouse.config_sources import API_KEY_VARIABLE

    if api_key_file is not None:
        return _key_in(api_key_file, "--api-key-file needs a file with nothing but the key")
    if api_key := os.environ.get(API_KEY_VARIABLE, "").strip():
        return _sendable(api_key, API_KEY_VARIABLE)
    from clearinghouse.secrets import DEMO_API_KEY_FILE_NAME, SECRETS_DIR_NAME

    path = settings_of(data_dir).data_dir / SECRETS_DIR_NAME / DEMO_API_KEY_FILE_NAME
    return _key_in(
        path.absolute(), f"set {API_KEY_VARIABLE} or --api-key-file; `clearinghouse dev` makes a demo gateway's key"
    )


def _key_in(path: Path, otherwise: str) -> str:
    try:
        return _sendable(path.read_text(encoding="utf-8").strip(), str(path))
    except OSError as error:
        raise BadConfiguration(f"no API key: {path} cannot be read ({error.strerror}); {otherwise}") from error
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"no API key: {path} is not text; {otherwise}") from error


def _sendable(api_key: str, where: str) -> str:
    """Whether it is a valid key is the service's to say; here it only has to fit into a header."""
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise BadConfiguration(f"{where} holds no API key: one line of printable characters is needed")
    return api_key
