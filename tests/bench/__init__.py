"""`make bench`: what a call costs, end to end, against floors measured in the same run.

Everything is a process of its own, as in production, and the load comes from outside:

    load (HTTP) ──┬─────────────────────────────▶ upstream      (a) the signer, called directly
                  ├──▶ plain proxy ─────────────▶ upstream      (b) the same listener and signer pool, no ledger
                  └──▶ service ──┬──────────────▶ upstream      (c) 1,000 accounts, (d) one hot account
    load (gRPC) ──┬──▶ service ──┘  └──▶ PostgreSQL, durable
                  └──▶ bare grpc.aio echo                       the floor of gRPC in Python

Machines are noisy, so the variants alternate within each round, and a ratio is the median of the ratios of the rounds.
Targets are printed as reached or missed; they are not tests. What fails the run is a wrong answer, a count of answers
that is not the ledger's, or a ledger that does not verify.
"""
