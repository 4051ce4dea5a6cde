"""What follows for one sender from its escrow and its book: the level, the cap, and everybody's share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chain.chain_reading import Lock
from chain.coverage import Funds, Level, Standing, Thresholds, divided, stands
from clearinghouse.config_chain import CoverageSettings
from clearinghouse.coverage.book import Book, Payer
from clearinghouse.coverage.escrows import Escrow
from clearinghouse.coverage.payees import Quote
from clearinghouse.coverage.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Rules:
    """By what all senders are evaluated."""

    thresholds: Thresholds
    #: A face value is at most this part of the deposit.
    divisor_count: int
    #: The largest face value that any signer lets pass; None where there is no such limit.
    face_value_max_wei: int | None

    def unseen_face_value_wei(self, escrow: Escrow) -> int:
        """The largest face value of tickets of which only the states are seen, where nothing is told of their signer:
        the limits that hold for every other ticket."""
        share_wei = escrow.deposit_wei // self.divisor_count
        return share_wei if self.face_value_max_wei is None else min(share_wei, self.face_value_max_wei)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of one sender at one moment. `shares` while the level is critical."""

    escrow: Escrow
    standing: Standing
    #: Up to where each gateway's ev_total_wei may go.
    shares: dict[UUID, int]
    #: Of the orchestrators that most is open with.
    quotes: tuple[Quote, ...] = ()


def evaluate(before: Level | None, escrow: Escrow, book: Book, rules: Rules) -> Evaluation:
    """`before` is the level of the evaluation before. The book must have its payers where the level is critical."""
    standing = stands(
        before,
        funds_of(escrow),
        book.worst,
        divisor_count=rules.divisor_count,
        thresholds=rules.thresholds,
        uncapped_face_value_wei=book.unseen_to_come_max_wei,
    )
    is_divided = standing.level is Level.CRITICAL
    return Evaluation(escrow, standing, _shares(standing.remaining_ev_wei, book.payers) if is_divided else {})


def funds_of(escrow: Escrow) -> Funds:
    """As the mathematics has them: of an escrow that is unlocking nothing can be relied on."""
    return Funds(
        deposit_wei=escrow.deposit_wei,
        reserve_wei=escrow.reserve_wei,
        claimed_in_round_wei=escrow.claimed_in_round_wei,
        pool_size_count=escrow.pool_size,
        is_leaving=escrow.lock is not Lock.LOCKED,
    )


def thresholds_of(settings: CoverageSettings) -> Thresholds:
    return Thresholds(
        watch_bps=settings.watch_bps,
        low_bps=settings.low_bps,
        critical_bps=settings.critical_bps,
        floor_bps=settings.floor_bps,
        hysteresis_bps=settings.hysteresis_bps,
        sigmas=settings.sigmas_count,
    )


def snapshot_of(evaluation: Evaluation, *, observed_at: datetime, is_enforced: bool) -> Snapshot:
    """Without an outlook."""
    escrow, standing = evaluation.escrow, evaluation.standing
    return Snapshot(
        sender=escrow.sender,
        observed_at=observed_at,
        block_number=escrow.block_number,
        block_time=escrow.block_time,
        l1_block_number=escrow.l1_block_number,
        round=escrow.round,
        validity_rounds=escrow.validity_rounds,
        simulated=escrow.simulated,
        deposit_wei=escrow.deposit_wei,
        reserve_wei=escrow.reserve_wei,
        claimed_in_round_wei=escrow.claimed_in_round_wei,
        pool_size=escrow.pool_size,
        lock=escrow.lock,
        num_tickets=standing.worst.num_tickets,
        expected_wei=standing.worst.expected_wei,
        deviation_wei=standing.worst.deviation_wei,
        face_value_max_wei=standing.worst.face_value_max_wei,
        worst_case_wei=standing.worst.worst_case_wei,
        coverage_bps=standing.coverage_bps,
        level=standing.level,
        remaining_ev_wei=standing.remaining_ev_wei,
        issuable_face_value_wei=standing.issuable_face_value_wei,
        reserve_share_wei=standing.quoted.reserve_share_wei,
        is_enforced=is_enforced,
        quotes=tuple(quote for quote in evaluation.quotes if quote.is_special),
    )


def _shares(remaining_wei: int, payers: Iterable[Payer]) -> dict[UUID, int]:
    """For every gateway, also where it is what was released already: the database has to know of all."""
    known = list(payers)
    allowances = divided(remaining_wei, {payer.gateway_id: payer.open_ev_wei for payer in known if payer.is_running})
    return {payer.gateway_id: payer.ev_total_wei + allowances.get(payer.gateway_id, 0) for payer in known}
