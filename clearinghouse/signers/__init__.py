"""Whoever holds the ticket key: go-livepeer remote signers in a pool, or our own native one."""
