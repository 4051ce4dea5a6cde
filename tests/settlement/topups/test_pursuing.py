"""What is next for a top-up in flight, decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from chain.funding import Amounts
from chain.transactions import Fees
from chain.wallet_chain import Fate, Followed, Mined
from settlement.topups.pursuing import (
    Abandon,
    Attempt,
    End,
    Overtaken,
    Patience,
    Purpose,
    Replace,
    Send,
    Sign,
    State,
    Step,
    Topup,
    Unclear,
    Wait,
    next_step,
    step_before_sending,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PATIENCE = Patience(confirmations_count=3, stuck_after_s=120, plan_valid_s=60)
FUND = Attempt(1, Purpose.FUND, b"f" * 32, b"raw", Fees(2, 1), 100, NOW)
CANCEL = Attempt(2, Purpose.CANCEL, b"c" * 32, b"raw 2", Fees(3, 2), 100, NOW)
SENT = Topup(
    id=UUID(int=1), state=State.SENT, chain_id=1, ticket_broker=b"b" * 20, sender=b"s" * 20, payer=b"p" * 20,
    amounts=Amounts(1, 1), nonce=0, observed=Amounts(0, 0), is_cancelling=False, overtaken_since_block=None,
    created_at=NOW, ended_at=None, mined_block=None, fee_wei=None, actor="", reason="", attempts=(FUND,),
)  # fmt: skip
BOTH = replace(SENT, attempts=(FUND, CANCEL), is_cancelling=True)
SIGNED = replace(SENT, state=State.SIGNED)
PLANNED = replace(SENT, state=State.PLANNED, nonce=None, attempts=())


def mined(hash_: bytes, *, at: int = 10, good: bool = True) -> Mined:
    return Mined(hash_, at, b"h" * 32, good, 5)


def seen(fate: Fate, *, head: int = 13) -> Followed:
    return Followed(fate, head)


@pytest.mark.parametrize(
    ("topup", "followed", "after_s", "step"),
    [
        # Nothing was sent.
        (SIGNED, seen(Fate.UNKNOWN), 0, Send()),
        (SIGNED, seen(Fate.PENDING), 0, Send()),  # a process died between sending and its record
        # It waits.
        (SENT, seen(Fate.PENDING), 119, Wait()),
        (SENT, seen(Fate.PENDING), 120, Replace()),
        (SENT, seen(Fate.UNKNOWN), 119, Send()),
        (SENT, seen(Fate.UNKNOWN), 120, Replace()),
        (SENT, seen(Fate.UNDECIDED), 9999, Unclear()),
        # It is mined.
        (SENT, Followed(Fate.MINED, 12, mined(FUND.hash)), 9999, Wait()),
        (SENT, Followed(Fate.MINED, 13, mined(FUND.hash)), 0, End(State.CONFIRMED, mined(FUND.hash))),
        (SIGNED, Followed(Fate.MINED, 13, mined(FUND.hash)), 0, End(State.CONFIRMED, mined(FUND.hash))),
        (SENT, Followed(Fate.MINED, 13, mined(FUND.hash, good=False)), 0,
         End(State.FAILED, mined(FUND.hash, good=False))),
        (BOTH, Followed(Fate.MINED, 13, mined(CANCEL.hash)), 0, End(State.CANCELLED, mined(CANCEL.hash))),
        (BOTH, Followed(Fate.MINED, 13, mined(FUND.hash)), 0, End(State.CONFIRMED, mined(FUND.hash))),
        # Somebody else has the nonce.
        (SENT, seen(Fate.OVERTAKEN), 9999, Overtaken(13)),
        (replace(SENT, overtaken_since_block=11), seen(Fate.OVERTAKEN), 9999, Wait()),
        (replace(SENT, overtaken_since_block=10), seen(Fate.OVERTAKEN), 0, End(State.DISPLACED, None)),
        (replace(SENT, overtaken_since_block=10), seen(Fate.PENDING), 0, Overtaken(None)),
        (replace(SENT, overtaken_since_block=10), seen(Fate.UNDECIDED), 0, Wait()),
        (replace(SENT, overtaken_since_block=1), Followed(Fate.MINED, 13, mined(FUND.hash)), 0, Overtaken(None)),
    ],
)  # fmt: skip
def test_what_is_next_follows_from_the_rows_and_the_chain(
    topup: Topup, followed: Followed, after_s: int, step: Step
) -> None:
    found = next_step(topup, followed, NOW + timedelta(seconds=after_s), PATIENCE)
    assert (type(found), found) == (type(step), step)


@pytest.mark.parametrize(
    ("topup", "after_s", "step"),
    [(PLANNED, 60, Sign()), (PLANNED, 61, Abandon()), (PLANNED, -61, Abandon()), (SIGNED, 0, None), (SENT, 0, None)],
)
def test_a_plan_is_signed_soon_or_never(topup: Topup, after_s: int, step: Step | None) -> None:
    found = step_before_sending(topup, NOW + timedelta(seconds=after_s), PATIENCE)
    assert (type(found), found) == (type(step), step)
