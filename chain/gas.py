"""What is paid for gas: what a first transaction offers, what one offers that is to replace it, and never more than
the caps.

Amounts are wei per unit of gas. A node takes a replacement only where both fees are higher than before by at least a
tenth; an eighth satisfies those that ask for more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from chain.transactions import Fees

_RAISE_NUMERATOR: Final = 9
_RAISE_DENOMINATOR: Final = 8
#: A base fee can rise by an eighth a block: twice of it lasts for six full blocks, and on Arbitrum for long.
_BASE_FEES_COUNT: Final = 2
#: On Arbitrum an estimate has the price of L1 in it, which moves until the transaction is mined.
_MARGIN_NUMERATOR: Final = 5
_MARGIN_DENOMINATOR: Final = 4


class FeeCaps(NamedTuple):
    """The most that is offered; `priority_wanted_wei` is where it begins."""

    max_per_gas_wei: int
    priority_max_per_gas_wei: int
    priority_wanted_wei: int
    gas_limit_max_count: int


class TooExpensive(Exception):
    """A cap forbids it. The text has the numbers."""


def gas_limit(estimated_count: int, caps: FeeCaps) -> int:
    """Units of gas that are allowed for: the estimate and a quarter. Raises TooExpensive."""
    limit = -(-estimated_count * _MARGIN_NUMERATOR // _MARGIN_DENOMINATOR)
    if limit > caps.gas_limit_max_count:
        raise TooExpensive(f"it would need up to {limit} gas, and at most {caps.gas_limit_max_count} is allowed")
    return limit


def first_fees(base_fee_wei: int, caps: FeeCaps) -> Fees:
    """For a transaction with a new nonce. Raises TooExpensive where not even the base fee of now is within the caps."""
    priority_wei = min(caps.priority_wanted_wei, caps.priority_max_per_gas_wei)
    if base_fee_wei + priority_wei > caps.max_per_gas_wei:
        raise TooExpensive(
            f"gas costs {base_fee_wei} wei now and {priority_wei} for priority, "
            f"and at most {caps.max_per_gas_wei} is allowed"
        )
    return Fees(min(_BASE_FEES_COUNT * base_fee_wei + priority_wei, caps.max_per_gas_wei), priority_wei)


def raised_fees(before: Fees, base_fee_wei: int, caps: FeeCaps) -> Fees:
    """For a replacement of a transaction with the same nonce. Raises TooExpensive where the caps leave no room."""
    priority_wei = max(_raised(before.priority_per_gas_wei), caps.priority_wanted_wei)
    max_wei = max(_raised(before.max_per_gas_wei), _BASE_FEES_COUNT * base_fee_wei + priority_wei)
    priority_wei = min(priority_wei, caps.priority_max_per_gas_wei)
    max_wei = min(max_wei, caps.max_per_gas_wei)
    if priority_wei < _raised(before.priority_per_gas_wei) or max_wei < _raised(before.max_per_gas_wei):
        raise TooExpensive(
            f"a replacement must offer {_raised(before.max_per_gas_wei)} wei for gas and "
            f"{_raised(before.priority_per_gas_wei)} for priority, and at most {caps.max_per_gas_wei} and "
            f"{caps.priority_max_per_gas_wei} are allowed"
        )
    return Fees(max_wei, priority_wei)


def _raised(fee_wei: int) -> int:
    """An eighth more, at least one wei."""
    return max(-(-fee_wei * _RAISE_NUMERATOR // _RAISE_DENOMINATOR), fee_wei + 1)
