"""Rules about what serving processes say of themselves: signers, prices, the chain. Pure.

A fact that only a serving process knows reaches the rules through its heartbeat (clearinghouse/heartbeat.py). Where one
process sees trouble it is a warning; where all do, nothing is signed, and it is critical. Where none has a heartbeat,
nothing is known, and that is the alert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from settlement.alerts.conditions import Condition, Group, Severity, fingerprint
from settlement.alerts.observed import Observed, ServiceCheck
from settlement.alerts.words import span

#: Four heartbeats lost.
HEARTBEAT_MAX_S: Final = 20


class _CheckRule(NamedTuple):
    rule: str
    group: Group
    summary: str
    advice: str
    for_s: int
    #: Where all processes say so.
    severity: Severity = Severity.CRITICAL


#: By the name of the check.
CHECK_RULES: Final = {
    "signer": _CheckRule(
        "signer_down", Group.SIGNING, "The signer does not sign",
        "Start the signers again. `clearinghouse doctor` says what is wrong with each.", 15,
    ),
    "signer_members": _CheckRule(
        "signer_member_down", Group.SIGNING, "A signer of the pool is out",
        "The next failure stops signing: start it again.", 60, Severity.WARNING,
    ),
    "coverage": _CheckRule(
        "coverage_not_judged", Group.FUNDS, "Nobody knows what the deposit covers",
        "Where coverage is enforced, nothing is signed: see `clearinghouse coverage`, and whether a `serve` evaluates.",
        15,
    ),
    "price": _CheckRule(
        "price_stale", Group.SIGNING, "There is no fresh price of ETH",
        "`clearinghouse price` says why, and `clearinghouse price set` helps until the source is back.", 30,
    ),
    "chain": _CheckRule(
        "chain_stale", Group.CHAIN, "The chain is not read",
        "Look at the endpoints of chain.rpc_urls; nothing is signed over a reading that is too old.", 15,
    ),
    "chain_agreement": _CheckRule(
        "rpc_disagreement", Group.CHAIN, "RPC endpoints disagree about a block",
        "Find out which one is wrong, and take it off chain.rpc_urls.", 30,
    ),
}  # fmt: skip
#: No process has a heartbeat any more.
SERVICE_SILENT: Final = "service_silent"
#: Of each check what all processes say, and what only some say.
SERVICE_RULES: Final = (
    SERVICE_SILENT,
    *(name for rule in CHECK_RULES.values() for name in (rule.rule, f"{rule.rule}_partly")),
)


def service_conditions(observed: Observed) -> Iterator[Condition]:
    """Nothing where no process has a heartbeat: nobody serves yet, or all have taken their leave."""
    fresh = [check for check in observed.checks if _age_s(check, observed.now) <= HEARTBEAT_MAX_S]
    if observed.checks and not fresh:
        yield _silent(observed)
    for name, rule in CHECK_RULES.items():
        said = [check for check in fresh if check.name == name]
        unwell = [check for check in said if not check.is_well]
        if unwell:
            yield from _unwell(rule, unwell, is_everybody=len(unwell) == len(said))
        elif observed.checks and not fresh:
            yield Condition(rule.rule, rule.group, rule.severity, rule.summary, holds=None)
            yield Condition(f"{rule.rule}_partly", rule.group, Severity.WARNING, rule.summary, holds=None)


def _silent(observed: Observed) -> Condition:
    newest = max(observed.checks, key=lambda check: check.seen_at)
    return Condition(
        SERVICE_SILENT, Group.SIGNING, Severity.CRITICAL,
        f"No serving process has given a sign of life for {span(_age_s(newest, observed.now))}",
        facts=(("last heard of", newest.process),),
        advice="Start `clearinghouse serve`, or see why it cannot reach the database.",
        since=newest.seen_at,
    )  # fmt: skip


def _unwell(rule: _CheckRule, unwell: Sequence[ServiceCheck], *, is_everybody: bool) -> Iterator[Condition]:
    """Two alerts, because severity and name of one never change while it lasts."""
    partly = Condition(
        f"{rule.rule}_partly", rule.group, Severity.WARNING, f"{rule.summary}, says one process of several",
        advice=rule.advice, for_s=rule.for_s, since=min(check.since for check in unwell),
        facts=tuple((check.process, check.detail) for check in sorted(unwell, key=lambda check: check.process)),
        worse=fingerprint(rule.rule, {}),
    )  # fmt: skip
    if is_everybody:
        since = max(check.since for check in unwell)  # when the last one saw it too
        yield replace(partly, rule=rule.rule, severity=rule.severity, summary=rule.summary, since=since, worse=None)
    else:
        yield partly


def _age_s(check: ServiceCheck, now: datetime) -> int:
    return int((now - check.seen_at).total_seconds())
