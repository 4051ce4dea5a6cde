"""Bank debits: the customer agrees to one at the page, and its bank answers days later. Here three minutes later.

Stripe's own names for test accounts, and what becomes of a debit of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from settlement.stripe_local.description import Json
from settlement.stripe_local.errors import StripeError

#: As long as Stripe lets the "delayed" ones of its test accounts wait.
ANSWERED_AFTER_S: Final = 180
#: The one currency that each kind of debit is in.
CURRENCIES: Final = {"us_bank_account": "usd", "sepa_debit": "eur", "bacs_debit": "gbp"}


class Account(NamedTuple):
    """A test account at a bank. `refused`: the code with which its bank answers in the end; None where it pays."""

    kind: str
    refused: str | None = None


_ACCOUNTS: Final = {
    "pm_usBankAccount_success": Account("us_bank_account"),
    "pm_usBankAccount_insufficientFunds": Account("us_bank_account", "insufficient_funds"),
    "pm_usBankAccount_accountClosed": Account("us_bank_account", "account_closed"),
    "pm_usBankAccount_noAccount": Account("us_bank_account", "no_account"),
    "pm_usBankAccount_debitNotAuthorized": Account("us_bank_account", "debit_not_authorized"),
    "pm_success_de": Account("sepa_debit"),
    "pm_insufficientFunds_de": Account("sepa_debit", "insufficient_funds"),
    "pm_bacsDebit_success": Account("bacs_debit"),
    "pm_bacsDebit_insufficientFunds": Account("bacs_debit", "insufficient_funds"),
}
_SHOWN: Final[dict[str, dict[str, Any]]] = {
    "us_bank_account": {
        "account_holder_type": "company",
        "account_type": "checking",
        "bank_name": "Local test bank",
        "financial_connections_account": None,
        "fingerprint": "localaba",
        "last4": "6789",
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    },
    "sepa_debit": {
        "bank_code": "37040044",
        "branch_code": "",
        "country": "DE",
        "fingerprint": "localsepa",
        "generated_from": {"charge": None, "setup_attempt": None},
        "last4": "3000",
    },
    "bacs_debit": {"fingerprint": "localbacs", "last4": "2345", "sort_code": "108800"},
}
_MESSAGES: Final = {
    "insufficient_funds": "The customer's account has insufficient funds to cover this payment.",
    "account_closed": "The customer's bank account has been closed.",
    "no_account": "The customer's bank account could not be located.",
    "debit_not_authorized": "The customer has notified their bank that this payment was unauthorized.",
}


def require_currency(kinds: Iterable[str], currency: str) -> None:
    """Raises StripeError, as Stripe does, for a debit that is in another currency."""
    for kind in kinds:
        if CURRENCIES.get(kind, currency) != currency:
            text = f"The payment method `{kind}` cannot be used in {currency}: only in {CURRENCIES[kind]}."
            raise StripeError(text, param="payment_method_types")


def all_in(currency: str) -> list[str]:
    """What a dashboard has switched on for a currency where nobody names any: a card, and the debit there is in it."""
    return ["card", *(kind for kind, of in CURRENCIES.items() if of == currency)]


def account_named(name: str) -> Account | None:
    """None where there is no such test account."""
    return _ACCOUNTS.get(name)


def account_of(method: Json) -> Account | None:
    """Which test account a payment method stands for; None where it is none of a bank's."""
    return account_named(method.get("_account", ""))


def shown(kind: str) -> Json:
    """What a payment method of this kind shows of its account."""
    return dict(_SHOWN[kind])


def refusal_message(code: str) -> str:
    """What Stripe says of a debit that a bank refused."""
    return _MESSAGES[code]


#: What a page offers: the test name of an account, and what comes of it.
CHOICES: Final = {
    name: f"{account.kind}: {'paid' if account.refused is None else f'refused ({account.refused})'} in three minutes"
    for name, account in _ACCOUNTS.items()
}
