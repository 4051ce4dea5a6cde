"""Starts all of it, in an order in which each part finds what it needs, and ends it in the opposite one.

DIR/.devnet             this directory is the devnet's: a start removes it and makes it anew
DIR/clearinghouse.toml  what `clearinghouse` reads: CLEARINGHOUSE_CONFIG=DIR/clearinghouse.toml
DIR/data/               of `clearinghouse dev`: its key is the sender on the chain
DIR/secrets/            the wallet that tops up and its password, and the key of webhooks' signatures
DIR/anvil/              what the node keeps: 256 states, and gone with the next start
DIR/sessions/           of the gateway that the commands play
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import structlog

from chain.keystore import create_keystore
from chain.signatures import parse_address
from clearinghouse.config_sources import load_settings
from clearinghouse.database import postmaster
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.file_locks import exclusive_lock
from clearinghouse.errors import Refusal
from clearinghouse.running import native_key
from clearinghouse.secrets import new_token, replace
from tests.devnet import terms
from tests.devnet.control import Running, controlled
from tests.devnet.listening import MAIL_PORT, WEBHOOK_PORT, WEBHOOK_SECRET
from tests.devnet.world import World
from tests.parts.devnet import DEV_CHAIN_ID, Devnet, running_anvil
from tests.parts.devnet.network import ChainRefused
from tests.parts.orchestrator import running_orchestrator

MARK: Final = ".devnet"
CONFIG: Final = "clearinghouse.toml"
TICK_S: Final = 1.0
START_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 30

log = structlog.get_logger(__name__)


class NotStarted(Refusal):
    """The devnet cannot run here, or as things are."""

    code, http_status = "devnet_not_started", 503
    what_next = "Mend that, then start it again."


@dataclass(frozen=True)
class Wanted:
    """How a devnet is to be. `round_s` 0: rounds begin by command alone."""

    folder: Path
    http_port: int
    grpc_port: int
    round_s: int

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def secrets(self) -> Path:
        return self.folder.absolute() / "secrets"

    @property
    def config(self) -> Path:
        return self.folder / CONFIG


@contextmanager
def running_devnet(wanted: Wanted) -> Iterator[tuple[Running, subprocess.Popen[str]]]:
    """The devnet and its service's process, ready for payments. Raises NotStarted, or AnvilMissing."""
    with ExitStack() as stack:
        stack.enter_context(_alone(wanted))
        _begin_anew(wanted)
        anvil = stack.enter_context(running_anvil(wanted.folder / "anvil", chain_id=DEV_CHAIN_ID))
        devnet = Devnet.deployed_on(anvil.url)
        orchestrator = stack.enter_context(running_orchestrator(terms.orchestrator_settings()))
        treasury = _new_secrets(wanted)
        # The key that `clearinghouse dev` will find there, because it is made now.
        sender = native_key(load_settings(environment={}, flags={"data_dir": wanted.data_dir})).address
        _write_config(wanted, anvil.url, sender)
        devnet.join(orchestrator.address, uri=orchestrator.url)
        devnet.next_round()
        devnet.fund(sender, deposit_wei=terms.DEPOSIT_WEI, reserve_wei=terms.RESERVE_WEI)
        devnet.rpc("anvil_setBalance", f"0x{treasury.hex()}", hex(terms.TREASURY_WEI))
        world = World(devnet, orchestrator, sender)
        world.tick()
        stack.enter_context(_ticking(world, wanted.round_s))
        service, facts = stack.enter_context(_service(wanted))
        assert parse_address(facts["sender"]) == sender, "the service has another key than was funded"
        _give_credit(wanted)
        _wait_until_ready(facts["http_url"], service)
        port, token = stack.enter_context(controlled(world))
        running = Running(
            control_port=port, http_url=facts["http_url"], grpc_target=facts["grpc_target"], rpc_url=anvil.url,
            orchestrator_url=orchestrator.url, sender=facts["sender"], api_key=facts["api_key"], token=token,
        )  # fmt: skip
        running.write(wanted.folder)
        yield running, service


def command(*arguments: str | Path | int) -> list[str]:
    """The console script beside this interpreter, with arguments."""
    return [str(Path(sysconfig.get_path("scripts")) / "clearinghouse"), *map(str, arguments)]


# --- the directory ---


@contextmanager
def _alone(wanted: Wanted) -> Iterator[None]:
    """One devnet in a directory at a time."""
    wanted.folder.parent.mkdir(parents=True, exist_ok=True)
    lock = wanted.folder.with_name(f"{wanted.folder.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(lock, timeout_s=0))
        except TimeoutError:
            raise NotStarted(f"a devnet runs in {wanted.folder} already: use it, or stop it with Ctrl-C") from None
        yield


def _begin_anew(wanted: Wanted) -> None:
    """The chain before has ended with its node, so the books of it are of no use. Only what is ours is removed."""
    folder = wanted.folder
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise NotStarted(f"{folder} is not empty and was not made by a devnet: name another with --dir")
        _end_database(wanted.data_dir)
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / MARK).write_text("made by `make devnet`, which removes it with every start\n", encoding="utf-8")


def _end_database(data_dir: Path) -> None:
    """Of a devnet that was killed: whoever uses it last stops it."""
    if not _database_runs(data_dir):
        return
    server = EmbeddedPostgres(data_dir)
    server.start()
    server.stop()
    if _database_runs(data_dir):
        raise NotStarted(f"{data_dir} is used by a `clearinghouse` that still runs: end it")


def _database_runs(data_dir: Path) -> bool:
    cluster = data_dir.absolute().resolve() / "postgres"
    found = postmaster.read_pid_file(cluster / "postmaster.pid")
    return found is not None and postmaster.is_live_postmaster(found.pid, cluster)


def _new_secrets(wanted: Wanted) -> bytes:
    """The address of a new treasury."""
    wanted.secrets.mkdir(mode=0o700)
    password = new_token()
    replace(wanted.secrets / "treasury_password", password)
    replace(wanted.secrets / WEBHOOK_SECRET, new_token())
    return create_keystore(wanted.secrets / "treasury.json", password)


def _write_config(wanted: Wanted, rpc_url: str, sender: bytes) -> None:
    wanted.config.write_text(
        f"""# Of the devnet that was started last. `clearinghouse` reads it by CLEARINGHOUSE_CONFIG or --config.
data_dir = {json.dumps(str(wanted.data_dir.absolute()))}

[listen]
http_port = {wanted.http_port}
grpc_port = {wanted.grpc_port}

[chain]
network = "dev"                  # its Controller is the first contract on a chain of anvil's
rpc_urls = [{json.dumps(rpc_url)}]
quorum_count = 1                 # on a chain of one's own
poll_s = 1
stale_max_s = 30
index_from_block = 1
confirmations_count = {terms.CONFIRMATIONS_COUNT}

[coverage]
snapshot_s = 5                   # who plays looks more often than once a minute

[price]
source = "declared"
declared = {{ USD = "3000" }}

# For `clearinghouse work`, which a devnet leaves to you.
[alerts]
runbook_url = "https://docs.devnet.example/alerts.md"
webhook_secret_file = {json.dumps(str(wanted.secrets / WEBHOOK_SECRET))}
deposit_warning_wei = {terms.DEPOSIT_WARNING_WEI}
deposit_warning_for_s = {terms.DEPOSIT_WARNING_FOR_S}
deposit_critical_wei = {terms.DEPOSIT_CRITICAL_WEI}
deposit_critical_for_s = {terms.DEPOSIT_CRITICAL_FOR_S}
reserve_warning_wei = {terms.RESERVE_WARNING_WEI}

[alerts.channels]                # where `python -m tests.devnet listen` hears
mail = "mailto://127.0.0.1:{MAIL_PORT}?from=clearinghouse@devnet.example&to=oncall@devnet.example"
hook = "webhook+http://127.0.0.1:{WEBHOOK_PORT}/alerts"

[topups]
mode = "off"                     # CLEARINGHOUSE_TOPUPS__MODE=dry_run, or =on
sender = "0x{sender.hex()}"
wallet = "keystore"
wallet_keystore_file = {json.dumps(str(wanted.secrets / "treasury.json"))}
wallet_password_file = {json.dumps(str(wanted.secrets / "treasury_password"))}
amount_min_wei = {terms.TOPUP_MIN_WEI}
""",
        encoding="utf-8",
    )
    wanted.config.chmod(0o600)


# --- the service ---


@contextmanager
def _service(wanted: Wanted) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`clearinghouse dev`, and what it says of itself. Its log goes where ours does."""
    process = subprocess.Popen(
        command("dev", "--config", wanted.config, "--no-worker", "--json"),
        env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise NotStarted(f"`clearinghouse dev` ended with {process.wait()}; it says why above")
        yield process, json.loads(line)
    finally:
        _end(process)


def wait_for(process: subprocess.Popen[str]) -> None:
    """After Ctrl-C, which in a terminal has told it as well: told once more, it would end without its database."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)


def _end(process: subprocess.Popen[str]) -> None:
    """In order."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _environment() -> dict[str, str]:
    """Ours, without settings of another clearinghouse: the file has all that counts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CLEARINGHOUSE_")}


def _give_credit(wanted: Wanted) -> None:
    reason = ("--reason", "to play with", "--data-dir", wanted.data_dir)
    grant = command("credit", "grant", "demo", terms.CREDIT_USD, *reason)
    done = subprocess.run(
        grant, env=_environment(), capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise NotStarted(f"the demo gateway gets no credit: {done.stderr.strip()}")


def _wait_until_ready(http_url: str, service: subprocess.Popen[str]) -> None:
    give_up_at_s, said = time.monotonic() + START_TIMEOUT_S, "nothing"
    while time.monotonic() < give_up_at_s:
        if service.poll() is not None:
            raise NotStarted(f"`clearinghouse dev` ended with {service.returncode}; it says why above")
        try:
            with urllib.request.urlopen(f"{http_url}/readyz", timeout=START_TIMEOUT_S):
                return
        except HTTPError as not_ready:
            said = not_ready.read().decode(errors="replace")
        time.sleep(0.1)
    raise NotStarted(f"the service is not ready after {START_TIMEOUT_S} s; it says {said}")


# --- the clock ---


@contextmanager
def _ticking(world: World, round_s: int) -> Iterator[None]:
    """The node makes blocks by itself; rounds, and what the orchestrator sees of all that, need somebody."""
    stop = threading.Event()

    def tick() -> None:
        next_round_s = time.monotonic() + round_s
        while not stop.wait(TICK_S):
            try:
                if round_s and time.monotonic() >= next_round_s:
                    next_round_s += round_s
                    world.next_round()
                world.tick()
            except (OSError, HTTPException, ValueError, ChainRefused) as error:
                # The node has ended, by Ctrl-C or otherwise, perhaps in the middle of an answer: so will we.
                if not stop.wait(TICK_S):
                    log.warning("devnet_chain_gone", reason=str(error))

    thread = threading.Thread(target=tick, name="devnet-clock")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
