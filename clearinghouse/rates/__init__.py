"""What calls are sold at: rate cards, and the quotes made from them. Pure and exact.

    units ◀─ card ◀─ quote ◀─ book ◀─ rules           document: a card as TOML or JSON, and back

No database, no clock, no network: times and positions are arguments. docs/rates.md explains cards to their authors.
"""
