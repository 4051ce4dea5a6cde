"""`python -m tests.bench.coverage_database`: evaluation and snapshot of 100,000,000 open tickets, from the database.

They are in 10,000 counters of as many kinds (face value and win probability), of 100 gateways, over two rounds and 30
hours. The evaluation is what a serving process does every few seconds; the snapshot is what a process beside it does
once a minute.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psycopg

from chain.coverage import Thresholds
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.coverage.book import open_parameters
from clearinghouse.coverage.evaluate import Evaluation, evaluate, funds_of
from clearinghouse.coverage.lead import Lead
from clearinghouse.coverage.looking import question_of
from clearinghouse.coverage.outlooks import PROGRAM, look_ahead
from clearinghouse.database.connect import SERVE_ROLE, in_role
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from tests.parts.covered import ETHER, RULES, SENDER, escrow_of

COUNTERS = 10_000
TICKETS_OF_ONE = 10_000
EVALUATIONS = 20
SNAPSHOTS = 5
TIME_MAX_S, MEMORY_MAX_MIB = 1, 200
#: What PROGRAM is, and then its memory at the highest into the file that is named.
PROGRAM_THAT_TELLS = """
import re, sys
from pathlib import Path
from clearinghouse.coverage.looking import main
status = main()
peak_kib = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
Path(sys.argv[1]).write_text(str(peak_kib * 1024))
sys.exit(status)
"""
ESCROW = escrow_of(deposit_wei=2_000 * ETHER)
#: Around 0.001 to 0.011 ETH, winning once in a million times.
FILL = """
    INSERT INTO exposure_counter (sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour,
                                  num_tickets, ev_numerator)
    SELECT %(sender)s, ('00000000-0000-7000-8000-' || lpad((kind %% 100)::text, 12, '0'))::uuid, 3500 - kind %% 2,
           decode(lpad((kind %% 40)::text, 40, '0'), 'hex'), f, w,
           date_trunc('hour', now()) - kind %% 30 * interval '1 h', %(each)s, %(each)s * f * w
      FROM (SELECT kind, 1000000000000000::numeric + kind * 1009000000000::numeric AS f,
                   div(%(certain)s::numeric, 1000000::numeric + kind) AS w
              FROM generate_series(1, %(counters)s) AS kind) AS kinds
"""


async def evaluated(conninfo: str) -> Evaluation:
    lead = await Lead.connected(conninfo, role=SERVE_ROLE, silent_max_s=10)
    try:
        took_s, cpu_s = [], time.process_time()
        for _ in range(EVALUATIONS):
            began_s = time.perf_counter()
            book = await lead.book(ESCROW, unseen_face_value_wei=ETHER, with_payers=True)
            evaluation = evaluate(None, ESCROW, book, RULES)
            took_s.append(time.perf_counter() - began_s)
        cpu_ms = (time.process_time() - cpu_s) / EVALUATIONS * 1000
        began_s = time.perf_counter()
        await lead.payees(ESCROW)
        payees_ms = (time.perf_counter() - began_s) * 1000
    finally:
        await lead.close()
    print(
        f"evaluated in {min(took_s) * 1000:.0f} to {max(took_s) * 1000:.0f} ms, {cpu_ms:.1f} ms of CPU in the service"
    )
    print(f"whom the tickets go to, once a snapshot: {payees_ms:.0f} ms")
    return evaluation


async def looked(conninfo: str) -> None:
    question = question_of(
        in_role(conninfo, SERVE_ROLE), open_parameters=open_parameters(ESCROW), unseen_face_value_wei=ETHER,
        funds=funds_of(ESCROW), thresholds=Thresholds(), divisor_count=50, horizon_s=168 * 3600, confidence_bps=9_990,
    )  # fmt: skip
    took_s = []
    for _ in range(SNAPSHOTS):
        began_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        look, answer = await look_ahead(question, timeout_s=60, program=PROGRAM)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert answer is not None, look
        took_s.append(time.perf_counter() - began_s)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"snapshot in {took_s[-1]:.2f} s, {cpu_s:.2f} s of CPU in a process of its own")
    used_mib = await peak_mib(question)
    print(f"\nA snapshot with {COUNTERS * TICKETS_OF_ONE:,} open tickets in {COUNTERS:,} counters, from the database:")
    print(f"  {median(took_s):.2f} s of {TIME_MAX_S} s: {'reached' if median(took_s) <= TIME_MAX_S else 'MISSED'}")
    print(f"  {used_mib:.0f} MiB of {MEMORY_MAX_MIB} MiB: {'reached' if used_mib <= MEMORY_MAX_MIB else 'MISSED'}")


async def peak_mib(question: bytes) -> float:
    """Of the process that looks ahead, by its own account: getrusage has that of whoever started it in it."""
    with tempfile.NamedTemporaryFile("r") as file:
        program = (sys.executable, "-P", "-c", PROGRAM_THAT_TELLS, file.name)
        look, _ = await look_ahead(question, timeout_s=60, program=program)
        assert look == "done"
        return int(file.read()) / 2**20


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, EmbeddedPostgres(Path(folder) / "data") as database:
        migrate(database.conninfo)
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            each = {"sender": SENDER, "each": TICKETS_OF_ONE, "counters": COUNTERS, "certain": WIN_PROB_CERTAIN}
            connection.execute(FILL.encode(), each)
            connection.execute("ANALYZE exposure_counter")
        evaluation = asyncio.run(evaluated(database.conninfo))
        print(f"{evaluation.standing.worst.num_tickets:,} open tickets in {COUNTERS:,} counters")
        asyncio.run(looked(database.conninfo))
    print(f"Load average: {os.getloadavg()[0]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
