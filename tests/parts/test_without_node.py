"""Where there is no node the tests of the chain say so, aloud, and everything else is tested."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.program import ROOT

CHAIN, OTHER = "tests/parts/test_devnet.py", "tests/chain/test_exposure.py"
#: Has a node of its own.
KILLED = "tests/clearinghouse/test_chain_feed.py::test_a_node_that_is_killed_is_listened_to_again_when_it_is_back"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tests as they are checked out, with nothing of npm's."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_chain_is_skipped_loudly_and_the_rest_passes(copy: Path) -> None:
    environment = {
        **os.environ,
        "PATH": str(copy / "nowhere"),
        "PYTHONPATH": os.pathsep.join([str(copy), str(ROOT)]),
        "PYTEST_ADDOPTS": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", CHAIN, OTHER, KILLED], cwd=copy, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^SKIPPED .* THE CHAIN IS NOT TESTED: npm \(node\) is not installed$", done.stdout, re.MULTILINE)
    assert " failed" not in done.stdout
    assert f"{CHAIN} ss" in done.stdout
    assert f"{KILLED.partition('::')[0]} s" in done.stdout
    assert f"{OTHER} .." in done.stdout
