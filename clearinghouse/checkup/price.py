"""Prices: what an ETH costs, for every currency that is declared or has a feed."""

from __future__ import annotations

from typing import Final

from chain.rates import EthPrice
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import PriceSettings, Settings, missing_for_prices
from clearinghouse.price_watch import PriceWatch, prices_of, shown

NAME: Final = "price"


async def check(settings: Settings) -> list[Finding]:
    """Looks once, as a service would. What operators set by hand, the check of the database tells."""
    if settings.price.source == "declared":
        return _declared(settings)
    if missing_for_prices(settings):
        return []  # the configuration's own check says so
    async with prices_of(settings, None) as watch:
        await watch.look()
        return [_of(watch, currency) for currency in settings.price.currencies]


def _declared(settings: Settings) -> list[Finding]:
    declared = settings.price.declared
    if not declared:
        return [warning(NAME, "no price is declared: only accounts kept in ETH can pay", "Set price.declared.")]
    if settings.database_url is not None and declared == PriceSettings().declared:
        told = ", ".join(f"{price:f} {currency}" for currency, price in declared.items())
        return [
            warning(
                NAME,
                f"an ETH costs {told}: the prices built in for trying things out",
                "Set price.declared to what an ETH costs today: every charge is made with it.",
            )
        ]
    return [ok(NAME, f"{price:f} {currency} per ETH (declared)") for currency, price in declared.items()]


def _of(watch: PriceWatch, currency: str) -> Finding:
    price, comparison = watch.known()[currency], watch.comparison(currency)
    if not isinstance(price, EthPrice):
        todo = "Until there is one, calls in this currency are refused; `clearinghouse price set` helps at once."
        return error(NAME, price, todo)
    if comparison is not None and not comparison.is_agreed:
        return warning(NAME, str(comparison), "Find out who is right: calls are charged at the feed's price.")
    if (trouble := watch.opinion_troubles.get(currency)) is not None:
        return warning(
            NAME,
            f"{shown(price)}; the second opinion is missing: {trouble}",
            f"Check the URL and the pointer of {currency} in price.second_opinions.",
        )
    return ok(NAME, shown(price))
