"""What a declined card or a refused debit means, and what its holder can do: said to the gateway."""

from __future__ import annotations

from typing import Final

#: Codes after which the same card need not be tried again: only its holder can change that.
FINAL: Final = frozenset(
    (
        "authentication_required", "card_not_supported", "currency_not_supported", "do_not_honor", "expired_card",
        "fraudulent", "incorrect_number", "invalid_account", "lost_card", "new_account_information_available",
        "pickup_card", "restricted_card", "revocation_of_all_authorizations", "revocation_of_authorization",
        "stolen_card", "stop_payment_order", "testmode_decline", "transaction_not_allowed", "no_card",
    )
)  # fmt: skip
_ANOTHER: Final = "Save another card: POST /v1/topups with method setup; or pay by its link with method checkout."
_WORDS: Final = {
    "authentication_required": "The card's bank wants its holder to consent, which only works at Stripe's page: ask "
    "for a top-up with method checkout.",
    "expired_card": f"The card has expired. {_ANOTHER}",
    "insufficient_funds": "The card has not enough funds. Try again later, or ask for a top-up with method checkout.",
    "no_card": "No card is saved. Save one: POST /v1/topups with method setup.",
    "processing_error": "The card's bank could not be asked. Try again in a few minutes.",
}
_AGAIN: Final = "Nothing was credited. Ask for another top-up, with method checkout or bank_transfer."
_BANK_WORDS: Final = {
    "account_closed": "The bank account is closed.",
    "debit_not_authorized": "The bank says that the debit was not authorized.",
    "insufficient_funds": "The bank account had not enough funds.",
    "no_account": "The bank knows no such account.",
}


def words_of_refused_debit(code: str) -> str:
    """Two or three sentences, of a bank that was to pay from an account."""
    return f"{_BANK_WORDS.get(code, 'The bank did not pay.')} {_AGAIN}"


def words_of_decline(code: str | None) -> str:
    """One or two sentences. Why a bank is suspicious it does not say, and neither do we."""
    return _WORDS.get(code or "", f"The card was declined. {_ANOTHER}")
