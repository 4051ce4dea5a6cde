"""Prices: what an ETH costs, for every currency that is declared."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from chain.rates import DeclaredPrices, FreshPrices, PriceUnknown
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import PriceSettings, Settings

NAME: Final = "price"


def check(settings: Settings) -> list[Finding]:
    declared = settings.price.declared
    prices = FreshPrices(DeclaredPrices(declared, declared_at=datetime.now(UTC)), max_age_s=settings.price.max_age_s)
    if not declared:
        return [warning(NAME, "no price is declared: only accounts kept in ETH can pay", "Set price.declared.")]
    if settings.database_url is not None and declared == PriceSettings().declared:
        shown = ", ".join(f"{price:f} {currency}" for currency, price in declared.items())
        return [
            warning(
                NAME,
                f"an ETH costs {shown}: the prices built in for trying things out",
                "Set price.declared to what an ETH costs today: every charge is made with it.",
            )
        ]
    return [_of(prices, currency) for currency in declared]


def _of(prices: FreshPrices, currency: str) -> Finding:
    try:
        price = prices.price(currency)
    except PriceUnknown as reason:
        return error(NAME, str(reason), "Set price.declared.")
    return ok(NAME, f"{price.value:f} {currency} per ETH ({price.source})")
