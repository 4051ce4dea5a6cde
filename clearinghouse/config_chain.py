"""Settings of the chain, of the escrow on it, and of what that must cover. See config.py."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clearinghouse.config_section import Section
from clearinghouse.config_values import (
    ETH_WEI,
    BlockHash,
    File,
    Ordinal,
    RpcUrls,
    Seconds,
    Wei,
    Whole,
    WsUrls,
)


class ChainSettings(Section):
    """The chain that the sender's deposit is on. Without `rpc_urls` no chain is read."""

    network: Literal["arbitrum-one", "dev"] = Field(
        default="arbitrum-one", description="Where the protocol's contracts are; dev is a chain on this machine."
    )
    rpc_urls: RpcUrls | None = Field(
        default=None,
        description="JSON-RPC endpoints, separated by commas in the environment: two or more, of different providers. "
        "Secret, because providers put keys into them; logs and metrics say rpc-1, rpc-2 by their place in the list.",
    )
    rpc_urls_file: File | None = Field(default=None, description="File with one endpoint a line.")
    quorum_count: Annotated[Whole, Field(ge=1, le=16)] = Field(
        default=2,
        description="How many endpoints must say the same about a block. If they do not, nothing is known.",
    )
    poll_s: Annotated[Seconds, Field(ge=0.05, le=30)] = Field(
        default=5, description="How often the chain is read: one request to each endpoint of the quorum."
    )
    timeout_s: Annotated[Seconds, Field(le=30)] = Field(
        default=3, description="How long an endpoint may take before another is asked."
    )
    rpc_requests_per_s: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        default=25,
        description="Most requests a second that each process sends to one endpoint. A batch of calls is one request. "
        "Where that is reached, or an endpoint answers 429 with Retry-After, another one is asked first.",
    )
    stale_max_s: Annotated[Whole, Field(ge=2, le=3600)] = Field(
        default=60,
        description="A reading whose block is older is not used: calls get 503 until there is a fresh one.",
    )

    ws_urls: WsUrls | None = Field(
        default=None,
        description="WebSocket endpoints, one of which is listened to: what happens to an escrow is read at once, "
        "not at the next poll. Secret. What they say is not believed, and without them nothing is missed.",
    )
    ws_urls_file: File | None = Field(default=None, description="File with one WebSocket endpoint a line.")
    ws_silent_max_s: Annotated[Seconds, Field(ge=1, le=3600)] = Field(
        default=30,
        description="An endpoint that answers nothing for so long, or whose newest block stays the same, is left.",
    )

    index_enabled: bool = Field(
        default=True,
        description="Whether `serve` reads redeemed tickets and the other events of the sender's escrow into the "
        "database. One process at a time does, of all that may.",
    )
    index_from_block: Annotated[Ordinal, Field(ge=1)] | None = Field(
        default=None,
        description="First block whose events are read, where none was read yet; without it the newest block then. "
        "Later `clearinghouse chain index --from-block` is the way back.",
    )
    index_range_max_count: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=10_000,
        description="Most blocks whose events are asked for at once; fewer are where an endpoint refuses so many.",
    )
    confirmations_count: Annotated[Whole, Field(ge=0, le=1_000_000)] = Field(
        default=240,
        description="Blocks above one that settle it. Events of blocks with fewer are undone if the chain is "
        "reorganised; below them it must not be.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = self.rpc_urls or ()
        urls = {url.get_secret_value() for url in given}
        if len(urls) != len(given):
            raise ValueError("rpc_urls names one endpoint twice: it would always agree with itself")
        if urls and len(urls) < self.quorum_count:
            raise ValueError(
                f"quorum_count is {self.quorum_count} and rpc_urls names {len(urls)}: name more endpoints, of other "
                "providers, or trust one alone with quorum_count = 1"
            )
        if self.stale_max_s < 3 * self.poll_s:
            raise ValueError("stale_max_s must be at least three times poll_s: one lost poll is nothing unusual")
        return self

    @property
    def is_configured(self) -> bool:
        """Whether there is a chain to read."""
        return self.rpc_urls is not None


class EscrowSettings(Section):
    """The escrow the native signer works with where no chain is read, by declaration: simulated, no such ticket can be
    redeemed."""

    deposit_wei: Wei = Field(default=10 * ETH_WEI, description="Deposit of the sender.")
    reserve_wei: Wei = Field(default=5 * ETH_WEI, description="Reserve of the sender.")
    claimed_in_round_wei: Wei = Field(default=0, description="Part of the reserve already claimed in this round.")
    withdraw_round: Ordinal = Field(default=0, description="Round from which the sender may withdraw; 0 while locked.")
    last_initialized_round: Ordinal = Field(default=3500, description="Round that tickets are created in.")
    last_initialized_round_block_hash: BlockHash = Field(
        default="0x" + "51" * 32, description="Block hash of that round."
    )
    previous_initialized_round: Ordinal | None = Field(
        default=None, description="Round before it, of which ticket parameters are accepted too; without it, none."
    )
    previous_initialized_round_block_hash: BlockHash | None = Field(
        default=None, description="Block hash of that round; the two need each other."
    )
    last_seen_l1_block: Ordinal = Field(
        default=1, description="L1 block; ticket parameters whose expiration block it has reached are refused."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.previous_initialized_round is None) != (self.previous_initialized_round_block_hash is None):
            raise ValueError("previous_initialized_round and its block hash need each other")
        return self


class CoverageSettings(Section):
    """How much the deposit must cover, and what happens where it does not: docs/coverage.md.

    Coverage is the deposit over what open tickets may take from it: their expected value, `sigmas_count` standard
    deviations and the largest ticket. In basis points; 10000 is one deposit for one such need.
    """

    enforced: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Whether calls are refused by coverage: auto where the chain is read, and not over a declared "
        "escrow. The numbers are there in any case.",
    )
    evaluate_s: Annotated[Seconds, Field(ge=0.05, le=30)] = Field(
        default=2, description="How often coverage is computed anew, by one process for each sender."
    )
    gate_valid_s: Annotated[Whole, Field(ge=1, le=300)] = Field(
        default=20,
        description="How long the result is good for. Where nobody has computed it for so long, calls get 503 "
        "`coverage_unknown`.",
    )
    watch_bps: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=20_000, description="Coverage below which the level is `watch`: top up in working hours."
    )
    low_bps: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=15_000, description="Below which it is `low`: new sessions are refused, running ones go on."
    )
    critical_bps: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=12_500,
        description="Below which it is `critical`: what is left down to floor_bps is divided among the gateways.",
    )
    floor_bps: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="Coverage that no ticket may go below."
    )
    hysteresis_bps: Annotated[Whole, Field(ge=0, le=100_000)] = Field(
        default=1_000, description="How far above a level's bound coverage must rise before the level is left."
    )
    sigmas_count: Annotated[Whole, Field(ge=0, le=10)] = Field(
        default=3, description="Standard deviations of the open tickets' payout that the deposit must cover."
    )
    snapshot_s: Annotated[Seconds, Field(ge=0.1, le=3600)] = Field(
        default=60,
        description="How often a snapshot is kept, besides one whenever the funds or the level change.",
    )
    snapshots_kept_days: Annotated[Whole, Field(ge=1, le=36_500)] = Field(
        default=400, description="How long snapshots are kept."
    )
    horizon_hours: Annotated[Whole, Field(ge=1, le=8_760)] = Field(
        default=168,
        description="How long the deposit is to last: the outlook and the advised top-up look so far ahead.",
    )
    confidence_bps: Annotated[Whole, Field(ge=5_000, le=9_999)] = Field(
        default=9_990, description="With which probability, in basis points, the advised top-up makes it last so long."
    )
    outlook_timeout_s: Annotated[Seconds, Field(ge=1, le=300)] = Field(
        default=20, description="How long the outlook may take, in a process of its own that is ended then."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.watch_bps >= self.low_bps >= self.critical_bps >= self.floor_bps:
            raise ValueError("watch_bps, low_bps, critical_bps and floor_bps must not rise in this order")
        if self.gate_valid_s < 4 * self.evaluate_s:
            raise ValueError(
                "gate_valid_s must be at least four times evaluate_s: another process must be able to step in"
            )
        return self
