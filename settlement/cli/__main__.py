"""`python -m settlement.cli` is `clearinghouse`."""

from settlement.cli import main

main()
