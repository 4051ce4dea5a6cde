"""A gateway whose payments come from a signer that asks the clearinghouse first: it gets tickets, and no receipts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil

import psycopg

from chain.messages import decode_payment
from clearinghouse.api.answers import read_answer
from clearinghouse.ids import parse, show
from tests.parts.client import Answer
from tests.parts.payer import Payer, Received
from tests.parts.storm import USD_PER_ETH


class SignerPayer(Payer):
    """Its `port` is the signer's. A signer that gets no consent in time answers 500, and may be asked again."""

    LOST = frozenset({500, 503})

    def _received(self, answer: Answer) -> Received:
        """By its first ticket: what it costs is said to nobody, and must be what the tickets are worth."""
        payment = decode_payment(read_answer(answer.body).payment)
        ev_wei = len(payment.nonces) * Fraction(payment.face_value_wei * payment.win_prob, 2**256 - 1)
        return Received(
            receipt=_first_ticket(payment.recipient_rand_hash, payment.nonces[0]),
            body=answer.body,
            rand_hash=payment.recipient_rand_hash,
            nonces=payment.nonces,
            signatures=payment.signatures,
            charge=Fraction(ceil(ev_wei) * USD_PER_ETH, 10**18),
            ev_wei=ev_wei,
        )


def with_receipts(conninfo: str, gateway_id: str, payers: Sequence[Payer]) -> list[Payer]:
    """The payers as they would be had they been told the issuance of each payment. AssertionError where there is none.

    Nothing may be in flight.
    """
    query = "SELECT id, recipient_rand_hash, first_nonce FROM issuance WHERE gateway_id = %s"
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(query, [parse("gw", gateway_id)]).fetchall()
    receipts = {_first_ticket(rand_hash, first_nonce): show("iss", id_) for id_, rand_hash, first_nonce in rows}
    told: list[Payer] = []
    for payer in payers:
        unpaid = payer.received.keys() - receipts.keys()
        assert not unpaid, f"tickets in hand that nobody was charged for: {unpaid}"
        twin = copy.copy(payer)
        paid = [replace(received, receipt=receipts[ticket]) for ticket, received in payer.received.items()]
        twin.received = {received.receipt: received for received in paid}
        told.append(twin)
    return told


def _first_ticket(rand_hash: bytes, nonce: int) -> str:
    return f"{rand_hash.hex()}/{nonce}"
