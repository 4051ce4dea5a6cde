"""What a gateway has to be told now, by what it was told last. Pure.

Of each subject (its balance, its standing, each key) one state is remembered. A change of state is a notice, unless it
is one that nobody wants to hear of: a gateway that was never low has not recovered, and one that is new is as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from clearinghouse.balance_bounds import BalanceBounds, BalanceStatus
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

BALANCE: Final = "balance"
STANDING: Final = "standing"
HOLD: Final = "hold"
#: Recovered is who has this part more than the bound: a balance that swings about it is told of once.
RECOVERED: Final = (11, 10)
#: A key is told of again so long before its end.
LAST_CALL: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Key:
    """A key that ends. `id` and `public_id` may be shown."""

    id: str
    public_id: str
    name: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice that is open, or was when it was last told of. `id` and `number` may be shown.

    `reminder_day` is that of the newest reminder whose day has come, in days after it was due.
    """

    id: str
    number: str
    amount: str
    currency: str
    due_at: datetime
    url: str | None
    is_open: bool
    is_paid: bool
    reminder_day: int | None = None


@dataclass(frozen=True, slots=True)
class GatewayNow:
    """A gateway as it is now. `keys` are those that end and were not revoked; `hold` is that of its billing."""

    gateway_id: str
    name: str
    currency: str
    available: Decimal
    bounds: BalanceBounds
    is_suspended: bool
    suspension_reason: str
    keys: tuple[Key, ...] = ()
    hold: str = "none"
    hold_reason: str = ""
    invoices: tuple[Invoice, ...] = ()


class Due(NamedTuple):
    """`state` is to be remembered of `subject`; `type` and `data` are the notice, None where nothing is said."""

    subject: str
    state: str
    type: str | None
    data: dict[str, Any]


def due(gateway: GatewayNow, told: Mapping[str, str], now: datetime, *, key_expiry: timedelta) -> Iterator[Due]:
    """`told`: the state that is remembered, by subject. What has not changed is not in it again."""
    yield from _balance(gateway, told.get(BALANCE))
    yield from _standing(gateway, told.get(STANDING))
    for key in gateway.keys:
        yield from _key(key, told.get(key.id), now, key_expiry)
    yield from _hold(gateway, told.get(HOLD))
    for invoice in gateway.invoices:
        yield from _invoice(invoice, told.get(invoice.id))


def _balance(gateway: GatewayNow, told: str | None) -> Iterator[Due]:
    before = BalanceStatus(told) if told is not None else BalanceStatus.OK
    status = gateway.bounds.status(gateway.available)
    if _is_better(status, before) and not _has_recovered(gateway, before):
        return
    if status is before:
        if told is None:
            yield Due(BALANCE, status.value, None, {})
        return
    # From depleted to low is neither a warning that is new nor a recovery: it is kept, and not told.
    type_ = None if _is_better(status, before) and status is not BalanceStatus.OK else _BALANCE_TYPES[status]
    low = gateway.bounds.low_balance
    yield Due(
        BALANCE, status.value, type_,
        {
            "status": status.value, "available": show_amount(gateway.available), "currency": gateway.currency,
            "low_balance": show_amount(low) if low is not None else None,
            "depleted_below": show_amount(gateway.bounds.depleted_below),
        },
    )  # fmt: skip


_BALANCE_TYPES: Final = {
    BalanceStatus.OK: "balance.recovered", BalanceStatus.LOW: "balance.low", BalanceStatus.DEPLETED: "balance.depleted",
}  # fmt: skip
_FROM_THE_BEST: Final = (BalanceStatus.OK, BalanceStatus.LOW, BalanceStatus.DEPLETED)


def _is_better(status: BalanceStatus, before: BalanceStatus) -> bool:
    return _FROM_THE_BEST.index(status) < _FROM_THE_BEST.index(before)


def _has_recovered(gateway: GatewayNow, before: BalanceStatus) -> bool:
    """Clearly above the bound that it was below."""
    bounds = gateway.bounds
    bound = bounds.depleted_below if before is BalanceStatus.DEPLETED else (bounds.low_balance or Decimal(0))
    above, below = RECOVERED
    return gateway.available * below >= bound * above


def _standing(gateway: GatewayNow, told: str | None) -> Iterator[Due]:
    state = "suspended" if gateway.is_suspended else "active"
    if state == told or (told is None and state == "active"):
        return
    type_ = "gateway.suspended" if gateway.is_suspended else "gateway.resumed"
    data = {"reason": gateway.suspension_reason} if gateway.is_suspended else {}
    yield Due(STANDING, state, type_, data)


def _key(key: Key, told: str | None, now: datetime, key_expiry: timedelta) -> Iterator[Due]:
    """The end of the key belongs to the state: a key whose end is moved is a key to be told of anew."""
    left = key.expires_at - now
    if left > key_expiry or left <= timedelta(0):
        return
    stage = "last-call" if left <= LAST_CALL else "soon"
    state = f"{stage} {rfc3339(key.expires_at)}"
    if told == state:
        return
    yield Due(
        key.id, state, "key.expiring",
        {"key_id": key.id, "public_id": key.public_id, "name": key.name, "expires_at": rfc3339(key.expires_at)},
    )  # fmt: skip


def _hold(gateway: GatewayNow, told: str | None) -> Iterator[Due]:
    """That the reason is another one now is not told: what is to be done about it is the same."""
    if gateway.hold == (told or "none"):
        return
    if gateway.hold == "none":
        yield Due(HOLD, gateway.hold, "billing.released", {})
    else:
        data = {"hold": gateway.hold, "reason": gateway.hold_reason}
        yield Due(HOLD, gateway.hold, "billing.held", data)


def _invoice(invoice: Invoice, told: str | None) -> Iterator[Due]:
    """Issued, then reminded of, then paid; one that was withdrawn is kept, and not told."""
    data = {
        "invoice_id": invoice.id, "invoice": invoice.number, "amount": invoice.amount, "currency": invoice.currency,
        "due_at": rfc3339(invoice.due_at), "url": invoice.url,
    }  # fmt: skip
    type_: str | None
    if not invoice.is_open:
        state, type_ = ("paid", "invoice.paid") if invoice.is_paid else ("withdrawn", None)
    else:
        # A reminder that is due at once was not missed: the invoice itself is the first that is heard of it.
        state = "issued" if invoice.reminder_day is None else f"reminded {invoice.reminder_day}"
        type_ = "invoice.issued" if told is None else "invoice.reminder"
    if state != told:
        yield Due(invoice.id, state, type_, data)
