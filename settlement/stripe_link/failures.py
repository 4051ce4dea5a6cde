"""What a failed call means to whoever made it: try again later, ask the operator, or give up what was wanted."""

from __future__ import annotations

from typing import Any, Final

import stripe

_CONFLICT: Final = 409
_SERVER_ERRORS_FROM: Final = 500


class StripeAway(Exception):
    """Stripe did not do it, or may have: nobody knows. Later, the same call with the same idempotency key tells.

    `may_pass`: another try in a moment can help; `is_soon`: in the next one, since it is only another call that stands
    in the way. `too_many`: Stripe was asked for too much. `key_is_spent`: Stripe has stored this failure under the key
    and will repeat it for a day, so that only a look for what was wanted (by its metadata) and then a new key can help.
    """

    def __init__(
        self,
        message: str,
        *,
        may_pass: bool = True,
        key_is_spent: bool = False,
        too_many: bool = False,
        is_soon: bool = False,
    ) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.key_is_spent = key_is_spent
        self.too_many = too_many
        self.is_soon = is_soon


class StripeNotAllowed(StripeAway):
    """The API key was not accepted, or may not do this: nothing was done. The operator has to mend it."""


class StripeRefused(Exception):
    """Stripe said no, and will say so again: what is asked for cannot be had in this way.

    `code`, `param` and `decline_code` as Stripe gives them, `status` that of HTTP, `request_id` for Stripe's support.
    Nothing was done, except that a payment which was declined (402) leaves its intent: `payment_intent_id`.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        decline_code: str | None = None,
        payment_intent_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.decline_code = decline_code
        self.payment_intent_id = payment_intent_id
        self.request_id = request_id


def failure_of(error: stripe.StripeError) -> StripeAway | StripeRefused:
    """Of the SDK's error. What it keeps of the request and the answer stays behind: customers' data is in it."""
    if isinstance(error, stripe.APIConnectionError):
        return StripeAway(f"Stripe cannot be reached: {type(error.__cause__ or error).__name__}")
    status, text = error.http_status, str(error)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return StripeNotAllowed(text, may_pass=False)
    if isinstance(error, stripe.RateLimitError):
        is_locked = _field(error, "code") == "lock_timeout"
        return StripeAway(text, too_many=not is_locked, is_soon=is_locked)
    if status is None or status < 400 or status >= _SERVER_ERRORS_FROM:  # no answer, one that cannot be read, a failure
        is_stored = _is_stored(error)
        return StripeAway(f"{text} (HTTP {status})", may_pass=not is_stored, key_is_spent=is_stored)
    if status == _CONFLICT:  # another call under this key, or with this object, is under way
        return StripeAway(text, is_soon=True)
    return StripeRefused(
        error.user_message or text,
        status=status,
        code=_field(error, "code"),
        param=_field(error, "param"),
        decline_code=_field(error, "decline_code"),
        payment_intent_id=_intent_id(error),
        request_id=error.request_id,
    )


def _is_stored(error: stripe.StripeError) -> bool:
    """Whether it came, or will come, from Stripe's memory of the idempotency key."""
    headers = error.headers or {}
    return headers.get("idempotent-replayed") == "true" or headers.get("stripe-should-retry") == "false"


def _field(error: stripe.StripeError, name: str) -> str | None:
    value = _fields(error).get(name)
    return value if isinstance(value, str) else None


def _intent_id(error: stripe.StripeError) -> str | None:
    intent = _fields(error).get("payment_intent")
    return intent.get("id") if isinstance(intent, dict) else None


def _fields(error: stripe.StripeError) -> dict[str, Any]:
    body: Any = error.json_body
    fields = body.get("error") if isinstance(body, dict) else None
    return fields if isinstance(fields, dict) else {}
