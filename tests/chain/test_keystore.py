"""Keys at rest: any Ethereum tool opens them, nothing replaces them, nothing tells their secrets."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from eth_account import Account

from chain.keystore import KeystoreError, create_keystore, load_keystore
from chain.signatures import SigningKey

PASSWORD = "correct horse battery staple ü"
SECRET = bytes(range(1, 33))


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("keys") / "signer.json"
    return path, create_keystore(path, PASSWORD)


def _foreign(path: Path, password: str = PASSWORD) -> Path:
    """A keystore of another tool: PBKDF2, one round."""
    path.write_text(json.dumps(Account.encrypt(SECRET, password, kdf="pbkdf2", iterations=1)))
    return path


def test_a_created_key_opens_here_and_in_any_ethereum_tool(created: tuple[Path, bytes]) -> None:
    path, address = created
    key = load_keystore(path, PASSWORD)
    assert key.address == address
    secret = bytes(Account.decrypt(json.loads(path.read_text()), PASSWORD))
    assert SigningKey(secret).address == address
    assert secret.hex() not in path.read_text()


def test_the_file_is_for_its_owner_alone_and_nothing_else_is_left_behind(created: tuple[Path, bytes]) -> None:
    path, _ = created
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_existing_file_is_never_replaced(created: tuple[Path, bytes]) -> None:
    path, _ = created
    before = path.read_bytes()
    with pytest.raises(KeystoreError, match="exists already"):
        create_keystore(path, PASSWORD)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_wrong_password_opens_nothing_and_is_not_quoted(created: tuple[Path, bytes]) -> None:
    path, _ = created
    with pytest.raises(KeystoreError, match="the password is wrong or the file is damaged") as refused:
        load_keystore(path, "hunter2")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_keystore_of_another_tool_opens(tmp_path: Path) -> None:
    assert load_keystore(_foreign(tmp_path / "k.json"), PASSWORD).address == SigningKey(SECRET).address


def test_an_empty_password_makes_no_keystore(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="the password is empty"):
        create_keystore(tmp_path / "k.json", "")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match=r"absent\.json: cannot be read: No such file"):
        load_keystore(tmp_path / "absent.json", PASSWORD)
    with pytest.raises(KeystoreError, match=r"k\.json: cannot be written: No such file"):
        create_keystore(tmp_path / "no" / "k.json", PASSWORD)


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"version":1}', "[" * 100_000, " " * 70_000 + "{}"])
def test_a_file_that_is_no_keystore_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k.json"
    path.write_text(content)
    with pytest.raises(KeystoreError, match="is not an Ethereum keystore of version 3"):
        load_keystore(path, PASSWORD)


@pytest.mark.parametrize(
    "changes",
    [{"crypto": {}}, {"crypto": None}, {"crypto": {"kdf": "none"}}, {"crypto": {"kdf": "scrypt", "kdfparams": {}}}],
)
def test_a_damaged_keystore_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    path = _foreign(tmp_path / "k.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(KeystoreError, match="damaged"):
        load_keystore(path, PASSWORD)


def test_a_key_that_is_not_that_of_the_written_address_is_refused(tmp_path: Path) -> None:
    path = _foreign(tmp_path / "k.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": "11" * 20}))
    with pytest.raises(KeystoreError, match="not of the address it names"):
        load_keystore(path, PASSWORD)
