"""Settings of top-ups: what may be sent, from which wallet, at which price."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clearinghouse.config_section import Section
from clearinghouse.config_values import ETH_WEI, GWEI, Address, File, Password, RpcUrl, Seconds, Wei, Whole


class TopupSettings(Section):
    """Money that `clearinghouse topup`, and `clearinghouse work` by itself, may send into the sender's escrow:
    docs/topups.md. Without a wallet nothing is ever sent."""

    mode: Literal["off", "dry_run", "on"] = Field(
        default="off",
        description="What `clearinghouse work` does by itself: nothing; only say and alert what it would send; or send "
        "it. `clearinghouse topup send` is not affected. One that is under way is seen to its end in every mode.",
    )
    sender: Address | None = Field(
        default=None,
        description="Whose escrow is topped up. Without it signer.go_livepeer.expected_address; without either nothing "
        "is sent.",
    )
    wallet: Literal["none", "keystore", "signer"] = Field(
        default="none",
        description="Who signs what is sent: nobody; a key in wallet_keystore_file; or a signer elsewhere that keeps "
        "the key, at wallet_signer_url.",
    )
    wallet_keystore_file: File | None = Field(
        default=None,
        description="Encrypted Ethereum keystore (version 3) of the wallet that pays. Best one of its own; with the "
        "sender's own the ticket key also sends money.",
    )
    wallet_password: Password | None = Field(default=None, description="Password of that keystore.")
    wallet_password_file: File | None = Field(default=None, description="File with the password of that keystore.")
    wallet_signer_url: RpcUrl | None = Field(
        default=None,
        description="A signer that keeps the key and is asked over JSON-RPC, such as Clef or Web3signer. Secret, "
        "because URLs can have keys in them.",
    )
    wallet_signer_url_file: File | None = Field(default=None, description="File with that URL.")
    wallet_signer_address: Address | None = Field(default=None, description="Address of the wallet that it signs for.")
    wallet_signer_method: Literal["eth_signTransaction", "account_signTransaction"] = Field(
        default="eth_signTransaction", description="What it calls signing; Clef: account_signTransaction."
    )
    wallet_signer_timeout_s: Annotated[Seconds, Field(ge=1, le=600)] = Field(
        default=30, description="How long it may take, be it a person who must agree."
    )
    wallet_balance_min_wei: Wei = Field(
        default=ETH_WEI // 100, description="Balance of the wallet below which an alert asks to fill it."
    )
    transaction_max_wei: Annotated[Wei, Field(ge=1)] = Field(
        default=ETH_WEI // 2, description="Most that one transaction pays into the escrow."
    )
    day_max_wei: Annotated[Wei, Field(ge=1)] = Field(
        default=ETH_WEI, description="Most that all of any 24 hours together pay, those sent by hand too."
    )
    amount_min_wei: Annotated[Wei, Field(ge=1)] = Field(
        default=ETH_WEI // 100, description="Less than this is not worth a transaction, and is not sent."
    )
    fee_max_wei: Annotated[Wei, Field(ge=1)] = Field(
        default=10 * GWEI, description="Most that is offered for a unit of gas. While it costs more, nothing is sent."
    )
    priority_fee_wei: Wei = Field(
        default=GWEI // 100, description="What is offered for priority at first, for a unit of gas."
    )
    priority_fee_max_wei: Annotated[Wei, Field(ge=1)] = Field(
        default=GWEI, description="Most that replacements of a stuck transaction offer for it."
    )
    gas_max_count: Annotated[Whole, Field(ge=21_000, le=100_000_000)] = Field(
        default=2_000_000, description="Most units of gas for one transaction. On Arbitrum the price of L1 is in them."
    )
    stuck_after_s: Annotated[Whole, Field(ge=1, le=86_400)] = Field(
        default=120, description="A transaction that was not mined for so long is replaced by one with higher fees."
    )
    snapshot_max_age_s: Annotated[Whole, Field(ge=5, le=3600)] = Field(
        default=300, description="Advice from coverage that is older is not followed."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.wallet == "keystore" and (self.wallet_keystore_file is None or self.wallet_password is None):
            raise ValueError('wallet = "keystore" needs wallet_keystore_file and wallet_password_file')
        if self.wallet == "signer" and (self.wallet_signer_url is None or self.wallet_signer_address is None):
            raise ValueError(
                'wallet = "signer" needs wallet_signer_url_file and wallet_signer_address: what it signs is checked'
            )
        if self.mode != "off" and self.wallet == "none":
            raise ValueError("mode needs a wallet: set wallet too")
        if not self.amount_min_wei <= self.transaction_max_wei <= self.day_max_wei:
            raise ValueError("amount_min_wei, transaction_max_wei and day_max_wei must not fall in this order")
        if not self.priority_fee_wei <= self.priority_fee_max_wei <= self.fee_max_wei:
            raise ValueError("priority_fee_wei, priority_fee_max_wei and fee_max_wei must not fall in this order")
        return self
