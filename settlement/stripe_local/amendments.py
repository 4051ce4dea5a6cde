"""What Stripe changed between the published description (2026-05-27) and the version that the SDK is pinned to.

Read from the official SDK's types. `payment_method_types` of payment intents, setup intents and Checkout sessions is
called `allowed_payment_method_types` from 2026-10-28 on; with that version in the header the old name is unknown.
"""

from __future__ import annotations

from typing import Any, Final

OLD_NAME: Final = "payment_method_types"
NEW_NAME: Final = "allowed_payment_method_types"
_RENAMED_IN: Final = (
    "POST /v1/checkout/sessions",
    "POST /v1/payment_intents",
    "POST /v1/payment_intents/{intent}",
    "POST /v1/payment_intents/{intent}/confirm",
    "POST /v1/setup_intents",
    "POST /v1/setup_intents/{intent}",
)
_RENAMED_OF: Final = ("checkout.session", "payment_intent", "setup_intent")


def amend(document: dict[str, Any]) -> None:
    """Gives the description both names: which of them a request may use is asked with `renamed_away`."""
    for name in _RENAMED_IN:
        properties = document["operations"][name]["form"]["properties"]
        if OLD_NAME in properties:
            properties[NEW_NAME] = properties[OLD_NAME]
    for name in _RENAMED_OF:
        properties = document["schemas"][name]["properties"]
        properties[NEW_NAME] = {**properties[OLD_NAME], "nullable": True}


def renamed_away(operation: str, parameter: str) -> bool:
    """Whether the pinned version no longer knows this parameter of this operation."""
    return parameter == OLD_NAME and operation in _RENAMED_IN
