"""TLS for a server that lives as long as one test: its certificate, and one port for two protocols."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CHUNK_BYTES = 64 * 1024


def self_signed_context() -> ssl.SSLContext:
    """A server context for localhost with a key and certificate made now, as orchestrators make theirs at start-up."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with tempfile.TemporaryDirectory() as folder:  # ssl reads keys from files only
        pem = Path(folder, "server.pem")
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(pem)
    return context


class ProtocolSplitter:
    """Ends TLS and passes each connection on by the protocol it negotiated: HTTP/2 to gRPC, anything else to HTTP."""

    def __init__(self, *, grpc_port: int, http_port: int) -> None:
        self._grpc_port, self._http_port = grpc_port, http_port
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        port = self._grpc_port if chosen == "h2" else self._http_port
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        copying = asyncio.create_task(_copy_both_ways((reader, upstream_writer), (upstream_reader, writer)))
        self._open[copying] = (writer, upstream_writer)
        copying.add_done_callback(self._open.pop)

    async def abort_connections(self) -> None:
        """End what is still open, as a server that goes down does."""
        ending = list(self._open)
        for writers in self._open.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*ending)


Direction = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _copy_both_ways(there: Direction, back: Direction) -> None:
    await asyncio.gather(_copy(*there), _copy(*back))
    for _, writer in (there, back):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side ends; then end the other too, which ends the copy in the opposite direction."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):  # a peer that just leaves is an end like any other
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()
