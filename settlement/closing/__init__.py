"""Billing periods are closed: exactly, once, from the raw books.

    due ──▶ sealed ──▶ closed
     │         │          └ close.py: rows that can no longer change must make the balance, or nothing is written
     │         └ sealing.py: no entry of an earlier time can come any more; a moment of each account's lock
     └ due.py: derived from calendars, terms and what was closed last

Each step may be cut off and done again: what is sealed stays sealed, what is closed is closed once. Signing waits for
nothing but the moment of the seal. `books.py` reads what was closed, and what would be.

Credit that expires is booked when it is found expired, at the latest before anything further is charged or entered.
Where that is after the end of the period in which it expired, it belongs to the next: the closing balance still has it.
No invoice is wrong by that, since where such credit was left nothing was owed.
"""
