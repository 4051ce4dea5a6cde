"""Redeemed tickets of the busiest gateway there may be: what else it was issued meanwhile is not looked through."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.parts.books import Connection, commit, new_gateway, usage
from tests.parts.redeemed import Blocks, redemption

OTHERS_COUNT = 100_000
REDEEMED_COUNT = 100
TIME_MAX_S = 2
#: A day of other payments, evenly, by the time that their ids begin with.
_OTHERS = """
    CREATE TEMP TABLE others AS SELECT one.*, number FROM issuance AS one, generate_series(1, %s) AS number;
    UPDATE others SET id = uuid7_from(now() - number * interval '400 ms'), session_id = gen_random_uuid(),
                      recipient_rand_hash = decode(lpad(to_hex(number), 64, '0'), 'hex');
    ALTER TABLE others DROP COLUMN number;
    INSERT INTO issuance SELECT * FROM others;
"""


@pytest.mark.slow
def test_winners_of_a_session_of_a_day_are_found_among_all_that_its_gateway_was_issued_in_that_day(
    owner: Connection,
) -> None:
    gateway_id, key_id = new_gateway(owner)
    call = usage(gateway_id, key_id, ev_wei=REDEEMED_COUNT * 10**15, num_tickets=REDEEMED_COUNT)
    assert commit(owner, call)[0] is None
    psycopg.ClientCursor(owner).execute(_OTHERS.encode(), [OTHERS_COUNT])
    owner.execute("UPDATE session SET created_at = now() - interval '1 day'")
    owner.execute("ANALYZE issuance")
    blocks = Blocks(owner)
    blocks.add(*(
        redemption(sender=call.sender, recipient=call.recipient, rand=call.rand, nonce=nonce, face_value_wei=10**15)
        for nonce in range(1, REDEEMED_COUNT + 1)
    ))  # fmt: skip
    began_s = time.monotonic()
    assert blocks.match() == {"matched": REDEEMED_COUNT}
    elapsed_s = time.monotonic() - began_s
    print(f"{REDEEMED_COUNT} redemptions among {OTHERS_COUNT} payments in {elapsed_s:.2f} s")
    assert elapsed_s < TIME_MAX_S
