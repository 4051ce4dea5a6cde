"""Ethereum hashing and signing, as the payment protocol uses it (remote-signer protocol, section 0).

Every object is signed with the personal prefix of EIP-191; what differs is the message:

    payment state   eth_sign(state)          the raw JSON bytes, any length
    ticket          eth_sign(ticket hash)    32 bytes
    segCreds        bsign(flat)              = eth_sign(keccak(flat))
    info request    bsign(ascii address)     = eth_sign(keccak(ascii address))

A signature is r(32) | s(32) | v(1), s in the lower half of the curve's order, v 27 or 28.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import sha3
from coincurve import PrivateKey, PublicKey

SIGNATURE_BYTES: Final = 65
ADDRESS_BYTES: Final = 20

#: The order of secp256k1 (SEC 2, section 2.4.1). A signature verifies with s and with its mirror image, order - s;
#: only the lower is accepted, so that nobody can make a second signature out of the first.
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HIGHEST_S: Final = _CURVE_ORDER // 2

_PREFIX: Final = b"\x19Ethereum Signed Message:\n"
_PREFIX_32: Final = _PREFIX + b"32"  # tickets, segCreds and info requests: the hot path

_keccak_256 = sha3.keccak_256


class SignatureError(ValueError):
    """The signature is malformed or belongs to no key. The text is go-livepeer's, where it has one."""


def keccak(data: bytes) -> bytes:
    """keccak-256 (the original padding, not SHA3-256's)."""
    digest: bytes = _keccak_256(data).digest()
    return digest


EMPTY_KECCAK: Final = keccak(b"")


def personal_hash(message: bytes) -> bytes:
    """The digest a wallet signs for `message` (EIP-191, version 0x45): prefix, decimal length in bytes, message."""
    prefix = _PREFIX_32 if len(message) == 32 else _PREFIX + b"%d" % len(message)
    digest: bytes = _keccak_256(prefix + message).digest()  # as `keccak`, without the call: every signature comes by
    return digest


class SigningKey:
    """A private key and what follows from it. Never shows the secret: not in repr, not in errors, not in pickles."""

    __slots__ = ("_private", "_sign", "address", "public_key")

    address: bytes
    public_key: bytes

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes, big-endian, in [1, order of the curve). Raises ValueError without quoting it."""
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < _CURVE_ORDER:
            raise ValueError("a private key is 32 bytes, neither zero nor beyond the order of secp256k1")
        self._private = PrivateKey(secret)
        self._sign = self._private.sign_recoverable
        self.public_key = self._private.public_key.format(compressed=False)
        self.address = _address_of(self.public_key)

    def eth_sign(self, message: bytes) -> bytes:
        """65 bytes r|s|v over the personal hash; deterministic (RFC 6979), low s, v 27 or 28."""
        signature = self._sign(personal_hash(message), None)  # None: the digest is final, do not hash it again
        return signature[:64] + (b"\x1c" if signature[64] else b"\x1b")

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes r|s|y over 32 bytes as they are, y the parity 0 or 1: what a transaction is signed with."""
        return self._sign(digest, None)

    def bsign(self, message: bytes) -> bytes:
        """eth_sign over the keccak of the message, as a broadcaster signs."""
        return self.eth_sign(keccak(message))

    def __repr__(self) -> str:
        return f"SigningKey({checksum_address(self.address)})"

    def __reduce__(self) -> str:
        raise TypeError("a SigningKey stays in its process; it cannot be pickled or copied")


def recover_eth_signer(message: bytes, signature: bytes) -> bytes:
    """The 20-byte address that made `signature` with `eth_sign(message)`.

    Raises SignatureError for another length than 65, an s in the upper half, a v other than 27 or 28, and where no
    public key fits. Any other wrong signature recovers to some other address: the caller must compare.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureError("invalid signature length")
    if int.from_bytes(signature[32:64], "big") > _HIGHEST_S:
        raise SignatureError("signature s value too high")
    recovery_id = signature[64] - 27
    if recovery_id not in (0, 1):
        raise SignatureError("signature v value must be 27 or 28")
    return recover_digest_signer(personal_hash(message), signature[:64] + bytes([recovery_id]))


def recover_digest_signer(digest: bytes, signature: bytes) -> bytes:
    """The 20-byte address that made `signature` with `sign_digest(digest)`. Raises SignatureError as above."""
    if len(signature) != SIGNATURE_BYTES or signature[64] > 1:
        raise SignatureError("invalid signature length")
    if int.from_bytes(signature[32:64], "big") > _HIGHEST_S:
        raise SignatureError("signature s value too high")
    try:
        public_key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception as error:  # coincurve raises a bare Exception where no point fits
        raise SignatureError("invalid signature") from error
    return _address_of(public_key.format(compressed=False))


def _address_of(public_key: bytes) -> bytes:
    """Last 20 bytes of the keccak of the point, without the 0x04 that marks it uncompressed."""
    return keccak(public_key[1:])[-ADDRESS_BYTES:]


@lru_cache(maxsize=8192)
def checksum_address(address: bytes) -> str:
    """0x and 40 hex digits whose case is a checksum (EIP-55). Remembered: the hot path shows the same few addresses."""
    if len(address) != ADDRESS_BYTES:
        raise ValueError(f"an address has {ADDRESS_BYTES} bytes, not {len(address)}")
    digits = address.hex()
    nibbles = keccak(digits.encode()).hex()
    return "0x" + "".join(d.upper() if nibble >= "8" else d for d, nibble in zip(digits, nibbles, strict=False))


def parse_address(text: str) -> bytes:
    """20 bytes from 0x and 40 hex digits. Mixed case must be the right checksum (EIP-55): it catches typing mistakes.

    Raises ValueError saying what is wrong with it.
    """
    digits = text[2:]
    if len(text) != 42 or text[:2] not in ("0x", "0X") or not digits.isascii() or not digits.isalnum():
        raise ValueError(f"not an Ethereum address (0x and 40 hex digits): {text[:64]!r}")
    try:
        address = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"not an Ethereum address (0x and 40 hex digits): {text[:64]!r}") from None
    if digits not in (digits.lower(), digits.upper()) and checksum_address(address)[2:] != digits:
        raise ValueError(f"the capitals of {text!r} are not its checksum (EIP-55): a digit may be mistyped")
    return address
