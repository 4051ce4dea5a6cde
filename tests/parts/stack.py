"""The signing core in this process over a real database, and gateways that pay with it: no HTTP, no gRPC.

    async with running_stack(database) as stack:
        gateway = await stack.new_gateway(credit="10")
        stream = stack.new_stream()
        signed = await stack.pay(gateway, stream)      # the stream now holds the newest state
        signed = await stack.pay(gateway, stream)      # ... and goes on

Several stacks over one database are several processes of one service: they share the signer's key and the pepper.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.escrow import DeclaredEscrow, EscrowView
from chain.messages import decode_base64, encode_base64
from chain.payment_state import SignedState
from chain.pb import lp_rpc_pb2 as net
from chain.rates import DeclaredPrices
from chain.signatures import SigningKey, keccak
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.api.answers import read_answer
from clearinghouse.charging import Charging
from clearinghouse.commits import GroupCommit
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.gates import Gates
from clearinghouse.identity import gateways, keys, limits
from clearinghouse.identity.authenticate import Authenticator
from clearinghouse.ledger import transfers
from clearinghouse.ledger.accounts import Standing, standing
from clearinghouse.lookups import Lookups
from clearinghouse.metrics import Metrics
from clearinghouse.policy import Policy
from clearinghouse.rate_watch import RateWatch
from clearinghouse.registry import DeclaredRecipients
from clearinghouse.requests import PaymentRequest, decode_payment_request
from clearinghouse.session_cache import SessionCache
from clearinghouse.signers.base import Signer
from clearinghouse.signers.native import NativeSigner
from clearinghouse.signing import Asked, SignCall, SignedAnswer, Signing

SIGNER_KEY = SigningKey(keccak(b"the ticket key of the stack"))
PEPPER = bytes(range(32)).hex().encode()  # as services read it from a file
L1_BLOCK = 20_000_000
CREATION_ROUND = 3500
USD_PER_ETH = Decimal(3000)
#: Expected value of one ticket of an offer, exactly: a ticket wins one time in five, and 2^256 - 1 divides by five.
TICKET_EV_WEI = 8 * 10**9
#: What one ticket costs a gateway without markup: 8e9 wei at 3000 USD per ETH.
TICKET_CHARGE_USD = Decimal("0.000024")


@dataclass
class Clock:
    """The real time, which a test may put forward."""

    ahead_ns: int = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns

    def advance(self, seconds: int) -> None:
        self.ahead_ns += seconds * 10**9


@dataclass(frozen=True)
class TestGateway:
    """A tenant with a key. `authorization` is the header's value."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    id: UUID
    api_key: str = field(repr=False)

    @property
    def authorization(self) -> str:
        return f"Bearer {self.api_key}"


@dataclass
class Stream:
    """A stream of payments as a gateway keeps it: the orchestrator's newest offer and the newest state it was given.

    Every call pays for `job_type`'s units at the offer's price; with type "fixed" (the default) that is one unit, and
    the offer of `Stack.new_stream` asks for a whole number of tickets a call, whatever the clock says.
    """

    offer: net.OrchestratorInfo
    job_type: str = "fixed"
    manifest_id: str = field(default_factory=lambda: secrets.token_hex(8))
    app: str = ""
    in_pixels: int = 0
    capabilities: bytes = b""
    state: SignedState | None = None

    def document(self, **changes: Any) -> dict[str, Any]:
        """go-livepeer's JSON for the next call. `changes` replace keys; None leaves one out."""
        fields: dict[str, Any] = {
            "orchestrator": encode_base64(self.offer.SerializeToString()),
            "ManifestID": self.manifest_id,
            "app": self.app or None,
            "type": self.job_type or None,
            "inPixels": self.in_pixels or None,
            "capabilities": encode_base64(self.capabilities) if self.capabilities else None,
        }
        if self.state is not None:
            fields["state"] = {"State": encode_base64(self.state.state), "Sig": encode_base64(self.state.sig)}
        return {key: value for key, value in {**fields, **changes}.items() if value is not None}

    def body(self, **changes: Any) -> bytes:
        return json.dumps(self.document(**changes)).encode()

    def request(self, **changes: Any) -> PaymentRequest:
        return decode_payment_request(self.body(**changes))

    def learn(self, body: bytes) -> None:
        """Takes the newest state out of a 200's body."""
        answer = read_answer(body)
        self.learn_state(decode_base64(answer.state), decode_base64(answer.sig))

    def learn_state(self, state: bytes, sig: bytes) -> None:
        self.state = SignedState(state, sig)

    def refresh(self) -> None:
        """Fresh ticket parameters of the same orchestrator, as after a 480."""
        self.offer.ticket_params.recipient_rand_hash = secrets.token_bytes(32)


@dataclass
class Stack:
    """The parts of one process of the service, each of them real. Use `running_stack`."""

    conninfo: str
    clock: Clock
    #: In role clearinghouse_admin.
    engine: AsyncEngine
    metrics: Metrics
    lookups: Lookups
    sessions: SessionCache
    gates: Gates
    authenticator: Authenticator
    prices: DeclaredPrices
    signer: Signer
    commits: GroupCommit
    signing: Signing
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def new_gateway(
        self,
        *,
        name: str = "",
        credit: str = "10",
        currency: str = "USD",
        credit_limit: str = "0",
        markup_bps: int = 0,
        minimum_charge: str = "0",
    ) -> TestGateway:
        """A gateway with one key, and `credit` granted to it."""
        async with self.engine.begin() as connection:
            gateway = await gateways.create(
                connection,
                name or f"gateway-{next(self._numbers)}-{secrets.token_hex(3)}",
                currency=currency,
                markup_bps=markup_bps,
                minimum_charge=Decimal(minimum_charge),
                credit_limit=Decimal(credit_limit),
            )
            if Decimal(credit):
                await transfers.grant(connection, gateway.id, Decimal(credit), reason="credit of a test", actor="test")
        return await self.new_key(gateway.id)

    async def new_key(self, gateway_id: UUID) -> TestGateway:
        """The same gateway with a further key."""
        async with self.engine.begin() as connection:
            key = await keys.create(connection, gateway_id, pepper=PEPPER)
        return TestGateway(gateway_id, key.api_key)

    async def limit_key(self, gateway: TestGateway, **changes: Decimal | int | None) -> None:
        """Of the key that it calls with, by the names that operators know."""
        async with self.engine.begin() as connection:
            key = await keys.find(connection, gateway.api_key.split("_")[1])
            await limits.set_key_limits(connection, key.id, changes)

    async def standing(self, gateway: TestGateway) -> Standing:
        async with self.engine.connect() as connection:
            return await standing(connection, gateway.id)

    async def suspend(self, gateway: TestGateway, *, reason: str = "unpaid") -> None:
        async with self.engine.begin() as connection:
            await gateways.suspend(connection, gateway.id, reason=reason)

    def new_stream(self, *, tickets: int = 1, orchestrator: bytes = b"", **settings: Any) -> Stream:
        """A new session's stream with an offer of its own: each call of type "fixed" costs `tickets` tickets."""
        return Stream(offer(self.clock, tickets=tickets, orchestrator=orchestrator), **settings)

    async def pay(self, gateway: TestGateway, stream: Stream, **call: Any) -> SignedAnswer:
        """The stream's next payment. `call` adds to Asked: idempotency_key, end_user. Raises Refusal."""
        asked = Asked(stream.request(), **call)
        signed = await self.signing.sign_ticket(SignCall(gateway.authorization, lambda: asked))
        stream.learn(signed.body)
        return signed


def offer(clock: Clock, *, tickets: int = 1, orchestrator: bytes = b"") -> net.OrchestratorInfo:
    """What an orchestrator offers: `tickets` tickets' worth of wei per unit, with ticket parameters nobody has used."""
    address = orchestrator or secrets.token_bytes(20)
    return net.OrchestratorInfo(
        transcoder="https://orchestrator.example:8935",
        address=address,
        ticket_params=net.TicketParams(
            recipient=address,
            face_value=_minimal(5 * TICKET_EV_WEI),
            win_prob=_minimal(WIN_PROB_CERTAIN // 5),
            recipient_rand_hash=secrets.token_bytes(32),
            seed=_minimal(secrets.randbits(128)),
            expiration_block=_minimal(L1_BLOCK + 40),
            expiration_params=net.TicketExpirationParams(
                creation_round=CREATION_ROUND, creation_round_block_hash=keccak(b"round 3500")
            ),
        ),
        price_info=net.PriceInfo(pricePerUnit=tickets * TICKET_EV_WEI, pixelsPerUnit=1),
        auth_token=net.AuthToken(token=b"token", session_id="c0ffee", expiration=clock() // 10**9 + 1800),
    )


def native_signer(clock: Clock, key: SigningKey = SIGNER_KEY, *, escrow: EscrowView | None = None) -> NativeSigner:
    """A signer in process over a declared escrow that covers every offer of the stack, or over another one."""
    escrow = escrow or DeclaredEscrow(
        sender=key.address,
        deposit_wei=10**18,
        reserve_wei=10**18,
        last_initialized_round=CREATION_ROUND,
        last_initialized_round_block_hash=keccak(b"round 3500"),
        last_seen_l1_block=L1_BLOCK,
    )
    return NativeSigner(key=key, escrow=escrow, now_unix_ns=clock)


@asynccontextmanager
async def running_stack(
    conninfo: str,
    *,
    signer: Signer | None = None,
    policy: Policy | None = None,
    clock: Clock | None = None,
    deadline_s: float = 10,
    remember_s: int = 5,
) -> AsyncIterator[Stack]:
    """A stack over the database of the `database` fixture. `signer` replaces the native one."""
    clock = clock or Clock()
    metrics = Metrics(CollectorRegistry(), version="test")
    signer = signer or native_signer(clock)
    lookups = Lookups(conninfo, batch_rows_max_count=512)
    commits = GroupCommit(conninfo, batch_rows_max_count=512, deadline_s=deadline_s, metrics=metrics)
    engine = async_engine(in_role(conninfo, ADMIN_ROLE))
    authenticator = Authenticator(lookups, pepper=PEPPER, remember_s=remember_s)
    sessions = SessionCache(sessions_max_count=10_000)
    gates = Gates(policy or Policy(), recipients=DeclaredRecipients([]), escrow=None)
    prices = DeclaredPrices({"USD": USD_PER_ETH, "EUR": Decimal(2800)}, declared_at=datetime.now(UTC))
    rates = RateWatch(engine)
    await rates.start()
    signing = Signing(
        authenticator=authenticator,
        lookups=lookups,
        sessions=sessions,
        gates=gates,
        charging=Charging(authenticator=authenticator, prices=prices, commits=commits, usage=lookups, rates=rates),
        signer=signer,
        metrics=metrics,
        deadline_s=deadline_s,
        unix_ns=clock,
    )
    try:
        yield Stack(
            conninfo=conninfo,
            clock=clock,
            engine=engine,
            metrics=metrics,
            lookups=lookups,
            sessions=sessions,
            gates=gates,
            authenticator=authenticator,
            prices=prices,
            signer=signer,
            commits=commits,
            signing=signing,
        )
    finally:
        await rates.stop()
        await commits.close()
        await lookups.close()
        await engine.dispose()


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
