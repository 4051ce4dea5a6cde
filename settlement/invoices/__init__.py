"""What gateways owe, asked for once: from a closed period to one invoice at Stripe, and from its payment to the books.

    billing_period ─▶ planning ─▶ invoice (our row) ─▶ walk ─▶ Stripe ─▶ seen ─▶ our row, and entries of the books

Our row comes first and says all that is asked for; what happens at Stripe is looked up there before it is done again.
"""
