"""How long the deposit lasts and what to add to it: the chances that `chain.payouts` gives of one sender's funds.

Imported by what looks ahead in a process of its own, never by what signs: numpy takes memory and time to load.

What is open is counted by the view that weighs silence where it says when something happens, and by the worst case
where it says how much to send: too much lies idle, too little turns everybody away.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from chain.exposure import TopUp, exposure, top_up
from chain.outlook_document import (
    HORIZON_MAX_S,
    Issued,
    Outlook,
    Question,
    WindowOutlook,
)
from chain.payouts import Flow, Payouts
from chain.tickets import WIN_PROB_CERTAIN

_DAY_S: Final = 86_400
#: Of the windows at least as long as this, the one with the highest burn is the present. A single busy hour is shown,
#: but nobody is woken for it; a day that has become busy counts at once, and a quiet one not before the week is.
PRESENT_MIN_S: Final = 6 * 3600
#: How probable it is that the deposit is empty by the pessimistic time.
PESSIMISTIC: Final = 0.05


def outlook(question: Question) -> Outlook:
    """The answer. Raises ValueError for a confidence that is too near to 1 for payouts to be told apart."""
    windows = tuple(_window(question, issued) for issued in question.windows)
    present = max(windows, key=_by_burn, default=None)
    flow = next((_flow(each) for each in question.windows if present and each.window_s == present.window_s), [])
    return Outlook(
        exhausted_probability=_exhausted(question, Payouts(question.worst)),
        posterior_exhausted_probability=_exhausted(question, Payouts(question.posterior)),
        horizon_s=question.horizon_s,
        windows=windows,
        present=present,
        top_up=_top_up(question, flow),
    )


def _by_burn(window: WindowOutlook) -> tuple[bool, int]:
    return window.window_s >= PRESENT_MIN_S, window.burn_wei_per_day


def _flow(issued: Issued) -> list[Flow]:
    return [Flow(*each, issued.period_s) for each in issued.tickets]


def _is_exhausted(question: Question) -> bool:
    """Nothing has to be drawn from a deposit that is empty or leaves."""
    return question.funds.is_leaving or not question.funds.deposit_wei


def _exhausted(question: Question, payouts: Payouts, *, horizon_s: int = 0, besides_wei: int = 0) -> float:
    """That the deposit is, and `besides_wei` too."""
    amount_wei = 0 if question.funds.is_leaving else question.funds.deposit_wei + besides_wei
    return payouts.exceed(amount_wei, horizon_s=horizon_s) if amount_wei else 1.0


def _window(question: Question, issued: Issued) -> WindowOutlook:
    flow, horizon_s = _flow(issued), question.horizon_s
    sums = exposure(issued.tickets)
    burn_wei = -(-sums.ev_numerator * _DAY_S // (WIN_PROB_CERTAIN * issued.period_s))
    looked_at_s = _likely_empty_s(question, burn_wei, sums.face_value_max_wei)
    payouts = Payouts(question.posterior, flow, horizon_max_s=max(horizon_s, looked_at_s))

    def empty_s(probability: float) -> int | None:
        if _is_exhausted(question):
            return 0
        return payouts.exceeded_after_s(question.funds.deposit_wei, probability)

    return WindowOutlook(
        window_s=issued.window_s,
        burn_wei_per_day=burn_wei,
        exhausted_probability=_exhausted(question, payouts, horizon_s=horizon_s),
        reserve_exhausted_probability=_exhausted(
            question, payouts, horizon_s=horizon_s, besides_wei=question.funds.reserve_wei
        ),
        empty_median_s=empty_s(0.5),
        empty_pessimistic_s=empty_s(PESSIMISTIC),
    )


def _likely_empty_s(question: Question, burn_wei_per_day: int, face_value_wei: int) -> int:
    """By when a deposit is empty all but surely: four deviations later than on average, within a year.

    A stream that pays m on average, in winners of F at most, varies by F·m at most.
    """
    if not burn_wei_per_day:
        return 0
    deposit_wei = question.funds.deposit_wei
    paid_wei = deposit_wei + 4 * isqrt(deposit_wei * face_value_wei) + 16 * face_value_wei
    return min(-(-paid_wei * _DAY_S // burn_wei_per_day), HORIZON_MAX_S)


def _top_up(question: Question, flow: list[Flow]) -> TopUp:
    funds, horizon_s = question.funds, question.horizon_s
    payouts = Payouts(question.worst, flow, horizon_max_s=horizon_s)
    quoted_wei = [each.face_value_wei for each in question.worst] + [each.face_value_wei for each in flow]
    missing = top_up(
        deposit_wei=funds.deposit_wei,
        reserve_wei=funds.reserve_wei,
        claimed_in_round_wei=0,  # counts towards shares only until the round ends, which the horizon outlasts
        pool_size_count=funds.pool_size_count,
        needed_deposit_wei=payouts.quantile_wei(question.confidence, horizon_s=horizon_s),
        face_value_wei=max(question.face_value_wei, *quoted_wei, 0),
        divisor_count=question.divisor_count,
    )
    deposit_wei = max(missing.deposit_wei, question.deposit_min_wei - funds.deposit_wei)
    return missing._replace(deposit_wei=deposit_wei)
