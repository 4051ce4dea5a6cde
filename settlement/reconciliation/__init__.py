"""One report over a period that an accountant would sign: the books against everything else that tells of the money.

    ledger_issuances    every charge and every balance, computed again
    stripe_books        invoices, credit notes, payments, refunds and disputes, ours against Stripe's; fees and payouts
    signer_issuances    what signers report against what was issued
    redemptions         what was redeemed on the chain against what was issued
    deposit             what moved in the escrow against our own top-ups and what was accepted by hand

Each section says what was compared, and what could not be; each difference has a name, an amount and a way to look at
it. It only reads, and nobody is charged by it.
"""
