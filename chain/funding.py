"""The call that pays into an escrow of the TicketBroker (protocol, section 8.2)."""

from __future__ import annotations

from typing import Final, NamedTuple

from chain import abi

FUND_DEPOSIT: Final = abi.selector("fundDeposit()")
FUND_RESERVE: Final = abi.selector("fundReserve()")
FUND_BOTH: Final = abi.selector("fundDepositAndReserve(uint256,uint256)")
FUND_FOR: Final = abi.selector("fundDepositAndReserveFor(address,uint256,uint256)")


class Amounts(NamedTuple):
    """What is paid in."""

    deposit_wei: int
    reserve_wei: int

    @property
    def total_wei(self) -> int:
        return self.deposit_wei + self.reserve_wei


def funding_call(payer: bytes, sender: bytes, amounts: Amounts) -> bytes:
    """Calldata for `payer` to pay `amounts` into the escrow of `sender`; its value is their sum.

    By its owner, which also ends an unlock that is under way, or by anybody else, which does not.
    """
    deposit_wei, reserve_wei = amounts
    assert amounts.total_wei > 0, "there is something to pay"
    if payer != sender:
        return abi.calldata(FUND_FOR, sender, deposit_wei, reserve_wei)
    if not reserve_wei:
        return abi.calldata(FUND_DEPOSIT)
    if not deposit_wei:
        return abi.calldata(FUND_RESERVE)
    return abi.calldata(FUND_BOTH, deposit_wei, reserve_wei)
