"""What operators are told: rules over what was observed, the life of an alert, and what its messages say.

observe.py ──▶ Observed ──rules.py──▶ conditions ──state.py──▶ alerts and announcements ──store.py──▶ database
                                                                                                         │
                                                                       settlement/delivery ◀──outbox─────┘
"""
