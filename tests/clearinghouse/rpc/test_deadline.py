"""grpc-timeout, as callers say it and as they do not."""

from __future__ import annotations

import math

import pytest

from clearinghouse.rpc.deadline import timeout_s


@pytest.mark.parametrize(
    ("timeout", "wait_s"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"40m", 0.04),
        (b"500u", 0.0005),
        (b"6000n", 0.000006),
        (b"0S", 0),
        (b"99999999n", 0.099999999),
        (b"99999999H", 99_999_999 * 3600),
    ],
)
def test_a_caller_waits_as_long_as_it_says(timeout: bytes, wait_s: float) -> None:
    assert timeout_s(timeout) == pytest.approx(wait_s, rel=1e-12)


NOT_UNDERSTOOD = b"|S|1|1s|1h|-1S|+1S|1.5S| 1S|1S |1S\n|1 S|123456789S|1SS|S1|\xd9\xa1S|nan|infS|1_0S".split(b"|")


@pytest.mark.parametrize("timeout", [None, *NOT_UNDERSTOOD])
def test_who_says_nothing_that_can_be_understood_waits_without_end(timeout: bytes | None) -> None:
    assert timeout_s(timeout) == math.inf
