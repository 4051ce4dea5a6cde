"""`python -m clearinghouse.cli`: the service's own commands, without worker, Stripe and billing.

The console script `clearinghouse` has these and more: it belongs to the floor above.
"""

from clearinghouse.cli import main

main()
