"""/_control: what a test or a developer brings about at the local Stripe. JSON in, JSON out, no key needed.

GET    /_control                   what is set now
POST   /_control/clock             {"advance_s": 86400}
POST   /_control/faults            {"kind": "status_after", "path": "/v1/invoices*", "status": 500, "times": 1}
DELETE /_control/faults
POST   /_control/deliveries        {"repeat": 10, "shuffle": true, "lose_percent": 20, "seed": 1}
GET    /_control/requests          what was asked for so far, oldest first

POST   /_control/checkout/{id}/pay                  {"card": "pm_card_visa"}: what a customer does at Stripe's page
POST   /_control/invoices/{id}/pay                  the same at an invoice's page
POST   /_control/payment_intents/{id}/authenticate  {"succeeds": true}: what a customer does when asked for consent
POST   /_control/setup_intents/{id}/authenticate    the same for a card that is to be saved
POST   /_control/charges/{id}/dispute               {"reason": "fraudulent"}: what a cardholder's bank does
POST   /_control/payouts/{id}/fail                  what our bank does, once it has no such account
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from chain.shallow_json import loads
from settlement.stripe_local.customer_actions import consent, dispute, pay_invoice, pay_session
from settlement.stripe_local.deliveries import Deliveries, mischief_of
from settlement.stripe_local.description import Json
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.expand import answered
from settlement.stripe_local.faults import Fault
from settlement.stripe_local.frame import LocalStripe, Request
from settlement.stripe_local.payouts import fail
from settlement.stripe_local.upkeep import keep_up

_DEEDS: Final[dict[str, Callable[..., Json]]] = {
    "POST checkout/pay": pay_session,
    "POST invoices/pay": pay_invoice,
    "POST payment_intents/authenticate": consent,
    "POST setup_intents/authenticate": consent,
    "POST charges/dispute": dispute,
    "POST payouts/fail": fail,
}


class Control:
    """The control calls of one server."""

    def __init__(self, stripe: LocalStripe, deliveries: Deliveries) -> None:
        self._stripe = stripe
        self._deliveries = deliveries
        self._own: dict[str, Callable[[Json], Any]] = {
            "GET /_control": self._state,
            "POST /_control/clock": self._move_clock,
            "POST /_control/faults": self._add_fault,
            "DELETE /_control/faults": self._clear_faults,
            "POST /_control/deliveries": self._set_mischief,
            "GET /_control/requests": lambda _: self._stripe.requests,
        }

    async def answer(self, request: Request) -> Response:
        """200 with what came of it, 400 with what is wrong."""
        try:
            wanted = loads(request.body) if request.body else {}
            own = self._own.get(f"{request.method} {request.path.rstrip('/')}")
            if own is not None:
                return JSONResponse(own(wanted))
            return self._by_customer(request, wanted)
        except StripeError as error:
            return JSONResponse({"error": error.error}, error.status)
        except (ValueError, TypeError, KeyError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)

    def _by_customer(self, request: Request, wanted: Json) -> Response:
        """What a customer does, to the object that the path names. A refusal may leave something behind."""
        _, _, kind, object_id, action = (*request.path.split("/"), "", "", "", "")[:5]
        deed = _DEEDS.get(f"{request.method} {kind}/{action}")
        if deed is None:
            return JSONResponse({"error": "there is no such control call"}, 404)
        desk = self._stripe.desk()
        try:
            result = answered(desk, deed(desk, object_id, **wanted), [])
        except StripeError as error:
            if error.keeps_changes:
                self._stripe.write(desk)
            raise
        self._stripe.write(desk)
        return JSONResponse(result)

    def _state(self, _: Json) -> Json:
        return {
            "now_s": self._stripe.clock.now_s(),
            "faults": [asdict(fault) for fault in self._stripe.faults.in_force()],
            "pending_deliveries": self._deliveries.pending(),
        }

    def _move_clock(self, wanted: Json) -> Json:
        self._stripe.clock.advance(int(wanted["advance_s"]))
        keep_up(self._stripe)
        return self._state(wanted)

    def _add_fault(self, wanted: Json) -> Json:
        self._stripe.faults.add(Fault(**wanted))
        return self._state(wanted)

    def _clear_faults(self, wanted: Json) -> Json:
        self._stripe.faults.clear()
        return self._state(wanted)

    def _set_mischief(self, wanted: Json) -> Json:
        self._deliveries.mischief = mischief_of(wanted)
        self._stripe.written.set()
        return self._state(wanted)
