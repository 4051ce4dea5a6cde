"""What must be true of the books (design, promise 5), as questions to the database.

Each claim is a query for its violations, one row each: what is wrong (`subject`) and how (`detail`). All of them
aggregate and join in the database and none trusts a number that another place keeps, so that books of millions of rows
can be checked and no corruption of a stored total hides itself.
"""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.accounts import ACCOUNTS
from clearinghouse.ledger.claims.claim import Claim
from clearinghouse.ledger.claims.issuances import COST, ISSUANCES
from clearinghouse.ledger.claims.lots import LOTS
from clearinghouse.ledger.claims.periods import PERIODS
from clearinghouse.ledger.claims.rates import RATES
from clearinghouse.ledger.claims.rerating import RERATING
from clearinghouse.ledger.claims.usage import USAGE

__all__ = ["CLAIMS", "COST", "Claim"]

CLAIMS: Final = (*ACCOUNTS, *USAGE, *LOTS, *ISSUANCES, *RATES, *PERIODS, *RERATING)
