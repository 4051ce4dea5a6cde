"""Is it chance that so many tickets won? Poisson's tail, in logarithms, so that no count is too large for it."""

from __future__ import annotations

from math import exp, expm1, lgamma, log

#: The terms fall geometrically: what is left out after so many is nothing beside the first.
_TERMS_MAX = 10_000


def chance_of_at_least(count: int, expected: float) -> float:
    """P(X ≥ count) of a Poisson X with this mean. Winners among many tickets of small chance are no more than that:
    a sum of unequal chances has a lighter tail.

    ValueError for a negative mean.
    """
    if expected < 0:
        raise ValueError(f"a mean is not negative: {expected}")
    if count <= 0:
        return 1.0
    if expected == 0:
        return 0.0
    if count == 1:
        return -expm1(-expected)
    if count <= expected:
        return 1.0 - _sum_below(count, expected)
    term = exp(count * log(expected) - expected - lgamma(count + 1))
    total, n = term, count
    for _ in range(_TERMS_MAX):
        n += 1
        term *= expected / n
        total += term
        if term <= total * 1e-16:
            break
    return min(1.0, total)


def _sum_below(count: int, expected: float) -> float:
    """P(X < count) for a count below the mean: from its last term downwards, which is the largest."""
    n = count - 1
    term = exp(n * log(expected) - expected - lgamma(n + 1))
    total = term
    while n > 0 and term > total * 1e-16:
        term *= n / expected
        n -= 1
        total += term
    return total
