"""Who pays for a gateway, and how it is billed.

the operator ─▶ store.py: customer       who pays: details.py says what may be known of one
             ─▶ terms.py: billing_terms  the way it is billed, and since when
customer ─▶ stripe_copy.py ─▶ Stripe's customer, which says what ours says
"""
