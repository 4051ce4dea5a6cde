"""A gateway as the field has them: it gets terms from the orchestrator, tickets from the clearinghouse, and hands them
over. A session is remembered in a file, so that the next command goes on with it.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from clearinghouse.cli.signing_clients import HttpClient
from clearinghouse.errors import Refusal
from tests.devnet.control import Running

ROUTE: Final = "/apps/fixed"
TIMEOUT_S: Final = 30
#: An orchestrator remembers 600 nonces of one commitment; each payment has ten, or five.
PAYMENTS_BEFORE_REFRESH_MAX: Final = 50


class OrchestratorRefused(Refusal):
    """What we brought is not good enough."""

    code, http_status = "orchestrator_refused", 502
    what_next = "Look at `python -m tests.devnet status`: funds, lock and round."


@dataclass
class Session:
    """What a gateway knows of a job that it pays for."""

    manifest_id: str
    #: The orchestrator's newest terms, an encoded net.OrchestratorInfo in base64.
    params: str
    #: The signer's newest state; without one the session has not begun for it.
    state: dict[str, str] | None = None
    payments_with_params: int = 0


@dataclass
class Gateway:
    """With the demo gateway's key. Raises Declined and the other exceptions of signing_clients, OrchestratorRefused."""

    running: Running
    service: HttpClient
    _orchestrator: http.client.HTTPSConnection = field(repr=False)

    def new_session(self) -> Session:
        """The job is asked for without a payment; the answer says what it takes."""
        challenge = self._ask(ROUTE, {}, {"Livepeer-Payer-Address": self.running.sender}, wanted=402)
        return Session(challenge["manifest_id"], challenge["payment_params"])

    def refresh(self, session: Session) -> None:
        """Fresh terms of the same session: old ones run out, and nonces of one commitment are counted."""
        asked = {"sender": self.running.sender, "manifest_id": session.manifest_id}
        session.params = self._ask("/refresh-payment", asked, {}, wanted=200)["payment_params"]
        session.payments_with_params = 0

    def pay(self, session: Session) -> dict[str, Any]:
        """Buys a call: tickets are signed, charged and handed over. The receipt."""
        if session.payments_with_params >= PAYMENTS_BEFORE_REFRESH_MAX:
            self.refresh(session)
        request = {"orchestrator": session.params, "manifest_id": session.manifest_id, "app": "devnet", "type": "fixed"}
        answer = self.service.sign(request if session.state is None else {**request, "state": session.state})
        session.state = answer["state"]
        session.payments_with_params += 1
        headers = {"Livepeer-Payment": answer["payment"], "Livepeer-Segment": answer["seg_creds"]}
        self._ask(ROUTE, {}, headers, wanted=200)
        receipt: dict[str, Any] = answer["receipt"]
        return receipt

    def _ask(self, path: str, document: dict[str, Any], headers: dict[str, str], *, wanted: int) -> dict[str, Any]:
        try:
            self._orchestrator.request("POST", path, json.dumps(document), headers)
            answer = self._orchestrator.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise OrchestratorRefused(f"no answer from {self.running.orchestrator_url}: {error}") from error
        if answer.status != wanted:
            raise OrchestratorRefused(f"{path} answered {answer.status}: {said['error']['message']}")
        return said


@contextmanager
def gateway(running: Running) -> Iterator[Gateway]:
    parts = urlsplit(running.orchestrator_url)
    # Nobody vouches for an orchestrator's certificate; what it is paid for is bound by the tickets' recipient.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    orchestrator = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S, context=context)
    with ExitStack() as stack:
        stack.callback(orchestrator.close)
        service = stack.enter_context(HttpClient(running.http_url, running.api_key))
        yield Gateway(running, service, orchestrator)


@contextmanager
def session_of(name: str | None, folder: Path, by: Gateway) -> Iterator[Session]:
    """The session of this name with fresh terms, or a new one; what it came to is remembered under its name."""
    file = folder / "sessions" / f"{name}.json" if name is not None else None
    if file is not None and file.exists():
        session = Session(**json.loads(file.read_text(encoding="utf-8")))
        by.refresh(session)
    else:
        session = by.new_session()
    try:
        yield session
    finally:
        if file is not None and session.state is not None:
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(asdict(session)), encoding="utf-8")
