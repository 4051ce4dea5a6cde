"""`clearinghouse webhook-signer`: signers that ask our webhook, and their secrets. No command takes a whole secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearinghouse.cli.context import DataDir, in_transaction, pepper_of, settings_of
from clearinghouse.cli.keys import Grace, grace_of
from clearinghouse.cli.output import AsJson, print_details, print_json, print_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.config import ListenSettings, Settings
    from clearinghouse.identity.webhook_signers import NewWebhookSecret

_HELP = """Signers that ask the clearinghouse before they release a payment (go-livepeer's -remoteSignerWebhookUrl).

Each has secrets of its own: one, or two while one replaces the other. A secret is shown once, when it is made;
afterwards it is named by its public id (the 16 digits after lpws_).

\b
Examples:
  clearinghouse webhook-signer create signer-1 --sender 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  clearinghouse webhook-signer rotate signer-1 --grace 24h
  clearinghouse webhook-signer revoke signer-1 --secret 4f0c9a1be2d37705
  clearinghouse webhook-signer revoke signer-1
"""

app = typer.Typer(no_args_is_help=True, help=_HELP)

SignerName = Annotated[str, typer.Argument(metavar="SIGNER", help="Name or id (whs_…).")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '.', '_' and '-'; unique.")],
    *,
    sender: Annotated[str, typer.Option(metavar="ADDRESS", help="Address that signs its tickets.")],
    face_value_max_wei: Annotated[
        str | None,
        typer.Option(metavar="WEI", help="Largest face value it signs; the webhook is not shown face values."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Register a signer; show its first secret, once, and the options to start it with.

    \b
    Example: clearinghouse webhook-signer create signer-1 --sender 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
    """
    from clearinghouse.identity import webhook_signers

    settings = settings_of(data_dir)
    sender_address = webhook_signers.parse_sender(sender)
    face_value = webhook_signers.parse_face_value(face_value_max_wei)

    async def work(connection: AsyncConnection) -> NewWebhookSecret:
        return await webhook_signers.create(
            connection, name, sender=sender_address, pepper=pepper_of(settings), face_value_max_wei=face_value
        )

    _print_new(in_transaction(settings, work), settings, as_json)


@app.command("list")
def list_all(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all signers that ever were registered, with their secrets.

    Example: clearinghouse webhook-signer list
    """
    from clearinghouse.documents import webhook_signer_document
    from clearinghouse.identity import webhook_signers

    async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
        return [webhook_signer_document(signer) for signer in await webhook_signers.list_signers(connection)]

    documents = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json({"items": documents})
        return
    columns = ("name", "signer", "sender", "secret", "status", "created_at", "expires_at")
    rows = [
        [signer["name"], signer["status"], signer["sender"], secret["public_id"], secret["status"],
         secret["created_at"], secret["expires_at"] or ""]
        for signer in documents
        for secret in signer["secrets"]
    ]  # fmt: skip
    print_table(columns, rows, if_empty="no signers: clearinghouse webhook-signer create NAME --sender ADDRESS")


@app.command()
def rotate(signer: SignerName, *, grace: Grace = "24h", data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Replace a secret: show a new one now, and let the old one end after a grace period.

    At most two are valid at once: a third is refused until the older has ended or was revoked.

    \b
    Example: clearinghouse webhook-signer rotate signer-1 --grace 24h
    """
    from clearinghouse.identity import webhook_signers

    settings = settings_of(data_dir)

    async def work(connection: AsyncConnection) -> NewWebhookSecret:
        return await webhook_signers.rotate(connection, signer, pepper=pepper_of(settings), grace=grace_of(grace))

    _print_new(in_transaction(settings, work), settings, as_json)


@app.command()
def revoke(
    signer: SignerName,
    *,
    secret: Annotated[
        str | None, typer.Option(metavar="PUBLIC_ID", help="End only this secret, and not the signer.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a signer now, for ever; or one secret of it. All processes know within half a minute.

    \b
    Example: clearinghouse webhook-signer revoke signer-1 --secret 4f0c9a1be2d37705
    """
    from clearinghouse.documents import webhook_signer_document
    from clearinghouse.identity import webhook_signers

    async def work(connection: AsyncConnection) -> dict[str, Any]:
        return webhook_signer_document(await webhook_signers.revoke(connection, signer, secret=secret))

    document = in_transaction(settings_of(data_dir), work)
    if as_json:
        print_json(document)
    else:
        _print_signer(document)


def _print_new(new: NewWebhookSecret, settings: Settings, as_json: bool) -> None:
    from clearinghouse.documents import new_webhook_secret_document, webhook_signer_document

    if as_json:
        print_json(new_webhook_secret_document(new))
        return
    _print_signer(webhook_signer_document(new.registered))
    typer.echo(f"\n-remoteSignerWebhookUrl {_webhook_url(settings.listen)}")
    typer.echo(f"-remoteSignerWebhookHeaders 'Authorization:Bearer {new.webhook_secret}'")
    typer.echo(
        "\nThe options of go-livepeer, with the secret that is shown only now. Put into the URL what the signer "
        "reaches this service by.",
        err=True,
    )


def _webhook_url(listen: ListenSettings) -> str:
    from clearinghouse.identity.webhook_signers import WEBHOOK_PATH

    scheme = "http" if listen.tls_cert_file is None else "https"
    return f"{scheme}://{listen.host}:{listen.http_port}{WEBHOOK_PATH}"


def _print_signer(document: dict[str, Any]) -> None:
    shown = [(name, str(value)) for name, value in document.items() if value and name != "secrets"]
    secrets = [
        (f"secret {secret['public_id']}", f"{secret['status']}{_until(secret)}") for secret in document["secrets"]
    ]
    print_details([*shown, *secrets])


def _until(secret: dict[str, Any]) -> str:
    return f" until {secret['expires_at']}" if secret["status"] == "active" and secret["expires_at"] else ""
