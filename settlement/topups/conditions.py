"""Why nothing is sent that was asked for or advised: a closed set, for alerts, the audit and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from clearinghouse.errors import Refusal


class Condition(StrEnum):
    """Those that nobody has to do anything about are in NO_TROUBLE."""

    NOTHING_DUE = "nothing_due"
    IN_FLIGHT = "in_flight"
    #: One that was to be cancelled has come to its end.
    ENDED = "ended"
    #: It would be sent, and the mode says only to tell.
    DRY_RUN = "dry_run"
    NO_WALLET = "no_wallet"
    NO_CHAIN = "no_chain"
    SENDER_UNKNOWN = "sender_unknown"
    NO_ADVICE = "no_advice"
    ADVICE_STALE = "advice_stale"
    #: Coverage was not computed yet since the last one arrived.
    ADVICE_AWAITED = "advice_awaited"
    SIMULATED = "simulated"
    CHAIN_UNDECIDED = "chain_undecided"
    #: One is in flight on another chain than the one that is configured.
    OTHER_CHAIN = "other_chain"
    UNLOCKED = "unlocked"
    NONCE_BEHIND = "nonce_behind"
    WALLET_BUSY = "wallet_busy"
    WALLET_SHORT = "wallet_short"
    WALLET_FAILED = "wallet_failed"
    #: One is in flight, and nothing can be signed any more that would replace it.
    WALLET_GONE = "wallet_gone"
    TRANSACTION_CAP = "transaction_cap"
    DAY_CAP = "day_cap"
    FEES_TOO_HIGH = "fees_too_high"
    REFUSED_BY_CONTRACT = "refused_by_contract"
    ESCROW_CHANGED = "escrow_changed"
    #: One that was sent is not mined, and could not be replaced.
    STUCK = "stuck"
    FAILED = "failed"
    DISPLACED = "displaced"


#: What follows from the ordinary course of things.
NO_TROUBLE: Final = frozenset(
    {
        Condition.NOTHING_DUE,
        Condition.IN_FLIGHT,
        Condition.ENDED,
        Condition.ADVICE_AWAITED,
        Condition.ESCROW_CHANGED,
    }
)

_WHAT_NEXT: Final[Mapping[str, str]] = MappingProxyType(
    {
        Condition.NOTHING_DUE: "Nothing needs to be done; amounts that you name are sent all the same.",
        Condition.IN_FLIGHT: "Wait for it: `clearinghouse topup list` shows it.",
        Condition.ENDED: "Nothing is left to do with it: `clearinghouse topup list` shows what it came to.",
        Condition.DRY_RUN: "See `clearinghouse topup plan`. `clearinghouse topup send`, or topups.mode = on, sends it.",
        Condition.NO_WALLET: "Set topups.wallet and what it needs; docs/topups.md has how.",
        Condition.NO_CHAIN: "Set chain.rpc_urls: two or more endpoints of different providers.",
        Condition.SENDER_UNKNOWN: "Set topups.sender to the address whose escrow to top up: it is never guessed.",
        Condition.NO_ADVICE: "Coverage must be watched (`clearinghouse serve` with [chain]); or name the amounts.",
        Condition.ADVICE_STALE: "See why coverage is not computed: `clearinghouse coverage`. Or name the amounts.",
        Condition.ADVICE_AWAITED: "Wait a minute for coverage to be computed anew; or name the amounts.",
        Condition.SIMULATED: "Configure [chain]: an escrow by declaration has no money in it.",
        Condition.CHAIN_UNDECIDED: "See `clearinghouse doctor`: endpoints must answer, and agree.",
        Condition.OTHER_CHAIN: "Set chain.network and chain.rpc_urls as they were until it has ended.",
        Condition.UNLOCKED: "Cancel the unlock with the sender's key first, if the escrow is to be used again.",
        Condition.NONCE_BEHIND: "Wait: the chain lost deep transactions; those that paid are sent again.",
        Condition.WALLET_BUSY: "Wait for the wallet's other transactions, and use it for nothing else.",
        Condition.WALLET_SHORT: "Send ETH to the wallet.",
        Condition.WALLET_FAILED: "See that the wallet's signer runs, has the key and is allowed to sign.",
        Condition.WALLET_GONE: "Set topups.wallet as it was until nothing is in flight (`clearinghouse topup list`): "
        "nothing else can replace or cancel it.",
        Condition.TRANSACTION_CAP: "Name a smaller amount, or raise topups.transaction_max_wei.",
        Condition.DAY_CAP: "Wait until earlier top-ups are a day old, or raise topups.day_max_wei.",
        Condition.FEES_TOO_HIGH: "Wait until gas is cheaper, or raise topups.fee_max_wei and the other caps on gas.",
        Condition.REFUSED_BY_CONTRACT: "See whether the protocol is paused, and that chain.network is right.",
        Condition.ESCROW_CHANGED: "Plan anew: somebody else funded it meanwhile.",
        Condition.STUCK: "Raise topups.fee_max_wei, or wait; a cancellation must offer more for gas, too.",
        Condition.FAILED: "See the transaction on a block explorer; only gas was paid.",
        Condition.DISPLACED: "Find out who else sends from the wallet. Nothing was paid into the escrow by us.",
    }
)


def what_next(condition: str) -> str:
    """What to do about it; also of a condition that a worker of another version has written."""
    return _WHAT_NEXT.get(condition, "`clearinghouse topup plan` says what would be sent, and what hinders it.")


class TopupRefused(Refusal):
    """Nothing was sent. `condition` says why."""

    code, http_status = "topup_refused", 409
    what_next = "See `clearinghouse topup plan`."

    def __init__(self, condition: Condition, message: str) -> None:
        super().__init__(f"{condition.value}: {message}", condition=condition.value)
        self.condition = condition
        self.what_next = what_next(condition)  # type: ignore[misc]  # of this one, not of the class
