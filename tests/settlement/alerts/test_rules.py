"""Each rule: when it holds, when not, and when nobody knows; and the words that an operator reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from math import exp, factorial
from typing import Any

import pytest

from chain.chain_reading import Lock
from chain.coverage import Level
from clearinghouse.config_alerts import AlertSettings
from settlement.alerts.burst import chance_of_at_least
from settlement.alerts.conditions import Condition, Severity
from settlement.alerts.observed import (
    CorrectionsRefused,
    ForeignRedemptions,
    JobHealth,
    Observed,
    PaymentsNow,
    Redemptions,
    StripeInbox,
    TopupStanding,
    Undelivered,
)
from settlement.alerts.rules import conditions
from settlement.alerts.thresholds import Thresholds, thresholds_of
from settlement.alerts.words import eth, percent, span
from tests.settlement.alerts.scenes import ADDRESS, ETH, NOW, SENDER, after, check, funds, seen

WELL: dict[str, Any] = {"signer_findings_critical": {}, "signer_findings_warning": {}}


def holding(observed: Observed, **firing: Any) -> dict[str, Condition]:
    return {each.rule: each for each in conditions(observed, Thresholds(), **firing) if each.holds}


def unknown(observed: Observed) -> set[str]:
    return {each.rule for each in conditions(observed, Thresholds()) if each.holds is None}


def test_where_all_is_well_nothing_holds_and_everything_is_known() -> None:
    checks = tuple(check(name, is_well=True) for name in ("signer", "price", "chain", "chain_agreement"))
    job = JobHealth("alerts-evaluate", None, 0)
    assert conditions(seen(funds=(funds(),), checks=checks, jobs=(job,), **WELL), Thresholds()) == ()


def test_the_defaults_of_the_settings_are_those_of_the_rules() -> None:
    assert thresholds_of(AlertSettings()) == Thresholds()
    assert Thresholds().deposit_warning_wei == ETH // 20
    assert Thresholds().deposit_critical_wei == ETH // 100
    assert Thresholds().reserve_warning_wei == ETH // 200


@pytest.mark.parametrize(
    ("what", "rules"),
    [
        ({"deposit_wei": ETH // 20}, set()),
        ({"deposit_wei": ETH // 20 - 1}, {"deposit_low"}),
        ({"deposit_wei": ETH // 100 - 1}, {"deposit_low", "deposit_critical"}),
        ({"reserve_wei": ETH // 200 - 1}, {"reserve_low"}),
        ({"level": Level.WATCH}, {"coverage_watch"}),
        ({"level": Level.LOW}, {"coverage_watch", "coverage_low"}),
        ({"level": Level.CRITICAL}, {"coverage_watch", "coverage_low", "coverage_critical"}),
        ({"empty_pessimistic_s": 72 * 3600 - 1}, {"empty_soon"}),
        ({"empty_pessimistic_s": 24 * 3600 - 1}, {"empty_soon", "empty_very_soon"}),
        ({"empty_pessimistic_s": None, "empty_median_s": None}, set()),
        ({"lock": Lock.UNLOCKING}, {"unlock_started"}),
        ({"lock": Lock.UNLOCKED}, {"unlock_started"}),
    ],
)
def test_funds_are_judged_by_their_bounds(what: dict[str, Any], rules: set[str]) -> None:
    assert set(holding(seen(funds=(funds(**what),), **WELL))) == rules


def test_the_worse_of_two_speaks_for_both_and_each_waits_its_time() -> None:
    found = holding(seen(funds=(funds(deposit_wei=1, level=Level.CRITICAL, empty_pessimistic_s=60),)))
    assert found["deposit_low"].worse == found["deposit_critical"].fingerprint
    assert (found["deposit_low"].for_s, found["deposit_critical"].for_s) == (600, 300)
    assert found["coverage_watch"].worse == found["coverage_low"].fingerprint
    assert found["coverage_low"].worse == found["coverage_critical"].fingerprint
    assert found["empty_soon"].worse == found["empty_very_soon"].fingerprint


def test_a_time_to_empty_that_moves_about_its_bound_does_not_end_the_alert() -> None:
    begun = holding(seen(funds=(funds(empty_pessimistic_s=71 * 3600),)))["empty_soon"]
    above = seen(funds=(funds(empty_pessimistic_s=75 * 3600),))
    assert "empty_soon" not in holding(above)
    assert "empty_soon" in holding(above, firing={begun.fingerprint})
    assert "empty_soon" not in holding(seen(funds=(funds(empty_pessimistic_s=80 * 3600),)), firing={begun.fingerprint})


def test_of_funds_that_nobody_evaluates_nothing_is_known_and_that_is_the_alert() -> None:
    observed = seen(funds=(funds(NOW - timedelta(seconds=181)),), **WELL)
    assert set(holding(observed)) == {"coverage_unknown"}
    assert {"deposit_low", "coverage_critical", "unlock_started", "empty_soon"} <= unknown(observed)
    known = {each.rule: each.fingerprint for each in conditions(observed, Thresholds())}
    assert known["deposit_low"] == holding(seen(funds=(funds(deposit_wei=0),)))["deposit_low"].fingerprint


def test_without_an_outlook_the_time_left_is_not_known_and_the_rest_is() -> None:
    observed = seen(funds=(funds(burn_wei_per_day=None, empty_median_s=None, empty_pessimistic_s=None),), **WELL)
    assert unknown(observed) >= {"empty_soon", "empty_very_soon"}
    assert "deposit_low" not in unknown(observed)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("signer", "signer_down"), ("price", "price_stale"), ("chain", "chain_stale"),
        ("chain_agreement", "rpc_disagreement"), ("coverage", "coverage_not_judged"),
    ],
)  # fmt: skip
def test_trouble_of_one_process_is_a_warning_and_of_all_critical(name: str, rule: str) -> None:
    well, unwell = check(name, is_well=True), check(name, process="host:2", since=after(-60))
    partly = holding(seen(checks=(well, unwell)))
    assert set(partly) == {f"{rule}_partly"}
    assert partly[f"{rule}_partly"].severity is Severity.WARNING
    assert partly[f"{rule}_partly"].facts == (("host:2", "refused"),)
    wholly = holding(seen(checks=(check(name), unwell)))
    assert set(wholly) == {rule}
    assert wholly[rule].severity is Severity.CRITICAL
    assert wholly[rule].since == NOW, "when the last of them saw it"
    assert partly[f"{rule}_partly"].worse == wholly[rule].fingerprint


def test_silence_of_every_process_is_an_alert_and_says_nothing_of_the_rest() -> None:
    observed = seen(checks=(check("signer", seen_at=after(-30)), check("price", seen_at=after(-21))))
    assert set(holding(observed)) == {"service_silent"}
    assert {"signer_down", "price_stale", "rpc_disagreement_partly"} <= unknown(observed)
    assert holding(seen(**WELL)) == {}, "where nobody has served yet there is nobody to miss"


def test_foreign_redemptions_name_the_transaction() -> None:
    foreign = ForeignRedemptions(SENDER, 2, 3 * ETH, b"\xab" * 32)
    found = holding(seen(foreign=(foreign,)))["foreign_redemption"]
    assert found.severity is Severity.CRITICAL
    assert dict(found.facts)["newest transaction"] == "0x" + "ab" * 32
    assert dict(found.facts)["face value"] == "3 ETH"


def test_more_winners_than_chance_has_is_a_burst_and_as_many_as_expected_is_not() -> None:
    def redeemed(count: int, expected: float | None) -> Observed:
        return seen(redemptions=(Redemptions(SENDER, 86_400, count, expected),), **WELL)

    assert holding(redeemed(12, 10.0)) == {}
    assert set(holding(redeemed(40, 10.0))) == {"redemption_burst"}
    assert set(holding(redeemed(1, 0.0))) == {"redemption_burst"}, "nothing could win"
    assert unknown(redeemed(40, None)) == {"redemption_burst"}


@pytest.mark.parametrize("expected", [0.001, 0.5, 3.0, 20.0, 150.0])
@pytest.mark.parametrize("count", [1, 2, 5, 30, 160])
def test_poissons_tail_is_the_sum_of_its_terms(count: int, expected: float) -> None:
    mean = Fraction(expected)
    below = exp(-expected) * float(sum(mean**n / factorial(n) for n in range(count)))
    assert chance_of_at_least(count, expected) == pytest.approx(1 - below, abs=1e-12)


def test_poissons_tail_keeps_its_digits_where_it_is_tiny_and_its_ends_are_exact() -> None:
    assert chance_of_at_least(10, 0.01) == pytest.approx(0.01**10 / factorial(10), rel=0.02)
    assert chance_of_at_least(100_000, 50_000.0) < 1e-300
    assert chance_of_at_least(0, 5.0) == 1
    assert chance_of_at_least(1, 0.0) == 0


def test_findings_between_reports_and_books_are_critical_or_not_by_their_kind() -> None:
    found = holding(
        seen(signer_findings_critical={"event_without_issuance": 2}, signer_findings_warning={"sequence_missing": 1})
    )
    assert found["signer_used_elsewhere"].severity is Severity.CRITICAL
    assert found["signer_events_missing"].facts == (("sequence_missing", "1"),)


def test_books_that_do_not_add_up_are_critical_and_no_mere_failure_of_a_job() -> None:
    job = JobHealth("ledger-verify", None, 3, "LedgerNotInOrder", "violations of balances: 1")
    found = holding(seen(jobs=(job,)))
    assert set(found) == {"ledger_verify_failed"}
    assert found["ledger_verify_failed"].severity is Severity.CRITICAL


def test_a_job_that_is_late_or_fails_twice_is_a_warning() -> None:
    late, once = JobHealth("a", "was due at noon", 0), JobHealth("b", None, 1, "OSError", "x")
    twice = JobHealth("c", None, 2, "OSError", "no route")
    found = conditions(seen(jobs=(late, once, twice), **WELL), Thresholds())
    assert [(each.rule, dict(each.labels)) for each in found] == [
        ("job_late", {"job": "a"}), ("job_failing", {"job": "c"}),
    ]  # fmt: skip


def test_a_wallet_with_little_gas_and_a_top_up_that_waits_are_warnings() -> None:
    standing = TopupStanding("dry_run", "1 ETH would be sent", NOW, SENDER, ETH // 1000, balance_is_low=True)
    found = holding(seen(topups=standing))
    assert found["gas_low"].summary == f"The wallet {ADDRESS} has 0.001 ETH left"
    assert found["topup_waits"].summary == "A top-up is not sent: 1 ETH would be sent"
    assert "topups.mode" in found["topup_waits"].advice, "it says what to do"
    newer = holding(seen(topups=replace(standing, condition="of_another_version")))
    assert "topup plan" in newer["topup_waits"].advice
    hindered = holding(seen(topups=replace(standing, condition="no_advice")))
    told_after_s = [each["topup_waits"].for_s for each in (found, hindered)]
    assert told_after_s == [0, 30], "at a start nothing was computed yet, which passes"
    well = TopupStanding(None, "nothing due", NOW, SENDER, ETH, balance_is_low=False)
    assert holding(seen(topups=well)) == {}


def test_a_channel_that_takes_nothing_is_told_on_the_others() -> None:
    waits = Undelivered("pager", 0, after(-601), "refused")
    assert dict(holding(seen(undelivered=(waits,)))["channel_failing"].facts)["channel"] == "pager"
    assert holding(seen(undelivered=(Undelivered("pager", 0, after(-60), "refused"),))) == {}
    assert set(holding(seen(undelivered=(Undelivered("pager", 1, None, "refused"),)))) == {"channel_failing"}


def test_events_of_the_chain_that_nobody_reads_are_a_warning() -> None:
    assert set(holding(seen(chain_indexed_at=after(-121)))) == {"chain_not_indexed"}
    assert holding(seen(chain_indexed_at=after(-100))) == {}


def test_unpaid_invoices_are_told_of() -> None:
    assert set(holding(seen(unpaid_invoices_count=2))) == {"invoices_unpaid"}


def test_corrections_that_came_to_nothing_are_told_of_and_each_further_one_is_news() -> None:
    refused = holding(seen(corrections_refused=CorrectionsRefused(2, "crn_1", "Stripe refused it")))
    assert set(refused) == {"correction_refused"}
    condition = refused["correction_refused"]
    assert (condition.severity, condition.news) == (Severity.WARNING, "crn_1")
    assert dict(condition.facts)["says"] == "Stripe refused it"
    assert holding(seen(corrections_refused=CorrectionsRefused(0, "", ""))) == {}


def test_events_of_stripes_that_are_parked_are_critical_and_each_further_one_is_news() -> None:
    parked = holding(seen(stripe=StripeInbox(2, "evt_2", "no such payment", 0, None)))
    assert set(parked) == {"stripe_events_parked"}
    condition = parked["stripe_events_parked"]
    assert (condition.severity, condition.news) == (Severity.CRITICAL, "evt_2")
    assert dict(condition.facts)["says"] == "no such payment"
    assert holding(seen(stripe=StripeInbox(0, "", "", 0, None))) == {}


def test_events_of_stripes_that_wait_for_long_are_a_warning() -> None:
    waiting = holding(seen(stripe=StripeInbox(0, "", "", 3, after(-601))))
    assert set(waiting) == {"stripe_events_waiting"}
    assert waiting["stripe_events_waiting"].for_s == 60, "what is to be done again is old, and done in a moment"
    assert holding(seen(stripe=StripeInbox(0, "", "", 3, after(-599)))) == {}


def test_disputes_are_told_of_with_the_day_until_which_they_can_be_answered_and_each_further_one_is_news() -> None:
    disputed = holding(seen(payments=PaymentsNow(2, "dp_2", after(86_400), 0, None)))
    assert set(disputed) == {"dispute_open"}
    assert disputed["dispute_open"].news == "dp_2"
    assert holding(seen(payments=PaymentsNow(0, "", None, 0, None))) == {}


def test_payments_that_nobody_asks_stripe_for_are_a_warning() -> None:
    assert set(holding(seen(payments=PaymentsNow(0, "", None, 3, after(-601))))) == {"payments_waiting"}
    assert holding(seen(payments=PaymentsNow(0, "", None, 3, after(-599)))) == {}


def test_a_fingerprint_is_of_rule_and_labels_alone() -> None:
    low, lower = (holding(seen(funds=(funds(deposit_wei=wei),)))["deposit_low"] for wei in (1, 2))
    assert low.fingerprint == lower.fingerprint
    another = holding(seen(funds=(funds(sender=b"\x01" * 20, deposit_wei=1),)))["deposit_low"]
    assert low.fingerprint != another.fingerprint


@pytest.mark.parametrize(
    ("wei", "shown"),
    [
        (0, "0 ETH"), (ETH, "1 ETH"), (49_999_999_999_999_999, "0.049999 ETH"), (123, "0.000000000000000123 ETH"),
        (10**12 - 1, "0.0000009999 ETH"), (1234 * ETH + ETH // 2, "1234.5 ETH"),
    ],
)  # fmt: skip
def test_an_amount_is_cut_and_never_rounded_up(wei: int, shown: str) -> None:
    assert eth(wei) == shown


def test_times_and_shares_are_shown_as_people_say_them() -> None:
    assert [span(s) for s in (45, 600, 39_000, 300_000)] == ["45 s", "10 minutes", "10 h 50 min", "3 days 11 h"]
    assert percent(12_345) == "123.45 %"
