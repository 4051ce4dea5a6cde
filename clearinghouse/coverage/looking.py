"""The outlook of one sender, by a process of its own: `python -m clearinghouse.coverage.looking`, question on standard
input, answer on standard output, both JSON.

Apart from the process that signs, because it takes numpy, the whole book, and up to a second of a core. It reads the
database by itself, gives way to whatever else runs on the machine, and may be ended at any moment. Half of its time is
its start: whatever it does not need, it does not import.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, NamedTuple

import psycopg

from chain.coverage import AgedTickets, Funds, Thresholds, unseen
from chain.exposure import Delays, OpenTickets, coverage_bps, exposure
from chain.outlook_document import Issued, Outlook, asked, outlook_json, read_outlook
from clearinghouse.coverage.open_tickets import OPEN, UNSEEN_FACE_VALUE_MAX

#: How much less important than signing.
NICENESS: Final = 10
#: How far back the burn is looked at: an hour for what happens now, a week for what is usual.
WINDOWS_S: Final = (3_600, 6 * 3_600, 24 * 3_600, 7 * 24 * 3_600)
#: By then a ticket has expired: two rounds, each of less than a day.
DELAY_MAX_S: Final = 48 * 3_600
#: Of the newest redemptions that the delays are drawn from.
DELAYS_MAX_COUNT: Final = 10_000
_HOUR_S: Final = 3_600

_OPEN_TICKETS: Final[LiteralString] = f"""
    SELECT face_value_wei::text, win_prob::text, extract(epoch FROM issued_hour)::bigint, sum(num_tickets)::bigint,
           sum(ev_numerator)::text
      FROM exposure_entry WHERE {OPEN}
     GROUP BY face_value_wei, win_prob, issued_hour
    HAVING sum(num_tickets) > 0 OR face_value_wei IS NULL AND sum(ev_numerator) > 0
"""  # noqa: S608 - of our own texts
_ISSUED: Final[LiteralString] = """
    SELECT face_value_wei::text, win_prob::text, sum(num_tickets)::bigint, sum(ev_numerator)::text,
           extract(epoch FROM issued_hour)::bigint
      FROM exposure_entry WHERE sender = %(sender)s AND issued_hour >= to_timestamp(%(since_s)s)
     GROUP BY face_value_wei, win_prob, issued_hour HAVING sum(num_tickets) > 0
"""
#: From the issue to the moment the redemption was read. The block itself is a little older; and what was read late,
#: after an outage, only makes orchestrators look slower, and so more tickets open.
_DELAYS: Final[LiteralString] = """
    SELECT extract(epoch FROM greatest(ticket.recorded_at - issuance.created_at, interval '0'))::bigint
      FROM winning_ticket AS ticket
      JOIN issuance ON issuance.gateway_id = ticket.gateway_id AND issuance.id = ticket.issuance_id
     WHERE ticket.status = 'matched' ORDER BY ticket.block_number DESC, ticket.log_index DESC LIMIT %(count)s
"""


class Looked(NamedTuple):
    """The answer: the view that weighs silence, what it rests on, and the chances."""

    posterior_expected_wei: int
    posterior_deviation_wei: int
    posterior_coverage_bps: int | None
    delays_count: int
    outlook: Outlook


def look(question: dict[str, Any]) -> bytes:
    """The answer of `question_of`'s question. Raises psycopg.Error, ValueError."""
    from chain.outlook import outlook  # noqa: PLC0415 - loads numpy

    deposit, reserve, claimed, pool_size_count, is_leaving = question["funds"]
    funds = Funds(int(deposit), int(reserve), int(claimed), pool_size_count, is_leaving)
    thresholds = Thresholds(**question["thresholds"])
    tickets, windows, delays = _read(question, now_s=int(datetime.now(UTC).timestamp()))
    wanted = asked(
        funds, tickets, delays, windows, divisor_count=question["divisor_count"], thresholds=thresholds,
        horizon_s=question["horizon_s"], confidence=question["confidence_bps"] / 10_000,
    )  # fmt: skip
    posterior = exposure(wanted.posterior)
    bps = coverage_bps(funds.spendable_wei, posterior, sigmas=thresholds.sigmas)
    return json.dumps({
        "posterior_expected_wei": str(posterior.expected_wei),
        "posterior_deviation_wei": str(posterior.deviation_wei),
        "posterior_coverage_bps": None if bps is None else str(bps),
        "delays_count": delays.observed_count,
        "outlook": json.loads(outlook_json(outlook(wanted))),
    }).encode()  # fmt: skip


def question_of(
    conninfo: str,
    *,
    open_parameters: dict[str, Any],
    unseen_face_value_wei: int,
    funds: Funds,
    thresholds: Thresholds,
    divisor_count: int,
    horizon_s: int,
    confidence_bps: int,
) -> bytes:
    """What `look` needs to know. The conninfo takes on a role that may read; its password goes through a pipe."""
    return json.dumps({
        "conninfo": conninfo,
        "open": open_parameters | {"sender": open_parameters["sender"].hex()},
        "unseen_face_value_wei": str(unseen_face_value_wei),
        "funds": [str(amount) for amount in funds[:3]] + [funds.pool_size_count, funds.is_leaving],
        "thresholds": {name: getattr(thresholds, name) for name in Thresholds.__slots__},
        "divisor_count": divisor_count, "horizon_s": horizon_s, "confidence_bps": confidence_bps,
    }).encode()  # fmt: skip


def read_answer(text: bytes) -> Looked:
    """Raises ValueError for what is no answer."""
    try:
        document = json.loads(text)
        bps = document["posterior_coverage_bps"]
        return Looked(
            posterior_expected_wei=int(document["posterior_expected_wei"]),
            posterior_deviation_wei=int(document["posterior_deviation_wei"]),
            posterior_coverage_bps=None if bps is None else int(bps),
            delays_count=int(document["delays_count"]),
            outlook=read_outlook(json.dumps(document["outlook"]).encode()),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no outlook: {error!r}") from error


def _read(question: dict[str, Any], *, now_s: int) -> tuple[list[AgedTickets], list[Issued], Delays]:
    of = question["open"] | {"sender": bytes.fromhex(question["open"]["sender"])}
    with psycopg.connect(question["conninfo"]) as connection:
        (told,) = connection.execute(UNSEEN_FACE_VALUE_MAX, of).fetchone() or (None,)
        unseen_wei = int(told if told is not None else question["unseen_face_value_wei"])
        rows = connection.execute(_OPEN_TICKETS, of).fetchall()
        tickets = [
            AgedTickets(_tickets(face, prob, num, ev, unseen_wei), max(now_s - hour_s - _HOUR_S, 0))
            for face, prob, hour_s, num, ev in rows
        ]
        issued = connection.execute(_ISSUED, of | {"since_s": _begins_s(WINDOWS_S[-1], now_s)}).fetchall()
        delays = connection.execute(_DELAYS, {"count": DELAYS_MAX_COUNT}).fetchall()
    windows = [_issued(window_s, now_s, issued, unseen_wei) for window_s in WINDOWS_S]
    return tickets, windows, Delays([min(s, DELAY_MAX_S) for (s,) in delays], delay_max_s=DELAY_MAX_S)


def _issued(window_s: int, now_s: int, rows: Iterable[Sequence[Any]], unseen_wei: int) -> Issued:
    """Of whole hours: the one that the window begins in is looked at from its beginning."""
    since_s = _begins_s(window_s, now_s)
    alike = [_tickets(face, prob, num, ev, unseen_wei) for face, prob, num, ev, hour_s in rows if hour_s >= since_s]
    return Issued(window_s, now_s - since_s, alike)


def _begins_s(window_s: int, now_s: int) -> int:
    return (now_s - window_s) // _HOUR_S * _HOUR_S


def _tickets(face: str | None, prob: str | None, num: int, ev: str, unseen_wei: int) -> OpenTickets:
    if face is None or prob is None:
        return unseen(max(int(ev), 0), max(num, 0), face_value_wei=unseen_wei)
    return OpenTickets(int(face), int(prob), num)


def main() -> int:
    os.nice(NICENESS)
    gc.disable()  # it makes a hundred thousand small things, and then it ends
    try:
        sys.stdout.buffer.write(look(json.loads(sys.stdin.buffer.read())))
    except (psycopg.Error, ValueError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
