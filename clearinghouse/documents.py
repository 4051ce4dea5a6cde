"""How gateways, keys, credit and the state of the books look in the JSON of the command line.

The HTTP API shows the same things under the same names (api/shapes.py); a test compares the two. Amounts are
decimal strings, times RFC 3339 in UTC, ids carry their prefix. Scripts rely on the names.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from chain.signatures import checksum_address
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chain.rates import EthPrice
    from clearinghouse.balance_bounds import BalanceBounds
    from clearinghouse.config import PriceSettings
    from clearinghouse.identity.gateways import Gateway
    from clearinghouse.identity.keys import ApiKey, NewApiKey
    from clearinghouse.identity.limits import CeilingInForce, GatewayLimits, KeyLimits, LimitUse
    from clearinghouse.identity.plans import Plan
    from clearinghouse.identity.webhook_signers import NewWebhookSecret, RegisteredSigner, WebhookSecret
    from clearinghouse.ledger.accounts import Standing
    from clearinghouse.ledger.transfers import Transfer
    from clearinghouse.ledger.verify import Report
    from clearinghouse.price_watch import PriceWatch
    from clearinghouse.prices import Comparison, Override

Document = dict[str, Any]


def gateway_document(gateway: Gateway) -> Document:
    return {
        "gateway_id": show("gw", gateway.id),
        "name": gateway.name,
        "status": gateway.status,
        "status_reason": gateway.status_reason,
        "currency": gateway.currency,
        "markup_bps": gateway.markup_bps,
        "minimum_charge": show_amount(gateway.minimum_charge),
        "rate_card": gateway.rate_card,
        "plan": gateway.plan,
        "created_at": rfc3339(gateway.created_at),
    }


def balance_document(standing: Standing) -> Document:
    """`credit_lots` are the grants that expire, in the order usage takes from them."""
    return {
        "gateway_id": show("gw", standing.gateway_id),
        "currency": standing.currency,
        "available": show_amount(standing.available),
        "balance": show_amount(standing.balance),
        "credit_limit": show_amount(standing.credit_limit),
        "usage_total": show_amount(standing.usage_total),
        "credit_lots": [
            {
                "id": show("tr", lot.id),
                "amount": show_amount(lot.amount),
                "remaining": show_amount(lot.remaining),
                "expires_at": rfc3339(lot.expires_at),
            }
            for lot in standing.lots
        ],
    }


def balance_status_document(
    standing: Standing, bounds: BalanceBounds, gateway: Gateway, expiring: Sequence[ApiKey]
) -> Document:
    """What GET /v1/balance answers: the above, and all that the gateway is sent notices about."""
    return balance_document(standing) | {
        "status": bounds.status(standing.available),
        "low_balance": show_amount(bounds.low_balance) if bounds.low_balance is not None else None,
        "depleted_below": show_amount(bounds.depleted_below),
        "gateway_status": gateway.status,
        "gateway_status_reason": gateway.status_reason,
        "keys_expiring": [
            {
                "key_id": show("key", key.id),
                "public_id": key.public_id,
                "name": key.name,
                "expires_at": rfc3339(key.expires_at),
            }
            for key in expiring
            if key.expires_at is not None
        ],
    }


def fees_document(standing: Standing) -> Document:
    """What operators look at to find gateways that abandon their sessions. `fee_ev_bps` is null before any ticket."""
    return {
        "fee_day_wei": str(standing.fee_day_wei),
        "ev_day_wei": str(standing.ev_day_wei),
        "fee_ev_bps": standing.fee_ev_bps,
    }


def limits_document(limits: GatewayLimits) -> Document:
    """What GET /v1/limits answers. Numbers are decimal strings; `allowed` is null where there is no limit.

    `own_limits` names what was set for the gateway itself, in place of what its plan says.
    """
    return {
        "gateway_id": show("gw", limits.gateway_id),
        "currency": limits.currency,
        "plan": limits.plan,
        "own_limits": list(limits.own_limits),
        "requests_per_s": limits.requests_per_s,
        "burst_count": limits.burst_count,
        "limits": [_limit_document(use) for use in limits.limits],
        "ceilings": [_ceiling_document(ceiling) for ceiling in limits.ceilings],
        "keys": [key_limits_document(key) for key in limits.keys],
    }


def key_limits_document(limits: KeyLimits) -> Document:
    return {
        "key_id": show("key", limits.key_id),
        "public_id": limits.public_id,
        "requests_per_s": limits.requests_per_s,
        "burst_count": limits.burst_count,
        "limits": [_limit_document(use) for use in limits.limits],
    }


def _limit_document(use: LimitUse) -> Document:
    return {
        "limit": str(use.limit),
        "allowed": _maybe_amount(use.allowed),
        "used": show_amount(Decimal(use.used)),
        "unit": use.unit,
        "resets_at": _maybe(use.resets_at),
    }


def _ceiling_document(ceiling: CeilingInForce) -> Document:
    is_there = ceiling.max_wei_per_unit is not None
    return {
        "ceiling": ceiling.name,
        "allowed": _maybe_amount(ceiling.max_wei_per_unit),
        "unit": ceiling.unit,
        "set_by": ("gateway" if ceiling.is_own else "plan") if is_there else None,
    }


def price_document(price: EthPrice) -> Document:
    """What GET /v1/prices answers. `age_s` is null where a price does not age."""
    return {
        "currency": price.currency,
        "price": show_amount(price.value),
        "source": price.source,
        "reference": price.reference,
        "observed_at": rfc3339(price.observed_at),
        "age_s": int(price.age(datetime.now(UTC)).total_seconds()) if price.ages else None,
        "until": rfc3339(price.until) if price.until is not None else None,
    }


def override_document(override: Override) -> Document:
    return {
        "currency": override.currency,
        "price": show_amount(override.value),
        "set_at": rfc3339(override.set_at),
        "until": rfc3339(override.until),
        "actor": override.actor,
        "reason": override.reason,
    }


def prices_document(watch: PriceWatch, settings: PriceSettings) -> Document:
    """Every price in use, and why: `missing` says why there is none; an override stands above everything else."""
    overrides = {override.currency: override for override in watch.overrides()}
    items = []
    for currency, price in watch.known().items():
        override, comparison = overrides.get(currency), watch.comparison(currency)
        unknown = dict.fromkeys(("price", "source", "reference", "observed_at", "age_s", "until"))
        told = {"currency": currency, **unknown}
        items.append(
            {
                **(told if isinstance(price, str) else price_document(price)),
                "missing": price if isinstance(price, str) else None,
                "second_opinion": _comparison_document(comparison) if comparison is not None else None,
                "second_opinion_missing": watch.opinion_troubles.get(currency),
                "override": override_document(override) if override is not None else None,
            }
        )
    return {"source": settings.source, "on_disagreement": settings.on_disagreement, "items": items}


def _comparison_document(comparison: Comparison) -> Document:
    """`currency` is the one compared: of a cross rate without an opinion of its own it is USD."""
    return {
        "currency": comparison.price.currency,
        "price": show_amount(comparison.opinion.value),
        "at": rfc3339(comparison.opinion.at),
        "difference_bps": comparison.difference_bps,
        "agrees": comparison.is_agreed,
    }


def plan_document(plan: Plan) -> Document:
    """`currency` is that of the limits on spend; null where any gateway may be on the plan."""
    return {
        "name": plan.name,
        "currency": plan.currency,
        "limits": {name: _maybe_amount(value) for name, value in plan.limits.items()},
        "gateways_count": plan.gateways_count,
        "is_applied": plan.is_applied,
        "changed_at": rfc3339(plan.changed_at),
        "changed_by": plan.changed_by,
    }


def key_document(key: ApiKey) -> Document:
    """Everything about a key that may be shown, any time."""
    return {
        "key_id": show("key", key.id),
        "public_id": key.public_id,
        "gateway_id": show("gw", key.gateway_id),
        "name": key.name,
        "status": key.status,
        "created_at": rfc3339(key.created_at),
        "expires_at": _maybe(key.expires_at),
        "revoked_at": _maybe(key.revoked_at),
    }


def new_key_document(new: NewApiKey) -> Document:
    """With the key itself, as `api_key`: shown once, when it is made."""
    return {"api_key": new.api_key, **key_document(new.key)}


def webhook_signer_document(registered: RegisteredSigner) -> Document:
    """A signer that asks our webhook, with all secrets it ever had, newest first."""
    signer = registered.signer
    return {
        "webhook_signer_id": show("whs", signer.id),
        "name": signer.name,
        "sender": checksum_address(signer.sender),
        "face_value_max_wei": None if signer.face_value_max_wei is None else str(signer.face_value_max_wei),
        "status": "active" if registered.revoked_at is None else "revoked",
        "created_at": rfc3339(registered.created_at),
        "revoked_at": _maybe(registered.revoked_at),
        "secrets": [_webhook_secret_document(secret) for secret in registered.secrets],
    }


def new_webhook_secret_document(new: NewWebhookSecret) -> Document:
    """With the secret itself, as `webhook_secret`: shown once, when it is made."""
    return {"webhook_secret": new.webhook_secret, **webhook_signer_document(new.registered)}


def _webhook_secret_document(secret: WebhookSecret) -> Document:
    return {
        "public_id": secret.public_id,
        "status": secret.status,
        "created_at": rfc3339(secret.created_at),
        "expires_at": _maybe(secret.expires_at),
        "revoked_at": _maybe(secret.revoked_at),
    }


def transfer_document(transfer: Transfer, standing: Standing) -> Document:
    """One booking and where it leaves the account. `was_repeated`: the idempotency key had booked it before."""
    return {
        "id": show("tr", transfer.id),
        "gateway_id": show("gw", standing.gateway_id),
        "kind": transfer.kind,
        "amount": show_amount(transfer.amount),
        "currency": transfer.currency,
        "reason": transfer.reason,
        "idempotency_key": transfer.key,
        "actor": transfer.actor,
        "created_at": rfc3339(transfer.created_at),
        "was_repeated": transfer.was_repeated,
        "balance": show_amount(standing.balance),
        "available": show_amount(standing.available),
    }


def report_document(report: Report) -> Document:
    return {
        "is_clean": report.is_clean,
        "taken_at": rfc3339(report.taken_at),
        "counts": report.counts,
        "claims": [
            {"claim": verdict.claim, "sentence": verdict.sentence, "violations": verdict.violations}
            for verdict in report.verdicts
        ],
        "findings": [
            {"claim": finding.claim, "subject": finding.subject, "detail": finding.detail}
            for finding in report.findings
        ],
    }


def _maybe(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)


def _maybe_amount(amount: Decimal | int | None) -> str | None:
    return None if amount is None else show_amount(Decimal(amount))
