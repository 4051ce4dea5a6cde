"""Rules about deposit, reserve and coverage of each sender. Pure.

Where the newest evaluation is too old nothing is known of the funds: alerts about them stay as they are, and
`coverage_unknown` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from chain.chain_reading import Lock
from chain.coverage import Level
from chain.signatures import checksum_address
from settlement.alerts.conditions import Condition, Group, Severity, fingerprint
from settlement.alerts.observed import Observed, SenderFunds
from settlement.alerts.thresholds import Thresholds
from settlement.alerts.words import eth, percent, span

#: A time to empty is an estimate that moves: its alert ends only this far above its bound, in tenths.
EMPTY_HYSTERESIS: Final = (11, 10)
_LEVELS: Final = tuple(Level)


def fund_conditions(observed: Observed, thresholds: Thresholds, firing: Collection[str]) -> Iterator[Condition]:
    """`firing` are the fingerprints of alerts that fire: an estimate has to be clearly better for one to end."""
    for funds in observed.funds:
        age_s = int((observed.now - funds.observed_at).total_seconds())
        rules = _FundRules(funds, thresholds, firing)
        if age_s <= thresholds.unknown_after_s:
            yield from rules.conditions()
        else:
            yield rules.unknown(age_s)
            # By name, because nothing is known: each of these may or may not hold.
            yield from (replace(rules.named(rule), holds=None) for rule in FUND_RULES)


#: All rules about funds, with the group and the severity that they always have.
FUND_RULES: Final = {
    "deposit_low": Severity.WARNING,
    "deposit_critical": Severity.CRITICAL,
    "reserve_low": Severity.WARNING,
    "coverage_watch": Severity.WARNING,
    "coverage_low": Severity.CRITICAL,
    "coverage_critical": Severity.CRITICAL,
    "empty_soon": Severity.WARNING,
    "empty_very_soon": Severity.CRITICAL,
    "unlock_started": Severity.CRITICAL,
}
#: Nobody evaluates: beside it nothing is known of the others.
COVERAGE_UNKNOWN: Final = "coverage_unknown"


@dataclass(frozen=True)
class _FundRules:
    funds: SenderFunds
    thresholds: Thresholds
    firing: Collection[str]

    def conditions(self) -> Iterator[Condition]:
        yield from self._deposit()
        yield from self._coverage()
        yield from self._empty()
        yield from self._unlock()

    def unknown(self, age_s: int) -> Condition:
        return Condition(
            COVERAGE_UNKNOWN, Group.FUNDS, Severity.CRITICAL,
            f"Nobody has evaluated the deposit of {self._address} for {span(age_s)}",
            labels=self._labels, facts=(("sender", self._address), ("last known deposit", eth(self.funds.deposit_wei))),
            advice="See whether `clearinghouse serve` runs and reads the chain. Where coverage is enforced, nothing is "
            "signed meanwhile.",
        )  # fmt: skip

    def named(self, rule: str) -> Condition:
        return Condition(rule, Group.FUNDS, FUND_RULES[rule], f"{rule} of {self._address}", labels=self._labels)

    # --- each rule ---

    def _deposit(self) -> Iterator[Condition]:
        deposit_wei, bounds = self.funds.deposit_wei, self.thresholds
        if deposit_wei < bounds.deposit_warning_wei:
            yield self._about(
                "deposit_low", "Deposit", f"{eth(deposit_wei)}, below {eth(bounds.deposit_warning_wei)}",
                ("threshold", eth(bounds.deposit_warning_wei)),
                for_s=bounds.deposit_warning_for_s, worse="deposit_critical",
            )  # fmt: skip
        if deposit_wei < bounds.deposit_critical_wei:
            yield self._about(
                "deposit_critical", "Deposit", f"{eth(deposit_wei)}, below {eth(bounds.deposit_critical_wei)}",
                ("threshold", eth(bounds.deposit_critical_wei)), for_s=bounds.deposit_critical_for_s,
            )  # fmt: skip
        if self.funds.reserve_wei < bounds.reserve_warning_wei:
            yield self._about(
                "reserve_low", "Reserve", f"{eth(self.funds.reserve_wei)}, below {eth(bounds.reserve_warning_wei)}",
                ("threshold", eth(bounds.reserve_warning_wei)),
            )  # fmt: skip

    def _coverage(self) -> Iterator[Condition]:
        reached = _LEVELS.index(self.funds.level)
        covered = percent(self.funds.coverage_bps) if self.funds.coverage_bps is not None else "unknown"
        consequences = {
            Level.WATCH: "Top up in working hours.",
            Level.LOW: "New sessions are refused until the deposit is topped up; running ones go on.",
            Level.CRITICAL: "Gateways share what is left, and are refused beyond it.",
        }
        for at, (level, consequence) in enumerate(consequences.items(), start=1):
            if reached >= at:
                yield self._about(
                    f"coverage_{level.value}", "Coverage", f"at level {level.value}: {covered}",
                    ("threshold", f"level {level.value}"), advice=consequence,
                    worse=f"coverage_{_LEVELS[at + 1].value}" if at + 1 < len(_LEVELS) else None,
                )  # fmt: skip

    def _empty(self) -> Iterator[Condition]:
        left_s = self.funds.empty_pessimistic_s
        warning_s, critical_s = self.thresholds.empty_warning_s, self.thresholds.empty_critical_s
        bounds = (("empty_very_soon", critical_s), ("empty_soon", warning_s))
        if left_s is None and self.funds.burn_wei_per_day is None:  # the outlook did not come to an end
            yield from (replace(self.named(rule), holds=None) for rule, _ in bounds)
            return
        for rule, bound_s in bounds:
            above, below = EMPTY_HYSTERESIS
            ends_s = bound_s * above // below if self._fingerprint(rule) in self.firing else bound_s
            if left_s is not None and left_s < ends_s:
                yield self._about(
                    rule, "Deposit", f"may be empty in {span(left_s)}, less than {span(bound_s)}",
                    ("threshold", span(bound_s)), worse="empty_very_soon" if rule == "empty_soon" else None,
                )  # fmt: skip

    def _unlock(self) -> Iterator[Condition]:
        if self.funds.lock is not Lock.LOCKED:
            yield self._about(
                "unlock_started", "Escrow", f"is {self.funds.lock.value}",
                ("state", self.funds.lock.value),
                advice="Orchestrators take no tickets of a sender that withdraws. If nobody here did this, the key is "
                "in other hands: cancel the unlock, and move the funds to another key.",
            )  # fmt: skip

    # --- what all have in common ---

    def _about(
        self, rule: str, what: str, summary: str, fact: tuple[str, str], *, for_s: int = 0, advice: str = "",
        worse: str | None = None,
    ) -> Condition:  # fmt: skip
        return Condition(
            rule, Group.FUNDS, FUND_RULES[rule], f"{what} of {self._address} {_is(summary)}",
            labels=self._labels, facts=(fact, *self._facts), advice=" ".join(filter(None, (advice, self._top_up))),
            for_s=for_s, worse=self._fingerprint(worse) if worse is not None else None,
        )  # fmt: skip

    def _fingerprint(self, rule: str) -> str:
        return fingerprint(rule, dict(self._labels))

    @property
    def _address(self) -> str:
        return checksum_address(self.funds.sender)

    @property
    def _labels(self) -> tuple[tuple[str, str], ...]:
        return (("sender", self._address),)

    @property
    def _facts(self) -> tuple[tuple[str, str], ...]:
        """The balance, the address, the burn and the time left, in every message about funds."""
        funds = self.funds
        facts = [("sender", self._address), ("deposit", eth(funds.deposit_wei)), ("reserve", eth(funds.reserve_wei))]
        facts.append(("coverage", percent(funds.coverage_bps) if funds.coverage_bps is not None else "nothing is open"))
        if funds.burn_wei_per_day is not None:
            facts.append(("burn", f"{eth(funds.burn_wei_per_day)} a day"))
            facts.append(("time left", _left(funds)))
        if funds.is_simulated:
            facts.append(("simulated", "the escrow is declared by settings"))
        return tuple(facts)

    @property
    def _top_up(self) -> str:
        deposit_wei, reserve_wei = self.funds.top_up_deposit_wei or 0, self.funds.top_up_reserve_wei or 0
        parts = [
            f"{eth(amount_wei)} to the {name}"
            for amount_wei, name in ((deposit_wei, "deposit"), (reserve_wei, "reserve"))
            if amount_wei
        ]
        return f"Advised top-up: {' and '.join(parts)} of {self._address}." if parts else ""


def _is(summary: str) -> str:
    return summary if summary.startswith(("is ", "may ", "at ")) else f"is {summary}"


def _left(funds: SenderFunds) -> str:
    if funds.empty_median_s is None and funds.empty_pessimistic_s is None:
        return "no end in sight"
    usual = span(funds.empty_median_s) if funds.empty_median_s is not None else "no end in sight"
    pessimistic = span(funds.empty_pessimistic_s) if funds.empty_pessimistic_s is not None else "none"
    return f"{usual} usually, {pessimistic} in one case of twenty"
