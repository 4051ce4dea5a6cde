"""Notices in words, for mail, and in fields, for webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from settlement.delivery.message import Document, Level, Message
from settlement.notices.due import Due, GatewayNow

_LEVELS: Final[dict[str, Level]] = {
    "balance.low": "warning", "balance.depleted": "critical", "balance.recovered": "info", "key.expiring": "warning",
    "gateway.suspended": "critical", "gateway.resumed": "info", "billing.held": "critical", "billing.released": "info",
    "invoice.issued": "info", "invoice.reminder": "warning", "invoice.paid": "info",
}  # fmt: skip

_ENDS: Final = {"balance.recovered", "gateway.resumed", "billing.released", "invoice.paid"}


def notice_message(gateway: GatewayNow, due: Due, *, number: int, now: datetime) -> Message:
    """What is told of `due`, whose `type` says something."""
    assert due.type is not None, "something is said"
    document: Document = {"gateway_id": gateway.gateway_id, "gateway": gateway.name, "number": number, **due.data}
    title, body = _words(gateway, due.type, due.data)
    return Message(
        type=due.type, dedup_key=f"{gateway.gateway_id}:{due.subject}", level=_LEVELS[due.type],
        is_end=due.type in _ENDS, group=gateway.gateway_id, title=title, body=body,
        said_at=now, document=document,
    )  # fmt: skip


def test_message(gateway_id: str, name: str, *, now: datetime) -> Message:
    """What tries a gateway's webhook and address."""
    title, body = f"{name}: a test", f"This is a test of the notices of gateway {name}. Nothing has to be done."
    return Message(
        type="test", dedup_key=f"{gateway_id}:test", level="info", is_end=False, group=gateway_id, title=title,
        body=body, said_at=now, document={"gateway_id": gateway_id, "gateway": name},
    )  # fmt: skip


def _words(gateway: GatewayNow, type_: str, data: dict[str, Any]) -> tuple[str, str]:
    name = gateway.name
    if type_ == "key.expiring":
        return (
            f"{name}: an API key ends on {data['expires_at'][:10]}",
            f"The API key {data['public_id']} ({data['name'] or 'without a name'}) of gateway {name} ends at "
            f"{data['expires_at']}. Calls with it are refused from then on: have it rotated before.",
        )
    if type_ == "gateway.suspended":
        return f"{name} is suspended", f"Nothing is signed for gateway {name}: {data['reason']}"
    if type_ == "gateway.resumed":
        return f"{name} is active again", f"The suspension of gateway {name} was lifted."
    if type_ in {"billing.held", "billing.released"}:
        return _words_of_hold(name, data)
    if type_.startswith("invoice."):
        return _words_of_invoice(name, type_, data)
    amount = f"{data['available']} {data['currency']}"
    if type_ == "balance.recovered":
        return f"{name}: the balance is sufficient again", f"Gateway {name} can spend {amount}."
    if type_ == "balance.low":
        return (
            f"{name}: the balance is low",
            f"Gateway {name} can spend {amount}, less than {data['low_balance']} {data['currency']}. Calls go on until "
            "it is used up: top up in time.",
        )
    return (
        f"{name}: the balance is used up",
        f"Gateway {name} can spend {amount}. Calls that cost more are refused with 402 until it is topped up.",
    )


def _words_of_hold(name: str, data: dict[str, Any]) -> tuple[str, str]:
    if not data:
        return f"{name}: signing goes on", f"What was due of gateway {name} is settled: everything is signed again."
    if data["hold"] == "new_sessions":
        return (
            f"{name}: no new sessions",
            f"No new session is signed for gateway {name}; those that are open go on. {data['reason']}",
        )
    return f"{name}: nothing is signed", f"Nothing is signed for gateway {name}. {data['reason']}"


def _words_of_invoice(name: str, type_: str, data: dict[str, Any]) -> tuple[str, str]:
    amount, day = f"{data['amount']} {data['currency']}", data["due_at"][:10]
    where = f" Pay it at {data['url']}" if data["url"] else ""
    if type_ == "invoice.paid":
        return f"{name}: invoice {data['invoice']} is paid", f"Thank you: {amount} for gateway {name} have arrived."
    if type_ == "invoice.issued":
        return f"{name}: invoice {data['invoice']}", f"Invoice {data['invoice']} of {amount} is due on {day}.{where}"
    return (
        f"{name}: invoice {data['invoice']} is not paid",
        f"Invoice {data['invoice']} of {amount} is due on {day} and is not paid yet.{where}",
    )
