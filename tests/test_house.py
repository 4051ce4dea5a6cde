"""Rules of the house that a machine can check. Each failure names the place and the way out."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from clearinghouse.config_sources import SettingInfo, all_settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("chain", "clearinghouse", "settlement")
#: What a package may not know: whatever lies above it.
ABOVE = {
    "chain": {"clearinghouse", "settlement", "migrations", "tests"},
    "clearinghouse": {"settlement", "tests"},
    "settlement": {"tests"},
    "migrations": {"clearinghouse", "settlement", "tests"},
}
MONEY_PLACES = (
    "chain",
    "clearinghouse/approved_states.py",
    "clearinghouse/approving.py",
    "clearinghouse/billing.py",
    "clearinghouse/charging.py",
    "clearinghouse/commits.py",
    "clearinghouse/derivation.py",
    "clearinghouse/gates.py",
    "clearinghouse/invoices.py",
    "clearinghouse/ledger",
    "clearinghouse/lookups.py",
    "clearinghouse/policy.py",
    "clearinghouse/price_store.py",
    "clearinghouse/prices.py",
    "clearinghouse/pricing.py",
    "clearinghouse/rate_quotes.py",
    "clearinghouse/rate_store.py",
    "clearinghouse/rate_watch.py",
    "clearinghouse/rates",
    "clearinghouse/registry.py",
    "clearinghouse/requests.py",
    "clearinghouse/session_cache.py",
    "clearinghouse/sessions.py",
    "clearinghouse/signers/native.py",
    "clearinghouse/signing.py",
    "clearinghouse/statements.py",
    "clearinghouse/usage_query.py",
    "clearinghouse/verdicts.py",
    "clearinghouse/verification.py",
    "settlement/cadence.py",
    "settlement/closing",
    "settlement/currencies.py",
    "settlement/customers",
    "settlement/dunning",
    "settlement/exports",
    "settlement/invoices",
    "settlement/payments",
    "settlement/periods.py",
    "settlement/reconciliation",
    "settlement/rerating",
    "settlement/rounding.py",
    "settlement/statements",
    "settlement/topups",
    "settlement/treasury",
)
#: Go rounds a duration through a float64, and the native signer must round as it does. A probability is no amount.
#: Plans and plays of the future are rates and probabilities; their amounts are whole winners times a face value.
FLOATS_ON_PURPOSE = {
    "chain/forecast.py", "chain/go_duration.py", "chain/outlook.py", "chain/outlook_document.py", "chain/payouts.py",
    "chain/simulation.py", "chain/traffic.py",
}  # fmt: skip
UNITS = (
    "_s", "_ms", "_hours", "_days", "_bytes", "_rows", "_count", "_port", "_wei", "_wei_per_unit", "_bps", "_ppm",
    "_round", "_block",
)  # fmt: skip
#: go-livepeer's gateways search error texts for these and act upon them (remote-signer protocol, section 9.1).
FORBIDDEN_PHRASES = ("insufficient capacity", "invalid ticket sendernonce", "ticketparams expired")


def sources(*places: str) -> Iterator[tuple[str, ast.Module]]:
    """(path from the root, syntax tree) of the hand-written modules in these folders or files."""
    for place in places:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if "pb" not in file.parent.parts:
                yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported_packages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", sorted(ABOVE))
def test_imports_point_down(package: str) -> None:
    wrong = [
        f"{path}:{line} imports {imported}: move what it needs down into {package}/, or the caller up"
        for path, tree in sources(package)
        for line, imported in imported_packages(tree)
        if imported in ABOVE[package]
    ]
    assert not wrong, "\n".join(wrong)


def float_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield node.lineno, f"the float literal {node.value}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float":
            yield node.lineno, "float(…)"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"as_float", "fsum"}
        ):
            yield node.lineno, node.func.attr


def test_no_float_comes_near_money() -> None:
    wrong = [
        f"{path}:{line} has {what}: use int, Fraction or Decimal"
        for path, tree in sources(*MONEY_PLACES)
        if path not in FLOATS_ON_PURPOSE
        for line, what in float_uses(tree)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_search_for_floats_finds_them() -> None:
    assert [line for line, _ in float_uses(ast.parse("a = 1.5\nb = float(a)\nc = 1\nd = 1e18"))] == [1, 2, 4]


#: Documents that were required to be shallow before, and what our own processes write to each other.
JSON_OF_OURS = {"clearinghouse/api/answers.py", "clearinghouse/coverage/looking.py", "chain/outlook_document.py"}


def test_no_json_of_others_can_exhaust_the_stack() -> None:
    """The interpreter's bound on recursion does not hold: any library may raise it, and one does."""
    wrong = []
    for path, tree in sources("chain", "clearinghouse", "settlement"):
        text = ast.unparse(tree)
        if "json.loads(" in text.replace("shallow_json.loads(", "") and "require_shallow(" not in text:
            wrong.append(path)
        assert re.search(r"except .*RecursionError", text) is None, f"{path}: no process lives to see it"
    assert set(wrong) == JSON_OF_OURS


IMPORT_ALL = """
import importlib, pkgutil, sys, threading, warnings
import psycopg

def forbid(event, args):
    if event in {"socket.connect", "socket.bind", "socket.sendto", "subprocess.Popen", "os.posix_spawn", "os.fork"}:
        raise RuntimeError(f"{event} while importing: {args[-1]}")

def no_connection(*args, **kwargs):
    raise RuntimeError("a database connection while importing")

psycopg.connect = psycopg.Connection.connect = psycopg.AsyncConnection.connect = no_connection
sys.addaudithook(forbid)
names = []
for package in sys.argv[1:]:
    names.append(package)
    path = importlib.import_module(package).__path__
    names += [found.name for found in pkgutil.walk_packages(path, package + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
        assert threading.active_count() == 1, f"{name} starts a thread when imported"
print(len(names))
"""


def test_nothing_connects_listens_or_starts_when_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30, "all modules were imported"


def numeric(annotation: object) -> bool:
    """Whether a setting of this type is a number. A mapping by currency has its unit in the key."""
    if typing.get_origin(annotation) in {typing.Annotated, typing.Union, types.UnionType}:
        return any(numeric(argument) for argument in typing.get_args(annotation))
    return annotation in {int, float, Decimal}


@pytest.mark.parametrize("info", all_settings(), ids=lambda info: info.name)
def test_a_numeric_setting_has_its_unit_in_its_name(info: SettingInfo) -> None:
    if numeric(info.field.annotation):
        assert info.name.endswith(UNITS), f"{info.name}: end the name with one of {', '.join(UNITS)}"


def test_the_search_for_numeric_settings_finds_them() -> None:
    found = {info.name for info in all_settings() if numeric(info.field.annotation)}
    assert {"listen.http_port", "signer.native.max_price_wei_per_unit", "limits.request_deadline_s"} <= found


def test_every_setting_is_explained() -> None:
    assert [info.name for info in all_settings() if not info.field.description] == []


def test_every_setting_is_used() -> None:
    used = {
        node.attr
        for path, tree in sources(*PACKAGES)
        if not re.fullmatch(r"clearinghouse/config(_\w+)?\.py", path)  # where they are made and checked
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    twins = {f"{info.path[-1]}_file" for info in all_settings() if info.is_secret}  # read by config_sources
    unused = [info.name for info in all_settings() if info.path[-1] not in used | twins]
    assert not unused, f"settings that nothing reads, so they decide nothing: {unused}"


def string_constants(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """All texts but the docstrings. Parts of an f-string come together, with {} for what is filled in."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_text_has_a_phrase_that_gateways_act_upon() -> None:
    texts = [(f"{path}:{line}", text) for path, tree in sources(*PACKAGES) for line, text in string_constants(tree)]
    texts += [(str(path), path.read_text(encoding="utf-8")) for path in (ROOT / "migrations" / "sql").glob("*.sql")]
    assert len(texts) > 1000
    wrong = [place for place, text in texts for phrase in FORBIDDEN_PHRASES if phrase in " ".join(text.lower().split())]
    assert not wrong, f"{wrong}: word it differently"


def test_the_search_for_phrases_sees_joined_texts_and_no_docstrings() -> None:
    code = [
        '"""Insufficient capacity."""',
        "def f(x):",
        "  'no capacity'",
        "  return f'in{x}sufficient ' 'capacity', 'a ' 'b'",
    ]
    tree = ast.parse("\n".join(code))
    assert {"in{}sufficient capacity", "a b"} <= {text for _, text in string_constants(tree)}
    assert not {"Insufficient capacity.", "no capacity"} & {text for _, text in string_constants(tree)}


def project_files() -> list[Path]:
    """Everything that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


#: Hosts of package and image registries, and places that exist on one machine only. Written so as not to match itself.
REGISTRY_HOST = re.compile(
    r"pypi[.]org|pythonhosted[.]org|npmjs[.]org|crates[.]io|proxy[.]golang[.]org|maven[.]org|maven[.]apache[.]org"
    r"|deb[.]debian[.]org|(?<![\w.-])(?:docker|ghcr|quay)[.]io",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.$}-])/(?:root|work|Users|home/[a-z]\w*)/")


def test_no_file_names_a_registry_host_or_a_path_of_one_machine() -> None:
    wrong = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a recording
        for pattern in (REGISTRY_HOST, MACHINE_PATH):
            wrong += [f"{path.relative_to(ROOT)}: {found[0]}" for found in pattern.finditer(text)]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_the_searches_for_hosts_and_paths_find_them() -> None:
    assert REGISTRY_HOST.search("https://files." + "pythonhosted" + ".org/x")
    assert MACHINE_PATH.search("see /" + "home/someone/x")
    assert not MACHINE_PATH.search("https://example.org/" + "work/x")


@pytest.mark.parametrize("name", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("requirements*.lock")))
def test_a_lock_has_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(-i|-f|--(extra-)?index-url|--find-links|--trusted-host)\b|://", text, re.MULTILINE)
    requirements = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(requirements) > 10
    assert [entry for entry in requirements if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_the_locks_are_checked() -> None:
    assert {path.name for path in ROOT.glob("requirements*.lock")} >= {"requirements.lock", "requirements-dev.lock"}


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in project_files()
        if path.suffix in {".py", ".sql", ".proto", ".toml", ".md", ".yaml", ".service", ".sh"}
        for found in mark.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)
