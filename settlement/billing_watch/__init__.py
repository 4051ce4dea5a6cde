"""How payments and invoices stand, in numbers for Prometheus: read from the database, the same in every worker."""
