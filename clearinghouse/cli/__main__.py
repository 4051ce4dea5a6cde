"""`python -m clearinghouse.cli` is `clearinghouse`."""

from clearinghouse.cli import main

main()
