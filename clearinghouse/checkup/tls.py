"""TLS files: they can be loaded, keys belong to their certificates, and nothing expires unnoticed."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from clearinghouse.checkup.certificates import CertificateError, Validity, validity_of
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import Settings

#: Time enough to renew a certificate by hand, and a week longer than automatic renewals leave.
EXPIRES_SOON: Final = timedelta(days=21)
_PEM_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL)


def check(settings: Settings) -> list[Finding]:
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    listen, pool = settings.listen, settings.signer.go_livepeer
    if listen.tls_cert_file is not None and listen.tls_key_file is not None:
        yield _certificate("listen.tls_cert_file", listen.tls_cert_file, listen.tls_key_file)
    if listen.tls_client_ca_file is not None:
        yield _certificate("listen.tls_client_ca_file", listen.tls_client_ca_file, None)
    if settings.signer.kind != "go_livepeer":
        return
    if pool.tls_ca_file is not None:
        yield _certificate("signer.go_livepeer.tls_ca_file", pool.tls_ca_file, None)
    if pool.tls_client_cert_file is not None and pool.tls_client_key_file is not None:
        yield _certificate(
            "signer.go_livepeer.tls_client_cert_file", pool.tls_client_cert_file, pool.tls_client_key_file
        )


def _certificate(setting: str, file: Path, key_file: Path | None) -> Finding:
    """About a file of certificates: one of ours with its key, or authorities to trust."""
    name = f"TLS {setting}"
    try:
        validities = _validities(file)
        _load(file, key_file)
    except OSError as reason:  # an SSLError is an OSError
        return error(
            name,
            _why(reason, file, key_file),
            "Give PEM files that this user may read, key and certificate of one pair.",
        )
    except (CertificateError, ValueError) as reason:
        return error(name, f"{file}: {reason}", "Give a file with PEM certificates.")
    return _expiry(name, validities, datetime.now(UTC))


def _validities(file: Path) -> list[Validity]:
    """Of every certificate in the file. CertificateError where there is none."""
    found = _PEM_CERTIFICATE.findall(file.read_text(encoding="ascii"))
    if not found:
        raise CertificateError("holds no certificate")
    return [validity_of(ssl.PEM_cert_to_DER_cert(pem)) for pem in found]


def _load(file: Path, key_file: Path | None) -> None:
    """As OpenSSL will load it when serving. An encrypted key is refused: nobody is there to type its password."""
    if key_file is None:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    else:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key_file, password="")


def _why(reason: OSError, file: Path, key_file: Path | None) -> str:
    files = file if key_file is None else f"{file} with {key_file}"
    if isinstance(reason, ssl.SSLError) and reason.reason == "KEY_VALUES_MISMATCH":
        return f"{files}: the key is not that of the certificate"
    if isinstance(reason, ssl.SSLError):
        return f"{files} cannot be loaded: {(reason.reason or str(reason)).replace('_', ' ').lower()}"
    return f"{reason.filename or files} cannot be read: {reason.strerror}"


def _expiry(name: str, validities: list[Validity], now: datetime) -> Finding:
    first_end = min(validity.not_after for validity in validities)
    last_begin = max(validity.not_before for validity in validities)
    if first_end <= now:
        return error(name, f"expired at {first_end:%Y-%m-%d %H:%M} UTC", "Renew the certificate and restart.")
    if last_begin > now:
        return error(name, f"is not valid before {last_begin:%Y-%m-%d %H:%M} UTC", "Check the clock, or the file.")
    detail = f"valid until {first_end:%Y-%m-%d %H:%M} UTC"
    if first_end - now < EXPIRES_SOON:
        return warning(name, detail, "Renew the certificate and restart.")
    return ok(name, detail)
