"""The pages that a customer would see at Stripe: read what is asked for, and pay it with a test card.

    /_pay/checkout/{session}   /_pay/invoice/{invoice}   /_pay/authenticate/{intent}   /_pay/transfer/{intent}

They need no script and no style. The customer's `card` is one of the test cards; a choice of the window that asks for
the customer's consent is `consent=yes` or `no`.
"""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response

from settlement.stripe_local import debits
from settlement.stripe_local.amendments import OLD_NAME
from settlement.stripe_local.cards import CHOICES
from settlement.stripe_local.cash import TRANSFER
from settlement.stripe_local.customer_actions import consent, pay_invoice, pay_session
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.frame import LocalStripe, Request

_KINDS: Final = {
    "checkout": "checkout.session",
    "invoice": "invoice",
    "authenticate": "payment_intent",
    "transfer": "payment_intent",
}
_FRAME: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Local Stripe: test mode</title>"
    "<body style='font-family:sans-serif;max-width:40em;margin:2em auto'>"
    "<p><strong>TEST MODE</strong> This is a local test server. No money moves.</p>{body}</body></html>"
)


def page(stripe: LocalStripe, request: Request) -> Response:
    """GET shows, POST does. 404 for what there is not, 402 where a card is refused."""
    _, _, rest = request.path.partition("/_pay/")
    what, _, object_id = rest.partition("/")
    desk = stripe.desk()
    try:
        is_setup = what == "authenticate" and object_id.startswith("seti_")
        subject = desk.get("setup_intent" if is_setup else _KINDS.get(what, "page"), object_id)
        if request.method != "POST" or what == "transfer":
            return _shown(_asked(what, subject))
        intent = _done(desk, what, object_id, parse_qs(request.body))
        stripe.write(desk)
    except StripeError as error:
        if error.keeps_changes:
            stripe.write(desk)
        return _shown(f"<p>{escape(str(error))}</p>", error.status)
    return _next(desk, intent)


def _asked(what: str, subject: Json) -> str:
    """The form, or what became of it."""
    status = escape(subject["status"])
    if what == "transfer":
        return f"<p>Transfer {_sum(subject['amount'], subject)}: {_reference(subject)}</p>"
    if what == "authenticate":
        buttons = "<button name=consent value=yes>Authorize</button> <button name=consent value=no>Fail</button>"
        return _form(buttons) if status == "requires_action" else f"<p>This payment is {status}.</p>"
    told = f"<p>{escape(what.title())} {escape(subject['id'])}: {_wanted(what, subject)}</p>"
    if status not in {"open", "uncollectible"}:
        return f"{told}<p>It is {status}.</p>"
    options = "".join(f"<option value={value}>{escape(label)}</option>" for value, label in _choices(what, subject))
    return told + _form(f"<select name=card>{options}</select> <button>Go on</button>")


def _choices(what: str, subject: Json) -> list[tuple[str, str]]:
    """Test names and labels of what it may be paid with."""
    named = subject if what == "checkout" else subject["payment_settings"]
    kinds = named[OLD_NAME] or debits.all_in(subject["currency"])
    accounts = {name: label for name, label in debits.CHOICES.items() if label.partition(":")[0] in kinds}
    cards = {name: label for name, label in CHOICES.items() if (name if name == TRANSFER else "card") in kinds}
    return [*cards.items(), *accounts.items()]


def _wanted(what: str, subject: Json) -> str:
    if what == "invoice":
        return _sum(subject["amount_remaining"], subject)
    return "save a card" if subject["mode"] == "setup" else _sum(subject["amount_total"], subject)


def _sum(amount: int, subject: Json) -> str:
    return f"{amount} minor units of {escape(subject['currency'])}"


def _done(desk: Desk, what: str, object_id: str, form: dict[str, list[str]]) -> Json:
    """The intent, after what the customer did."""
    if what == "authenticate":
        return consent(desk, object_id, succeeds=form.get("consent") == ["yes"])
    card = form.get("card", ["pm_card_visa"])[0]
    return (pay_session if what == "checkout" else pay_invoice)(desk, object_id, card)


def _next(desk: Desk, intent: Json) -> Response:
    """Where the customer goes from here: to the bank's window, or back to the shop."""
    session = desk.changes.get(intent.get("_session", ""))
    if session is not None and session["status"] == "complete":
        return RedirectResponse(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]), 303)
    if intent["status"] == "requires_action":
        return RedirectResponse(f"/_pay/authenticate/{intent['id']}", 303)
    return _shown(f"<p>This payment is {escape(intent['status'])}.</p>")


def _reference(intent: Json) -> str:
    asked = (intent["next_action"] or {}).get("display_bank_transfer_instructions")
    return f"write {escape(asked['reference'])}" if asked else f"it is {escape(intent['status'])}"


def _form(fields: str) -> str:
    return f"<form method=post>{fields}</form>"


def _shown(body: str, status: int = 200) -> Response:
    return HTMLResponse(_FRAME.format(body=body), status)
