"""The way of a top-up, step by step. Each is stored before it is taken, and each can be taken again.

    plan      one row, and only where no other is in flight              nothing can be lost yet
    sign      the nonce and the signed bytes are stored                  ┐ a process may end anywhere from here:
    send      these bytes, and no others, to all endpoints               │ whoever goes on finds the bytes, sends them
    follow    until it is deep enough in the chain                       ┘ again, and the chain takes them once

What makes paying twice impossible is not that a process is careful, but that all bytes that ever leave are in the
database and have the one nonce of their top-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID, uuid4

import structlog

from chain.funding import Amounts, funding_call
from chain.gas import FeeCaps, TooExpensive, first_fees, gas_limit, raised_fees
from chain.quorum import Block, NoDecision
from chain.signatures import checksum_address
from chain.transactions import Fees, Transaction
from chain.wallet_chain import Fate, Followed, Sent, SimulationRefused, WalletReading
from chain.wallets import Wallet, WalletFailed
from clearinghouse.errors import NotFound
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.planning import (
    Advice,
    Rules,
    amounts_due,
    require_balance,
    require_contract,
    require_fresh,
    require_locked,
    require_nonce,
    require_not_funded,
    require_sendable,
    require_within,
)
from settlement.topups.pursuing import (
    Abandon,
    End,
    Overtaken,
    Patience,
    Purpose,
    Replace,
    Send,
    Sign,
    State,
    Topup,
    Unclear,
    is_otherwise,
    next_step,
    step_before_sending,
)
from settlement.topups.store import Planned, TopupStore

log = structlog.get_logger(__name__)

#: Far longer than any reorganisation of a chain that is alive.
_REVISITED_FOR: Final = timedelta(hours=1)
#: More steps than any top-up takes at once.
_STEPS_AT_ONCE_MAX: Final = 8


class Chain(Protocol):
    """What chain.wallet_chain.WalletChain does. All but `send` raise NoDecision."""

    @property
    def chain_id(self) -> int: ...

    async def standing(self, wallet: bytes, sender: bytes) -> WalletReading: ...

    async def simulate(self, payer: bytes, to: bytes, value_wei: int, data: bytes, at: Block) -> int: ...

    async def follow(self, wallet: bytes, nonce: int, hashes: Sequence[bytes]) -> Followed: ...

    async def send(self, raw: bytes) -> Sent: ...


class Point(StrEnum):
    """Where a top-up has got to, for whoever watches: after each, the process may end."""

    PLANNED = "planned"
    SIGNED = "signed"  # and not stored
    STORED = "stored"
    SENT = "sent"  # and not recorded
    RECORDED = "recorded"
    SEEN_TO_END = "seen_to_end"  # and not recorded
    ENDED = "ended"


class TopupObserver(Protocol):
    """Hears how far a top-up has got."""

    def reached(self, point: Point) -> None: ...


class SilentTopupObserver:
    """Hears nothing."""

    def reached(self, point: Point) -> None: ...


class _Call(NamedTuple):
    """What a transaction does; `to` has 20 bytes."""

    to: bytes
    value_wei: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Pursued:
    """What became of the one in flight: `topup` as it is now, and what hinders it, if anything does."""

    topup: Topup
    trouble: TopupRefused | None


class Topups:
    """Belongs to one event loop, and does one thing at a time; others may do the same at the same time elsewhere."""

    def __init__(
        self,
        store: TopupStore,
        chain: Chain,
        wallet: Wallet,
        *,
        rules: Rules,
        caps: FeeCaps,
        patience: Patience,
        observer: TopupObserver | None = None,
    ) -> None:
        self._store, self._chain, self._wallet = store, chain, wallet
        self._rules, self._caps, self._patience = rules, caps, patience
        self._observer = observer or SilentTopupObserver()

    # --- what to send ---

    async def standing(self, sender: bytes) -> WalletReading:
        """The wallet, and the escrow of `sender`, as they are now. Raises TopupRefused."""
        try:
            return await self._chain.standing(self._wallet.address, sender)
        except NoDecision as reason:
            raise TopupRefused(Condition.CHAIN_UNDECIDED, str(reason)) from reason

    async def plan_advised(
        self, sender: bytes, advice: Advice | None, standing: WalletReading, now: datetime
    ) -> Planned:
        """What coverage advises, as far as the caps allow. Nothing is written. Raises TopupRefused."""
        funded_block = await self._store.funded_block(self._chain.chain_id, sender)
        fresh = require_fresh(advice, now, self._rules, funded_block=funded_block)
        amounts = amounts_due(fresh, standing, self._rules, day_wei=await self._store.day_wei(now))
        return await self._sendable(sender, amounts, standing, snapshot_at=fresh.observed_at)

    async def plan_named(self, sender: bytes, amounts: Amounts, standing: WalletReading, now: datetime) -> Planned:
        """Amounts that somebody chose, where the caps allow them. Nothing is written. Raises TopupRefused."""
        require_within(amounts, self._rules, day_wei=await self._store.day_wei(now))
        return await self._sendable(sender, amounts, standing, snapshot_at=None)

    async def begin(self, planned: Planned, now: datetime, *, reason: str) -> UUID:
        """From here on it is in flight. Raises TopupRefused."""
        id_ = uuid4()
        refusal = await self._store.plan(id_, planned, day_max_wei=self._rules.day_max_wei, reason=reason, now=now)
        if refusal is not None:
            raise TopupRefused(*_NOT_PLANNED[refusal])
        self._observer.reached(Point.PLANNED)
        return id_

    # --- the one in flight ---

    async def pursue(self, now: datetime) -> Pursued | None:
        """Every step that can be taken now of the one in flight; None without one."""
        topup, trouble = await self._store.in_flight(), None
        if topup is None:
            return None
        for _ in range(_STEPS_AT_ONCE_MAX):
            before = topup
            try:
                await self._step(topup, now)
            except TopupRefused as refused:
                trouble = refused
            topup = await self._found(topup.id)
            if trouble is not None or not topup.is_open or topup == before:
                break
        return Pursued(topup, trouble)

    async def revisit(self, now: datetime) -> int:
        """Looks whether the chain still says of those that ended lately what is recorded. How many it does not.

        Those are in flight again; where another one is, what the chain lost is sent again, or the other, whose nonce is
        the next, would never be mined. The depth that ends a top-up should make all this impossible; sending the same
        bytes again is safe in any case. Raises TopupRefused.
        """
        otherwise_count = 0
        for topup in await self._store.ended_since(self._chain.chain_id, now - _REVISITED_FOR):
            seen = await self._followed(topup)
            if not is_otherwise(topup, seen):
                continue
            otherwise_count += 1
            log.error("topup_lost_in_reorganisation", topup=str(topup.id), nonce=topup.nonce, was=topup.state.value)
            if not await self._store.reopen(topup, now) and seen.mined is None:
                await self._send(topup, now)
        return otherwise_count

    async def cancel(self, id_: UUID, now: datetime) -> Topup:
        """Lets an empty transaction of the wallet to itself take the nonce; or forgets what was never signed.

        Which of the two the chain takes is not in our hands: it is followed, as everything is. Raises TopupRefused,
        NotFound.
        """
        for _ in range(_STEPS_AT_ONCE_MAX):
            topup = await self._found(id_)
            if not topup.is_open:
                raise TopupRefused(Condition.ENDED, f"it is {topup.state.value}: there is nothing left to cancel")
            if await self._cancelled(topup, now):
                return await self._found(id_)
        raise TopupRefused(Condition.IN_FLIGHT, "another process was quicker each time: try again")

    async def _cancelled(self, topup: Topup, now: datetime) -> bool:
        """False where another process did something with it meanwhile: it is not cancelled. Raises TopupRefused."""
        if topup.state is State.PLANNED:
            return await self._store.end(topup, State.ABANDONED, None, "cancelled before it was signed", now)
        if (await self._followed(topup)).fate in {Fate.MINED, Fate.UNDECIDED}:
            raise TopupRefused(Condition.IN_FLIGHT, "it is in a block already: it cannot be cancelled any more")
        if not topup.is_cancelling:
            if not await self._replace(topup, now, Purpose.CANCEL):
                return False
            await self._send(await self._found(topup.id), now)
        return True

    # --- steps ---

    async def _step(self, topup: Topup, now: datetime) -> None:
        step = step_before_sending(topup, now, self._patience)
        if step is None:
            step = next_step(topup, await self._followed(topup), now, self._patience)
        if isinstance(step, Sign):
            await self._sign(topup, now)
        elif isinstance(step, Abandon):
            await self._store.end(topup, State.ABANDONED, None, "it was not signed in time", now)
        elif isinstance(step, Send):
            await self._send(topup, now)
        elif isinstance(step, Replace):
            await self._replace_or_send(topup, now)
        elif isinstance(step, Unclear):
            raise TopupRefused(Condition.CHAIN_UNDECIDED, "endpoints say different things of what became of it")
        elif isinstance(step, Overtaken):
            await self._store.note_overtaken(topup, step.block, now)
        elif isinstance(step, End):
            await self._end(topup, step, now)

    async def _sign(self, topup: Topup, now: datetime) -> None:
        """The first transaction, of the wallet and the escrow as they are now."""
        self._require_this_chain(topup)
        try:
            standing = await self.standing(topup.sender)
            require_not_funded(standing, topup.observed)
            require_contract(standing, topup.ticket_broker)
            transaction = await self._funding(topup.sender, topup.amounts, standing)
        except TopupRefused as refused:
            if refused.condition is not Condition.CHAIN_UNDECIDED:  # that may pass while the plan is good
                await self._store.end(topup, State.ABANDONED, None, refused.message, now)
            raise
        await self._sign_and_store(topup, Purpose.FUND, transaction, now)

    async def _replace_or_send(self, topup: Topup, now: datetime) -> None:
        """A stuck one. Where it cannot be replaced it is at least kept alive."""
        try:
            await self._replace(topup, now, topup.newest.purpose)
        except TopupRefused as refused:
            await self._send_where_unknown(topup, now)
            condition = refused.condition if refused.condition is Condition.WALLET_GONE else Condition.STUCK
            raise TopupRefused(condition, f"it is not mined and cannot be replaced: {refused.message}") from refused

    async def _replace(self, topup: Topup, now: datetime, purpose: Purpose) -> bool:
        """One with the same nonce and higher fees. False where another process was quicker. Raises TopupRefused."""
        assert topup.nonce is not None, "it was signed"
        standing = await self.standing(topup.sender)
        if purpose is Purpose.FUND:
            require_locked(standing)
            require_nonce(standing, at_least=topup.nonce)
        try:
            fees = raised_fees(topup.newest.fees, standing.base_fee_wei, self._caps)
        except TooExpensive as reason:
            raise TopupRefused(Condition.FEES_TOO_HIGH, str(reason)) from reason
        if purpose is Purpose.FUND:
            data = funding_call(topup.payer, topup.sender, topup.amounts)
            call = _Call(topup.ticket_broker, topup.amounts.total_wei, data)
        else:
            call = _Call(topup.payer, 0, b"")
        transaction = await self._priced(call, standing, fees, nonce=topup.nonce)
        return await self._sign_and_store(topup, purpose, transaction, now)

    async def _sign_and_store(self, topup: Topup, purpose: Purpose, transaction: Transaction, now: datetime) -> bool:
        """False where another process was quicker: then these bytes are never sent. Raises TopupRefused."""
        if self._wallet.address != topup.payer:
            raise TopupRefused(
                Condition.NO_WALLET, f"it is paid by {checksum_address(topup.payer)}, and the wallet is another one now"
            )
        try:
            signed = await self._wallet.sign(transaction)
        except WalletFailed as error:
            raise TopupRefused(Condition.WALLET_FAILED, str(error)) from error
        self._observer.reached(Point.SIGNED)
        is_stored = await self._store.store(topup, purpose, signed, now)
        if is_stored:
            log.info("topup_signed", topup=str(topup.id), purpose=purpose.value, hash=f"0x{signed.hash.hex()}")
        self._observer.reached(Point.STORED)
        return is_stored

    async def _send(self, topup: Topup, now: datetime) -> None:
        """The bytes that are stored, and no others."""
        attempt = topup.newest
        sent = await self._chain.send(attempt.raw)
        self._observer.reached(Point.SENT)
        log.info("topup_sent", topup=str(topup.id), hash=f"0x{attempt.hash.hex()}", **_dashed(sent.answers))
        await self._store.note_sent(topup, attempt, sent.answers, now)
        self._observer.reached(Point.RECORDED)

    async def _send_where_unknown(self, topup: Topup, now: datetime) -> None:
        if (await self._followed(topup)).fate is Fate.UNKNOWN:
            await self._send(topup, now)

    async def _end(self, topup: Topup, step: End, now: datetime) -> None:
        self._observer.reached(Point.SEEN_TO_END)
        if await self._store.end(topup, step.state, step.mined, None, now):
            (log.info if step.state is State.CONFIRMED else log.warning)(
                "topup_ended", topup=str(topup.id), state=step.state.value, amount_wei=str(topup.amounts.total_wei)
            )
        self._observer.reached(Point.ENDED)

    # --- the chain and the wallet ---

    async def _sendable(
        self, sender: bytes, amounts: Amounts, standing: WalletReading, *, snapshot_at: datetime | None
    ) -> Planned:
        """Raises TopupRefused where a transaction with these amounts would not be signed now."""
        transaction = await self._funding(sender, amounts, standing)
        gas_max_wei = transaction.cost_max_wei - transaction.value_wei
        return Planned(sender, self._wallet.address, self._chain.chain_id, amounts, standing, snapshot_at, gas_max_wei)

    async def _funding(self, sender: bytes, amounts: Amounts, standing: WalletReading) -> Transaction:
        payer = self._wallet.address
        require_sendable(standing, payer=payer, nonce_next=await self._store.nonce_next(self._chain.chain_id, payer))
        require_balance(standing.balance_wei, amounts.total_wei, payer=payer)
        try:
            fees = first_fees(standing.base_fee_wei, self._caps)
        except TooExpensive as reason:
            raise TopupRefused(Condition.FEES_TOO_HIGH, str(reason)) from reason
        call = _Call(standing.ticket_broker, amounts.total_wei, funding_call(payer, sender, amounts))
        return await self._priced(call, standing, fees, nonce=standing.nonce)

    async def _priced(self, call: _Call, standing: WalletReading, fees: Fees, *, nonce: int) -> Transaction:
        """Simulated, with gas enough, and paid for by the wallet's balance. Raises TopupRefused."""
        payer = self._wallet.address
        require_balance(standing.balance_wei, call.value_wei, payer=payer)
        try:
            estimated_count = await self._chain.simulate(payer, call.to, call.value_wei, call.data, standing.block)
            limit_count = gas_limit(estimated_count, self._caps)
        except NoDecision as reason:
            raise TopupRefused(Condition.CHAIN_UNDECIDED, str(reason)) from reason
        except SimulationRefused as reason:
            raise TopupRefused(Condition.REFUSED_BY_CONTRACT, str(reason)) from reason
        except TooExpensive as reason:
            raise TopupRefused(Condition.FEES_TOO_HIGH, str(reason)) from reason
        transaction = Transaction(self._chain.chain_id, nonce, call.to, call.value_wei, call.data, limit_count, fees)
        require_balance(standing.balance_wei, transaction.cost_max_wei, payer=payer)
        return transaction

    async def _followed(self, topup: Topup) -> Followed:
        assert topup.nonce is not None, "it was signed"
        self._require_this_chain(topup)
        hashes = [attempt.hash for attempt in topup.attempts]
        try:
            return await self._chain.follow(topup.payer, topup.nonce, hashes)
        except NoDecision as reason:
            raise TopupRefused(Condition.CHAIN_UNDECIDED, str(reason)) from reason

    def _require_this_chain(self, topup: Topup) -> None:
        """On another chain its nonce means something else, and what is signed again would be paid there, too."""
        if topup.chain_id != self._chain.chain_id:
            raise TopupRefused(
                Condition.OTHER_CHAIN,
                f"it is on the chain {topup.chain_id}, and {self._chain.chain_id} is configured now",
            )

    async def _found(self, id_: UUID) -> Topup:
        found = await self._store.find(id_)
        if found is None:
            raise NotFound(f"There is no top-up {id_}.")
        return found


_NOT_PLANNED: Final[Mapping[str, tuple[Condition, str]]] = {
    "in_flight": (Condition.IN_FLIGHT, "another one is under way"),
    "day_cap": (Condition.DAY_CAP, "with others that were begun meanwhile it would pass the cap of a day"),
    "reading_too_old": (Condition.ESCROW_CHANGED, "another top-up arrived meanwhile"),
}


def _dashed(answers: Mapping[str, str]) -> dict[str, str]:
    """The log has names that are words."""
    return {name.replace("-", "_"): answer for name, answer in answers.items()}
