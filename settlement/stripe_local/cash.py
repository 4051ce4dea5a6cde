"""A customer's cash balance: money that came by bank transfer and belongs to the customer until a payment takes it."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.errors import unsupported

#: How a payment method of this type is called; Stripe knows no other way to pay by bank transfer.
TRANSFER: Final = "customer_balance"
_WAYS: Final = {
    "usd": "us_bank_transfer",
    "eur": "eu_bank_transfer",
    "gbp": "gb_bank_transfer",
    "jpy": "jp_bank_transfer",
    "mxn": "mx_bank_transfer",
}
_BANK: Final = {"account_holder_name": "Local test account", "account_holder_address": {}, "bank_address": {}}
_ADDRESSES: Final = {
    "usd": {
        "type": "aba",
        "aba": {
            **_BANK,
            "account_number": "000000000000",
            "account_type": "checking",
            "bank_name": "Local test bank",
            "routing_number": "000000000",
        },
        "supported_networks": ["ach", "domestic_wire_us"],
    },
    "eur": {
        "type": "iban",
        "iban": {**_BANK, "bic": "TESTDE00", "country": "DE", "iban": "DE00000000000000000000"},
        "supported_networks": ["sepa"],
    },
    "gbp": {
        "type": "sort_code",
        "sort_code": {**_BANK, "account_number": "00000000", "sort_code": "000000"},
        "supported_networks": ["bacs", "fps"],
    },
    "jpy": {
        "type": "zengin",
        "zengin": {**_BANK, "account_number": "0000000", "account_type": "futsu", "bank_name": "Local test bank"},
        "supported_networks": ["zengin"],
    },
    "mxn": {
        "type": "spei",
        "spei": {**_BANK, "bank_code": "000", "bank_name": "Local test bank", "clabe": "000000000000000000"},
        "supported_networks": ["spei"],
    },
}


def way_of(currency: str) -> str:
    """The kind of bank transfer of a currency. Raises StripeError for one that this server has no bank for."""
    if currency not in _WAYS:
        raise unsupported(f"bank transfers in {currency}")
    return _WAYS[currency]


def available(customer: Json, currency: str) -> int:
    """What is there, in minor units."""
    return int(customer.get("_cash", {}).get(currency, 0))


def shown(customer: Json) -> Json:
    """The cash balance, as Stripe shows it."""
    there = {currency: amount for currency, amount in customer.get("_cash", {}).items() if amount}
    return {
        "object": "cash_balance",
        "available": there or None,
        "customer": customer["id"],
        "customer_account": None,
        "livemode": False,
        "settings": {
            "reconciliation_mode": "manual" if is_applied_by_hand(customer) else "automatic",
            "using_merchant_default": "_reconciliation_mode" not in customer,
        },
    }


def is_applied_by_hand(customer: Json) -> bool:
    """Whether nothing is paid from the cash balance by itself."""
    return bool(customer.get("_reconciliation_mode") == "manual")


def move(desk: Desk, customer: Json, currency: str, amount: int, kind: str, **more: Any) -> Json:
    """A movement of the cash balance, in minor units; told to everybody."""
    cash = customer.setdefault("_cash", {})
    cash[currency] = cash.get(currency, 0) + amount
    moved = desk.new(
        "customer_cash_balance_transaction",
        currency=currency,
        customer=customer["id"],
        ending_balance=cash[currency],
        net_amount=amount,
        type=kind,
        **more,
    )
    desk.tell("customer_cash_balance_transaction.created", moved)
    return moved


def instructions(desk: Desk, intent: Json) -> Json:
    """What a customer needs to know to pay an intent: where to, how much, and what to write."""
    return {
        "type": "display_bank_transfer_instructions",
        "display_bank_transfer_instructions": {
            "amount_remaining": intent["amount"],
            "currency": intent["currency"],
            "financial_addresses": [_ADDRESSES[intent["currency"]]],
            "hosted_instructions_url": f"{desk.house.base_url}/_pay/transfer/{intent['id']}",
            "reference": intent["id"][-8:].upper(),
            "type": way_of(intent["currency"]),
        },
    }
