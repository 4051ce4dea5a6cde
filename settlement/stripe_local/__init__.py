"""A Stripe of our own for development and tests: stateful for the calls that settlement makes, always in test mode.

It is no mock: the official SDK and Stripe's own command line talk to it, every request is checked against Stripe's
published OpenAPI description, and what it forgets or invents on demand (lost events, answers that never arrive) is what
the code that faces the real Stripe has to survive. Nothing here is used when settlement talks to Stripe itself.

    forms, parameters, description   what arrives, read and checked as Stripe's description says
    store, desk, events              objects, one request's changes to them, and what is told about it
    customers, invoices, payments …  the rules of the objects, one module each
    frame, faults, deliveries        keys, idempotency, trouble on demand, signed events
    control                          /_control: the clock, the faults and what else a test wants to bring about
"""
