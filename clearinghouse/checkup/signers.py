"""Who signs: the keystore opens, or every signer of the pool proves that it has the one key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from chain.keystore import KeystoreError, load_keystore
from chain.signatures import checksum_address, parse_address
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import GoLivepeerSettings, Settings
from clearinghouse.configured import ServiceError, endpoints
from clearinghouse.secrets import SECRETS_DIR_NAME
from clearinghouse.signers.go_livepeer import GoLivepeerSigner, Identity, NoAnswerError

NAME: Final = "signer"
PROOF_TIMEOUT_S: Final = 3.0


async def check(settings: Settings) -> list[Finding]:
    if settings.signer.kind == "native":
        return [await asyncio.to_thread(_native, settings)]
    return await _pool(settings.signer.go_livepeer)


def _native(settings: Settings) -> Finding:
    """Opens the keystore; makes none."""
    native = settings.signer.native
    if native.keystore_file is not None:
        if native.keystore_password is None:
            return error(NAME, "the keystore has no password", "Set signer.native.keystore_password_file.")
        return _opens(native.keystore_file, native.keystore_password.get_secret_value(), settings)
    directory = settings.data_dir / SECRETS_DIR_NAME
    keystore, password_file = directory / "keystore.json", directory / "keystore_password"
    if not keystore.exists():
        return ok(NAME, "native; its key does not exist yet: the first start makes one")
    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as reason:
        return error(
            NAME,
            f"{password_file} cannot be read ({type(reason).__name__}), so {keystore} cannot be opened",
            "Restore the file from a backup: without it the key is lost.",
        )
    return _opens(keystore, password, settings)


def _opens(keystore: Path, password: str, settings: Settings) -> Finding:
    try:
        key = load_keystore(keystore, password)
    except KeystoreError as reason:
        return error(NAME, str(reason), "Give the keystore and the password that belong together.")
    escrow = f"its escrow on {settings.chain.network}" if settings.chain.is_configured else "an escrow by declaration"
    return ok(NAME, f"native, signs as {checksum_address(key.address)} over {escrow}")


async def _pool(pool: GoLivepeerSettings) -> list[Finding]:
    if not pool.urls:
        return []  # the configuration's finding
    try:
        signers = [GoLivepeerSigner(endpoint) for endpoint in endpoints(pool)]
    except (ServiceError, ValueError) as reason:
        return [error(NAME, str(reason), "Correct signer.go_livepeer.")]
    try:
        shown = await asyncio.gather(*(_prove(signer) for signer in signers))
    finally:
        await asyncio.gather(*(signer.close() for signer in signers))
    expected = parse_address(pool.expected_address) if pool.expected_address is not None else None
    found = [_about(signer, identity, expected) for signer, identity in zip(signers, shown, strict=True)]
    addresses = {identity.address for identity in shown if isinstance(identity, Identity)}
    if expected is None and len(addresses) > 1:
        found.append(
            error(
                NAME,
                "the signers have different keys: " + ", ".join(sorted(map(checksum_address, addresses))),
                "Give all of them one key, and name its address in signer.go_livepeer.expected_address.",
            )
        )
    return found


async def _prove(signer: GoLivepeerSigner) -> Identity | NoAnswerError:
    try:
        return await signer.prove_identity(timeout_s=PROOF_TIMEOUT_S)
    except NoAnswerError as failure:
        return failure


def _about(signer: GoLivepeerSigner, shown: Identity | NoAnswerError, expected: bytes | None) -> Finding:
    name = f"{NAME} {signer.name}"
    if isinstance(shown, NoAnswerError):
        return error(
            name,
            f"does not prove its key: {shown.failure.value}",
            "Check that go-livepeer runs there with -remoteSigner, and what the network lets through.",
        )
    address = checksum_address(shown.address)
    if expected is not None and shown.address != expected:
        return error(
            name,
            f"signs as {address}, expected is {checksum_address(expected)}",
            "Correct its keystore, or signer.go_livepeer.expected_address: this one gets no calls.",
        )
    if signer.is_cleartext:
        return warning(
            name,
            f"signs as {address}, reached over plain HTTP",
            "Keep that network private, or use https: whoever reads along learns our headers.",
        )
    return ok(name, f"signs as {address}")
