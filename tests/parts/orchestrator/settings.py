"""Prices, and the chain as this orchestrator sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from chain.signatures import keccak


@dataclass(slots=True)
class Settings:
    """Tests change these while the orchestrator runs, as the world would; the next quote or check uses them."""

    #: Price by kind of job: (wei, units). A unit is a pixel, a second, or one call.
    prices: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"lv2v": (300, 1), "live": (8 * 10**9, 1), "fixed": (20 * 10**9, 1)}
    )
    ticket_ev_wei: int = 8 * 10**9
    gas_price_wei: int = 10**8
    max_float_wei: int = 10**18  # what the sender's reserve covers for this orchestrator
    face_value_per_cost: int = 100  # redeeming a winner may cost a hundredth of what it pays
    auth_token_valid_s: int = 30 * 60
    params_valid_blocks: int = 40
    last_seen_l1_block: int = 20_000_000
    last_initialized_round: int = 3500
    last_initialized_round_block_hash: bytes = keccak(b"round 3500")
    unlocking_senders: set[bytes] = field(default_factory=set)
