"""What calls are sold at: rate cards, the quotes made from them, and a period rated anew. Pure and exact.

    units ◀─ card ◀─ quote ◀─ book ◀─ rerate          document: a card as TOML or JSON, and back
                               ◀─ rules, as stored

No database, no clock, no network: times and positions are arguments. docs/rates.md explains cards to their authors.
"""
