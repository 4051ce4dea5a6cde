"""What the settings speak of, made: signers, escrow, policy, where events are. Nothing is started or connected here."""

from __future__ import annotations

from fractions import Fraction

from pydantic import SecretStr

from chain.escrow import DeclaredEscrow, EscrowView
from chain.fees import FIXED, LIVE, LV2V, UNTYPED
from chain.signatures import SigningKey, parse_address
from clearinghouse.chain_watch import ChainWatch
from clearinghouse.config import (
    GoLivepeerSettings,
    NativeSignerSettings,
    PolicySettings,
    Settings,
    SignerEventSettings,
)
from clearinghouse.config_chain import EscrowSettings
from clearinghouse.policy import Policy
from clearinghouse.registry import DeclaredRecipients, EveryRegistry, Recipients
from clearinghouse.signer_events.kafka import KafkaSource
from clearinghouse.signer_events.reconcile import Expected
from clearinghouse.signers.go_livepeer import SignerEndpoint
from clearinghouse.signers.native import NativeSigner, SignerLimits
from clearinghouse.signers.pool import PAYMENT_BUDGET, Budget


class ServiceError(Exception):
    """The service cannot start as it is configured; the text says what to do."""


def declared_escrow(sender: bytes, escrow: EscrowSettings) -> DeclaredEscrow:
    """The escrow of `sender` as the configuration has it."""
    previous_block_hash = escrow.previous_initialized_round_block_hash
    return DeclaredEscrow(
        sender=sender,
        deposit_wei=escrow.deposit_wei,
        reserve_wei=escrow.reserve_wei,
        claimed_in_round_wei=escrow.claimed_in_round_wei,
        withdraw_round=escrow.withdraw_round,
        last_initialized_round=escrow.last_initialized_round,
        last_initialized_round_block_hash=_block_hash(escrow.last_initialized_round_block_hash),
        previous_initialized_round=escrow.previous_initialized_round,
        previous_initialized_round_block_hash=_block_hash(previous_block_hash) if previous_block_hash else None,
        last_seen_l1_block=escrow.last_seen_l1_block,
    )


def escrow_of(sender: bytes, declared: EscrowSettings, watch: ChainWatch | None) -> EscrowView:
    """The chain's word where it is read, else the configuration's."""
    return watch.escrow if watch is not None else declared_escrow(sender, declared)


def native_signer(key: SigningKey, limits: NativeSignerSettings, escrow: EscrowView) -> NativeSigner:
    """The signer in process, over the key's escrow: one that is read from the chain, or one by declaration."""
    return NativeSigner(
        key=key,
        escrow=escrow,
        limits=SignerLimits(
            max_ticket_ev_wei=limits.max_ticket_ev_wei,
            max_total_ev_wei=limits.max_total_ev_wei,
            deposit_multiplier=limits.deposit_multiplier_count,
            max_price_per_unit=(
                Fraction(limits.max_price_wei_per_unit) if limits.max_price_wei_per_unit is not None else None
            ),
        ),
    )


def endpoints(pool: GoLivepeerSettings) -> list[SignerEndpoint]:
    """The configured members of a pool of go-livepeer signers. Raises ServiceError for a file that cannot be read."""
    try:
        ca_pem = pool.tls_ca_file.read_bytes() if pool.tls_ca_file is not None else None
        identity_pem = None
        if pool.tls_client_cert_file is not None and pool.tls_client_key_file is not None:
            identity_pem = pool.tls_client_cert_file.read_bytes() + b"\n" + pool.tls_client_key_file.read_bytes()
    except OSError as error:
        raise ServiceError(f"A TLS file of signer.go_livepeer cannot be read: {error}.") from error
    headers = {name: value.get_secret_value() for name, value in (pool.headers or {}).items()}
    return [SignerEndpoint(url, headers=headers, ca_pem=ca_pem, identity_pem=identity_pem) for url in pool.urls]


def payment_budget(total_s: float) -> Budget:
    """A hung signer leaves time to ask another: the same share of the budget as by default."""
    return Budget(total_s=total_s, attempt_s=total_s * PAYMENT_BUDGET.attempt_s / PAYMENT_BUDGET.total_s)


def policy_of(policy: PolicySettings) -> Policy:
    """The rules that every payment is judged by. What has no ceiling in the settings has none here."""
    ceilings = {
        LIVE: policy.price_live_max_wei_per_unit,
        LV2V: policy.price_lv2v_max_wei_per_unit,
        FIXED: policy.price_fixed_max_wei_per_unit,
        UNTYPED: policy.price_untyped_max_wei_per_unit,
    }
    return Policy(
        ticket_ev_max_wei=policy.ticket_ev_max_wei,
        call_ev_max_wei=policy.call_ev_max_wei,
        face_value_divisor_count=policy.face_value_divisor_count,
        face_value_max_wei=policy.face_value_max_wei,
        price_max_wei_per_unit={job_type: price for job_type, price in ceilings.items() if price is not None},
    )


def recipients_of(policy: PolicySettings, watch: ChainWatch | None) -> Recipients:
    """The operator's list, and where the chain is read its active orchestrators."""
    declared = DeclaredRecipients(map(parse_address, policy.recipients))
    return declared if watch is None else EveryRegistry(declared, watch.recipients)


def is_coverage_enforced(settings: Settings) -> bool:
    """Whether commits refuse what is not covered. Where nothing is read, and so nothing expires, only on demand."""
    enforced = settings.coverage.enforced
    return enforced == "yes" or (enforced == "auto" and settings.chain.is_configured)


def kafka_source(settings: SignerEventSettings) -> KafkaSource | None:
    """Where signers' events are read from; None where that is not configured."""
    if settings.kafka_topic is None:
        return None
    return KafkaSource(
        settings.kafka_bootstrap_servers,
        settings.kafka_topic,
        settings.kafka_group,
        username=settings.kafka_username,
        password=revealed(settings.kafka_password),
        tls=settings.kafka_tls,
        tls_ca_file=settings.kafka_tls_ca_file,
    )


def expected_payments(settings: Settings) -> Expected:
    """What every payment that a signer reports must keep to."""
    return Expected(
        sender=maybe_address(settings.signer.go_livepeer.expected_address),
        recipients=tuple(map(parse_address, settings.policy.recipients)),
        face_value_max_wei=settings.policy.face_value_max_wei,
    )


def revealed(secret: SecretStr | None) -> str | None:
    """For the part that uses it; nothing else gets to see it."""
    return secret.get_secret_value() if secret is not None else None


def maybe_address(text: str | None) -> bytes | None:
    """20 bytes."""
    return parse_address(text) if text is not None else None


def _block_hash(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.removeprefix("0x"))
