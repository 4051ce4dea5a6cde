"""What to pay in: decided from what coverage advises, what the escrow has now, and the caps. No clock, no chain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from chain.funding import Amounts
from chain.signatures import checksum_address
from chain.wallet_chain import WalletReading
from settlement.alerts.words import eth
from settlement.topups.conditions import Condition, TopupRefused


@dataclass(frozen=True, slots=True)
class Advice:
    """The newest snapshot of coverage: the escrow as it was, and what to add to it. None: the outlook gave none."""

    sender: bytes
    observed_at: datetime
    block_number: int | None
    simulated: bool
    deposit_wei: int
    reserve_wei: int
    top_up: Amounts | None


@dataclass(frozen=True, slots=True)
class Rules:
    """Of the settings [topups], in the same units."""

    transaction_max_wei: int
    day_max_wei: int
    amount_min_wei: int
    advice_max_age_s: int


def require_fresh(advice: Advice | None, now: datetime, rules: Rules, *, funded_block: int | None) -> Advice:
    """The advice, where it may be followed. `funded_block` has the newest top-up that arrived. Raises TopupRefused."""
    if advice is None:
        raise TopupRefused(Condition.NO_ADVICE, "coverage of the sender was never computed")
    if advice.simulated or advice.block_number is None:
        raise TopupRefused(Condition.SIMULATED, "coverage is computed over an escrow that is only declared")
    age_s = int((now - advice.observed_at).total_seconds())
    if abs(age_s) > rules.advice_max_age_s:  # from the future it is as useless as from the past
        raise TopupRefused(
            Condition.ADVICE_STALE,
            f"the newest advice is {age_s} s old, and at most {rules.advice_max_age_s} s are allowed",
        )
    if funded_block is not None and advice.block_number < funded_block:
        raise TopupRefused(Condition.ADVICE_AWAITED, "the newest advice is from before the last top-up arrived")
    return advice


def amounts_due(advice: Advice, standing: WalletReading, rules: Rules, *, day_wei: int) -> Amounts:
    """What to send now. `day_wei` was sent in the last 24 hours. Raises TopupRefused.

    The advice says where the escrow should get to; what it already has by now is taken off, and never more is added
    than was advised. The reserve comes first: without it no orchestrator offers tickets at all.
    """
    if advice.top_up is None:
        raise TopupRefused(Condition.NO_ADVICE, "the outlook of coverage has not come to an end yet")
    needed = Amounts(
        deposit_wei=missing_wei(advice.deposit_wei, advice.top_up.deposit_wei, standing.deposit_wei),
        reserve_wei=missing_wei(advice.reserve_wei, advice.top_up.reserve_wei, standing.reserve_wei),
    )
    if needed.total_wei < rules.amount_min_wei:
        raise TopupRefused(Condition.NOTHING_DUE, f"{eth(needed.total_wei)} are needed, less than is worth sending")
    room_wei = min(rules.transaction_max_wei, rules.day_max_wei - day_wei)
    if room_wei < rules.amount_min_wei:
        raise TopupRefused(
            Condition.DAY_CAP,
            f"{eth(needed.total_wei)} are needed, and {eth(day_wei)} of a day's {eth(rules.day_max_wei)} are used up",
        )
    reserve_wei = min(needed.reserve_wei, room_wei)
    return Amounts(deposit_wei=min(needed.deposit_wei, room_wei - reserve_wei), reserve_wei=reserve_wei)


def require_within(amounts: Amounts, rules: Rules, *, day_wei: int) -> Amounts:
    """Amounts that somebody named, where the caps allow them. Raises TopupRefused."""
    if not amounts.total_wei:
        raise TopupRefused(Condition.NOTHING_DUE, "both amounts are 0")
    if amounts.total_wei > rules.transaction_max_wei:
        raise TopupRefused(
            Condition.TRANSACTION_CAP,
            f"{eth(amounts.total_wei)} are more than the {eth(rules.transaction_max_wei)} of one transaction",
        )
    if day_wei + amounts.total_wei > rules.day_max_wei:
        raise TopupRefused(
            Condition.DAY_CAP,
            f"{eth(amounts.total_wei)} are too much: {eth(day_wei)} of a day's {eth(rules.day_max_wei)} are used up",
        )
    return amounts


def require_sendable(standing: WalletReading, *, payer: bytes, nonce_next: int) -> None:
    """That the wallet and the escrow are in a state in which one transaction more is safe. Raises TopupRefused.

    `nonce_next` is what the wallet's nonce must be by our own record, at least.
    """
    require_locked(standing)
    require_nonce(standing, at_least=nonce_next)
    if standing.pending_nonce > standing.nonce:
        raise TopupRefused(
            Condition.WALLET_BUSY,
            f"{standing.pending_nonce - standing.nonce} transactions of the wallet {checksum_address(payer)} are not "
            "mined yet, and none of them is ours",
        )


def require_locked(standing: WalletReading) -> None:
    """Raises TopupRefused."""
    if standing.withdraw_round:
        raise TopupRefused(
            Condition.UNLOCKED,
            f"the escrow is being unlocked, or was: its funds may be withdrawn from round {standing.withdraw_round} on",
        )


def require_nonce(standing: WalletReading, *, at_least: int) -> None:
    """That nothing is missing before it: what has this nonce is mined after all that have lower ones, whatever it
    offers. Raises TopupRefused."""
    if standing.nonce < at_least:
        raise TopupRefused(
            Condition.NONCE_BEHIND,
            f"the chain expects nonce {standing.nonce} of the wallet, and {at_least} is next by our own record",
        )


def require_not_funded(standing: WalletReading, planned_from: Amounts) -> None:
    """That the escrow has not grown since it was planned how much it needs. Raises TopupRefused."""
    if standing.deposit_wei > planned_from.deposit_wei or standing.reserve_wei > planned_from.reserve_wei:
        raise TopupRefused(Condition.ESCROW_CHANGED, "the escrow has more by now than when this was planned")


def require_contract(standing: WalletReading, planned_for: bytes) -> None:
    """That what is signed is what was planned: a replacement pays into the same. Raises TopupRefused."""
    if standing.ticket_broker != planned_for:
        raise TopupRefused(Condition.ESCROW_CHANGED, "the protocol has another TicketBroker than when this was planned")


def require_balance(balance_wei: int, cost_max_wei: int, *, payer: bytes) -> None:
    """Raises TopupRefused."""
    if balance_wei < cost_max_wei:
        raise TopupRefused(
            Condition.WALLET_SHORT,
            f"the wallet {checksum_address(payer)} has {eth(balance_wei)}, and with gas {eth(cost_max_wei)} may be "
            f"needed: {eth(cost_max_wei - balance_wei)} are missing",
        )


def missing_wei(was_wei: int, advised_wei: int, is_wei: int) -> int:
    """Of what was advised when there was `was_wei`, what is missing now that there is `is_wei`; never more than it."""
    return min(max(was_wei + advised_wei - is_wei, 0), advised_wei)
