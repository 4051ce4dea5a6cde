"""The belief about a pool member, without sockets or clocks."""

from __future__ import annotations

import pytest

from clearinghouse.signers.go_livepeer import Failure
from clearinghouse.signers.health import HealthPolicy, MemberHealth, Standing

POLICY = HealthPolicy(probe_interval_s=5.0, failures_to_eject=3, backoff_first_s=0.5, backoff_max_s=3.0)


def healthy() -> MemberHealth:
    health = MemberHealth(POLICY, now_s=0.0)
    health.probe_passed(now_s=0.0)
    return health


def eject(health: MemberHealth, *, now_s: float, failure: Failure = Failure.TIMED_OUT) -> None:
    epoch = health.epoch
    for _ in range(POLICY.failures_to_eject):
        health.call_failed(failure, epoch, now_s=now_s)
    assert health.standing is Standing.EJECTED


def test_a_member_is_not_used_before_it_has_proved_its_key() -> None:
    assert not MemberHealth(POLICY, now_s=0.0).is_healthy


def test_failures_in_a_row_eject_and_an_answer_between_them_does_not_let_them_add_up() -> None:
    health = healthy()
    for _ in range(5):
        health.call_failed(Failure.TIMED_OUT, health.epoch, now_s=1.0)
        health.call_failed(Failure.TIMED_OUT, health.epoch, now_s=1.0)
        health.answered(200, health.epoch, now_s=1.0)
    assert health.is_healthy
    eject(health, now_s=2.0)


def test_a_proof_of_the_key_does_not_hide_payments_that_fail() -> None:
    """A signer can answer every probe from memory and hang on every payment."""
    health = healthy()
    for second in range(POLICY.failures_to_eject):
        health.probe_passed(now_s=float(second))
        health.call_failed(Failure.TIMED_OUT, health.epoch, now_s=float(second))
    assert health.standing is Standing.EJECTED


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_complete_5xx_neither_ejects_nor_excuses(status: int) -> None:
    health = healthy()
    for _ in range(10):
        health.answered(status, health.epoch, now_s=1.0)
    assert health.is_healthy
    health.call_failed(Failure.TIMED_OUT, health.epoch, now_s=1.0)
    health.answered(status, health.epoch, now_s=1.0)
    assert health.consecutive_failures == 1


@pytest.mark.parametrize("failure", [Failure.TOO_LARGE, Failure.CLIENT_CLOSED])
def test_what_a_caller_or_we_ourselves_brought_about_is_not_held_against_a_member(failure: Failure) -> None:
    health = healthy()
    for _ in range(10):
        health.call_failed(failure, health.epoch, now_s=1.0)
    assert health.is_healthy


def test_calls_that_began_before_an_ejection_tell_nothing_when_they_fail_after_it() -> None:
    health = healthy()
    old_epoch = health.epoch
    eject(health, now_s=1.0)
    due_s = health.next_probe_s
    for _ in range(64):
        health.call_failed(Failure.TIMED_OUT, old_epoch, now_s=1.1)
    assert health.next_probe_s == due_s
    health.probe_passed(now_s=1.5)
    health.call_failed(Failure.TIMED_OUT, old_epoch, now_s=1.6)
    assert health.is_healthy


def test_the_back_off_doubles_while_probes_fail_up_to_its_limit() -> None:
    health = healthy()
    eject(health, now_s=10.0)
    waits_s = [health.next_probe_s - 10.0]
    for _ in range(4):
        health.probe_failed(Failure.CONNECTION_FAILED, now_s=10.0)
        waits_s.append(health.next_probe_s - 10.0)
    assert waits_s == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_member_on_trial_goes_at_its_first_failure_and_waits_longer_than_before() -> None:
    health = healthy()
    eject(health, now_s=0.0)
    health.probe_passed(now_s=0.5)
    health.call_failed(Failure.TIMED_OUT, health.epoch, now_s=1.0)
    assert health.standing is Standing.EJECTED
    assert health.next_probe_s == 2.0


def test_an_answer_ends_the_trial() -> None:
    health = healthy()
    eject(health, now_s=0.0)
    health.probe_passed(now_s=0.5)
    health.answered(200, health.epoch, now_s=0.6)
    health.call_failed(Failure.TIMED_OUT, health.epoch, now_s=1.0)
    assert health.is_healthy


def test_one_probe_without_an_answer_is_repeated_soon_and_the_third_ejects() -> None:
    health = healthy()
    health.probe_failed(Failure.TIMED_OUT, now_s=5.0)
    assert health.is_healthy
    assert health.next_probe_s == 5.5
    health.probe_failed(Failure.TIMED_OUT, now_s=5.5)
    health.probe_failed(Failure.TIMED_OUT, now_s=6.0)
    assert health.standing is Standing.EJECTED


def test_a_false_identity_ejects_at_once() -> None:
    health = healthy()
    health.probe_failed(Failure.IDENTITY_INVALID, now_s=5.0)
    assert health.standing is Standing.EJECTED


def test_a_wrong_key_stays_a_wrong_key_until_the_right_one_is_proved() -> None:
    health = healthy()
    health.probe_failed(Failure.WRONG_KEY, now_s=5.0)
    assert health.standing is Standing.WRONG_KEY
    for _ in range(5):
        health.probe_failed(Failure.CONNECTION_FAILED, now_s=6.0)
    assert health.standing is Standing.WRONG_KEY
    assert not health.is_last_resort
    health.probe_passed(now_s=7.0)
    assert health.is_healthy


def test_only_an_ejected_member_that_fails_fast_is_a_last_resort() -> None:
    fast, slow = healthy(), healthy()
    eject(fast, now_s=0.0, failure=Failure.CONNECTION_FAILED)
    eject(slow, now_s=0.0, failure=Failure.TIMED_OUT)
    never = MemberHealth(POLICY, now_s=0.0)
    never.probe_failed(Failure.CONNECTION_FAILED, now_s=0.0)
    assert (fast.is_last_resort, slow.is_last_resort, never.is_last_resort) == (True, False, False)


@pytest.mark.parametrize(
    "setting",
    [{"failures_to_eject": 0}, {"probe_interval_s": 0.0}, {"backoff_first_s": 0.0}, {"backoff_max_s": 0.1}],
)
def test_a_policy_that_would_never_wait_or_never_use_a_member_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is at least 1|above 0"):
        HealthPolicy(**setting)  # type: ignore[arg-type]
