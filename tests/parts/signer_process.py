"""`clearinghouse signer` as processes of their own, which share a ticket key, and are killed and hang."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chain.keystore import create_keystore
from tests.parts.ports import free_port
from tests.parts.program import Home, Program


@dataclass(frozen=True)
class Keystore:
    """A ticket key, as signers are given it: an encrypted file, and a file with its password."""

    file: Path
    password_file: Path
    #: 20 bytes.
    address: bytes

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CLEARINGHOUSE_SIGNER__NATIVE__KEYSTORE_FILE": str(self.file),
            "CLEARINGHOUSE_SIGNER__NATIVE__KEYSTORE_PASSWORD_FILE": str(self.password_file),
        }


@dataclass
class SignerProcess:
    """`clearinghouse signer`; started again it listens where it did before."""

    home: Home
    keystore: Keystore
    name: str
    #: Further settings.
    settings: Mapping[str, str] = field(default_factory=dict)
    program: Program | None = None
    url: str = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def start(self) -> None:
        self.program = self.home.start(
            "signer", "--port", self.port if self.url else free_port(), "--data-dir", self.home.folder / self.name,
            environment={**self.keystore.environment, **self.settings},
        )  # fmt: skip
        self.url = self.program.wait_for(r"^signing for 0x\w+ .*at (http://\S+)$")[1]

    def kill(self) -> None:
        assert self.program is not None
        self.program.kill()

    def hang(self) -> None:
        assert self.program is not None
        self.program.stop_responding()


def new_keystore(home: Home, name: str) -> Keystore:
    password = secrets.token_hex(16)
    password_file = home.folder / f"{name}.password"
    password_file.write_text(password, encoding="utf-8")
    file = home.folder / f"{name}.json"
    return Keystore(file, password_file, create_keystore(file, password))


def new_signer(home: Home, keystore: Keystore, name: str, settings: Mapping[str, str] | None = None) -> SignerProcess:
    signer = SignerProcess(home, keystore, name, settings or {})
    signer.start()
    return signer
