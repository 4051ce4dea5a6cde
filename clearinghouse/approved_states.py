"""A session as the webhook knows it: the states it approved, and what the next one shown may be (promise 4).

A signer shows the state after a payment and not the one before it, so the ones that it may have come from are kept:

    sequence   k-1          k           k+1
               base ─────▶ head ─────▶ next      charged: what the balances and the time between them say
                 ├───────▶ repeat                same ticket parameters: the answer was lost; only what grew is charged
                 └───────▶ fork                  fresh ticket parameters: charged in full

Nobody tells us which of several heads arrived, so a next one may follow on each of them, and is charged for the one
that makes it worth most: never less than the exposure. Whoever fakes a lost answer can hide other tickets behind the
same nonces, which is why repeats are counted (migrations/sql/0001_webhook.sql).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from chain.payment_state import (
    REMEMBERED_STATE_BYTES_MAX,
    REMEMBERED_STATES_MAX_COUNT,
    PaymentState,
    decode_state,
    encode_state,
)
from clearinghouse.bounded import Bounded
from clearinghouse.derivation import DerivationError, Derived, TimeRanBackward, derive
from clearinghouse.errors import StateConflict
from clearinghouse.rates.usage import Work

#: Of one sequence number: they are kept with the session. Honest callers lose an answer, not this many in a row.
HEADS_MAX_COUNT: Final = 16


class Kept(NamedTuple):
    """A state, and the line that it is kept as: its JSON, which has no line break."""

    state: PaymentState
    line: bytes


class Approved(NamedTuple):
    """The newest states of a session, and all approved of the sequence number before: none before its first."""

    bases: tuple[Kept, ...]
    heads: tuple[Kept, ...]


class Due(NamedTuple):
    """Tickets, and what they are worth together, times 2^256 - 1."""

    first_nonce: int
    num_tickets: int
    ev_numerator: int


class Kind(StrEnum):
    NEXT = "next"
    FORK = "fork"
    REPEAT = "repeat"


class Step(NamedTuple):
    """A state that may be approved. Of a repeat only the part of its tickets is `charged` that was not before.

    `work` is what it was for, by the base that its tickets are worth most from; `work_before` what of it a repeat was
    charged for already.
    """

    kind: Kind
    shown: Due
    charged: Due
    fee_wei: int
    approved: Approved
    work: Work
    work_before: Work | None = None


#: States by their lines: of a session that goes on here, the newest one was written a moment ago. The same line is
#: always the same state, so it does not matter who wrote it. (What `read_state` remembers, writing does not fill.)
_WRITTEN: Final[Bounded[bytes, PaymentState]] = Bounded(REMEMBERED_STATES_MAX_COUNT)


def keep(state: PaymentState) -> Kept:
    """Raises StateError as `encode_state` does."""
    line = encode_state(state)
    if len(line) <= REMEMBERED_STATE_BYTES_MAX:
        _WRITTEN.remember(line, state)
    return Kept(state, line)


def read_approved(data: bytes) -> Approved:
    """What `write_approved` wrote."""
    kept = [Kept(_WRITTEN.get(line) or decode_state(line), line) for line in data.split(b"\n")]
    newest = kept[-1].state.sequence_number
    heads = tuple(each for each in kept if each.state.sequence_number == newest)
    return Approved(tuple(kept[: -len(heads)]), heads)


def write_approved(approved: Approved) -> bytes:
    return b"\n".join([each.line for each in (*approved.bases, *approved.heads)])


def judge(kept: Kept, approved: Approved | None, last_nonce: int) -> Step:
    """What a state is to a session; `approved` None begins one. `last_nonce` is of the state's recipientRandHash.

    AuthID, pins and the clock are the caller's to judge. Raises StateConflict.
    """
    state = kept.state
    if approved is None:
        return _charged(Kind.NEXT, state, (None,), last_nonce, Approved((), (kept,)))
    heads = [head.state for head in approved.heads]
    steps_ahead = state.sequence_number - heads[0].sequence_number
    if steps_ahead == 1:
        return _charged(Kind.NEXT, state, heads, last_nonce, Approved(approved.heads, (kept,)))
    if steps_ahead > 1:
        raise StateConflict("The payment before this one was not approved here.")
    if steps_ahead < 0:
        raise StateConflict("A later payment of this session was approved already.")
    if len(heads) >= HEADS_MAX_COUNT:
        raise StateConflict(f"This payment was approved {HEADS_MAX_COUNT} times already.")
    bases: list[PaymentState | None] = [base.state for base in approved.bases]
    bases = bases or [None]
    now_approved = approved._replace(heads=(*approved.heads, kept))
    if any(head.pm_session_id == state.pm_session_id for head in heads):
        return _repeated(state, bases, last_nonce, now_approved)
    return _charged(Kind.FORK, state, bases, last_nonce, now_approved)


def _charged(
    kind: Kind, state: PaymentState, bases: Sequence[PaymentState | None], last_nonce: int, now_approved: Approved
) -> Step:
    """As the one of the steps from `bases` that is worth most.

    One that would use nonces of its own ticket parameters again has been outgrown by a repeat: no honest caller goes on
    from it. But one that comes to the ticket parameters of another branch begins at 1 again, whatever was used there;
    the balances do not show it, so it counts among what this may be worth.
    """
    found = _derivations(state, bases)
    nonces = {(derived.first_nonce, derived.num_tickets) for derived in found if derived.first_nonce == last_nonce + 1}
    if not nonces:
        raise StateConflict("Tickets with these parameters and nonces were approved before.")
    ((first_nonce, num_tickets),) = nonces  # all of them go on with the same nonces, or all begin at 1
    possible = (derived for derived in found if derived.first_nonce in (1, first_nonce))
    dearest = max(possible, key=lambda derived: derived.ev_numerator)
    due = Due(first_nonce, num_tickets, dearest.ev_numerator)
    return Step(kind, due, due, dearest.fee.wei, now_approved, dearest.work)


def _repeated(
    state: PaymentState, bases: Sequence[PaymentState | None], last_nonce: int, now_approved: Approved
) -> Step:
    """The same tickets as one of the heads', and perhaps more of them: time has passed, and time is what is billed.

    `shown` is the most that they may be worth, from whichever base.
    """
    dearest = max(derived.ev_numerator for derived in _derivations(state, bases))
    heads = [head.state for head in now_approved.heads[:-1]]
    twins = [head for head in heads if head.pm_session_id == state.pm_session_id]
    num_tickets = state.sender_nonce - last_nonce
    for base in bases if num_tickets >= 0 else ():
        derived = _derived(state, base)
        for twin in reversed(twins):
            before = _derived(twin, base)
            if derived is not None and before is not None and _is_of_same_tickets(derived, before):
                shown = Due(derived.first_nonce, derived.num_tickets, dearest)
                ev_numerator = derived.ev_numerator // derived.num_tickets * num_tickets
                fee_wei = max(derived.fee.wei - before.fee.wei, 0)
                charged = Due(last_nonce + 1, num_tickets, ev_numerator)
                return Step(Kind.REPEAT, shown, charged, fee_wei, now_approved, derived.work, before.work)
    raise StateConflict("These nonces were approved for other tickets.")


def _is_of_same_tickets(derived: Derived, before: Derived) -> bool:
    """As far as states tell: each is worth the same, and they begin with the same nonce."""
    return (
        derived.first_nonce == before.first_nonce
        and derived.ev_numerator * before.num_tickets == before.ev_numerator * derived.num_tickets
    )


def _derivations(state: PaymentState, bases: Sequence[PaymentState | None]) -> list[Derived]:
    """From every base that the state follows from. Raises StateConflict where it follows from none.

    And where it is older than one of them: a signer whose clock is behind bills that step for more seconds than went by
    (A22), and so the others would say too little.
    """
    found: list[Derived] = []
    reason = ""
    for base in bases:
        try:
            found.append(derive(state, base))
        except TimeRanBackward as error:
            raise StateConflict(f"The state {error}") from error
        except DerivationError as error:
            reason = str(error)
    if not found:
        raise StateConflict(f"The state {reason}")
    return found


def _derived(state: PaymentState, base: PaymentState | None) -> Derived | None:
    try:
        return derive(state, base)
    except DerivationError:
        return None
