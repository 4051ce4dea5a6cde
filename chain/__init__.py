"""Ethereum only: tickets, signatures, messages, escrow, price feeds. Knows no customers."""
