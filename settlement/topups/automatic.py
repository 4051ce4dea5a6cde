"""The job `topups`: sees to the one in flight, and where coverage advises another, tells of it or sends it.

One turn does what can be done at once and leaves the rest to the next. How things stand afterwards is in the row
`topup_standing`, whatever happened.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chain.funding import Amounts
from chain.wallets import Wallet
from clearinghouse.config import Settings
from settlement.alerts.words import eth
from settlement.schedule import Job, Tick
from settlement.topups.advice import escrow_to_fund, newest_advice
from settlement.topups.conditions import NO_TROUBLE, Condition, TopupRefused
from settlement.topups.flow import Pursued, TopupObserver, Topups
from settlement.topups.pursuing import State, Topup
from settlement.topups.store import TopupStore
from settlement.topups.wired import AbsentWallet, absent_wallet, topups_of, wallet_of

EVERY_S: Final = 15
ACTOR: Final = "worker"
_NEWEST_COUNT: Final = 5
#: So long after the contract refused one nothing more is sent by itself: it would cost gas and be refused again.
_FAILED_FOR: Final = timedelta(hours=24)
#: Switched off, it still looks for so long after what has ended.
_QUIET_AFTER: Final = timedelta(hours=24)


@dataclass
class _Look:
    """What a turn came to, as far as it got."""

    said: str = ""
    trouble: Condition | None = None
    payer: bytes | None = None
    balance_wei: int | None = None
    advised: Amounts | None = None


class AutomaticTopups:
    """The job's turns. The wallet is opened by the first that needs it, which takes a second, and then kept."""

    def __init__(self, settings: Settings, *, observer: TopupObserver | None = None) -> None:
        self._settings, self._observer = settings, observer
        self._wallet: Wallet | None = None

    async def turn(self, tick: Tick) -> str:
        """One look, and what follows from it. Returns what it did, in one line."""
        look, store = _Look(), TopupStore(tick.engine, actor=ACTOR, transaction=tick.transaction)
        try:
            await self._look(tick, store, look)
        except TopupRefused as refused:
            look.said = "; ".join(filter(None, (look.said, refused.message)))
            look.trouble = refused.condition if refused.condition not in NO_TROUBLE else look.trouble
        is_low = look.balance_wei is not None and look.balance_wei < self._settings.topups.wallet_balance_min_wei
        await store.note_standing(
            tick.now,
            mode=self._settings.topups.mode,
            condition=look.trouble,
            said=look.said,
            payer=look.payer,
            balance_wei=look.balance_wei,
            balance_is_low=None if look.balance_wei is None and self._has_wallet else is_low,
            advised=look.advised,
        )
        return look.said

    async def _look(self, tick: Tick, store: TopupStore, look: _Look) -> None:
        """Raises TopupRefused."""
        if self._settings.topups.mode == "off" and await _is_quiet(store, since=tick.now - _QUIET_AFTER):
            look.said = "off, and nothing is in flight"
            return
        wallet = await self._opened(store)
        async with topups_of(self._settings, store, wallet, observer=self._observer) as topups:
            look.payer = wallet.address
            pursued = await topups.pursue(tick.now)
            if await topups.revisit(tick.now):
                pursued = await topups.pursue(tick.now) or pursued
            if pursued is not None:
                _tell(pursued, look)
            if pursued is None or not pursued.topup.is_open:
                if self._settings.topups.mode == "off":
                    look.said = look.said or "off, and nothing is in flight"
                elif isinstance(wallet, AbsentWallet):
                    raise wallet.refused
                else:
                    await self._begin(tick, store, topups, look)

    async def _begin(self, tick: Tick, store: TopupStore, topups: Topups, look: _Look) -> None:
        """Where coverage advises one. Raises TopupRefused."""
        sender = escrow_to_fund(self._settings)
        async with tick.engine.connect() as connection:
            advice = await newest_advice(connection, sender)
        standing = await topups.standing(sender)
        look.balance_wei = standing.balance_wei
        _require_not_failed(await store.newest(1), tick.now)
        planned = await topups.plan_advised(sender, advice, standing, tick.now)
        look.advised = planned.amounts
        if self._settings.topups.mode == "dry_run":
            raise TopupRefused(Condition.DRY_RUN, f"{_words(planned.amounts)} would be sent")
        await topups.begin(planned, tick.now, reason="advised by coverage")
        pursued = await topups.pursue(tick.now)
        if pursued is not None:
            _tell(pursued, look)

    async def _opened(self, store: TopupStore) -> Wallet:
        """One that cannot sign, where there is none any more and something may be in flight. Raises TopupRefused."""
        if self._wallet is None:
            try:
                self._wallet = await asyncio.to_thread(wallet_of, self._settings.topups)
            except TopupRefused as refused:
                return await absent_wallet(store, refused)
        return self._wallet

    @property
    def _has_wallet(self) -> bool:
        return self._settings.topups.wallet != "none"


def topups_job(settings: Settings, *, observer: TopupObserver | None = None) -> Job:
    """Also without a wallet: there may have been one. Nothing is opened before the first turn."""
    return Job("topups", EVERY_S, AutomaticTopups(settings, observer=observer).turn)


def _tell(pursued: Pursued, look: _Look) -> None:
    topup, trouble = pursued.topup, pursued.trouble
    look.said = f"{_words(topup.amounts)}: {topup.state.value}"
    if trouble is not None:
        look.said += f", {trouble.message}"
        look.trouble = trouble.condition if _is_trouble(topup, trouble.condition) else None
    look.trouble = _ENDED_IN_TROUBLE.get(topup.state, look.trouble)


def _is_trouble(topup: Topup, condition: Condition) -> bool:
    """A plan that cannot be signed here is somebody's who has the wallet, at a command; or is abandoned soon."""
    is_anothers = topup.state is State.PLANNED and condition is Condition.WALLET_GONE
    return condition not in NO_TROUBLE and not is_anothers


async def _is_quiet(store: TopupStore, *, since: datetime) -> bool:
    ended = [topup.ended_at for topup in await store.newest(_NEWEST_COUNT)]
    return await store.in_flight() is None and all(each is not None and each <= since for each in ended)


def _require_not_failed(newest: list[Topup], now: datetime) -> None:
    for topup in newest:
        if topup.state is State.FAILED and now - topup.created_at < _FAILED_FOR:
            raise TopupRefused(Condition.FAILED, f"the contract refused {topup.id}: nothing more is sent by itself")


def _words(amounts: Amounts) -> str:
    return f"{eth(amounts.deposit_wei)} of deposit and {eth(amounts.reserve_wei)} of reserve"


_ENDED_IN_TROUBLE: Final = {State.FAILED: Condition.FAILED, State.DISPLACED: Condition.DISPLACED}
