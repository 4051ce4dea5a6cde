"""What operators do over HTTP about signers that ask our webhook: register them, replace their secrets, revoke them.

Under the admin token like admin.py. A signer is named by its id or its name, a secret by its public id.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from clearinghouse.api.bodies import PATH_PATTERN, NewWebhookSigner, SecretRevocation, SecretRotation, json_body
from clearinghouse.api.described import described
from clearinghouse.api.shapes import (
    NewWebhookSecretAnswer,
    WebhookSignerAnswer,
    WebhookSignerList,
    new_webhook_secret_answer,
    webhook_signer_answer,
)
from clearinghouse.api.wiring import Books, Wired, require_admin
from clearinghouse.identity import webhook_signers

router = APIRouter(prefix="/v1/admin/webhook-signers", tags=["Administration"], dependencies=[Depends(require_admin)])

SignerRef = Annotated[str, Path(description="Id (`whs_…`) or name.", pattern=PATH_PATTERN)]


@router.post("", status_code=201, **described(NewWebhookSigner, 400, 409))
async def create_webhook_signer(
    wanted: Annotated[NewWebhookSigner, json_body(NewWebhookSigner)], books: Books, wired: Wired
) -> NewWebhookSecretAnswer:
    """Register a signer and make its first secret, which is in this answer and never again."""
    sender = webhook_signers.parse_sender(wanted.sender)
    face_value_max_wei = webhook_signers.parse_face_value(wanted.face_value_max_wei)
    async with books.begin() as connection:
        return new_webhook_secret_answer(
            await webhook_signers.create(
                connection, wanted.name, sender=sender, pepper=wired.pepper, face_value_max_wei=face_value_max_wei
            )
        )


@router.get("", **described(None))
async def list_webhook_signers(books: Books) -> WebhookSignerList:
    """All signers that ever were registered, by name."""
    async with books.connect() as connection:
        found = await webhook_signers.list_signers(connection)
        return WebhookSignerList(items=[webhook_signer_answer(registered) for registered in found])


@router.get("/{signer}", **described(None, 400, 404))
async def show_webhook_signer(signer: SignerRef, books: Books) -> WebhookSignerAnswer:
    """A signer and its secrets."""
    async with books.connect() as connection:
        return webhook_signer_answer(await webhook_signers.find(connection, signer))


@router.post("/{signer}/rotate", status_code=201, **described(SecretRotation, 400, 404, 409))
async def rotate_webhook_secret(
    signer: SignerRef, wanted: Annotated[SecretRotation, json_body(SecretRotation)], books: Books, wired: Wired
) -> NewWebhookSecretAnswer:
    """Make a new secret; the old one goes on working for `grace_s`. A third valid one is refused (409)."""
    async with books.begin() as connection:
        return new_webhook_secret_answer(
            await webhook_signers.rotate(connection, signer, pepper=wired.pepper, grace=wanted.grace())
        )


@router.post("/{signer}/revoke", **described(SecretRevocation, 400, 404))
async def revoke_webhook_signer(
    signer: SignerRef, wanted: Annotated[SecretRevocation, json_body(SecretRevocation)], books: Books
) -> WebhookSignerAnswer:
    """End a signer for ever, or one secret of it. All processes know within half a minute."""
    async with books.begin() as connection:
        return webhook_signer_answer(await webhook_signers.revoke(connection, signer, secret=wanted.secret))
