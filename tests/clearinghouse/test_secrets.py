"""Secret files: complete, private, and replaced in one step."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from clearinghouse.secrets import new_token, read_or_create, replace


def test_a_replaced_secret_is_private_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "key"
    replace(path, "first")
    path.chmod(0o644)
    replace(path, "second")
    assert path.read_text(encoding="utf-8") == "second\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_old_secret_or_the_new_one_and_never_a_part(tmp_path: Path) -> None:
    path, texts = tmp_path / "key", [letter * 10_000 for letter in "ab"]
    replace(path, texts[0])
    is_over, seen = threading.Event(), set()

    def watch() -> None:
        while not is_over.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for index in range(50):
        replace(path, texts[index % 2])
    is_over.set()
    watcher.join()
    assert seen <= {f"{text}\n" for text in texts}


def test_a_replacement_that_fails_leaves_the_old_secret_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.mkdir()  # nothing can be renamed over a directory
    with pytest.raises(OSError, match="directory"):
        replace(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_creators_at_once_all_get_the_same_secret(tmp_path: Path) -> None:
    path, found = tmp_path / "secrets" / "key", []
    threads = [threading.Thread(target=lambda: found.append(read_or_create(path, new_token))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert list(path.parent.iterdir()) == [path]


def test_tokens_differ_and_have_256_bits() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 43 for token in tokens)
