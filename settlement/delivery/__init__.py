"""How messages reach people and machines: an outbox in the database, and couriers that empty it.

    in one transaction with what it tells of                       each turn of a job
    ─────────────────────────────────────────▶ delivery (outbox) ─────claim──────▶ courier ──▶ channel
                                                   ▲   │                             │
                                                   │   └── dead, after so many       │
                                                   └── failed: again after a pause ◀─┘

What is exactly once is the row in the outbox: it is written with what it tells of, under a key that refuses a second.
What is at least once is the message on the wire: who was killed after the receiver took it, and before that was
recorded, sends it again, under the same id and dedup key, by which a receiver tells that it is the same.
"""
