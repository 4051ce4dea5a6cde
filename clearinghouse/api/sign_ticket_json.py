"""The body of POST /v1/signTicket: go-livepeer's payment request in one canonical spelling, and two fields of ours.

    {
      "orchestrator": "…",                      base64 of an encoded net.OrchestratorInfo; required
      "state": {"state": "…", "sig": "…"},      base64; as the answer before gave it, absent on the first call
      "manifest_id": "…", "app": "…", "type": "lv2v", "in_pixels": 0,
      "max_price": {"price": "4.5", "currency": "wei", "unit": "720p-pixel-seconds"},
      "capabilities": "…",                      base64 of an encoded net.Capabilities
      "idempotency_key": "…", "end_user": "…"
    }

go-livepeer ignores what it does not know. Here an unknown key is a refusal: a misspelled `max_price` that is ignored
would be a limit that does not hold.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from chain.fees import MaxPrice
from chain.messages import decode_offer_text
from chain.payment_state import SignedState, decode_state_text
from clearinghouse.errors import InvalidRequest
from clearinghouse.requests import MAX_BODY_BYTES, PaymentRequest, payment_request
from clearinghouse.strict_json import (
    base64_of,
    integer_of,
    kind_of,
    object_of,
    parse_object,
    refuse_unknown,
    text_of,
)

STATE_KEYS: Final = frozenset({"state", "sig"})
MAX_PRICE_KEYS: Final = frozenset({"price", "currency", "unit"})
REQUEST_KEYS: Final = frozenset(
    {
        "orchestrator", "state", "manifest_id", "app", "in_pixels", "type", "max_price", "capabilities",
        "idempotency_key", "end_user",
    }
)  # fmt: skip


class SignTicketBody(NamedTuple):
    """What a body says. "" means that it names no idempotency key, or no end user."""

    request: PaymentRequest
    idempotency_key: str
    end_user: str


def decode_sign_ticket(body: bytes) -> SignTicketBody:
    """Raises InvalidRequest, or RequestTooLarge above MAX_BODY_BYTES; nothing else."""
    document = parse_object(body, bytes_max=MAX_BODY_BYTES, what="a payment request")
    refuse_unknown(document, REQUEST_KEYS)
    idempotency_key, end_user = text_of(document, "idempotency_key"), text_of(document, "end_user")
    request = payment_request(
        orchestrator=base64_of(document, "orchestrator", decode=decode_offer_text),
        state=_state(document),
        manifest_id=text_of(document, "manifest_id"),
        app=text_of(document, "app"),
        in_pixels=integer_of(document, "in_pixels"),
        type=text_of(document, "type"),
        max_price=_max_price(document),
        capabilities=base64_of(document, "capabilities"),
    )
    return SignTicketBody(request, idempotency_key, end_user)


def _state(document: dict[str, Any]) -> SignedState | None:
    state = object_of(document, "state")
    if state is None:
        return None
    refuse_unknown(state, STATE_KEYS, inside="state.")
    return SignedState(
        state=base64_of(state, "state", "state.", decode=decode_state_text), sig=base64_of(state, "sig", "state.")
    )


def _max_price(document: dict[str, Any]) -> MaxPrice | None:
    max_price = object_of(document, "max_price")
    if max_price is None:
        return None
    refuse_unknown(max_price, MAX_PRICE_KEYS, inside="max_price.")
    price = max_price.get("price")
    if type(price) is not str or not price:
        given = "nothing" if price is None else kind_of(price)
        raise InvalidRequest(f'max_price.price must be a decimal string, such as "4.5", not {given}')
    return MaxPrice(
        price=price,
        currency=text_of(max_price, "currency", "max_price."),
        unit=text_of(max_price, "unit", "max_price."),
    )
