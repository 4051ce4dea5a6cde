"""How a command reaches the devnet that runs in another process: HTTP on the loopback interface, with a token.

DIR/devnet.json     0600    where it listens, its token, and what a gateway needs to know
"""

from __future__ import annotations

import hmac
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from clearinghouse.errors import Refusal
from clearinghouse.secrets import new_token, replace
from tests.devnet.world import COMMANDS, World
from tests.parts.devnet.network import ChainRefused

FILE_NAME: Final = "devnet.json"
#: A command may send hundreds of transactions, a block each.
TIMEOUT_S: Final = 120
BODY_BYTES_MAX: Final = 1 << 16


class NoDevnet(Refusal):
    """There is none to command."""

    code, http_status = "no_devnet", 503
    what_next = "Start one with `make devnet` and leave it running; commands go into another terminal."


class ChainSaidNo(Refusal):
    """The contract, or the node."""

    code, http_status = "chain_refused", 409
    what_next = "Look at `python -m tests.devnet status`."


@dataclass(frozen=True)
class Running:
    """A devnet that runs, and where."""

    control_port: int
    http_url: str
    grpc_target: str
    rpc_url: str
    orchestrator_url: str
    sender: str
    api_key: str = field(repr=False)
    token: str = field(repr=False)

    def write(self, folder: Path) -> None:
        replace(folder / FILE_NAME, json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Running:
        """Raises NoDevnet."""
        try:
            return cls(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        except OSError:
            raise NoDevnet(f"no devnet runs in {folder}") from None

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One of world.COMMANDS. Raises NoDevnet, or ChainSaidNo."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", f"/{command}", json.dumps(arguments), {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            document: dict[str, Any] = json.loads(answer.read())
        except ConnectionError:
            raise NoDevnet("the devnet of this directory has ended") from None
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise ChainSaidNo(document["error"])
        return document


@contextmanager
def controlled(world: World) -> Iterator[tuple[int, str]]:
    """Obeys commands while the block lasts. The port, and the token that they need."""
    token = new_token()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = self.headers.get("Authorization", "")
            body = self.rfile.read(min(int(self.headers.get("Content-Length", "0")), BODY_BYTES_MAX))
            command = COMMANDS.get(self.path.removeprefix("/"))
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                self._answer(401, {"error": "the token is missing"})
            elif command is None:
                self._answer(404, {"error": f"there is no command {self.path}"})
            else:
                try:
                    self._answer(200, command(world, **json.loads(body)))
                except (ChainRefused, OSError) as error:
                    self._answer(409, {"error": str(error)})

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            """Nobody wants to read it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="devnet-control", daemon=True)
    thread.start()
    try:
        yield server.server_address[1], token
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
