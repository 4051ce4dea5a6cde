"""What we encode and decode ourselves, against the field's own library."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector
from hypothesis import given
from hypothesis import strategies as st

from chain import abi
from chain.signatures import checksum_address

ADDRESSES = st.binary(min_size=20, max_size=20)
UINTS = st.integers(0, 2**256 - 1)


@given(ADDRESSES, UINTS, st.binary(min_size=32, max_size=32))
def test_a_call_is_encoded_as_the_library_does(address: bytes, number: int, word: bytes) -> None:
    function = function_signature_to_4byte_selector("f(address,uint256,bytes32)")
    assert abi.selector("f(address,uint256,bytes32)") == function
    arguments = encode(["address", "uint256", "bytes32"], [checksum_address(address), number, word])
    assert abi.calldata(function, address, number, word) == function + arguments


@given(st.lists(UINTS, min_size=1, max_size=5), ADDRESSES, st.booleans(), st.text(max_size=100))
def test_what_the_library_encodes_is_decoded(numbers: list[int], address: bytes, yes: bool, text: str) -> None:
    assert abi.uints(encode(["uint256"] * len(numbers), numbers), len(numbers)) == tuple(numbers)
    assert abi.address(encode(["address"], [checksum_address(address)])) == address
    assert abi.flag(encode(["bool"], [yes])) is yes
    assert abi.text(encode(["string"], [text])) == text


@given(st.binary(max_size=200))
def test_anything_else_is_refused_or_is_a_text_and_never_breaks_anything(data: bytes) -> None:
    for decode in (abi.uint, abi.flag, abi.address, abi.text):
        try:
            decode(data)
        except abi.AbiError:
            continue


@pytest.mark.parametrize(
    ("decode", "data"),
    [
        (abi.uint, b""),
        (abi.uint, bytes(64)),
        (abi.flag, (2).to_bytes(32, "big")),
        (abi.address, b"\x01" * 32),
        (abi.text, (32).to_bytes(32, "big") + (5).to_bytes(32, "big") + b"four"),
        (abi.text, (2**255).to_bytes(32, "big")),
    ],
)
def test_what_a_function_does_not_return_is_refused(decode: object, data: bytes) -> None:
    assert callable(decode)
    with pytest.raises(abi.AbiError):
        decode(data)
