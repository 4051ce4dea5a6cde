"""`python -m tests.bench.coverage`: how long one sender's coverage takes, with 100,000,000 open tickets.

They are in 10,000 counters, no two of which can be counted together, and so are the tickets of each window. A service
sees less: its counters differ by gateway, orchestrator and round, and share a few hundred kinds of tickets.
"""

from __future__ import annotations

import os
import time

from chain.coverage import AgedTickets, Funds, Thresholds, stands
from chain.exposure import Delays, OpenTickets, exposure
from chain.outlook_document import Issued, asked
from chain.tickets import WIN_PROB_CERTAIN
from tests.bench.usage import memory

MIB = 1024 * 1024
ETH = 10**18
HOUR_S = 3600
COUNTERS = 10_000
TICKETS_OF_ONE = 10_000
WINDOWS_S = (HOUR_S, 6 * HOUR_S, 24 * HOUR_S, 168 * HOUR_S)
DELAYS = Delays(range(0, 60_000, 60), delay_max_s=138_240)
FUNDS = Funds(deposit_wei=10 * ETH, reserve_wei=ETH, claimed_in_round_wei=0, pool_size_count=100, is_leaving=False)


def book() -> list[AgedTickets]:
    """Around 0.001 to 0.011 ETH, winning once in a million times."""
    return [
        AgedTickets(
            OpenTickets(10**15 + 1009 * kind * 10**9, WIN_PROB_CERTAIN // (10**6 + kind), TICKETS_OF_ONE),
            kind % 30 * HOUR_S,
        )
        for kind in range(COUNTERS)
    ]


def main() -> None:
    tickets = book()
    issued = [each.tickets for each in tickets]
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    stands(None, FUNDS, exposure(issued), divisor_count=50, thresholds=Thresholds())
    known_cpu_s = time.process_time()
    from chain.outlook import outlook

    outlook(
        asked(
            FUNDS,
            tickets,
            DELAYS,
            [Issued(window_s, window_s + HOUR_S // 2, issued) for window_s in WINDOWS_S],
            divisor_count=50,
            thresholds=Thresholds(),
            horizon_s=168 * HOUR_S,
            confidence=0.999,
        )
    )
    in_all_s, done_cpu_s = time.perf_counter() - began_s, time.process_time()
    used_mib = memory(os.getpid()).peak_bytes / MIB  # getrusage has that of whoever started this process in it
    print(f"{COUNTERS * TICKETS_OF_ONE:,} open tickets in {COUNTERS:,} counters, load {os.getloadavg()[0]:.1f}")
    print(f"level and what remains: {(known_cpu_s - began_cpu_s) * 1000:.0f} ms of CPU")
    print(f"outlook, numpy loaded:  {(done_cpu_s - known_cpu_s) * 1000:.0f} ms of CPU")
    print(f"in all {in_all_s:.2f} s and {used_mib:.0f} MiB")


if __name__ == "__main__":
    main()
