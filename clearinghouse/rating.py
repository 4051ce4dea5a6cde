"""What one call is charged: by the gateway's markup, or by the rule of its rate card. Pure and exact.

Where a rule counts (tiers, a floor under the sums of a month), only the commit knows how far the month has come: what
is said here is then the most that the call is charged, wherever in its month it comes; the commit says how much it is.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from chain.rates import EthPrice
from clearinghouse import pricing
from clearinghouse.rates.card import Floor
from clearinghouse.rates.quote import volume_of
from clearinghouse.rates.rules import Rule
from clearinghouse.rates.units import Per, from_grains
from clearinghouse.rates.usage import Cost, Usage


class Priced(NamedTuple):
    """A charge and what it follows from. Without a `rule_id` that is the gateway's own markup.

    `quantity` is what a rule is applied to, in the base of its unit; None where that is the cost.
    """

    charge: Decimal
    rule_id: int | None = None
    quantity: int | None = None


#: Of what is recorded and costs nothing.
FREE = Priced(Decimal(0))


def by_markup(ev_wei: int, price: EthPrice, *, markup_bps: int, minimum_charge: Decimal) -> Priced:
    """For tickets worth `ev_wei`, which is more than 0."""
    return Priced(pricing.charge(ev_wei, price=price, markup_bps=markup_bps, minimum_charge=minimum_charge))


def by_rule(rule: Rule, usage: Usage, cost: Cost, *, may_be_below_cost: bool) -> Priced:
    """For a call with tickets. Raises RateUnknown (clearinghouse.rates.card) where the rule's unit was not measured.

    A charge that depends on the month is the highest that it can be: by the dearest tier, and its own cost at least.
    """
    rate, cost_grains = rule.rate, cost.grains()
    volume = volume_of(rate, usage, cost_grains)
    grains = max(rate.grains_max(volume), rate.minimum_grains)
    if rate.floor is not Floor.NONE or not may_be_below_cost:
        grains = max(grains, cost_grains)
    return Priced(from_grains(grains), rule.id, None if rate.per is Per.COST else volume)
