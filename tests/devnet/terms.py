"""What the devnet's sender has and what its orchestrator asks, in proportion to each other.

Everything is a thousandth of what it is in the field, so that ten dollars of credit go far; but one ticket in ten
wins instead of one in 1.5 million, because nobody wants to wait for the others.

    one in ten      face value 0.000012 ETH, worth 0.0000012 ETH
    99 in 100       face value 0.000002424 ETH, worth 0.0000024 ETH: what `drain` plays with (signers refuse certainty)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.parts.orchestrator import Settings
from tests.parts.orchestrator.lottery import REDEEM_GAS

ETH_WEI: Final = 10**18
DEPOSIT_WEI: Final = 24 * ETH_WEI // 10_000
RESERVE_WEI: Final = 6 * ETH_WEI // 10_000
#: What the wallet has that tops up: much more than a day's cap.
TREASURY_WEI: Final = 2 * ETH_WEI
#: Deposits and reserves that operators are told of, and for how long they must last.
DEPOSIT_WARNING_WEI: Final = 15 * ETH_WEI // 10_000
DEPOSIT_CRITICAL_WEI: Final = 9 * ETH_WEI // 10_000
RESERVE_WARNING_WEI: Final = 3 * ETH_WEI // 10_000
DEPOSIT_WARNING_FOR_S: Final = 10
DEPOSIT_CRITICAL_FOR_S: Final = 5
TOPUP_MIN_WEI: Final = ETH_WEI // 10_000
#: Of the chain, whose blocks come once a second.
CONFIRMATIONS_COUNT: Final = 3
#: Of a call, the unit of jobs of type fixed: ten tickets of one in ten, or five of 99 in 100.
PRICE_WEI: Final = 12 * 10**12
#: What the demo gateway gets beside what `clearinghouse dev` gives it.
CREDIT_USD: Final = 990
#: Ticket parameters hold for so many blocks of a second each; the field's are of twelve.
PARAMS_VALID_BLOCKS: Final = 600


@dataclass(frozen=True, slots=True)
class Odds:
    """How its tickets win. Orchestrators derive the face value from what redeeming costs them, so gas decides it."""

    name: str
    ticket_ev_wei: int
    face_value_wei: int

    def apply(self, settings: Settings) -> None:
        """From the next quote on."""
        settings.ticket_ev_wei = self.ticket_ev_wei
        settings.gas_price_wei = self.face_value_wei // (REDEEM_GAS * settings.face_value_per_cost)


ONE_IN_TEN: Final = Odds("one in ten", ticket_ev_wei=12 * 10**11, face_value_wei=12 * 10**12)
NEARLY_ALWAYS: Final = Odds("99 in 100", ticket_ev_wei=24 * 10**11, face_value_wei=2_424 * 10**9)


def orchestrator_settings() -> Settings:
    settings = Settings(prices={"fixed": (PRICE_WEI, 1)}, params_valid_blocks=PARAMS_VALID_BLOCKS)
    ONE_IN_TEN.apply(settings)
    return settings
