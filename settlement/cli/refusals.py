"""What commands of this floor end with beside refusals: Stripe that gives no answer, or says no; books that differ.

None of these is a `Refusal` where it is raised: whoever catches refusals there must not take one of them for a "no".
"""

from __future__ import annotations

from typing import Final

from clearinghouse.cli.refusals import ExplainedGroup
from clearinghouse.errors import Conflict, Refusal, Unavailable

_WORDS_CHARS_MAX: Final = 500
#: As by `invoices void --reissue`, which does not plan it twice.
_PLANNED: Final = "An invoice that it had planned by then, `clearinghouse invoices run` sees through."


class StripeGivesNoAnswer(Unavailable):
    """Nobody knows what was done. What must happen once has a row here, and a key at Stripe that follows from it."""

    code = "stripe_away"
    what_next = (
        "Nothing was lost. Run the same command again once Stripe answers: it looks first what Stripe has done, and "
        f"goes on under the same keys. {_PLANNED}"
    )


class KeyNotAccepted(Unavailable):
    """Of the API key, or of what it may do. Stripe names the permission that is missing."""

    code = "stripe_not_allowed"
    what_next = (
        "Stripe did nothing of it. Check the key of stripe.api_key_file: whether it was rolled or revoked, and has the "
        "permissions that docs/stripe.md lists; `clearinghouse doctor` tries it. Then run the same command again. "
        f"{_PLANNED}"
    )


class StripeSaysNo(Conflict):
    """The same again gets the same answer."""

    code = "stripe_refused"
    what_next = (
        "Stripe will say so again. Mend what it says, or look in Stripe's dashboard whether somebody changed something "
        "there; then run the same command again."
    )


class BooksDiffer(Conflict):
    """What was to be said of the books does not follow from them."""

    code = "books_differ"
    what_next = "Nothing was issued or written. Find out what differs: `clearinghouse ledger verify`."


class InOtherHands(Conflict):
    """Another process is at the same thing."""

    code = "in_other_hands"
    what_next = "Give the same command again in a moment."


class SettlementGroup(ExplainedGroup):
    """The root command, with what this floor knows to explain."""

    def refusal_of(self, error: Exception) -> Refusal | None:
        return super().refusal_of(error) or explained(error)


def explained(error: Exception) -> Refusal | None:
    """None for what nobody expects. It imports Stripe's SDK: only for what would be a traceback otherwise."""
    from settlement.invoices.walk import WalkedElsewhere
    from settlement.rounding import DoesNotAddUp
    from settlement.stripe_link.failures import StripeAway, StripeNotAllowed, StripeRefused

    if isinstance(error, StripeNotAllowed):
        return KeyNotAccepted(words_of(error))
    if isinstance(error, StripeAway):
        return StripeGivesNoAnswer(words_of(error))
    if isinstance(error, StripeRefused):
        named = [name for name in (error.code, error.param, error.request_id) if name]
        return StripeSaysNo(words_of(error) + (f" ({', '.join(named)})" if named else ""))
    if isinstance(error, DoesNotAddUp):
        return BooksDiffer(words_of(error))
    if isinstance(error, WalkedElsewhere):
        return InOtherHands("Another process is at this invoice.")
    return None


def words_of(error: Exception) -> str:
    """What others said, as one line that a terminal can show: not too long, and without keys."""
    from clearinghouse.log import without_secrets

    line = " ".join(without_secrets(str(error)).split())
    return "".join(each if each.isprintable() else "?" for each in line)[:_WORDS_CHARS_MAX]
