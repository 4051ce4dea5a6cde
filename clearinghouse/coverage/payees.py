"""The orchestrators that a sender's tickets go to: what each can still quote, and whether that is what it asks.

An orchestrator takes no face value above its share of the reserve, less what it has claimed of it in this round: it
shrinks its tickets, or refuses the sender (remote-signer protocol, 8.5). So what one of them quotes may be less than
what others do. And one that asks for more than its share gets it from the deposit alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, LiteralString, NamedTuple

from chain.chain_reading import claimed_at_most_wei
from chain.coverage import Standing
from chain.escrow_reader import CLAIMANTS_MAX_COUNT
from clearinghouse.coverage.book import Connection, open_parameters
from clearinghouse.coverage.escrows import Escrow
from clearinghouse.coverage.open_tickets import OPEN

#: Who has claimed in this round comes first, then who has the most that is open. Of what the webhook approved no
#: recipient is known: there it is only those who claimed.
_PAYEES: Final[LiteralString] = f"""
    WITH claimant AS (
        SELECT DISTINCT party::bytea AS recipient FROM escrow_event
         WHERE kind = 'reserve_claimed' AND sender = %(sender)s
           AND block_number >= (SELECT coalesce(max(block_number), 0) FROM protocol_round WHERE round <= %(round)s)),
    payee AS (
        SELECT recipient, sum(ev_numerator) AS ev, (array_agg(face_value_wei ORDER BY issued_hour DESC,
               face_value_wei DESC) FILTER (WHERE num_tickets > 0))[1] AS asked_wei
          FROM exposure_entry WHERE recipient IS NOT NULL AND {OPEN} GROUP BY recipient)
    SELECT recipient, asked_wei::text FROM claimant FULL JOIN payee USING (recipient)
     ORDER BY claimant.recipient IS NULL, ev DESC NULLS LAST, recipient LIMIT %(count)s
"""  # noqa: S608 - of texts of our own


class Payee(NamedTuple):
    """`asked_wei`: the largest face value of the tickets that it was issued last, within their hour; None where none of
    its tickets was seen."""

    recipient: bytes
    asked_wei: int | None


class Quote(NamedTuple):
    """What one orchestrator computes of the sender, as we compute it for it."""

    recipient: bytes
    claimed_wei: int
    #: Otherwise it is what all of them together have claimed, and so at most this.
    is_claim_exact: bool
    #: And so the largest face value that it quotes.
    reserve_share_wei: int
    #: The largest ticket that may still be issued to it.
    issuable_face_value_wei: int
    asked_wei: int | None

    @property
    def asks_too_much(self) -> bool:
        """It has quoted more than its share is by now: the next time it quotes less, or refuses."""
        return self.asked_wei is not None and self.asked_wei > self.reserve_share_wei

    @property
    def is_special(self) -> bool:
        """Whether there is more to say of it than of any orchestrator."""
        return self.claimed_wei > 0 or self.asks_too_much


async def read_payees(connection: Connection, escrow: Escrow) -> list[Payee]:
    """Those of whom it matters what they have claimed, the most important first, and not more than are asked about.

    Raises psycopg.OperationalError.
    """
    parameters = open_parameters(escrow) | {"count": CLAIMANTS_MAX_COUNT}
    rows = await (await connection.execute(_PAYEES, parameters)).fetchall()
    return [Payee(bytes(recipient), None if asked is None else int(asked)) for recipient, asked in rows]


def quotes(escrow: Escrow, standing: Standing, payees: Iterable[Payee]) -> tuple[Quote, ...]:
    """Of each, in their order. Pure. Redemptions in flight are not seen, and taken to be none."""
    return tuple(_quote(escrow, standing, payee) for payee in payees)


def _quote(escrow: Escrow, standing: Standing, payee: Payee) -> Quote:
    claimed_wei = claimed_at_most_wei(payee.recipient, escrow.claimed_by_wei, escrow.claimed_in_round_wei)
    share_wei = standing.funds.quoted(claimed_by_it_wei=claimed_wei).max_float_wei
    return Quote(
        recipient=payee.recipient,
        claimed_wei=claimed_wei,
        is_claim_exact=escrow.claimed_in_round_wei == 0 or payee.recipient in escrow.claimed_by_wei,
        reserve_share_wei=share_wei,
        issuable_face_value_wei=min(standing.issuable_face_value_wei, share_wei),
        asked_wei=payee.asked_wei,
    )
