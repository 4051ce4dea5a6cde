"""Top-ups as the settings have them: the wallet, the way to the chain, the caps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chain.gas import FeeCaps
from chain.keystore import KeystoreError, load_keystore
from chain.networks import NETWORKS
from chain.quorum import Quorum
from chain.signatures import checksum_address, parse_address
from chain.transactions import SignedTransaction, Transaction
from chain.wallet_chain import WalletChain
from chain.wallets import ExternalWallet, KeyWallet, Wallet
from clearinghouse.chain_watch import endpoints_of
from clearinghouse.config import Settings
from clearinghouse.config_chain import ChainSettings
from clearinghouse.config_topups import TopupSettings
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.flow import TopupObserver, Topups
from settlement.topups.planning import Rules
from settlement.topups.pursuing import Patience
from settlement.topups.store import TopupStore

#: Of which nothing was signed by then is planned anew, from what is known by then.
PLAN_VALID_S = 120


def rules_of(settings: TopupSettings) -> Rules:
    return Rules(
        transaction_max_wei=settings.transaction_max_wei,
        day_max_wei=settings.day_max_wei,
        amount_min_wei=settings.amount_min_wei,
        advice_max_age_s=settings.snapshot_max_age_s,
    )


def caps_of(settings: TopupSettings) -> FeeCaps:
    return FeeCaps(
        max_per_gas_wei=settings.fee_max_wei,
        priority_max_per_gas_wei=settings.priority_fee_max_wei,
        priority_wanted_wei=settings.priority_fee_wei,
        gas_limit_max_count=settings.gas_max_count,
    )


def wallet_of(settings: TopupSettings) -> Wallet:
    """Opening a keystore takes a second and much memory. Raises TopupRefused; no error shows a secret."""
    if settings.wallet == "signer":
        assert settings.wallet_signer_url is not None, "the settings need each other"
        assert settings.wallet_signer_address is not None, "the settings need each other"
        return ExternalWallet(
            parse_address(settings.wallet_signer_address),
            settings.wallet_signer_url.get_secret_value(),
            method=settings.wallet_signer_method,
            timeout_s=settings.wallet_signer_timeout_s,
        )
    if settings.wallet == "none":
        raise TopupRefused(Condition.NO_WALLET, "no wallet is configured")
    assert settings.wallet_keystore_file is not None, "the settings need each other"
    assert settings.wallet_password is not None, "the settings need each other"
    try:
        return KeyWallet(load_keystore(settings.wallet_keystore_file, settings.wallet_password.get_secret_value()))
    except KeystoreError as error:
        raise TopupRefused(Condition.NO_WALLET, str(error)) from error


class AbsentWallet:
    """That of a top-up which was signed when there was a wallet: it is followed, and its bytes are sent, but nothing is
    signed anew. `refused` says why there is none."""

    def __init__(self, address: bytes, refused: TopupRefused) -> None:
        self._address, self.refused = address, refused

    @property
    def address(self) -> bytes:
        return self._address

    async def sign(self, transaction: Transaction) -> SignedTransaction:
        """Raises TopupRefused."""
        raise TopupRefused(
            Condition.WALLET_GONE, f"nonce {transaction.nonce} of the wallet {checksum_address(self._address)} can "
            f"have no other transaction: {self.refused.message}",
        ) from self.refused  # fmt: skip


async def absent_wallet(store: TopupStore, refused: TopupRefused) -> AbsentWallet:
    """Of the one in flight, or of the newest, which the chain may still lose. Raises `refused` where there is none."""
    topup = await store.in_flight() or next(iter(await store.newest(1)), None)
    if topup is None:
        raise refused
    return AbsentWallet(topup.payer, refused)


@asynccontextmanager
async def wallet_chain(settings: ChainSettings) -> AsyncIterator[WalletChain]:
    """While the block lasts. Raises TopupRefused where there is no chain to read."""
    if not settings.is_configured:
        raise TopupRefused(Condition.NO_CHAIN, "chain.rpc_urls names no endpoints")
    endpoints, network = endpoints_of(settings), NETWORKS[settings.network]
    quorum = Quorum(
        endpoints,
        chain_id=network.chain_id,
        count=settings.quorum_count,
        timeout_s=settings.timeout_s,
        head_age_max_s=settings.stale_max_s,
    )
    chain = WalletChain(quorum, endpoints, network, timeout_s=settings.timeout_s)
    try:
        yield chain
    finally:
        await chain.close()


@asynccontextmanager
async def topups_of(
    settings: Settings, store: TopupStore, wallet: Wallet, *, observer: TopupObserver | None = None
) -> AsyncIterator[Topups]:
    """While the block lasts. Raises TopupRefused."""
    async with wallet_chain(settings.chain) as chain:
        yield Topups(
            store,
            chain,
            wallet,
            rules=rules_of(settings.topups),
            caps=caps_of(settings.topups),
            patience=Patience(
                confirmations_count=settings.chain.confirmations_count,
                stuck_after_s=settings.topups.stuck_after_s,
                plan_valid_s=PLAN_VALID_S,
            ),
            observer=observer,
        )
