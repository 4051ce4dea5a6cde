"""What usage is counted in, in the words of invoices and statements."""

from __future__ import annotations

from typing import Final, NamedTuple

from clearinghouse.rates.units import Per


class Unit(NamedTuple):
    one: str
    many: str


#: By what a rate is per. Where that is the cost, nothing is counted but calls and tickets.
UNITS: Final = {
    Per.SECOND: Unit("second", "seconds"), Per.MINUTE: Unit("minute", "minutes"),
    Per.PIXEL_SECOND: Unit("pixel", "pixels"), Per.REQUEST: Unit("request", "requests"),
}  # fmt: skip
CALL: Final = Unit("call", "calls")
TICKET: Final = Unit("ticket", "tickets")
