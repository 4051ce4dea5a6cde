"""`python -m tests.bench.statements`: how long one statement takes to be set as PDF, none of them like another.

What runs for the first time, the fonts among it, is not counted: one statement is set before.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from statistics import median
from typing import Final

from settlement.statements.pdf import Typesetter
from settlement.statements.statement import Statement, UsageLine
from tests.bench.closing import p99
from tests.settlement.statements.examples import example

PDF_MAX_MS: Final = 100
STATEMENTS: Final = 50
LINES: Final = (5, 40, 200)


def fresh_statements(count: int, lines_count: int) -> Iterator[Statement]:
    """Nothing set before is of help."""
    for number in range(count):
        lines = tuple(
            UsageLine(f"app-{line % 5}-{number}", "live-video-to-video", Decimal(line * number + 1) / 8, 10**15 + line,
                      line, Decimal(line), "seconds", f"organisation/model-{line}-{number}")
            for line in range(lines_count)
        )  # fmt: skip
        yield example(number=f"ST-{lines_count}-{number}", lines=lines)


def measured_ms(typesetter: Typesetter, lines_count: int, count: int) -> list[float]:
    took_ms = []
    for statement in fresh_statements(count, lines_count):
        began_s = time.perf_counter()
        typesetter.pdf(statement)
        took_ms.append((time.perf_counter() - began_s) * 1000)
    return took_ms


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--statements", type=int, default=STATEMENTS, help="of each length")
    options = arguments.parse_args()
    typesetter = Typesetter()
    typesetter.pdf(example())
    are_reached = True
    for lines_count in LINES:
        took_ms = measured_ms(typesetter, lines_count, options.statements)
        is_reached = median(took_ms) <= PDF_MAX_MS
        are_reached &= is_reached
        print(
            f"  PDF of {lines_count} lines: {median(took_ms):.1f} ms of {PDF_MAX_MS}, p99 "
            f"{p99(took_ms):.1f} ms: {'reached' if is_reached else 'MISSED'}",
            flush=True,
        )
    print(f"Load average: {os.getloadavg()[0]:.2f}")
    return 0 if are_reached else 1


if __name__ == "__main__":
    sys.exit(main())
