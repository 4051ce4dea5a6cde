"""What happens to an escrow and to the protocol's clock, from the logs of the contracts to frozen values. Pure.

A log is what eth_getLogs answers with. Everything about it is checked: where it stands, that it was not taken back, how
long its words are. Whatever does not fit raises EventError, for it is no log of these contracts.
Source: remote-signer protocol, section 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from chain import abi
from chain.signatures import ADDRESS_BYTES, keccak

_AUX_DATA_BYTES: Final = 64
#: Of a place: fits a bigint.
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,15}", re.ASCII)
_BYTES: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


class EventError(ValueError):
    """Not a log of these contracts. The text says what is wrong, and quotes nothing."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a log stands, in the order of the chain. `index` counts the logs of a block."""

    block_number: int
    index: int
    block_hash: bytes
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """As the chain has it, not understood yet."""

    place: Place
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class EscrowChange(StrEnum):
    """What became of a sender's funds."""

    DEPOSIT_FUNDED = "deposit_funded"
    RESERVE_FUNDED = "reserve_funded"
    RESERVE_CLAIMED = "reserve_claimed"
    TICKET_PAID = "ticket_paid"
    UNLOCK = "unlock"
    UNLOCK_CANCELLED = "unlock_cancelled"
    WITHDRAWAL = "withdrawal"


@dataclass(frozen=True, slots=True)
class EscrowEvent:
    """`party` is who was paid or who claimed. `amount_wei` is None where nothing moves; a withdrawal has the deposit
    there and the reserve beside it. Rounds are those of an unlock."""

    place: Place
    kind: EscrowChange
    sender: bytes
    party: bytes | None = None
    amount_wei: int | None = None
    reserve_wei: int | None = None
    start_round: int | None = None
    end_round: int | None = None


@dataclass(frozen=True, slots=True)
class Redemption:
    """A winning ticket of ours or of somebody who has our key. `recipient_rand` is no secret any more."""

    place: Place
    sender: bytes
    recipient: bytes
    face_value_wei: int
    win_prob: int
    sender_nonce: int
    recipient_rand: bytes
    creation_round: int
    creation_round_block_hash: bytes

    @property
    def recipient_rand_hash(self) -> bytes:
        """What the ticket was signed over."""
        return keccak(self.recipient_rand)


@dataclass(frozen=True, slots=True)
class NewRound:
    """A round was initialised. Its hash may be zero on L2."""

    place: Place
    round: int
    block_hash: bytes


Event = Redemption | EscrowEvent | NewRound


def _topic(signature: str) -> bytes:
    return keccak(signature.encode("ascii"))


REDEEMED: Final = _topic("WinningTicketRedeemed(address,address,uint256,uint256,uint256,uint256,bytes)")
NEW_ROUND: Final = _topic("NewRound(uint256,bytes32)")


def parse_log(result: Any) -> Log:
    """One member of what eth_getLogs answers. Raises EventError."""
    if not isinstance(result, Mapping):
        raise EventError("a log is an object")
    if result.get("removed", False) is not False:
        raise EventError("a log that was taken back")
    topics = result.get("topics")
    if not isinstance(topics, list) or len(topics) > 4:
        raise EventError("a log has up to four topics")
    place = Place(
        block_number=_quantity(result.get("blockNumber")),
        index=_quantity(result.get("logIndex")),
        block_hash=_data(result.get("blockHash"), abi.WORD_BYTES),
        transaction_hash=_data(result.get("transactionHash"), abi.WORD_BYTES),
    )
    words = tuple(_data(topic, abi.WORD_BYTES) for topic in topics)
    return Log(place, _data(result.get("address"), ADDRESS_BYTES), words, _data(result.get("data")))


def decode_escrow_log(log: Log) -> Redemption | EscrowEvent:
    """A log of the TicketBroker about a sender. Raises EventError for one that is not among EVENTS."""
    decode = _DECODERS.get(log.topics[0]) if log.topics else None
    if decode is None:
        raise EventError("an event that was not asked for")
    try:
        return decode(log)
    except abi.AbiError as error:
        raise EventError(str(error)) from None


def decode_round_log(log: Log) -> NewRound:
    """A log of the RoundsManager. Raises EventError."""
    if len(log.topics) != 2 or log.topics[0] != NEW_ROUND or len(log.data) != abi.WORD_BYTES:
        raise EventError("not a new round")
    return NewRound(log.place, int.from_bytes(log.topics[1], "big"), log.data)


def _redemption(log: Log) -> Redemption:
    sender, recipient = _indexed(log, 2)
    head = 5 * abi.WORD_BYTES
    face_value_wei, win_prob, sender_nonce, rand, offset = abi.uints(log.data[:head], 5)
    tail = log.data[head:]
    if offset != head or len(tail) != abi.WORD_BYTES + _AUX_DATA_BYTES or abi.uint(tail[:32]) != _AUX_DATA_BYTES:
        raise EventError("a redeemed ticket's auxData is its creation round and the hash of that round")
    return Redemption(
        log.place, sender, recipient, face_value_wei, win_prob, sender_nonce, rand.to_bytes(32, "big"),
        creation_round=abi.uint(tail[32:64]), creation_round_block_hash=tail[64:],
    )  # fmt: skip


def _amount(kind: EscrowChange) -> Callable[[Log], EscrowEvent]:
    def decode(log: Log) -> EscrowEvent:
        (sender,) = _indexed(log, 1)
        return EscrowEvent(log.place, kind, sender, amount_wei=abi.uint(log.data))

    return decode


def _reserve_claimed(log: Log) -> EscrowEvent:
    (sender,) = _indexed(log, 1)
    _, amount_wei = abi.uints(log.data, 2)
    claimant = abi.address(log.data[: abi.WORD_BYTES])
    return EscrowEvent(log.place, EscrowChange.RESERVE_CLAIMED, sender, party=claimant, amount_wei=amount_wei)


def _paid(log: Log) -> EscrowEvent:
    sender, recipient = _indexed(log, 2)
    return EscrowEvent(log.place, EscrowChange.TICKET_PAID, sender, party=recipient, amount_wei=abi.uint(log.data))


def _unlock(log: Log) -> EscrowEvent:
    (sender,) = _indexed(log, 1)
    start_round, end_round = abi.uints(log.data, 2)
    return EscrowEvent(log.place, EscrowChange.UNLOCK, sender, start_round=start_round, end_round=end_round)


def _unlock_cancelled(log: Log) -> EscrowEvent:
    (sender,) = _indexed(log, 1)
    abi.uints(log.data, 0)
    return EscrowEvent(log.place, EscrowChange.UNLOCK_CANCELLED, sender)


def _withdrawal(log: Log) -> EscrowEvent:
    (sender,) = _indexed(log, 1)
    deposit_wei, reserve_wei = abi.uints(log.data, 2)
    return EscrowEvent(log.place, EscrowChange.WITHDRAWAL, sender, amount_wei=deposit_wei, reserve_wei=reserve_wei)


_DECODERS: Final[Mapping[bytes, Callable[[Log], Redemption | EscrowEvent]]] = {
    REDEEMED: _redemption,
    _topic("DepositFunded(address,uint256)"): _amount(EscrowChange.DEPOSIT_FUNDED),
    _topic("ReserveFunded(address,uint256)"): _amount(EscrowChange.RESERVE_FUNDED),
    _topic("ReserveClaimed(address,address,uint256)"): _reserve_claimed,
    _topic("WinningTicketTransfer(address,address,uint256)"): _paid,
    _topic("Unlock(address,uint256,uint256)"): _unlock,
    _topic("UnlockCancelled(address)"): _unlock_cancelled,
    _topic("Withdrawal(address,uint256,uint256)"): _withdrawal,
}

#: First topics of the TicketBroker's events about a sender, who is always the second topic.
ESCROW_TOPICS: Final = tuple(_DECODERS)


def _indexed(log: Log, count: int) -> tuple[bytes, ...]:
    """The addresses among the topics."""
    if len(log.topics) != 1 + count:
        raise EventError(f"{count} indexed addresses are expected")
    return tuple(abi.address(topic) for topic in log.topics[1:])


def _quantity(value: Any) -> int:
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise EventError("a log of a block that is not mined yet, or not a number")
    return int(value, 16)


def _data(value: Any, length: int | None = None) -> bytes:
    if not isinstance(value, str) or not _BYTES.fullmatch(value):
        raise EventError("not hexadecimal")
    data = bytes.fromhex(value[2:])
    if length is not None and len(data) != length:
        raise EventError(f"{length} bytes are expected")
    return data
