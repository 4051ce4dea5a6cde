"""From when to when an X.509 certificate is valid, read from its DER: the standard library does not tell.

    Certificate ::= SEQUENCE { tbsCertificate ::= SEQUENCE {
        version [0] (optional), serialNumber, signature, issuer,
        validity ::= SEQUENCE { notBefore, notAfter },  each UTCTime or GeneralizedTime
        … } … }

Source: RFC 5280, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


class CertificateError(Exception):
    """Not a certificate."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Both instants in UTC, both included."""

    not_before: datetime
    not_after: datetime


def validity_of(der: bytes) -> Validity:
    """Raises CertificateError."""
    certificate, _ = _element(der, _SEQUENCE)
    rest, _ = _element(certificate, _SEQUENCE)
    if rest[:1] == bytes([_VERSION]):
        rest = _element(rest, _VERSION)[1]
    for _ in ("serialNumber", "signature", "issuer"):
        rest = _element(rest, None)[1]
    validity, _ = _element(rest, _SEQUENCE)
    not_before, rest = _instant(validity)
    return Validity(not_before, _instant(rest)[0])


def _element(data: bytes, tag: int | None) -> tuple[bytes, bytes]:
    """Content of the first element, and what follows it. None takes any tag."""
    if len(data) < 2 or (tag is not None and data[0] != tag):
        raise CertificateError("is not a certificate")
    length, begin = data[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[2:begin], "big")
    if begin + length > len(data):
        raise CertificateError("is not a certificate")
    return data[begin : begin + length], data[begin + length :]


def _instant(data: bytes) -> tuple[datetime, bytes]:
    content, rest = _element(data, None)
    try:
        text = content.decode("ascii")
        if data[0] == _UTC_TIME:  # two digits of the year: 1950 to 2049
            text = ("19" if text[:2] >= "50" else "20") + text
        elif data[0] != _GENERALIZED_TIME:
            raise CertificateError("is not a certificate")
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), rest
    except ValueError:
        raise CertificateError("is not a certificate") from None
