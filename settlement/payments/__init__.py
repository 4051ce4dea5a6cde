"""Money in: payments of gateways, what goes back to them, and what their banks take back.

    a request (API, command, low balance) ─▶ a row of `payment` ─▶ clerk.py asks Stripe ─▶ open: a link, instructions
    Stripe's event, or the sweep ─▶ handlers.py asks Stripe for the object ─▶ the row and its entry in the books

What arrives is booked by one function of the database, together with the row that says so: once, whoever comes first.
Not to be mixed up with settlement/topups, which moves ETH into the escrow.
"""
