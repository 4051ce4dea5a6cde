"""The treasury in JSON. Amounts are exact decimal strings; what is rounded says so. Scripts rely on the names."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from chain.funding import Amounts
from chain.rates import EthPrice
from chain.signatures import checksum_address
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount
from settlement.currencies import account_currency
from settlement.reconciliation.redemptions import Luck
from settlement.rounding import from_minor
from settlement.treasury.advise import Purchase, cost_minor
from settlement.treasury.margins import RATE_DECIMALS, Margin, price_of, to_decimals
from settlement.treasury.records import Conversion, Movement, Record
from settlement.treasury.report import TreasuryReport

Document = dict[str, Any]
#: Of how many standard deviations the luck is away from what was expected.
DEVIATION_DECIMALS: Final = 2


def conversion_document(conversion: Conversion) -> Document:
    trade = conversion.trade
    known = account_currency(trade.currency)
    return {
        "id": show("cnv", conversion.id),
        "venue": trade.venue,
        "reference": trade.reference,
        "traded_at": rfc3339(trade.traded_at),
        "currency": trade.currency,
        "paid": show_amount(from_minor(trade.paid_minor, known)),
        "fee": show_amount(from_minor(trade.fee_minor, known)),
        "bought_wei": str(trade.bought_wei),
        "price_with_fee": show_amount(to_decimals(price_of([trade]), RATE_DECIMALS)),
        **_record(conversion),
    }


def movement_document(movement: Movement) -> Document:
    moved = movement.moved
    return {
        "id": show("mov", movement.id),
        "chain_id": moved.chain_id,
        "transaction_hash": f"0x{moved.transaction_hash.hex()}",
        "block_number": moved.block_number,
        "kind": moved.kind,
        "sender": checksum_address(moved.sender),
        "amount_wei": str(moved.amount_wei),
        **_record(movement),
    }


def report_document(report: TreasuryReport) -> Document:
    """Amounts are exact, but for those under `rounding`."""
    return {
        "begins_at": rfc3339(report.period.begins_at),
        "ends_at": rfc3339(report.period.ends_at),
        "taken_at": rfc3339(report.taken_at),
        "bought": [_bought(each) for each in _by_currency(report)],
        "gateways": [
            {"gateway_id": show("gw", each.gateway_id), "gateway": each.gateway, **_margin(each.margin)}
            for each in report.gateways
        ],
        "totals": [_margin(total) for total in report.totals],
        "luck": _luck(report.luck) if report.luck is not None else None,
        "not_known": list(report.not_known),
        "rounding": {
            "average_price": RATE_DECIMALS, "cost_as_bought": RATE_DECIMALS, "margin_as_bought": RATE_DECIMALS,
            "luck.deviations": DEVIATION_DECIMALS, "how": "decimals, half away from zero, each from its exact value",
        },
    }  # fmt: skip


def _by_currency(report: TreasuryReport) -> list[list[Conversion]]:
    currencies = dict.fromkeys(each.trade.currency for each in report.conversions)
    return [[each for each in report.conversions if each.trade.currency == one] for one in sorted(currencies)]


def purchase_document(purchase: Purchase) -> Document:
    """The cost is rounded up to the minor unit."""
    escrow, wallet = purchase.escrow, purchase.wallet
    return {
        "sender": checksum_address(escrow.sender),
        "observed_at": rfc3339(escrow.observed_at),
        "block_number": escrow.block_number,
        "escrow": {"deposit_wei": str(escrow.deposit_wei), "reserve_wei": str(escrow.reserve_wei)},
        "target": {
            "horizon_s": purchase.horizon_s,
            "confidence_bps": purchase.confidence_bps,
            "coverage_bps": purchase.target_bps,
        },
        "burn_wei_per_day": str(purchase.burn_wei_per_day),
        "missing": _amounts(purchase.missing),
        "wallet": {
            "payer": checksum_address(wallet.payer),
            "balance_wei": str(wallet.balance_wei),
            "balance_at": rfc3339(wallet.balance_at),
            "usable_wei": str(wallet.usable_wei),
        } if not isinstance(wallet, str) else None,
        "wallet_not_known": wallet if isinstance(wallet, str) else None,
        "held_wei": str(purchase.held_wei),
        "buy": {**_amounts(purchase.buy), "total_wei": str(purchase.buy.total_wei)},
        "costs": [_cost(purchase, currency, price) for currency, price in purchase.prices.items()],
    }  # fmt: skip


def _amounts(amounts: Amounts) -> Document:
    """In the order in which they are funded."""
    return {"reserve_wei": str(amounts.reserve_wei), "deposit_wei": str(amounts.deposit_wei)}


def _cost(purchase: Purchase, currency: str, price: EthPrice | str) -> Document:
    if isinstance(price, str):
        return {"currency": currency, "amount": None, "price": None, "source": None, "missing": price}
    amount = from_minor(cost_minor(purchase.buy.total_wei, price), account_currency(currency))
    return {
        "currency": currency, "amount": show_amount(amount), "price": show_amount(price.value), "source": price.source,
        "missing": None,
    }  # fmt: skip


def _bought(conversions: list[Conversion]) -> Document:
    trades = [each.trade for each in conversions]
    known = account_currency(trades[0].currency)
    return {
        "currency": known.code,
        "paid": show_amount(from_minor(sum(trade.paid_minor for trade in trades), known)),
        "fee": show_amount(from_minor(sum(trade.fee_minor for trade in trades), known)),
        "bought_wei": str(sum(trade.bought_wei for trade in trades)),
        "average_price": show_amount(to_decimals(price_of(trades), RATE_DECIMALS)),
        "conversions": [show("cnv", each.id) for each in conversions],
    }


def _margin(margin: Margin) -> Document:
    used = margin.used
    return {
        "currency": used.currency,
        "calls_count": used.calls_count,
        "charged": show_amount(used.charged),
        "rerated": show_amount(used.rerated),
        "ev_wei": str(used.ev_wei),
        "cost_as_priced": show_amount(used.cost_as_priced),
        "margin_as_priced": show_amount(margin.as_priced),
        "cost_as_bought": _rounded(margin.cost_as_bought),
        "margin_as_bought": _rounded(margin.as_bought),
    }


def _rounded(value: Fraction | None) -> str | None:
    return None if value is None else show_amount(to_decimals(value, RATE_DECIMALS))


def _luck(luck: Luck) -> Document:
    deviations = None
    if luck.deviation_wei:
        deviations = show_amount(to_decimals(Fraction(luck.spread_wei, luck.deviation_wei), DEVIATION_DECIMALS))
    return {
        "tickets_count": luck.tickets_count,
        "expected_wei": str(luck.expected_wei),
        "redeemed_count": luck.redeemed_count,
        "redeemed_wei": str(luck.redeemed_wei),
        "spread_wei": str(luck.spread_wei),
        "deviation_wei": str(luck.deviation_wei),
        "deviations": deviations,
    }


def record_document(record: Record) -> Document:
    if isinstance(record, Conversion):
        return conversion_document(record)
    assert isinstance(record, Movement), "there is no other"
    return movement_document(record)


def _record(record: Record) -> Document:
    voided = None
    if record.voided_at is not None:
        voided = {"at": rfc3339(record.voided_at), "by": record.voided_by, "reason": record.void_reason}
    return {
        "note": record.note,
        "recorded_at": rfc3339(record.recorded_at),
        "recorded_by": record.recorded_by,
        "voided": voided,
    }
