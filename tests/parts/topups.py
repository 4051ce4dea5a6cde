"""Top-ups over a chain and a database of our own, which a test may break.

async with funding(database, devnet) as funding:
    await funding.send(Amounts(ETHER, 0))
    funding.mine(CONFIRMATIONS)
    assert (await funding.pursue()).topup.state is State.CONFIRMED
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from eth_abi.abi import decode
from eth_keyfile.keyfile import create_keyfile_json
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.funding import Amounts
from chain.gas import FeeCaps
from chain.signatures import SigningKey, keccak
from chain.transactions import Fees, Transaction, sign
from chain.wallets import KeyWallet, Wallet
from clearinghouse.config import Settings
from settlement.runs import tick_engine
from settlement.schedule import Tick
from settlement.topups.automatic import AutomaticTopups
from settlement.topups.flow import Pursued, SilentTopupObserver, TopupObserver, Topups
from settlement.topups.planning import Rules
from settlement.topups.pursuing import Patience, Topup
from settlement.topups.store import HowThingsStand, TopupStore, read_standing
from tests.parts.devnet import DEV_CHAIN_ID, Devnet, FaultProxy
from tests.parts.wallet import ETHER, GWEI, TREASURY, WayToChain, give, quiet_afterwards, way_to_chain

SENDER = SigningKey(keccak(b"a sender that is topped up"))
CONFIRMATIONS = 3
STUCK_AFTER_S = 120
RULES = Rules(
    transaction_max_wei=5 * ETHER, day_max_wei=8 * ETHER, amount_min_wei=ETHER // 100, advice_max_age_s=300
)  # fmt: skip
CAPS = FeeCaps(
    max_per_gas_wei=50 * GWEI, priority_max_per_gas_wei=10 * GWEI, priority_wanted_wei=GWEI,
    gas_limit_max_count=1_000_000,
)  # fmt: skip
PATIENCE = Patience(confirmations_count=CONFIRMATIONS, stuck_after_s=STUCK_AFTER_S, plan_valid_s=120)


@dataclass
class Funding:
    """One worker's top-ups, by the treasury unless another key is given. `now` is its clock."""

    database: str
    devnet: Devnet
    way: WayToChain
    engine: AsyncEngine
    key: SigningKey = TREASURY
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    caps: FeeCaps = CAPS
    rules: Rules = RULES
    observer: TopupObserver = field(default_factory=SilentTopupObserver)

    @property
    def topups(self) -> Topups:
        return Topups(
            self.store, self.way.chain, self.wallet, rules=self.rules, caps=self.caps, patience=PATIENCE,
            observer=self.observer,
        )  # fmt: skip

    @property
    def wallet(self) -> Wallet:
        return KeyWallet(self.key)

    @property
    def store(self) -> TopupStore:
        return TopupStore(self.engine, actor="a test", transaction=Tick(self.engine, self.now).transaction)

    @property
    def proxies(self) -> list[FaultProxy]:
        return self.way.proxies

    async def begin(self, amounts: Amounts) -> Topup:
        standing = await self.standing()
        planned = await self.topups.plan_named(SENDER.address, amounts, standing, self.now)
        return await self.found(await self.topups.begin(planned, self.now, reason="a test"))

    async def send(self, amounts: Amounts) -> Topup:
        """Planned, signed and sent."""
        await self.begin(amounts)
        return (await self.pursue()).topup

    async def standing(self) -> Any:
        return await self.topups.standing(SENDER.address)

    async def pursue(self) -> Pursued:
        pursued = await self.topups.pursue(self.now)
        assert pursued is not None, "one is in flight"
        return pursued

    async def found(self, id_: Any) -> Topup:
        found = await self.store.find(id_)
        assert found is not None
        return found

    async def kinds(self, topup: Topup) -> list[str]:
        return [event["kind"] for event in await self.store.events(topup.id)]

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def mine(self, count: int = 1) -> None:
        for _ in range(count):
            self.devnet.mine()

    def escrow(self) -> Amounts:
        return escrow(self.devnet)

    def foreign(self, nonce: int, *, to: bytes = b"\x0b" * 20) -> None:
        """A transaction of the wallet that the service knows nothing of, mined."""
        raw = sign(Transaction(DEV_CHAIN_ID, nonce, to, 1, b"", 21_000, Fees(40 * GWEI, 2 * GWEI)), self.key).raw
        self.devnet.rpc("eth_sendRawTransaction", f"0x{raw.hex()}")
        self.mine()

    def other(self, **changes: Any) -> Funding:
        """Another worker on the same database and chain."""
        return replace(self, **changes)

    def query(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def rewrite(self, statement: str) -> None:
        """Past the triggers that keep the audit: a row as another history would have left it."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            assert connection.execute(statement.encode()).rowcount > 0


@asynccontextmanager
async def funding(database: str, devnet: Devnet, *, endpoints: int = 2) -> AsyncIterator[Funding]:
    """The treasury and the sender have 100 ether each, the escrow nothing."""
    for key in (TREASURY, SENDER):
        give(devnet, key.address, 100 * ETHER)
    devnet.mine()
    async with AsyncExitStack() as stack:
        stack.enter_context(quiet_afterwards(devnet))
        way = await stack.enter_async_context(way_to_chain(devnet, endpoints=endpoints))
        engine = tick_engine(database)
        stack.push_async_callback(engine.dispose)
        yield Funding(database, devnet, way, engine)


def escrow(devnet: Devnet) -> Amounts:
    """Deposit and reserve, in the newest block."""
    info = decode(["uint256"] * 4, devnet.call("TicketBroker", "getSenderInfo(address)", SENDER.address))
    return Amounts(deposit_wei=info[0], reserve_wei=info[2])


@dataclass
class Automatic:
    """The scheduler's top-ups, as the settings have them, over coverage that a test writes."""

    funding: Funding
    settings: dict[str, Any]
    observer: TopupObserver = field(default_factory=SilentTopupObserver)

    def with_mode(self, mode: str) -> Automatic:
        return replace(self, settings={**self.settings, "topups": {**self.settings["topups"], "mode": mode}})

    async def turn(self) -> str:
        job = AutomaticTopups(Settings.model_validate(self.settings), observer=self.observer)
        return await job.turn(Tick(self.funding.engine, self.funding.now))

    async def stands(self) -> HowThingsStand:
        async with self.funding.engine.connect() as connection:
            found = await read_standing(connection)
        assert found is not None, "somebody has looked"
        return found

    def advise(self, top_up: Amounts | None, *, age_s: int = 0, block: int | None = None, **changes: Any) -> None:
        """Coverage of the escrow as it is in the newest block advises this."""
        has = self.funding.escrow()
        newest = int(self.funding.devnet.rpc("eth_blockNumber"), 16)
        row = {
            "sender": SENDER.address, "observed_at": self.funding.now - timedelta(seconds=age_s),
            "block_number": newest if block is None else block, "block_time": self.funding.now, "l1_block_number": 1,
            "round": 1, "validity_rounds": 2, "simulated": False, "deposit_wei": has.deposit_wei,
            "reserve_wei": has.reserve_wei, "claimed_in_round_wei": 0,
            "pool_size": 1, "lock": "locked", "num_tickets": 0, "expected_wei": 0,
            "deviation_wei": 0, "face_value_max_wei": 0, "worst_case_wei": 0, "level": "low", "remaining_ev_wei": 0,
            "issuable_face_value_wei": 0, "reserve_share_wei": 0, "is_enforced": True,
            "top_up_deposit_wei": top_up.deposit_wei if top_up else None,
            "top_up_reserve_wei": top_up.reserve_wei if top_up else None,
        } | changes  # fmt: skip
        names = ", ".join(row)
        values = ", ".join(f"%({name})s" for name in row)
        with psycopg.connect(self.funding.database, autocommit=True) as connection:
            connection.execute(f"INSERT INTO coverage_snapshot ({names}) VALUES ({values})".encode(), row)


def automatic(funding: Funding, folder: Path, *, mode: str = "on") -> Automatic:
    """With the treasury's key in a keystore."""
    keystore = folder / "treasury.json"
    document = create_keyfile_json(keccak(b"a treasury wallet"), b"a password", kdf="pbkdf2", iterations=2)
    keystore.write_text(json.dumps(document), encoding="utf-8")
    return Automatic(
        funding,
        {
            "chain": {
                "network": "dev", "rpc_urls": [proxy.url for proxy in funding.proxies], "timeout_s": 2, "poll_s": 1,
                "stale_max_s": 3600, "confirmations_count": CONFIRMATIONS,
            },
            "topups": {
                "mode": mode, "sender": f"0x{SENDER.address.hex()}",
                "wallet": "keystore", "wallet_keystore_file": str(keystore),
                "wallet_password": "a password",
                "transaction_max_wei": 5 * ETHER, "day_max_wei": 8 * ETHER, "fee_max_wei": 50 * GWEI,
                "priority_fee_wei": GWEI, "priority_fee_max_wei": 10 * GWEI, "stuck_after_s": STUCK_AFTER_S,
            },
        },
    )  # fmt: skip
