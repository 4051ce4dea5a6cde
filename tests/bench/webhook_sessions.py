"""What a signer asks the webhook, call after call: the chain of states of one session, computed without signing.

Every call of type "fixed" is due one ticket, as with the offers of offers.py: the balance after k calls is k times what
one ticket is worth beyond the price, always less than a ticket. Fresh ticket parameters come as often as there.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from fractions import Fraction

from chain.messages import Price
from chain.payment_state import PaymentState, encode_state
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.identity.webhook_signers import WEBHOOK_PATH
from clearinghouse.signers.asking import webhook_body
from tests.bench.jobs import WrongAnswer
from tests.bench.offers import FACE_VALUE_WEI, JOB_TYPE, ORCHESTRATOR, PRICE_WEI, TICKETS_PER_OFFER_MAX, WIN_PROB

#: What is left of a ticket's expected value when a call is paid: less than one wei.
_LEFT_WEI = Fraction(FACE_VALUE_WEI * WIN_PROB, WIN_PROB_CERTAIN) - PRICE_WEI
_APPROVED = re.compile(rb'^\{"status":200,"auth_id":"([\w/]+)"')


class StateChain:
    """The states after each payment of one session, with AuthID as it was before: what a signer shows."""

    __slots__ = ("_auth_id", "_calls", "_nonce", "_rand_hash", "_state_id")

    def __init__(self) -> None:
        self._state_id = secrets.token_hex(16)
        self._auth_id = ""
        self._rand_hash = b""
        self._calls = self._nonce = 0

    def next_state(self) -> PaymentState:
        """One ticket further."""
        if self._nonce % TICKETS_PER_OFFER_MAX == 0:
            self._rand_hash, self._nonce = os.urandom(32), 0
        self._calls += 1
        self._nonce += 1
        return PaymentState(
            state_id=self._state_id,
            pm_session_id=self._rand_hash,
            last_update_unix_ns=time.time_ns(),
            orchestrator_address=ORCHESTRATOR,
            app="",
            auth_expiry_unix_s=0,
            sender_nonce=self._nonce,
            balance=self._calls * _LEFT_WEI,
            initial_price=Price(PRICE_WEI, 1),
            type=JOB_TYPE,
            sequence_number=self._calls - 1,
            auth_id=self._auth_id,
        )

    def approved(self, auth_id: str) -> None:
        """The signer writes the webhook's auth id into the state it signs."""
        self._auth_id = auth_id


class WebhookSession:
    """As load.Session, but of a signer: it asks for consent and gets no tickets."""

    __slots__ = ("_before_state", "_chain", "_head")

    def __init__(self, *, host: str, authorization: str, signer_authorization: str) -> None:
        self._chain = StateChain()
        self._head = (
            f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {signer_authorization}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        headers = [
            (b"accept-encoding", b"gzip"),
            (b"authorization", authorization.encode()),
            (b"content-length", b"1340"),
            (b"content-type", b"application/json"),
            (b"user-agent", b"Go-http-client/1.1"),
        ]
        body = webhook_body(headers, StateChain().next_state())
        self._before_state = body[: body.index(b',"state":') + len(b',"state":')]

    def next_request(self) -> bytes:
        state = encode_state(self._chain.next_state())
        length = len(self._before_state) + len(state) + 1
        return b"%b%d\r\n\r\n%b%b}" % (self._head, length, self._before_state, state)

    def answered(self, body: bytes) -> None:
        """Every answer is a 200 of HTTP; the verdict is in the body."""
        found = _APPROVED.match(body)
        if found is None:
            raise WrongAnswer(f"not approved: {body[:300].decode(errors='replace')}")
        self._chain.approved(found[1].decode())
