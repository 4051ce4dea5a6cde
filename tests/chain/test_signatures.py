"""Signing, recovering and showing addresses."""

from __future__ import annotations

import pickle

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from chain.signatures import (
    SignatureError,
    SigningKey,
    checksum_address,
    keccak,
    parse_address,
    personal_hash,
    recover_eth_signer,
)

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECRET = keccak(b"a key of the tests")
KEY = SigningKey(SECRET)


@given(st.binary(max_size=300), st.integers(1, ORDER - 1))
def test_signatures_are_those_of_eth_account(message: bytes, secret: int) -> None:
    key = SigningKey(secret.to_bytes(32, "big"))
    account = Account.from_key(secret.to_bytes(32, "big"))
    assert checksum_address(key.address) == account.address
    assert key.eth_sign(message) == bytes(account.sign_message(encode_defunct(message)).signature)
    assert key.bsign(message) == key.eth_sign(keccak(message))


@given(st.binary(max_size=300))
def test_a_signature_recovers_to_its_signer(message: bytes) -> None:
    signature = KEY.eth_sign(message)
    assert recover_eth_signer(message, signature) == KEY.address
    assert signature[64] in (27, 28)
    assert int.from_bytes(signature[32:64], "big") <= ORDER // 2


@given(st.binary(min_size=1, max_size=100), st.data())
def test_one_bit_changed_anywhere_is_no_signature_of_the_signer(message: bytes, data: st.DataObject) -> None:
    signature = KEY.eth_sign(message)
    whole = bytearray(message + signature)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    try:
        signer = recover_eth_signer(bytes(whole[: len(message)]), bytes(whole[len(message) :]))
    except SignatureError:
        return
    assert signer != KEY.address


def test_the_mirror_image_of_a_signature_is_refused() -> None:
    signature = KEY.eth_sign(b"m")
    mirrored_s = (ORDER - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    with pytest.raises(SignatureError, match="s value too high"):
        recover_eth_signer(b"m", signature[:32] + mirrored_s + bytes([55 - signature[64]]))


@pytest.mark.parametrize("length", [0, 64, 66])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SignatureError, match="invalid signature length"):
        recover_eth_signer(b"m", bytes(length))


@pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
def test_a_v_other_than_27_and_28_is_refused(v: int) -> None:
    with pytest.raises(SignatureError, match="v value"):
        recover_eth_signer(b"m", KEY.eth_sign(b"m")[:64] + bytes([v]))


@pytest.mark.parametrize("r", [0, ORDER, 2**256 - 1])
def test_an_r_no_key_can_make_is_refused(r: int) -> None:
    with pytest.raises(SignatureError, match="invalid signature"):
        recover_eth_signer(b"m", r.to_bytes(32, "big") + KEY.eth_sign(b"m")[32:])


def test_a_verified_signature_of_go_livepeer_recovers() -> None:
    message = bytes.fromhex("b7da355477356fc4c47fcabcf232dc77a6db9b07b7e48b76261cc55cc8fbabb3")
    signature = bytes.fromhex(
        "206443228e8f784bc3a122de0d85eb3ebff82d6a79cca26c7eeb907099a6404f"
        "6dff57bc6828f28bd6cd073c89d94cf3364204679ed8365fa45b5ee6af19a9841c"
    )
    assert checksum_address(recover_eth_signer(message, signature)) == "0x3BadDb1eeE2105893136A3F96c8a963E9C6309d6"


def test_the_personal_hash_counts_the_real_length() -> None:
    assert personal_hash(b"x" * 372) == keccak(b"\x19Ethereum Signed Message:\n372" + b"x" * 372)
    assert personal_hash(b"x" * 32) == keccak(b"\x19Ethereum Signed Message:\n32" + b"x" * 32)
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_what_is_no_private_key_is_refused_without_being_quoted(secret: bytes) -> None:
    with pytest.raises(ValueError, match="a private key is 32 bytes") as refused:
        SigningKey(secret)
    assert secret.hex() not in str(refused.value) or not secret


def test_a_key_shows_its_address_and_never_its_secret() -> None:
    assert repr(KEY) == f"SigningKey({checksum_address(KEY.address)})"
    assert SECRET.hex() not in f"{KEY!r} {KEY}"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(KEY)


@pytest.mark.parametrize(
    "text",
    [  # the examples of EIP-55
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_addresses_carry_their_checksum_in_capitals(text: str) -> None:
    assert checksum_address(parse_address(text)) == text
    assert parse_address(text.lower()) == parse_address(text)
    assert parse_address("0x" + text[2:].upper()) == parse_address(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an Ethereum address"),
        ("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "not an Ethereum address"),
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeA", "not an Ethereum address"),
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg", "not an Ethereum address"),
        ("0x 5aeb6053f3e94c9b9a09f33669435e7ef1beaed", "not an Ethereum address"),
        ("0x" + "١" * 40, "not an Ethereum address"),
        ("0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "not its checksum"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


def test_a_checksum_needs_an_address_of_20_bytes() -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        checksum_address(bytes(32))
