"""A gateway in the field: it pays an orchestrator every while, and does not lose its head when an answer is lost.

Whatever happened to a call (no connection, reset, time-out, 503), it sends the identical request again. After a few of
those it asks the orchestrator for fresh ticket parameters instead and goes on from the newest state it holds, as the
field's clients do; the answer it gave up on may have been recorded and charged.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

from chain.messages import decode_payment
from chain.pb import lp_rpc_pb2 as net
from clearinghouse.api.answers import read_answer
from tests.parts import client
from tests.parts.client import Answer
from tests.parts.orchestrator import Orchestrator
from tests.parts.stack import Stream

ROUTE = "/generate-live-payment"
#: Until an answer must have come, whatever was killed meanwhile: several restarts on a busy machine.
PATIENCE_S = 120.0
BACK_OFF_S = 0.05
#: An orchestrator remembers 600 nonces of one commitment, and clients ask for a new one well before.
NONCES_BEFORE_REFRESH_MAX = 400


class OutOfCredit(Exception):
    """402: the gateway has spent what it had."""


@dataclass(frozen=True)
class Received:
    """A released payment as its gateway has it in hand."""

    receipt: str
    body: bytes
    rand_hash: bytes
    nonces: tuple[int, ...]
    signatures: tuple[bytes, ...]
    charge: Fraction
    #: n·EV as whoever holds the tickets computes it, in wei, not rounded.
    ev_wei: Fraction


@dataclass
class Counts:
    """What a payer went through."""

    lost: int = 0  # no answer, or 503
    given_up: int = 0  # requests abandoned for fresh parameters after at least one of them was lost
    refreshed: int = 0  # 480 answers
    recovered: int = 0  # 200 to a repeated request that had been recorded before


@dataclass
class Payer:
    """One session of a gateway. `port` says where the service listens now; it may change from call to call."""

    port: Callable[[], int]
    api_key: str = field(repr=False)
    orchestrator: Orchestrator
    sender: bytes
    dice: random.Random
    #: Sends an Idempotency-Key with every request, the same one with its repetitions.
    is_keyed: bool = False
    received: dict[str, Received] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    #: Held while a payment is under way: whoever holds it knows that this payer is idle.
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_broke: bool = False
    #: Statuses after which the identical request may succeed.
    LOST: ClassVar = frozenset({503})

    def __post_init__(self) -> None:
        self.manifest_id = secrets.token_hex(8)
        self.stream = Stream(self._quote(), manifest_id=self.manifest_id)
        self._last_request: tuple[bytes, list[tuple[str, str]]] | None = None
        self._last_received: Received | None = None

    async def pay(self) -> None:
        """The next payment of the session, whatever it takes, delivered to the orchestrator. OutOfCredit."""
        async with self.busy, asyncio.timeout(PATIENCE_S):
            if self._last_received is not None and self._last_received.nonces[-1] > NONCES_BEFORE_REFRESH_MAX:
                self._refresh()
            while True:
                request = self.stream.body(), self._headers()
                answer = await self._persistently(*request)
                if answer is not None and answer.status == 200:
                    self._take(answer, request)
                    return
                if answer is not None and answer.status == 402:
                    self.is_broke = True
                    raise OutOfCredit
                self._refresh()

    async def ask_again(self) -> None:
        """The newest request again, its answer known: the same bytes must come, from the record. For an idle payer."""
        if self._last_request is None or self._last_received is None:
            return
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await self._once(*self._last_request)) is None or answer.status == 503:
                await asyncio.sleep(BACK_OFF_S)
        assert answer.status == 200, (answer.status, answer.body)
        assert answer.body == self._last_received.body, "an answer was repeated with other bytes"
        assert answer.header("clearinghouse-receipt") == self._last_received.receipt
        assert answer.header("clearinghouse-replayed") == "true"

    async def _persistently(self, body: bytes, headers: list[tuple[str, str]]) -> Answer | None:
        """The answer to identical requests, sent until one is answered. None: given up, it may have been recorded."""
        repetitions_max = self.dice.choice((3, 40, 4000))
        for _ in range(repetitions_max):
            answer = await self._once(body, headers)
            if answer is not None and answer.status in {200, 402}:
                return answer
            if answer is not None and answer.status == 480:
                self.counts.refreshed += 1
                return answer
            assert answer is None or answer.status in self.LOST, (answer.status, answer.body)
            self.counts.lost += 1
            await asyncio.sleep(BACK_OFF_S)
        self.counts.given_up += 1
        return None

    async def _once(self, body: bytes, headers: list[tuple[str, str]]) -> Answer | None:
        """One call; None when there was no complete answer."""
        try:
            return await client.post(self.port(), ROUTE, body, *headers)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None

    def _headers(self) -> list[tuple[str, str]]:
        key = [("Idempotency-Key", secrets.token_hex(8))] if self.is_keyed else []
        return [("Authorization", f"Bearer {self.api_key}"), *key]

    def _take(self, answer: Answer, request: tuple[bytes, list[tuple[str, str]]]) -> None:
        received = self._received(answer)
        assert received.receipt not in self.received, "one receipt for two requests"
        parts = read_answer(answer.body)
        self.orchestrator.receive(parts.payment, parts.seg_creds)  # raises on anything a real one would refuse
        self.received[received.receipt] = received
        self.counts.recovered += answer.header("clearinghouse-replayed") == "true"
        self.stream.learn(answer.body)
        self._last_request, self._last_received = request, received

    def _received(self, answer: Answer) -> Received:
        return _read(answer)

    def _refresh(self) -> None:
        self.stream.offer = self._quote()

    def _quote(self) -> net.OrchestratorInfo:
        return self.orchestrator.quote(
            self.sender, job_type="fixed", session_id=self.manifest_id, route="GetOrchestrator"
        )


def _read(answer: Answer) -> Received:
    payment = decode_payment(read_answer(answer.body).payment)
    receipt, charge = answer.header("clearinghouse-receipt"), answer.header("clearinghouse-charge")
    assert receipt is not None
    assert charge is not None
    amount, currency = charge.split(" ")
    assert currency == "USD"
    return Received(
        receipt=receipt,
        body=answer.body,
        rand_hash=payment.recipient_rand_hash,
        nonces=payment.nonces,
        signatures=payment.signatures,
        charge=Fraction(amount),
        ev_wei=len(payment.nonces) * Fraction(payment.face_value_wei * payment.win_prob, 2**256 - 1),
    )


@asynccontextmanager
async def paying(payers: Sequence[Payer]) -> AsyncIterator[None]:
    """All of them pay while the block runs, until broke; what goes wrong with one of them goes wrong here."""
    is_over = asyncio.Event()

    async def pay_on(payer: Payer) -> None:
        with suppress(OutOfCredit):
            while not is_over.is_set():
                await payer.pay()

    async with asyncio.TaskGroup() as tasks:
        for payer in payers:
            tasks.create_task(pay_on(payer))
        yield
        is_over.set()


@asynccontextmanager
async def calm(payers: Sequence[Payer]) -> AsyncIterator[None]:
    """Lets every payer finish what it is at; none begins anew while the block runs."""
    async with AsyncExitStack() as stack:
        for payer in payers:
            await stack.enter_async_context(payer.busy)
        yield


async def flow(payers: Sequence[Payer], payments: int) -> None:
    """Returns when so many more payments have been delivered."""
    wanted = delivered(payers) + payments
    async with asyncio.timeout(PATIENCE_S):
        while delivered(payers) < wanted:
            await asyncio.sleep(0.002)


def delivered(payers: Sequence[Payer]) -> int:
    return sum(len(payer.received) for payer in payers)
