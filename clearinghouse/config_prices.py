"""Kinds of values that the settings of prices have, by currency."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from chain.chainlink import BASE
from chain.http_price import HttpPrice
from chain.rates import ETH, PRICE_DECIMALS
from clearinghouse.config_values import Address, ExactDecimal, name_value_lines


def _currencies(value: Any) -> Any:
    return {str(name).upper(): price for name, price in value.items()} if isinstance(value, dict) else value


def _known_currencies(prices: dict[str, Decimal]) -> dict[str, Decimal]:
    for currency in prices:
        if not re.fullmatch(r"[A-Z]{3,8}", currency):
            raise ValueError("a currency is three to eight letters, such as USD")
        if currency == ETH:
            raise ValueError("the price of ETH in ETH is 1 and cannot be declared")
    return prices


def _feed_currencies(feeds: dict[str, str]) -> dict[str, str]:
    for currency in feeds:
        if not re.fullmatch(r"[A-Z]{3,8}", currency) or currency in {ETH, BASE}:
            raise ValueError(f"a currency is three to eight letters, such as EUR; {BASE} is read from the feed of ETH")
    return feeds


def _opinion_urls(urls: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for currency, secret in urls.items():
        if not re.fullmatch(r"[A-Z]{3,8}", currency) or currency == ETH:
            raise ValueError("a currency is three to eight letters, such as USD")
        url = secret.get_secret_value()
        try:
            HttpPrice(url, name=currency)  # connects to nothing
            is_open = urlsplit(url).scheme == "http" and urlsplit(url).hostname not in {"localhost", "127.0.0.1", "::1"}
        except ValueError:
            is_open = True
        if is_open:
            raise ValueError("https://host/path#/pointer/to/the/price is needed for each currency")
    return urls


def _price(price: Decimal) -> Decimal:
    if price <= 0 or _decimals(price) > PRICE_DECIMALS or price.adjusted() > PRICE_DECIMALS:
        raise ValueError(f"a price above 0 with at most {PRICE_DECIMALS} digits on either side is needed")
    return price


def _decimals(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "infinities do not pass _exact_decimal"
    return max(0, -exponent)


Price = Annotated[ExactDecimal, AfterValidator(_price)]
PricesByCurrency = Annotated[dict[str, Price], BeforeValidator(_currencies), AfterValidator(_known_currencies)]
FeedsByCurrency = Annotated[dict[str, Address], BeforeValidator(_currencies), AfterValidator(_feed_currencies)]
#: Secret, because services put keys into URLs; written as headers are, one `USD: URL` a line.
OpinionUrls = Annotated[
    dict[str, SecretStr], BeforeValidator(_currencies), BeforeValidator(name_value_lines), AfterValidator(_opinion_urls)
]
