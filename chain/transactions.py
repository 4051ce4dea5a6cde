"""Transactions of EIP-1559: made, signed, and read back.

    0x02 | rlp([chain, nonce, priority fee, fee, gas limit, to, value, data, access list, y, r, s])

What is signed is the keccak of the same without y, r and s. A transaction's hash is the keccak of the signed whole, and
is known before anything was sent: whoever stored the bytes can send them again and again, and they are mined once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from chain import rlp
from chain.signatures import ADDRESS_BYTES, SignatureError, SigningKey, keccak, recover_digest_signer

_TYPE: Final = b"\x02"
_FIELDS_COUNT: Final = 12
_SIGNATURE_FIELDS_COUNT: Final = 3
#: Funding an escrow is a few hundred bytes.
RAW_BYTES_MAX: Final = 4096


class TransactionError(ValueError):
    """The bytes are not a signed transaction of this kind."""


class Fees(NamedTuple):
    """What is offered for a unit of gas: at most `max_per_gas_wei`, and of it up to `priority_per_gas_wei` above the
    block's base fee."""

    max_per_gas_wei: int
    priority_per_gas_wei: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """Not signed yet. `to` has 20 bytes."""

    chain_id: int
    nonce: int
    to: bytes
    value_wei: int
    data: bytes
    gas_limit_count: int
    fees: Fees

    @property
    def cost_max_wei(self) -> int:
        """What the wallet must have: its value, and all of its gas at the highest price."""
        return self.value_wei + self.gas_limit_count * self.fees.max_per_gas_wei

    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        return keccak(_TYPE + rlp.encode(self.fields()))

    def fields(self) -> list[rlp.Item]:
        numbers = (self.chain_id, self.nonce, self.fees.priority_per_gas_wei, self.fees.max_per_gas_wei)
        return [
            *map(rlp.number, (*numbers, self.gas_limit_count)),
            self.to,
            rlp.number(self.value_wei),
            self.data,
            [],  # an access list would save little here
        ]


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """`raw` is what is sent, `sender` who signed: 20 bytes."""

    transaction: Transaction
    raw: bytes
    sender: bytes

    @property
    def hash(self) -> bytes:
        return keccak(self.raw)


def sign(transaction: Transaction, key: SigningKey) -> SignedTransaction:
    """Deterministic: the same transaction and key give the same bytes."""
    signature = key.sign_digest(transaction.digest())
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    signed = [*transaction.fields(), *map(rlp.number, (signature[64], r, s))]
    return SignedTransaction(transaction, _TYPE + rlp.encode(signed), key.address)


def read_signed(raw: bytes) -> SignedTransaction:
    """Raises TransactionError for anything but the one form of a signed transaction of this kind."""
    if raw[:1] != _TYPE or len(raw) > RAW_BYTES_MAX:
        raise TransactionError("not a transaction of EIP-1559")
    try:
        fields = rlp.decode(raw[1:])
        transaction, signature = _read(fields)
        return SignedTransaction(transaction, raw, recover_digest_signer(transaction.digest(), signature))
    except (rlp.RlpError, SignatureError, OverflowError) as error:
        raise TransactionError(f"not a signed transaction: {error}") from error


def _read(fields: rlp.Item) -> tuple[Transaction, bytes]:
    """The transaction and its signature r|s|y. Raises RlpError, OverflowError."""
    if isinstance(fields, bytes) or len(fields) != _FIELDS_COUNT:
        raise rlp.RlpError("not its fields")
    numbers = [rlp.read_number(fields[at]) for at in (0, 1, 2, 3, 4, 6)]
    chain_id, nonce, priority_wei, max_wei, gas_limit, value_wei = numbers
    to, data, access_list = fields[5], fields[7], fields[8]
    if not isinstance(to, bytes) or len(to) != ADDRESS_BYTES or not isinstance(data, bytes) or access_list != []:
        raise rlp.RlpError("not a plain call of a contract")
    y, r, s = (rlp.read_number(item) for item in fields[-_SIGNATURE_FIELDS_COUNT:])
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + y.to_bytes(1, "big")
    fees = Fees(max_per_gas_wei=max_wei, priority_per_gas_wei=priority_wei)
    return Transaction(chain_id, nonce, to, value_wei, data, gas_limit, fees), signature
