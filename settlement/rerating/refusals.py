"""Why a period is not rated anew, and what to do then: each kind of reason has its own next step."""

from __future__ import annotations

from clearinghouse.errors import Conflict


class NotToBeRerated(Conflict):
    """What a period should have been charged cannot be said, or what was asked for it cannot be taken back."""

    what_next = (
        "Nothing was done. Correct it by hand: `clearinghouse invoices credit`, or `clearinghouse credit grant`."
    )


class ReratingBusy(Conflict):
    """Something else is under way, and ends by itself. Nothing was done."""

    what_next = "Give the same command again later; correct nothing by hand meanwhile."


class ReratingHeld(Conflict):
    """It was begun, and what was changed at Stripe keeps it from going on. It stays begun."""

    what_next = (
        "Put right what it says, and give the same command again: it goes on where it was. Correct nothing by hand, or "
        "the period is corrected twice."
    )


class RatedAlready(Conflict):
    """A later version than the one that is meant was used for the period."""

    what_next = "Where that is wrong, too, apply a further version: `clearinghouse rates apply --correction`."


class BooksDiffer(Conflict):
    """The calls of a period are not those that were closed with it. Nothing was done."""

    what_next = "Find out what differs, before anything is corrected: `clearinghouse ledger verify`."
