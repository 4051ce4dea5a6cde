"""Our side of Stripe: calls that are made once however often they are tried, and events that are acted upon once.

    a piece of settlement ─▶ StripeLink.call ─▶ the official SDK ─▶ Stripe
    Stripe ─▶ POST /webhooks/stripe ─▶ stripe_event ─▶ the processor ─▶ a handler of handlers.py, with a Desk

What Stripe says of an object is always asked for anew; what an event carries is only a hint that there is news.
"""
