"""Transactions against eth-account's: the same bytes, the same hash, the same sender."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from hypothesis import given
from hypothesis import strategies as st

from chain import rlp
from chain.signatures import SigningKey, keccak
from chain.transactions import Fees, Transaction, TransactionError, read_signed, sign

SECRET = keccak(b"a wallet")
KEY = SigningKey(SECRET)
GWEI = 10**9
EXAMPLE = Transaction(
    chain_id=42161, nonce=7, to=b"\x0a" * 20, value_wei=10**18, data=b"\x98\x9f\x78\x9c" + bytes(96),
    gas_limit_count=200_000, fees=Fees(2 * GWEI, GWEI),
)  # fmt: skip
HIGHEST_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

AMOUNTS = st.integers(0, 2**128)
TRANSACTIONS = st.builds(
    Transaction, chain_id=st.integers(1, 2**40), nonce=st.integers(0, 2**63), to=st.binary(min_size=20, max_size=20),
    value_wei=AMOUNTS, data=st.binary(max_size=200), gas_limit_count=st.integers(21_000, 10**8),
    fees=st.builds(Fees, AMOUNTS, AMOUNTS),
)  # fmt: skip


def by_eth_account(transaction: Transaction) -> tuple[bytes, bytes]:
    """Its raw bytes and its hash."""
    signed = Account.sign_transaction(
        {
            "type": 2, "chainId": transaction.chain_id, "nonce": transaction.nonce, "to": transaction.to,
            "value": transaction.value_wei, "data": transaction.data, "gas": transaction.gas_limit_count,
            "maxFeePerGas": transaction.fees.max_per_gas_wei,
            "maxPriorityFeePerGas": transaction.fees.priority_per_gas_wei,
        },
        SECRET,
    )  # fmt: skip
    return bytes(signed.raw_transaction), bytes(signed.hash)


@given(TRANSACTIONS)
def test_a_signed_transaction_is_the_one_that_eth_account_makes(transaction: Transaction) -> None:
    signed = sign(transaction, KEY)
    assert (signed.raw, signed.hash) == by_eth_account(transaction)
    assert read_signed(signed.raw) == signed
    assert signed.sender == KEY.address


def test_what_is_signed_is_the_digest_that_eth_account_signs() -> None:
    unsigned = TypedTransaction.from_dict(
        {
            "type": 2, "chainId": 42161, "nonce": 7, "to": EXAMPLE.to, "value": 10**18, "data": EXAMPLE.data,
            "gas": 200_000, "maxFeePerGas": 2 * GWEI, "maxPriorityFeePerGas": GWEI,
        }
    )  # fmt: skip
    assert EXAMPLE.digest() == bytes(unsigned.hash())


@given(st.integers(1, 300), st.integers(0, 7))
def test_a_transaction_that_was_changed_is_no_longer_signed_by_the_wallet(at: int, bit: int) -> None:
    raw = bytearray(sign(EXAMPLE, KEY).raw)
    raw[at % len(raw)] ^= 1 << bit
    try:
        changed = read_signed(bytes(raw))
    except TransactionError:
        return
    assert changed.sender != KEY.address


def test_the_mirror_image_of_a_signature_is_refused() -> None:
    fields = rlp.decode(sign(EXAMPLE, KEY).raw[1:])
    assert not isinstance(fields, bytes)
    y, r, s = (rlp.read_number(item) for item in fields[-3:])
    mirrored = [*fields[:-3], *map(rlp.number, (1 - y, r, HIGHEST_ORDER - s))]
    with pytest.raises(TransactionError, match="too high"):
        read_signed(b"\x02" + rlp.encode(mirrored))


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x01" + sign(EXAMPLE, KEY).raw[1:], b"\x02" + bytes(5000)])
def test_other_bytes_are_no_transaction(raw: bytes) -> None:
    with pytest.raises(TransactionError):
        read_signed(raw)


def test_a_contract_creation_and_an_access_list_are_not_signed_by_us() -> None:
    fields = rlp.decode(sign(EXAMPLE, KEY).raw[1:])
    for at, item in ((5, b""), (8, [[b"\x0a" * 20, []]])):
        with pytest.raises(TransactionError, match="plain call"):
            read_signed(b"\x02" + rlp.encode([*fields[:at], item, *fields[at + 1 :]]))


def test_an_access_list_that_is_no_list_is_no_transaction() -> None:
    """Nodes would not take it; with a list in its place the same signature makes another hash, which they would."""
    fields = list(rlp.decode(sign(EXAMPLE, KEY).raw[1:]))
    fields[8] = b""
    with pytest.raises(TransactionError):
        read_signed(b"\x02" + rlp.encode(fields))


def test_a_wallet_must_have_the_value_and_all_the_gas_at_its_highest_price() -> None:
    assert EXAMPLE.cost_max_wei == 10**18 + 200_000 * 2 * GWEI
    assert replace(EXAMPLE, value_wei=0).cost_max_wei == 400_000 * GWEI
