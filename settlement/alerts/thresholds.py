"""The bounds that rules judge by, as the settings have them."""

from __future__ import annotations

from typing import NamedTuple

from clearinghouse.config_alerts import AlertSettings


class Thresholds(NamedTuple):
    """Amounts in wei, times in seconds. The defaults are those of the settings."""

    deposit_warning_wei: int = 5 * 10**16
    deposit_warning_for_s: int = 600
    deposit_critical_wei: int = 10**16
    deposit_critical_for_s: int = 300
    reserve_warning_wei: int = 5 * 10**15
    empty_warning_s: int = 72 * 3600
    empty_critical_s: int = 24 * 3600
    burst_probability_max_ppm: int = 1
    unknown_after_s: int = 180


def thresholds_of(settings: AlertSettings) -> Thresholds:
    return Thresholds(
        deposit_warning_wei=settings.deposit_warning_wei,
        deposit_warning_for_s=settings.deposit_warning_for_s,
        deposit_critical_wei=settings.deposit_critical_wei,
        deposit_critical_for_s=settings.deposit_critical_for_s,
        reserve_warning_wei=settings.reserve_warning_wei,
        empty_warning_s=settings.empty_warning_hours * 3600,
        empty_critical_s=settings.empty_critical_hours * 3600,
        burst_probability_max_ppm=settings.burst_probability_max_ppm,
        unknown_after_s=settings.unknown_after_s,
    )
