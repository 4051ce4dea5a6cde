"""Coverage in a serving process: the gates that it obeys, and the watch that may evaluate them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chain.escrow import EscrowView
from clearinghouse.chain_watch import ChainWatch
from clearinghouse.config import Settings
from clearinghouse.configured import is_coverage_enforced
from clearinghouse.coverage.early import EarlyGate
from clearinghouse.coverage.escrows import ChainEscrows, DeclaredEscrows, Escrows
from clearinghouse.coverage.evaluate import Rules, thresholds_of
from clearinghouse.coverage.metrics import CoverageMetrics
from clearinghouse.coverage.watch import CoverageWatch
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role


def rules_of(settings: Settings) -> Rules:
    return Rules(
        thresholds_of(settings.coverage), settings.policy.face_value_divisor_count, settings.policy.face_value_max_wei
    )


@asynccontextmanager
async def coverage_watched(
    settings: Settings,
    conninfo: str,
    sender: bytes,
    *,
    chain: ChainWatch | None,
    declared: EscrowView | None,
    metrics: CoverageMetrics,
) -> AsyncIterator[EarlyGate]:
    """The gates, kept up to date and, where no other process does, evaluated while the block lasts.

    Over what the chain says, else over what is declared. Where there is neither, nothing is evaluated.
    """
    # One connection of its own: without the gates nothing is signed.
    engine = async_engine(in_role(conninfo, SERVE_ROLE, application_name="clearinghouse-gates"), pool_size=1)
    gate = EarlyGate(engine, sender, is_enforced=is_coverage_enforced(settings))
    metrics.watch_gate(sender, lambda: gate.age_s(sender))
    escrows: Escrows | None = DeclaredEscrows(sender, declared) if declared is not None else None
    if chain is not None:
        escrows = ChainEscrows(chain, sender)
    watch: CoverageWatch | None = None
    if escrows is not None:
        watch = CoverageWatch(
            conninfo,
            escrows,
            rules_of(settings),
            settings.coverage,
            is_enforced=gate.is_enforced,
            observer=metrics,
            told=gate.refresh,
        )
    try:
        if watch is not None:
            await watch.start()
        await gate.start()
        yield gate
    finally:
        if watch is not None:
            await watch.stop()
        await gate.stop()
        await engine.dispose()
