"""Top-ups: money sent into the sender's escrow, once, within caps, and followed until it is there.

    coverage's advice ──planning──▶ what to pay ──flow──▶ planned ─ signed ─ sent ─ confirmed
                                                  pursuing: what is next, from what the chain says

Every step is stored before it is taken, so that a process may end at any of them and another goes on (flow.py).
"""
