"""Ids that nobody can take for real ones: `in_local_…` where Stripe has `in_…`."""

from __future__ import annotations

import secrets
import string
from typing import Final

PREFIXES: Final = {
    "balance_transaction": "txn",
    "charge": "ch",
    "checkout.session": "cs_test",
    "credit_note": "cn",
    "credit_note_line_item": "cnli",
    "customer": "cus",
    "customer_balance_transaction": "cbtxn",
    "customer_cash_balance_transaction": "ccsbtxn",
    "dispute": "du",
    "event": "evt",
    "invoice": "in",
    "invoice_payment": "inpay",
    "invoiceitem": "ii",
    "item": "li",
    "line_item": "il",
    "payment_intent": "pi",
    "payment_method": "pm",
    "payout": "po",
    "price": "price",
    "product": "prod",
    "refund": "re",
    "request": "req",
    "setup_intent": "seti",
    "tax_id": "txi",
    "tax_rate": "txr",
    "webhook_endpoint": "we",
}
_LETTERS: Final = string.ascii_letters + string.digits


def new_id(kind: str) -> str:
    """A fresh id of this kind of object: 143 random bits."""
    return f"{PREFIXES[kind]}_local_{letters(24)}"


def letters(count: int) -> str:
    """Random letters and digits, for ids, numbers and secrets."""
    return "".join(secrets.choice(_LETTERS) for _ in range(count))
