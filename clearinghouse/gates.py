"""The policy applied to a request: asks the registry and the escrow for what the rules need, and lets them decide.

The order is the published one (docs/api.md): recipient, round, face value, a ticket's expected value, price; then, when
it is known how many tickets are due, the call's expected value and the nonces.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from chain.escrow import EscrowReading, EscrowUnknown, EscrowView
from chain.messages import Price
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.errors import Unavailable
from clearinghouse.identity.authenticate import Caller
from clearinghouse.policy import (
    Policy,
    require_call,
    require_price,
    require_recipient,
    require_round,
    require_ticket,
    require_ticket_ev,
)
from clearinghouse.registry import Recipients
from clearinghouse.requests import PaymentRequest


class Gates:
    """What a request must pass before a signer is asked. `escrow` is None where the sender's cannot be read."""

    def __init__(self, policy: Policy, *, recipients: Recipients, escrow: EscrowView | None) -> None:
        self._policy = policy
        self._recipients = recipients
        self._escrow = escrow

    def require_offer(self, request: PaymentRequest) -> None:
        """Recipient, round, face value and expected value. Raises a Refusal with the fact `rule`."""
        params = request.params
        require_recipient(params.recipient, self._recipients.find(params.recipient))
        escrow = self._reading()
        if escrow is not None:
            require_round(params, escrow, url=request.info.transcoder)
        require_ticket(self._policy, params, escrow.deposit_wei if escrow is not None else None)

    def require_price(self, job_type: str, prices: Iterable[Price], caller: Caller) -> None:
        """What is asked now, and what a session is billed by, under the ceilings of the policy and of the caller.

        Raises PriceExceeded. The caller's are as they were when read: `Charging.require_terms` reads them again.
        """
        require_price(self._policy, job_type, *prices, own=caller.ceilings.get(job_type))

    def require_shown(self, *, ev_numerator: int, first_nonce: int, num_tickets: int) -> None:
        """Of the tickets of which a signer's webhook shows but the state. `ev_numerator` is of all, times 2^256 - 1."""
        require_ticket_ev(self._policy, -(-ev_numerator // num_tickets))
        ev_wei = -(-ev_numerator // WIN_PROB_CERTAIN)
        require_call(self._policy, ev_wei=ev_wei, first_nonce=first_nonce, num_tickets=num_tickets, url="")

    def price_max_wei_per_unit(self, job_type: str, caller: Caller) -> Decimal | None:
        """The lowest ceiling of this type of job; None where it has none."""
        own = caller.ceilings.get(job_type)
        ceilings = (self._policy.price_max_wei_per_unit.get(job_type), own.max_wei_per_unit if own else None)
        return min((ceiling for ceiling in ceilings if ceiling is not None), default=None)

    def require_call(self, request: PaymentRequest, *, ev_wei: int, first_nonce: int, num_tickets: int) -> None:
        """Of the quote, and again of what was signed: the signer's clock may have found one ticket more to be due."""
        url = request.info.transcoder
        require_call(self._policy, ev_wei=ev_wei, first_nonce=first_nonce, num_tickets=num_tickets, url=url)

    def _reading(self) -> EscrowReading | None:
        if self._escrow is None:
            return None
        try:
            return self._escrow.read()
        except EscrowUnknown as error:
            raise Unavailable(f"No reading of the escrow to judge tickets by: {error}.", retry_after_s=10) from error
