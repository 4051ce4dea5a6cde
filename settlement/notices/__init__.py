"""What gateways are told about themselves: balances, keys that end, suspensions; by signed webhook and by mail.

evaluate.py: reads standings ──▶ due.py: what is new ──▶ notice, notice_state and outbox, in one transaction
                                                                                  │
                                  carrier.py: to the gateway's webhook and address ◀── settlement/delivery
"""
