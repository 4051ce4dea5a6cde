"""Why a credit note is not made, each with what to do next."""

from __future__ import annotations

from clearinghouse.errors import Conflict


class NotToBeCredited(Conflict):
    """There is nothing that a credit note could take back, or another one is in the way."""

    what_next = "Look at it again: `clearinghouse invoices show`."


class NoteUnderWay(NotToBeCredited):
    """Another one is not issued yet, which is known by its reason."""

    what_next = "Ask again in a minute."


class BeingPaid(NotToBeCredited):
    """A bank is about to pay the invoice: a credit note would leave that payment without one. Ends by itself."""

    what_next = (
        "Ask again once the bank has answered, which can take days; what was begun goes on by itself, and gives back "
        "of what was paid if the bank pays."
    )


class NoteRefused(Conflict):
    """Stripe said no; nothing was done."""

    what_next = "Mend what it says, and ask again."


class PaidMeanwhile(NoteRefused):
    """It would have left less to pay of an invoice that was paid before it was made; nothing was done."""

    what_next = "Look at it again, `clearinghouse invoices show`; what is asked for now gives back of what was paid."


class WayToBeSaid(NotToBeCredited):
    """It was begun, and its invoice was paid before it was made: somebody has to say how it gives back."""

    what_next = "Give the same command again with `--to refund`, `--to outside` or `--to credit`."
