"""Who may sign, and for how much: ledger, tenants and keys, sessions, signTicket and its APIs."""
