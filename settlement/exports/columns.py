"""The columns of an export, which are those of an issuance over HTTP, and what kind of value each has."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """How a value is written where a form has more than texts."""

    TEXT = auto()  # from somebody else: a spreadsheet could take it for a formula
    NAME = auto()  # of ours: an id, an address, a currency
    COUNT = auto()  # an integer of at most 64 bits
    WEI = auto()  # an integer; sums of it stay below 10^38
    DIGITS = auto()  # an exact decimal or a 256-bit integer: wider than most readers' numbers, so a text everywhere
    INSTANT = auto()  # UTC, microseconds


#: In the order of `issuance_json`; a test compares the two.
COLUMNS: Final[dict[str, Kind]] = {
    "id": Kind.NAME,
    "session_id": Kind.NAME,
    "key_id": Kind.NAME,
    "num_tickets": Kind.COUNT,
    "ev_wei": Kind.WEI,
    "fee_wei": Kind.WEI,
    "charge": Kind.DIGITS,
    "currency": Kind.NAME,
    "price": Kind.DIGITS,
    "price_source": Kind.TEXT,
    "price_observed_at": Kind.INSTANT,
    "markup_bps": Kind.COUNT,
    "balance_after": Kind.DIGITS,
    "created_at": Kind.INSTANT,
    "manifest_id": Kind.TEXT,
    "app": Kind.TEXT,
    "job_type": Kind.TEXT,
    "pipeline": Kind.TEXT,
    "model": Kind.TEXT,
    "orchestrator": Kind.NAME,
    "recipient": Kind.NAME,
    "transcoder": Kind.TEXT,
    "end_user": Kind.TEXT,
    "first_nonce": Kind.COUNT,
    "face_value_wei": Kind.DIGITS,
    "win_prob": Kind.DIGITS,
    "way": Kind.NAME,
    "rate_card": Kind.NAME,
    "rate_version": Kind.COUNT,
    "rate_per": Kind.NAME,
    "rate_quantity": Kind.NAME,
    "rerated_charge": Kind.DIGITS,
    "rerated_by": Kind.NAME,
}

#: What the webhook is not shown of the tickets it approves, and what is said of charges by a rate card alone, or of
#: those that were rated anew.
NULLABLE: Final = frozenset(
    {
        "recipient", "face_value_wei", "win_prob", "rate_card", "rate_version", "rate_per", "rate_quantity",
        "rerated_charge", "rerated_by",
    }
)  # fmt: skip
