"""Money outside: invoices, statements, alerts, top-ups, and the schedule that runs them."""
