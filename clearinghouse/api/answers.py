"""What a released payment looks like on our own routes, HTTP and gRPC alike: its parts and its receipt."""

from __future__ import annotations

import json

from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount
from clearinghouse.lookups import Receipt
from clearinghouse.signing import SignedAnswer
from clearinghouse.verification import AnswerParts


def answer_parts(signed: SignedAnswer) -> AnswerParts:
    """Those that were read when it was verified; those of a repeated one are read again."""
    return signed.parts or read_answer(signed.body)


def read_answer(body: bytes) -> AnswerParts:
    """The parts of a body that was verified before it was released: `verify_answer` has seen every one of them."""
    document = json.loads(body)
    state = document["state"]
    return AnswerParts(document["payment"], document["segCreds"], state["State"], state["Sig"])


def receipt_fields(receipt: Receipt) -> dict[str, str | int]:
    """A receipt as JSON has it: amounts are exact decimal strings, the time is RFC 3339 in UTC with microseconds."""
    return {**timeless_fields(receipt), "created_at": rfc3339(receipt.created_at)}


def timeless_fields(receipt: Receipt) -> dict[str, str | int]:
    """A receipt without its time, of which every wire has its own form."""
    return {
        "issuance_id": show("iss", receipt.issuance_id),
        "session_id": show("ses", receipt.session_id),
        "num_tickets": receipt.num_tickets,
        "ev_wei": str(receipt.ev_wei),
        "fee_wei": str(receipt.fee_wei),
        "charge": show_amount(receipt.charge),
        "currency": receipt.currency,
        "price": show_amount(receipt.price),
        "markup_bps": receipt.markup_bps,
        "balance": show_amount(receipt.balance),
    }
