"""A Livepeer orchestrator for the tests: quotes ticket parameters, checks payments to the bit and draws the lottery.

It stands for the network, so it believes nothing: its parameters and its checks are written from the protocol's
specification, apart from `chain`, of which it shares only the hash and the public-key recovery. Whatever reaches its
books as accepted, a real orchestrator would have accepted too.
"""

from tests.parts.orchestrator.books import Books, PaymentRefused, Reason, Ticket
from tests.parts.orchestrator.node import Orchestrator
from tests.parts.orchestrator.server import running_orchestrator
from tests.parts.orchestrator.settings import Settings

__all__ = ["Books", "Orchestrator", "PaymentRefused", "Reason", "Settings", "Ticket", "running_orchestrator"]
