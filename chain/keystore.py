"""The sender's private key at rest: an encrypted Ethereum keystore, version 3, which any Ethereum tool can open.

The key guards the deposit. It is written once, readable by its owner alone, complete or not at all, and never over an
existing file. Neither key nor password appears in an error.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, Final

_RECURSION_LIMIT: Final = sys.getrecursionlimit()
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json  # noqa: E402

# What it imports raises the limit to 100,000, far above what the stack holds: a deeply nested document would then end
# the process instead of raising RecursionError.
sys.setrecursionlimit(_RECURSION_LIMIT)

from chain import shallow_json  # noqa: E402
from chain.signatures import SigningKey, checksum_address  # noqa: E402

#: scrypt's cost N; r = 8 and p = 1 are eth-keyfile's. Opening takes 128 MiB and about a quarter of a second, so a start
#: stays below one, and every guess at the password costs an attacker the same.
SCRYPT_N: Final = 2**17
_FILE_BYTES_MAX: Final = 64 * 1024


class KeystoreError(RuntimeError):
    """The keystore cannot be written or opened. Says which file and why, and never a secret."""


def create_keystore(path: Path, password: str) -> bytes:
    """Makes a new key, writes it to `path` (mode 0600, durable) and returns its 20-byte address.

    Raises KeystoreError where the file exists (it is never replaced: it may hold a funded key), the password is empty,
    or the folder cannot be written.
    """
    if not password:
        raise KeystoreError(f"keystore {path}: the password is empty, so the key would be as good as unencrypted")
    while True:  # about once in 2**128 the number is not a key
        secret = secrets.token_bytes(32)
        try:
            key = SigningKey(secret)
            break
        except ValueError:
            continue
    document = create_keyfile_json(secret, password.encode(), kdf="scrypt", iterations=SCRYPT_N)
    _write_new_file(path, json.dumps(document).encode())
    return key.address


def load_keystore(path: Path, password: str) -> SigningKey:
    """Opens the keystore of `create_keystore` or of any tool that writes version 3 (scrypt or PBKDF2).

    Raises KeystoreError where the file is missing, is no keystore, the password is wrong, or the key inside is not
    that of the address written on it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeystoreError(f"keystore {path}: cannot be read: {error.strerror}") from None
    document = _parse(path, content)
    try:
        key = SigningKey(bytes(decode_keyfile_json(document, password.encode())))
    except (ValueError, KeyError, TypeError, NotImplementedError):
        # The library's own text is left out: the wrong password must not be told from a damaged file by what it quotes.
        raise KeystoreError(f"keystore {path}: the password is wrong or the file is damaged") from None
    written = document.get("address")
    if written is not None and str(written).lower().removeprefix("0x") != key.address.hex():
        raise KeystoreError(
            f"keystore {path}: holds the key of {checksum_address(key.address)}, not of the address it names"
        )
    return key


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        document = shallow_json.loads(content) if len(content) <= _FILE_BYTES_MAX else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("version") != 3:
        raise KeystoreError(f"keystore {path}: is not an Ethereum keystore of version 3")
    return document


def _write_new_file(path: Path, content: bytes) -> None:
    """Whole or not at all, and only where nothing is: a link to a finished file appears under the name in one step."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise KeystoreError(
            f"keystore {path}: exists already and is never replaced; it may hold a funded key"
        ) from None
    except OSError as error:
        raise KeystoreError(f"keystore {path}: cannot be written: {error.strerror}") from None
