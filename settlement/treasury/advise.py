"""How much ETH to buy now: what the escrow lacks for its target, less what is there to be paid in.

Coverage says what is lacking, by the same mathematics as for top-ups: for its own horizon in its newest snapshot, for
another one it is asked anew. Nothing is advised on what top-ups would not act upon: refusals are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from chain.chain_reading import Lock
from chain.coverage import Thresholds
from chain.funding import Amounts
from chain.networks import NETWORKS
from chain.rates import EthPrice
from clearinghouse.config import Settings, missing_for_prices
from clearinghouse.coverage.book import open_parameters
from clearinghouse.coverage.evaluate import funds_of, thresholds_of
from clearinghouse.coverage.looking import question_of
from clearinghouse.coverage.outlooks import look_ahead
from clearinghouse.coverage.running import rules_of as coverage_rules_of
from clearinghouse.coverage.snapshots import Snapshot, newest_of_all, newest_with_outlook
from clearinghouse.database.connect import ADMIN_ROLE, in_role
from clearinghouse.price_watch import prices_of
from settlement.currencies import account_currency
from settlement.topups.advice import escrow_to_fund, newest_advice
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.planning import Advice, Rules, missing_wei, require_fresh
from settlement.topups.store import HowThingsStand, TopupStore, read_standing
from settlement.topups.wired import rules_of

_WEI_OF_AN_ETH: Final = 10**18


class Wallet(NamedTuple):
    """The treasury's, as last read. `usable_wei` is what is left of its balance for the escrow: gas is kept back."""

    payer: bytes
    balance_wei: int
    balance_at: datetime
    usable_wei: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """`wallet` is why it is not known, where it is not. `buy` is what to buy for the reserve, and for the deposit."""

    escrow: Snapshot
    horizon_s: int
    confidence_bps: int
    #: Coverage that is reached at once, at least.
    target_bps: int
    burn_wei_per_day: int
    missing: Amounts
    wallet: Wallet | str
    held_wei: int
    buy: Amounts
    #: By currency the price, or why there is none.
    prices: Mapping[str, EthPrice | str]


class _Lacking(NamedTuple):
    missing: Amounts
    horizon_s: int
    confidence_bps: int
    burn_wei_per_day: int


def to_buy(missing: Amounts, held_wei: int) -> Amounts:
    """What is held goes into the reserve first: without it no orchestrator offers tickets at all."""
    rest_wei = max(held_wei - missing.reserve_wei, 0)
    return Amounts(
        deposit_wei=max(missing.deposit_wei - rest_wei, 0), reserve_wei=max(missing.reserve_wei - held_wei, 0)
    )


def cost_minor(wei: int, price: EthPrice) -> int:
    """In minor units of the price's currency, rounded up: with less one could not buy it."""
    minor_of_one = 10 ** account_currency(price.currency).decimals
    exact = Fraction(price.value) * Fraction(wei * minor_of_one, _WEI_OF_AN_ETH)
    return -(-exact.numerator // exact.denominator)


async def advised_purchase(
    engine: AsyncEngine,
    conninfo: str,
    settings: Settings,
    *,
    horizon_s: int | None = None,
    target_bps: int | None = None,
    held_wei: int = 0,
) -> Purchase:
    """For the horizon and the target of the settings, or for others. `held_wei` is what the treasury has besides.

    `engine` is over `conninfo`, in role clearinghouse_admin. Raises TopupRefused.
    """
    sender, rules = escrow_to_fund(settings), rules_of(settings.topups)
    store = TopupStore(engine, actor="nobody")  # it only reads
    now = await store.now()
    if (flying := await store.in_flight()) is not None:
        raise TopupRefused(Condition.IN_FLIGHT, f"top-up {flying.id} is under way: what it pays is in no balance yet")
    funded_block = await store.funded_block(NETWORKS[settings.chain.network].chain_id, sender)
    async with engine.connect() as connection:
        advice, standing = await newest_advice(connection, sender), await read_standing(connection)
        escrow = next((each for each in await newest_of_all(connection) if each.sender == sender), None)
        outlook = await newest_with_outlook(connection, sender, since=now - timedelta(seconds=rules.advice_max_age_s))
    newest = _usable(escrow, now, rules, funded_block=funded_block)
    thresholds = _thresholds(settings, target_bps)
    if horizon_s is None and target_bps is None:
        lacking = _advised(require_fresh(advice, now, rules, funded_block=funded_block), outlook, newest)
    else:
        horizon_s = settings.coverage.horizon_hours * 3600 if horizon_s is None else horizon_s
        lacking = await _looked(conninfo, settings, newest, thresholds, horizon_s)
    ended_at = [each.ended_at for each in await store.newest(1)]
    wallet = _wallet(standing, settings, now, rules, ended_at=ended_at[0] if ended_at else None)
    usable_wei = wallet.usable_wei if isinstance(wallet, Wallet) else 0
    return Purchase(
        escrow=newest,
        horizon_s=lacking.horizon_s,
        confidence_bps=lacking.confidence_bps,
        target_bps=thresholds.watch_bps + thresholds.hysteresis_bps,
        burn_wei_per_day=lacking.burn_wei_per_day,
        missing=lacking.missing,
        wallet=wallet,
        held_wei=held_wei,
        buy=to_buy(lacking.missing, usable_wei + held_wei),
        prices=await _prices(engine, settings),
    )


def _usable(escrow: Snapshot | None, now: datetime, rules: Rules, *, funded_block: int | None) -> Snapshot:
    """The newest reading, where one may act upon it. Raises TopupRefused."""
    if escrow is None:
        raise TopupRefused(Condition.NO_ADVICE, "coverage of the sender was never computed")
    seen = Advice(
        escrow.sender, escrow.observed_at, escrow.block_number, escrow.simulated, escrow.deposit_wei,
        escrow.reserve_wei, None,
    )  # fmt: skip
    require_fresh(seen, now, rules, funded_block=funded_block)
    if escrow.lock is not Lock.LOCKED:
        raise TopupRefused(Condition.UNLOCKED, f"the escrow is {escrow.lock.value}: what is paid in may be withdrawn")
    return escrow


def _advised(advice: Advice, outlook: Snapshot | None, newest: Snapshot) -> _Lacking:
    """As coverage advised, less what has come since. Raises TopupRefused."""
    if advice.top_up is None or outlook is None or outlook.observed_at != advice.observed_at:
        raise TopupRefused(Condition.NO_ADVICE, "the outlook of coverage has not come to an end yet")
    if advice.block_number is None or newest.block_number is None or newest.block_number < advice.block_number:
        raise TopupRefused(Condition.CHAIN_UNDECIDED, "the newest reading of the escrow is of an earlier block")
    assert outlook.horizon_s is not None, "an outlook has it"
    assert outlook.confidence_bps is not None, "an outlook has it"
    missing = Amounts(
        deposit_wei=missing_wei(advice.deposit_wei, advice.top_up.deposit_wei, newest.deposit_wei),
        reserve_wei=missing_wei(advice.reserve_wei, advice.top_up.reserve_wei, newest.reserve_wei),
    )
    return _Lacking(missing, outlook.horizon_s, outlook.confidence_bps, outlook.burn_wei_per_day or 0)


async def _looked(
    conninfo: str, settings: Settings, newest: Snapshot, thresholds: Thresholds, horizon_s: int
) -> _Lacking:
    """By the process that looks ahead for coverage, from the newest reading on. Raises TopupRefused."""
    coverage, escrow = settings.coverage, newest.escrow
    question = question_of(
        in_role(conninfo, ADMIN_ROLE, application_name="clearinghouse-outlook"),
        open_parameters=open_parameters(escrow),
        unseen_face_value_wei=coverage_rules_of(settings).unseen_face_value_wei(escrow),
        funds=funds_of(escrow),
        thresholds=thresholds,
        divisor_count=settings.policy.face_value_divisor_count,
        horizon_s=horizon_s,
        confidence_bps=coverage.confidence_bps,
    )
    _, looked = await look_ahead(question, timeout_s=coverage.outlook_timeout_s)
    if looked is None:
        raise TopupRefused(
            Condition.NO_ADVICE, f"the outlook did not come to an end within {coverage.outlook_timeout_s} s"
        )
    top_up, present = looked.outlook.top_up, looked.outlook.present
    return _Lacking(
        Amounts(deposit_wei=top_up.deposit_wei, reserve_wei=top_up.reserve_wei),
        horizon_s,
        coverage.confidence_bps,
        present.burn_wei_per_day if present is not None else 0,
    )


def _thresholds(settings: Settings, target_bps: int | None) -> Thresholds:
    """Those of the settings, or such that `target_bps` is where the level is ok."""
    usual = thresholds_of(settings.coverage)
    if target_bps is None:
        return usual
    return replace(
        usual,
        watch_bps=target_bps,
        low_bps=min(usual.low_bps, target_bps),
        critical_bps=min(usual.critical_bps, target_bps),
        floor_bps=min(usual.floor_bps, target_bps),
        hysteresis_bps=0,
    )


def _wallet(
    standing: HowThingsStand | None, settings: Settings, now: datetime, rules: Rules, *, ended_at: datetime | None
) -> Wallet | str:
    """Or why it is not known what it has: then nothing of it is counted."""
    if standing is None or standing.payer is None or standing.balance_wei is None or standing.balance_at is None:
        return "`clearinghouse work` has read none (topups.wallet, topups.mode)"
    age_s = int((now - standing.balance_at).total_seconds())
    if abs(age_s) > rules.advice_max_age_s:
        return f"it was last read {age_s} s ago, and {rules.advice_max_age_s} s are allowed"
    if ended_at is not None and standing.balance_at <= ended_at:
        return "it was last read before the last top-up ended"
    usable_wei = max(standing.balance_wei - settings.topups.wallet_balance_min_wei, 0)
    return Wallet(standing.payer, standing.balance_wei, standing.balance_at, usable_wei)


async def _prices(engine: AsyncEngine, settings: Settings) -> Mapping[str, EthPrice | str]:
    """As a service with the same settings would have them now."""
    if missing := missing_for_prices(settings):
        return dict.fromkeys(settings.price.currencies, " ".join(missing))
    async with prices_of(settings, engine) as watch:
        await watch.look()
        return watch.known()
