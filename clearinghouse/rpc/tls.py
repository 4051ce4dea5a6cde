"""TLS as gRPC wants it: HTTP/2 agreed upon in the handshake."""

from __future__ import annotations

import ssl
from pathlib import Path


def server_tls(cert_file: Path, key_file: Path | None, *, client_ca_file: Path | None) -> ssl.SSLContext:
    """For a port whose clients need a certificate of `client_ca_file`, if given. Raises OSError for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(cert_file, key_file)
    if client_ca_file is not None:
        context.load_verify_locations(client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
