"""What this clearinghouse agrees to pay with, whatever an orchestrator or a caller says: decided from values alone.

An OrchestratorInfo is anybody's claim (remote-signer protocol, section 10, A2), so each number in it that costs money
is held against a limit of ours before a signer is asked. docs/security.md says which weakness each rule closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from chain.escrow import EscrowReading
from chain.fees import FIXED, LIVE, LV2V, UNTYPED
from chain.messages import Price, TicketParams
from chain.signatures import checksum_address
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.errors import PriceExceeded, RefreshSession, RegistryUnknown, TicketNotAllowed
from clearinghouse.ledger.money import show_amount
from clearinghouse.registry import Registration
from clearinghouse.sessions import NONCES_PER_RAND_MAX

#: What a price is per, by job type.
UNIT_NAMES: Final = {LIVE: "second", LV2V: "pixel", FIXED: "call", UNTYPED: "pixel"}
#: The job type that a ceiling on a price is for, by the name under which plans and gateways have one.
CEILINGS: Final = {"price_live": LIVE, "price_lv2v": LV2V, "price_fixed": FIXED, "price_untyped": UNTYPED}
#: Who set a ceiling that is in the configuration: it holds for all gateways.
EVERYBODY: Final = "clearinghouse"
_ZERO_HASH: Final = bytes(32)


class Rule(StrEnum):
    """Why a refusal was given, where one code stands for several reasons: the refusal's fact `rule`, and a label."""

    RECIPIENT = "recipient"
    ROUND = "round"
    FACE_VALUE = "face_value"
    TICKET_EV = "ticket_ev"
    PRICE = "price"
    CALL_EV = "call_ev"
    NONCES = "nonces"
    CROSSCHECK = "crosscheck"
    EV_OPEN_TOTAL = "ev_open_total"
    UNTYPED = "untyped"
    REPEATS = "repeats_per_hour"


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits; None is no limit. The defaults of the two expected values are go-livepeer's."""

    ticket_ev_max_wei: int = 3 * 10**12
    call_ev_max_wei: int = 2 * 10**13
    #: A face value is at most the deposit divided by this: one winner must not drain it (A3).
    face_value_divisor_count: int = 50
    face_value_max_wei: int | None = None
    #: Highest price by job type, in wei per unit of the type (A19). A type that is not here has no ceiling.
    price_max_wei_per_unit: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))


class Ceiling(NamedTuple):
    """A highest price, in wei per unit of the job type that it is for, of a plan or (None) of the gateway itself."""

    max_wei_per_unit: Decimal
    plan: str | None

    @property
    def set_by(self) -> str:
        return "gateway" if self.plan is None else "plan"

    @property
    def whose(self) -> str:
        return "the gateway's" if self.plan is None else f"the plan {self.plan}'s"


def require_recipient(recipient: bytes, registration: Registration) -> None:
    """A2: tickets are paid to whom the registry allows. Raises TicketNotAllowed, or RegistryUnknown (503)."""
    if registration is Registration.NOT_ALLOWED:
        raise TicketNotAllowed(
            f"The recipient {checksum_address(recipient)} is not one that this clearinghouse pays.",
            rule=Rule.RECIPIENT,
            recipient=checksum_address(recipient),
        )
    if registration is Registration.UNKNOWN:
        raise RegistryUnknown(
            f"Whether the recipient {checksum_address(recipient)} may be paid is not known at present.",
            retry_after_s=10,
            rule=Rule.RECIPIENT,
        )


def require_round(params: TicketParams, escrow: EscrowReading, *, url: str) -> None:
    """A25: the creation round is absent, the last or the previous initialised one; else 480, with `url` to ask.

    A ticket of another round could not be redeemed, or not for long. Without a round or without its block hash the
    signer takes the last one it knows (spec 4.4).
    """
    if params.creation_round == 0 or params.creation_round_block_hash == _ZERO_HASH:
        return
    claimed = (params.creation_round, params.creation_round_block_hash)
    if claimed == (escrow.last_initialized_round, escrow.last_initialized_round_block_hash):
        return
    if claimed == (escrow.previous_initialized_round, escrow.previous_initialized_round_block_hash):
        return
    raise RefreshSession(
        f"These ticket parameters are of round {params.creation_round} and block hash "
        f"0x{params.creation_round_block_hash.hex()}; the last initialised round is {escrow.last_initialized_round}.",
        orchestrator_url=url,
        rule=Rule.ROUND,
    )


def require_ticket(policy: Policy, params: TicketParams, deposit_wei: int | None) -> None:
    """A3 and A1: what one ticket may be worth, at most and on average. `deposit_wei` is None where it is not known."""
    face_value_wei = params.face_value_wei
    if deposit_wei is not None and face_value_wei * policy.face_value_divisor_count > deposit_wei:
        raise _face_value_too_high(face_value_wei, deposit_wei // policy.face_value_divisor_count)
    if policy.face_value_max_wei is not None and face_value_wei > policy.face_value_max_wei:
        raise _face_value_too_high(face_value_wei, policy.face_value_max_wei)
    require_ticket_ev(policy, face_value_wei * params.win_prob)


def require_ticket_ev(policy: Policy, ev_numerator: int) -> None:
    """A1: what a ticket is worth on average, times 2^256 - 1."""
    if ev_numerator > policy.ticket_ev_max_wei * WIN_PROB_CERTAIN:
        ev_wei = -(-ev_numerator // WIN_PROB_CERTAIN)
        raise TicketNotAllowed(
            f"A ticket is worth {ev_wei} wei on average; this clearinghouse pays with tickets of at most "
            f"{policy.ticket_ev_max_wei} wei.",
            rule=Rule.TICKET_EV,
            ev_wei=str(ev_wei),
            max_wei=str(policy.ticket_ev_max_wei),
        )


def require_price(policy: Policy, job_type: str, *prices: Price, own: Ceiling | None = None) -> None:
    """A19: none of `prices` exceeds the ceiling of its job type, which the caller's capabilities do not raise (A18).

    The lower one holds of the policy's and of `own`, the gateway's and its plan's. Raises PriceExceeded (481) and says
    whose it was. The prices are positive: what is not has been refused when it was decoded.
    """
    ceiling, whose, set_by = policy.price_max_wei_per_unit.get(job_type), "the clearinghouse's", EVERYBODY
    if own is not None and (ceiling is None or own.max_wei_per_unit < ceiling):
        ceiling, whose, set_by = own.max_wei_per_unit, own.whose, own.set_by
    if ceiling is None:
        return
    ceiling_n, ceiling_d = ceiling.as_integer_ratio()
    for price in prices:
        if price.price_per_unit * ceiling_d > ceiling_n * price.pixels_per_unit:
            shown = show_amount(ceiling)
            raise PriceExceeded(
                f"orchestrator price {_shown(price)} exceeds {whose} ceiling {shown} wei per {UNIT_NAMES[job_type]}",
                rule=Rule.PRICE,
                max_wei_per_unit=shown,
                set_by=set_by,
            )


def require_type(job_type: str) -> None:
    """At the webhook: no state shows the pixels of an untyped job, nor, therefore, what its tickets are worth."""
    if job_type == UNTYPED:
        raise TicketNotAllowed(
            "A job without a type is billed by pixels that a signer's webhook is not shown: send a type, or put the "
            "clearinghouse in front of the signer.",
            rule=Rule.UNTYPED,
        )


def require_call(policy: Policy, *, ev_wei: int, first_nonce: int, num_tickets: int, url: str) -> None:
    """A1 and A24: what one call may take in expected value and in nonces.

    Raises TicketNotAllowed, or RefreshSession (480) with `url` to ask, where fresh parameters help. They do not where
    more tickets are due than any parameters allow: signers refuse that in words of their own.
    """
    if ev_wei > policy.call_ev_max_wei:
        raise TicketNotAllowed(
            f"The tickets of this call are worth {ev_wei} wei on average; this clearinghouse issues at most "
            f"{policy.call_ev_max_wei} wei in one call.",
            rule=Rule.CALL_EV,
            ev_wei=str(ev_wei),
            max_wei=str(policy.call_ev_max_wei),
        )
    if 0 < num_tickets <= NONCES_PER_RAND_MAX < first_nonce + num_tickets - 1:
        raise RefreshSession(
            f"An orchestrator takes {NONCES_PER_RAND_MAX} tickets with the same parameters; "
            f"{first_nonce - 1} were issued and {num_tickets} more are due.",
            orchestrator_url=url,
            rule=Rule.NONCES,
        )


def _face_value_too_high(face_value_wei: int, max_wei: int) -> TicketNotAllowed:
    return TicketNotAllowed(
        f"The face value of {face_value_wei} wei is more than the {max_wei} wei that one ticket may pay here.",
        rule=Rule.FACE_VALUE,
        face_value_wei=str(face_value_wei),
        max_wei=str(max_wei),
    )


def _shown(price: Price) -> str:
    """As the orchestrator gave it: dividing would round."""
    return (
        f"{price.price_per_unit}/{price.pixels_per_unit}" if price.pixels_per_unit != 1 else f"{price.price_per_unit}"
    )
