"""Stripe's test cards: what each of them does when it is saved and when it is charged."""

from __future__ import annotations

from typing import Final, NamedTuple


class Card(NamedTuple):
    """A test card. `decline`: (code, decline_code) with which every charge is refused."""

    number: str
    brand: str = "visa"
    decline: tuple[str, str | None] | None = None
    #: Declined cards are refused when they are saved too, but for the one that is made to fail only later.
    saves: bool = True
    asks: bool = False  # the customer must authenticate, every time
    disputed_as: str | None = None
    is_inquiry: bool = False  # the bank only asks, and takes nothing
    refund_fails: bool = False
    country: str = "US"


_ALL: Final = {
    "visa": Card("4242424242424242"),
    "visa_debit": Card("4000056655665556"),
    "mastercard": Card("5555555555554444", "mastercard"),
    "amex": Card("378282246310005", "amex"),
    "de": Card("4000002760000016", country="DE"),
    "gb": Card("4000008260000000", country="GB"),
    "bypassPending": Card("4000000000000077"),
    "chargeDeclined": Card("4000000000000002", decline=("card_declined", "generic_decline"), saves=False),
    "visa_chargeDeclined": Card("4000000000000002", decline=("card_declined", "generic_decline"), saves=False),
    "chargeDeclinedInsufficientFunds": Card(
        "4000000000009995", decline=("card_declined", "insufficient_funds"), saves=False
    ),
    "visa_chargeDeclinedInsufficientFunds": Card(
        "4000000000009995", decline=("card_declined", "insufficient_funds"), saves=False
    ),
    "chargeDeclinedLostCard": Card("4000000000009987", decline=("card_declined", "lost_card"), saves=False),
    "chargeDeclinedStolenCard": Card("4000000000009979", decline=("card_declined", "stolen_card"), saves=False),
    "chargeDeclinedFraudulent": Card("4100000000000019", decline=("card_declined", "fraudulent"), saves=False),
    "chargeDeclinedExpiredCard": Card("4000000000000069", decline=("expired_card", None), saves=False),
    "chargeDeclinedIncorrectCvc": Card("4000000000000127", decline=("incorrect_cvc", None), saves=False),
    "chargeDeclinedProcessingError": Card("4000000000000119", decline=("processing_error", None), saves=False),
    "chargeCustomerFail": Card("4000000000000341", decline=("card_declined", "generic_decline")),
    "authenticationRequired": Card("4000002760003184", asks=True),
    "threeDSecure2Required": Card("4000000000003220", asks=True),
    "threeDSecureRequired": Card("4000000000003063", asks=True),
    "createDispute": Card("4000000000000259", disputed_as="fraudulent"),
    "createDisputeInquiry": Card("4000000000001976", disputed_as="fraudulent", is_inquiry=True),
    "createDisputeProductNotReceived": Card("4000000000002685", disputed_as="product_not_received"),
    "refundFail": Card("4000000000005126", refund_fails=True),
}
#: By the names that Stripe's documentation gives them: pm_card_visa, tok_visa, or the number itself.
_BY_NUMBER: Final = {card.number: card for card in _ALL.values()}

_MESSAGES: Final = {
    "card_declined": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "lost_card": "Your card was declined.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}


def card_named(name: str) -> Card | None:
    """The card of pm_card_…, tok_… or a number; None if there is no such test card."""
    return _ALL.get(name.removeprefix("pm_card_").removeprefix("tok_")) or _BY_NUMBER.get(name.replace(" ", ""))


def card_of(number: str) -> Card:
    """The card that a saved payment method stands for."""
    return _BY_NUMBER[number]


def decline_message(code: str, decline_code: str | None) -> str:
    """What Stripe tells the cardholder."""
    return _MESSAGES.get(decline_code or "", _MESSAGES[code])


#: What a page offers: the test name of a payment method (or the bank transfer), and what comes of it.
CHOICES: Final = {
    "pm_card_visa": "Visa, succeeds",
    "pm_card_mastercard": "Mastercard, succeeds",
    "customer_balance": "by bank transfer, which comes later",
    "pm_card_authenticationRequired": "asks for authentication",
    "pm_card_chargeDeclined": "is declined",
    "pm_card_chargeDeclinedInsufficientFunds": "is declined: insufficient funds",
    "pm_card_chargeDeclinedExpiredCard": "is declined: expired",
    "pm_card_createDispute": "succeeds, and is disputed",
    "pm_card_refundFail": "succeeds, and cannot be refunded",
}
