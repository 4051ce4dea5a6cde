"""The embedded stack as real processes in a temporary directory: PostgreSQL, signer, service, plain proxy, listener."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clearinghouse.config_sources import load_settings
from clearinghouse.database.cluster_files import CLUSTER_NAME
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from clearinghouse.secrets import api_key_pepper
from tests.bench.accounts import make_gateways, make_webhook_signer, settings_of_server
from tests.bench.failure import BenchFailed
from tests.bench.processes import START_TIMEOUT_S, LoadProcess, Server
from tests.bench.usage import cpu_ns, postgres_pids
from tests.parts.ports import free_port

HOST = "127.0.0.1"


@dataclass
class Stack:
    """What runs, and where it listens."""

    folder: Path
    conninfo: str
    database: dict[str, str]
    authorizations: list[str]
    upstream: Server
    upstream_port: int
    service: Server
    http_port: int
    grpc_port: int
    proxy: Server
    proxy_port: int
    listener: Server
    listener_port: int
    #: With which the signer of the webhook scenario asks.
    signer_authorization: str
    http_load: LoadProcess
    grpc_load: LoadProcess
    postmaster_pid_file: Path
    #: Written by the service when it is profiled and told to.
    profile_file: Path
    echo: Server | None = None
    echo_port: int = 0

    def cpu_by_role_ns(self) -> dict[str, int]:
        """CPU time spent so far by each part of the stack."""
        used = {
            "upstream": cpu_ns(self.upstream.pid),
            "service": cpu_ns(self.service.pid),
            "proxy": cpu_ns(self.proxy.pid),
            "listener": cpu_ns(self.listener.pid),
            "echo": cpu_ns(self.echo.pid) if self.echo is not None else 0,
            "load": cpu_ns(self.http_load.pid) + cpu_ns(self.grpc_load.pid),
            "postgres": 0,
        }
        for pid in postgres_pids(self.postmaster_pid_file):
            try:
                used["postgres"] += cpu_ns(pid)
            except ProcessLookupError:  # a helper of PostgreSQL that ended between two lines
                continue
        return used


@contextmanager
def running_stack(*, accounts_count: int, is_profiled: bool) -> Iterator[Stack]:
    """Everything but the echo server, which needs an answer to repeat. The database outlives the service."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clearinghouse-bench-")))
        data_dir = folder / "data"
        database = stack.enter_context(EmbeddedPostgres(data_dir))
        migrate(database.conninfo)
        pepper = api_key_pepper(load_settings(flags={"data_dir": data_dir}, environment={}))
        authorizations = asyncio.run(make_gateways(database.conninfo, count=accounts_count, pepper=pepper))
        signer_authorization = asyncio.run(make_webhook_signer(database.conninfo, pepper=pepper))

        upstream_port = free_port()
        upstream_url = f"http://{HOST}:{upstream_port}"
        upstream = stack.enter_context(
            Server(
                "upstream",
                [
                    "-m",
                    "clearinghouse.cli",
                    "signer",
                    "--data-dir",
                    str(folder / "signer"),
                    "--port",
                    f"{upstream_port}",
                ],
                folder=folder,
            )
        )
        sender = upstream.wait_for(r"signing for (0x[0-9a-fA-F]{40})")[1]
        _wait_for_port(upstream, upstream_port)
        profile_file = folder / "profile.json"
        service = stack.enter_context(
            _service(folder, data_dir, upstream_url, sender, profile_file if is_profiled else None)
        )
        ports = service.wait_for(r"serving HTTP on \S+:(\d+) and gRPC on \S+:(\d+)")
        proxy = stack.enter_context(
            Server("proxy", ["-m", "tests.bench.plain_proxy", upstream_url, sender], folder=folder)
        )
        listener = stack.enter_context(Server("listener", ["-m", "tests.bench.plain_listener"], folder=folder))
        yield Stack(
            folder=folder,
            conninfo=database.conninfo,
            database=asyncio.run(settings_of_server(database.conninfo)),
            authorizations=authorizations,
            upstream=upstream,
            upstream_port=upstream_port,
            service=service,
            http_port=int(ports[1]),
            grpc_port=int(ports[2]),
            proxy=proxy,
            proxy_port=int(proxy.wait_for(r"listening on (\d+)")[1]),
            listener=listener,
            listener_port=int(listener.wait_for(r"listening on (\d+)")[1]),
            signer_authorization=signer_authorization,
            http_load=stack.enter_context(LoadProcess("tests.bench.load", folder=folder)),
            grpc_load=stack.enter_context(LoadProcess("tests.bench.load_grpc", folder=folder)),
            postmaster_pid_file=data_dir / CLUSTER_NAME / "postmaster.pid",
            profile_file=profile_file,
        )


@contextmanager
def running_echo(stack: Stack, answer: bytes) -> Iterator[None]:
    """The bare gRPC server beside the stack; it answers with `answer`, byte for byte."""
    file = stack.folder / "grpc-answer.bin"
    file.write_bytes(answer)
    with Server("echo", ["-m", "tests.bench.grpc_echo", str(file)], folder=stack.folder) as stack.echo:
        stack.echo_port = int(stack.echo.wait_for(r"listening on (\d+)")[1])
        yield
    stack.echo = None


def _service(folder: Path, data_dir: Path, upstream_url: str, sender: str, profile_file: Path | None) -> Server:
    launcher = (
        ["-m", "clearinghouse.cli"] if profile_file is None else ["-m", "tests.bench.profiled", str(profile_file)]
    )
    return Server(
        "service",
        [*launcher, "serve", "--data-dir", str(data_dir), "--http-port", "0", "--grpc-port", "0"],
        folder=folder,
        environment={
            "CLEARINGHOUSE_WEBHOOK__ENABLED": "true",
            "CLEARINGHOUSE_SIGNER__KIND": "go_livepeer",
            "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": upstream_url,
            "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__EXPECTED_ADDRESS": sender,
        },
    )


def _wait_for_port(server: Server, port: int) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        server.require_running()
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchFailed(f"{server.name} does not listen on port {port}")
