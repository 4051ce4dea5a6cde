"""What the management routes answer with. Amounts and wei are decimal strings, times are RFC 3339 in UTC."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from chain.rates import EthPrice
from clearinghouse.balance_bounds import BalanceBounds, BalanceStatus
from clearinghouse.documents import (
    fees_document,
    key_limits_document,
    limits_document,
    new_webhook_secret_document,
    plan_document,
    price_document,
    webhook_signer_document,
)
from clearinghouse.identity.gateways import Gateway
from clearinghouse.identity.keys import ApiKey, NewApiKey
from clearinghouse.identity.limits import GatewayLimits, KeyLimits
from clearinghouse.identity.plans import Plan
from clearinghouse.identity.webhook_signers import NewWebhookSecret, RegisteredSigner
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.accounts import CreditLot, Standing
from clearinghouse.ledger.money import show_amount
from clearinghouse.ledger.transfers import Transfer
from clearinghouse.readiness import Check


class Answer(BaseModel):
    """Frozen, and complete: a field too many or too few is a bug of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CreditLotAnswer(Answer):
    """Granted credit that expires."""

    id: str = Field(description="Of the grant.")
    amount: str
    remaining: str
    expires_at: str


class BalanceAnswer(Answer):
    """Where a gateway stands now, in one instant."""

    gateway_id: str
    available: str = Field(description="balance + credit_limit: what can be spent now.", examples=["9.9877"])
    balance: str = Field(examples=["9.9877"])
    credit_limit: str = Field(examples=["0"])
    currency: str = Field(examples=["USD"])
    usage_total: str = Field(description="All charges so far.", examples=["0.0123"])
    credit_lots: list[CreditLotAnswer] = Field(description="Credit that expires, in the order usage takes it.")


class ExpiringKeyAnswer(Answer):
    """A key that ends soon."""

    key_id: str
    public_id: str
    name: str
    expires_at: str


class BalanceStatusAnswer(BalanceAnswer):
    """The same, and all that the gateway is sent notices about: whether it is enough, its standing, keys that end."""

    status: BalanceStatus = Field(
        description="ok, low, or depleted: by the bounds below, at which the gateway is sent notices too."
    )
    low_balance: str | None = Field(description="`available` is low below it; null for no such bound.", examples=["10"])
    depleted_below: str = Field(description="And everything is spent below this one.", examples=["0.01"])
    gateway_status: str = Field(description="active or suspended.", examples=["active"])
    gateway_status_reason: str = Field(description="Why it is suspended; empty otherwise.", examples=[""])
    keys_expiring: list[ExpiringKeyAnswer] = Field(description="Keys of which a notice says that they end soon.")


class PriceAnswer(Answer):
    """What an ETH costs a gateway now."""

    currency: str = Field(examples=["USD"])
    price: str = Field(description="`currency` per ETH, before the gateway's markup.", examples=["3123.45"])
    source: str = Field(description="declared, chainlink, or override: set by an operator, for a time.")
    reference: str = Field(
        description="What the source knows it by: pair and round of each feed, or empty.",
        examples=["ETH/USD:18446744073709562301"],
    )
    observed_at: str = Field(description="When the source had this price.")
    age_s: int | None = Field(description="Since the source last said so; null for a price that does not age.")
    until: str | None = Field(description="When an operator's price ends; null for others.")


class IssuanceAnswer(Answer):
    """One released payment, and what it cost."""

    id: str
    session_id: str
    key_id: str
    num_tickets: int
    ev_wei: str = Field(description="Expected value of the tickets, rounded up once: what is charged for.")
    fee_wei: str = Field(description="The fee as the signer computed it; recorded, not charged.")
    charge: str
    currency: str
    price: str = Field(description="`currency` per ETH at the time of the charge.")
    price_source: str = Field(
        description="Where the price is from, with what it is known by there: pair and round of each feed.",
        examples=["chainlink ETH/USD:18446744073709562301"],
    )
    price_observed_at: str
    markup_bps: int = Field(description="0 where a rate card set the price.")
    balance_after: str
    created_at: str
    manifest_id: str
    app: str
    job_type: str
    pipeline: str
    model: str
    orchestrator: str
    recipient: str | None = Field(description="Null where a signer asked the webhook, which is not shown it.")
    transcoder: str = Field(description="Empty where a signer asked the webhook.")
    end_user: str
    first_nonce: int
    face_value_wei: str | None = Field(description="Null where a signer asked the webhook.")
    win_prob: str | None = Field(description="Numerator over 2^256 - 1; null where a signer asked the webhook.")
    way: str = Field(
        description="`proxy`: the clearinghouse asked a signer; `webhook`: a signer asked the clearinghouse.",
        examples=["proxy"],
    )
    rate_card: str | None = Field(description="What the charge follows from; null where that is the markup.")
    rate_version: int | None
    rate_per: str | None = Field(description="What the rate is per.", examples=["minute"])
    rate_quantity: str | None = Field(
        description="How much of that was charged, exact: a fraction where it is no decimal. Null for a rate per cost.",
        examples=["0.25"],
    )
    rerated_charge: str | None = Field(
        description="What the call costs since its period was rated anew; null where that was not done. `charge` stays "
        "what was charged at the time, and the difference is an entry of its own."
    )
    rerated_by: str | None = Field(description="Which version of a rate card that is by.", examples=["standard@2"])


class IssuancePage(Answer):
    items: list[IssuanceAnswer]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class GatewayAnswer(Answer):
    """A gateway and its price."""

    gateway_id: str
    name: str
    status: str = Field(examples=["active"])
    status_reason: str
    currency: str
    markup_bps: int
    minimum_charge: str
    rate_card: str | None = Field(description="What its calls are charged by in place of the two above; null: none.")
    plan: str = Field(description="Whose limits it has, save those of its own.", examples=["default"])
    created_at: str


class GatewayStanding(GatewayAnswer):
    """A gateway, its price, and where it stands."""

    available: str
    balance: str
    credit_limit: str
    usage_total: str
    credit_lots: list[CreditLotAnswer]
    fee_day_wei: str = Field(description="Fees of today's calls, UTC, as the signers computed them.")
    ev_day_wei: str = Field(description="Expected value of today's tickets.")
    fee_ev_bps: int | None = Field(
        description="The first in basis points of the second, null before any ticket. Far below 10000, the gateway "
        "abandons its sessions, or its orchestrators ask for tickets out of proportion."
    )


class GatewayList(Answer):
    items: list[GatewayAnswer] = Field(description="In the order of their names.")


class TransferAnswer(Answer):
    """Credit given or taken, and where the gateway stands since."""

    id: str
    kind: str
    gateway_id: str
    amount: str
    currency: str
    reason: str
    actor: str
    idempotency_key: str | None
    created_at: str
    was_repeated: bool = Field(description="It had been booked before under this idempotency key: nothing was changed.")
    balance: str
    available: str


class KeyAnswer(Answer):
    """What is known of an API key, which is never the key."""

    id: str
    gateway_id: str
    public_id: str
    name: str
    status: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKeyAnswer(KeyAnswer):
    """A key just made."""

    api_key: str = Field(description="The whole key. It is shown here and never again.")


class KeyList(Answer):
    items: list[KeyAnswer] = Field(description="Newest first.")


class LimitAnswer(Answer):
    """One limit, and how far it is used."""

    limit: str = Field(description="As a refusal names it, in its `rule`.", examples=["spend_per_day"])
    allowed: str | None = Field(description="Null where there is no limit.", examples=["25"])
    used: str = Field(examples=["24.99998"])
    unit: str = Field(description="calls, sessions, wei or the currency.", examples=["USD"])
    resets_at: str | None = Field(description="Null for sessions, which close one by one.")


class KeyLimitsAnswer(Answer):
    """What one key may use, within what its gateway may."""

    key_id: str
    public_id: str
    requests_per_s: int | None
    burst_count: int | None
    limits: list[LimitAnswer] = Field(description="What is used is counted only while the key has a limit.")


class CeilingAnswer(Answer):
    """The highest price of one job type. The clearinghouse may have a lower one for everybody."""

    ceiling: str = Field(examples=["price_live"])
    allowed: str | None = Field(description="Null where there is none.", examples=["8000000000"])
    unit: str = Field(examples=["wei per second"])
    set_by: str | None = Field(description="plan or gateway: whose is lower; null where there is none.")


class LimitsAnswer(Answer):
    """What a gateway may use, and has used."""

    gateway_id: str
    currency: str
    plan: str = Field(description="Whose limits these are, but for `own_limits`.", examples=["default"])
    own_limits: list[str] = Field(description="What is set for the gateway itself.", examples=[["spend_per_day"]])
    requests_per_s: int | None
    burst_count: int | None
    limits: list[LimitAnswer]
    ceilings: list[CeilingAnswer] = Field(description="On prices, by job type.")
    keys: list[KeyLimitsAnswer] = Field(description="Only keys that have limits of their own.")


class WebhookSecretAnswer(Answer):
    """What is known of a webhook secret, which is never the secret."""

    public_id: str
    status: str = Field(description="active, expired or revoked.", examples=["active"])
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class WebhookSignerAnswer(Answer):
    """A signer that asks `POST /webhooks/remote-signer` before it releases a payment."""

    webhook_signer_id: str
    name: str
    sender: str = Field(examples=["0x70997970C51812dc3A010C7d01b50e0d17dc79C8"])
    face_value_max_wei: str | None = Field(description="Null where none was set.")
    status: str = Field(description="active or revoked.", examples=["active"])
    created_at: str
    revoked_at: str | None
    secrets: list[WebhookSecretAnswer] = Field(description="Newest first; at most two are active.")


class NewWebhookSecretAnswer(WebhookSignerAnswer):
    """A signer with a secret just made."""

    webhook_secret: str = Field(description="The whole secret. It is shown here and never again.")


class WebhookSignerList(Answer):
    items: list[WebhookSignerAnswer] = Field(description="In the order of their names.")


class PlanLimits(Answer):
    """Null where the plan has no limit."""

    requests_per_s: str | None
    burst_count: str | None
    calls_per_day: str | None
    spend_per_day: str | None
    spend_per_month: str | None
    ev_open: str | None
    sessions_open: str | None
    sessions_open_per_orchestrator: str | None
    price_live: str | None
    price_lv2v: str | None
    price_fixed: str | None
    price_untyped: str | None


class PlanAnswer(Answer):
    """Limits that many gateways share."""

    name: str = Field(examples=["small"])
    currency: str | None = Field(description="Of the limits on spend. Null: gateways of any currency may be on it.")
    limits: PlanLimits
    gateways_count: int = Field(description="How many are on it.")
    is_applied: bool = Field(description="Whether the last change has come to all of them.")
    changed_at: str
    changed_by: str


class PlanList(Answer):
    items: list[PlanAnswer] = Field(description="In the order of their names.")


class DeletedPlan(Answer):
    name: str


class CheckAnswer(Answer):
    name: str
    ok: bool
    detail: str = Field(description="What was found, or what is wrong and what to do about it.")


class ReadyAnswer(Answer):
    ready: bool
    checks: list[CheckAnswer]


class HealthAnswer(Answer):
    status: str = Field(examples=["ok"])


def balance_answer(now: Standing) -> BalanceAnswer:
    return BalanceAnswer(
        gateway_id=show("gw", now.gateway_id),
        available=show_amount(now.available),
        balance=show_amount(now.balance),
        credit_limit=show_amount(now.credit_limit),
        currency=now.currency,
        usage_total=show_amount(now.usage_total),
        credit_lots=[_lot_answer(lot) for lot in now.lots],
    )


def balance_status_answer(
    now: Standing, bounds: BalanceBounds, gateway: Gateway, expiring: Sequence[ApiKey]
) -> BalanceStatusAnswer:
    low = show_amount(bounds.low_balance) if bounds.low_balance is not None else None
    return BalanceStatusAnswer(
        **balance_answer(now).model_dump(),
        status=bounds.status(now.available),
        low_balance=low,
        depleted_below=show_amount(bounds.depleted_below),
        gateway_status=gateway.status,
        gateway_status_reason=gateway.status_reason,
        keys_expiring=[_expiring_key(key) for key in expiring],
    )


def _expiring_key(key: ApiKey) -> ExpiringKeyAnswer:
    assert key.expires_at is not None, "what never ends does not end soon"
    return ExpiringKeyAnswer(
        key_id=show("key", key.id), public_id=key.public_id, name=key.name, expires_at=rfc3339(key.expires_at)
    )


def gateway_answer(gateway: Gateway) -> GatewayAnswer:
    return GatewayAnswer(
        gateway_id=show("gw", gateway.id),
        name=gateway.name,
        status=gateway.status,
        status_reason=gateway.status_reason,
        currency=gateway.currency,
        markup_bps=gateway.markup_bps,
        minimum_charge=show_amount(gateway.minimum_charge),
        rate_card=gateway.rate_card,
        plan=gateway.plan,
        created_at=rfc3339(gateway.created_at),
    )


def gateway_standing(gateway: Gateway, now: Standing) -> GatewayStanding:
    return GatewayStanding(
        **{**gateway_answer(gateway).model_dump(), **balance_answer(now).model_dump(), **fees_document(now)}
    )


def transfer_answer(transfer: Transfer, now: Standing) -> TransferAnswer:
    return TransferAnswer(
        id=show("tr", transfer.id),
        kind=transfer.kind,
        gateway_id=show("gw", now.gateway_id),
        amount=show_amount(transfer.amount),
        currency=transfer.currency,
        reason=transfer.reason,
        actor=transfer.actor,
        idempotency_key=transfer.key,
        created_at=rfc3339(transfer.created_at),
        was_repeated=transfer.was_repeated,
        balance=show_amount(now.balance),
        available=show_amount(now.available),
    )


def key_answer(key: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        id=show("key", key.id),
        gateway_id=show("gw", key.gateway_id),
        public_id=key.public_id,
        name=key.name,
        status=key.status,
        created_at=rfc3339(key.created_at),
        expires_at=rfc3339(key.expires_at) if key.expires_at is not None else None,
        revoked_at=rfc3339(key.revoked_at) if key.revoked_at is not None else None,
    )


def new_key_answer(new: NewApiKey) -> NewKeyAnswer:
    return NewKeyAnswer(**key_answer(new.key).model_dump(), api_key=new.api_key)


def limits_answer(limits: GatewayLimits) -> LimitsAnswer:
    return LimitsAnswer.model_validate(limits_document(limits))


def key_limits_answer(limits: KeyLimits) -> KeyLimitsAnswer:
    return KeyLimitsAnswer.model_validate(key_limits_document(limits))


def webhook_signer_answer(registered: RegisteredSigner) -> WebhookSignerAnswer:
    return WebhookSignerAnswer.model_validate(webhook_signer_document(registered))


def new_webhook_secret_answer(new: NewWebhookSecret) -> NewWebhookSecretAnswer:
    return NewWebhookSecretAnswer.model_validate(new_webhook_secret_document(new))


def plan_answer(plan: Plan) -> PlanAnswer:
    return PlanAnswer.model_validate(plan_document(plan))


def ready_answer(checks: list[Check]) -> ReadyAnswer:
    shown = [CheckAnswer(name=check.name, ok=check.ok, detail=check.detail) for check in checks]
    return ReadyAnswer(ready=all(check.ok for check in checks), checks=shown)


def _lot_answer(lot: CreditLot) -> CreditLotAnswer:
    return CreditLotAnswer(
        id=show("tr", lot.id),
        amount=show_amount(lot.amount),
        remaining=show_amount(lot.remaining),
        expires_at=rfc3339(lot.expires_at),
    )


def price_answer(price: EthPrice) -> PriceAnswer:
    return PriceAnswer(**price_document(price))
