"""How much the deposit covers, and what follows from it: evaluated by one process for each sender, obeyed by all.

    escrows  +  book  ──judge──▶  level, shares  ──lead──▶  coverage_gate, cover_share  ──▶  every commit, every process
                        └───────▶  snapshot (with the outlook of a process of its own)  ──▶  people

The gates expire by themselves. Whatever keeps them from being renewed (no fresh escrow, nobody who evaluates, no
database) ends in calls that are refused, never in calls that are signed blindly.
"""
