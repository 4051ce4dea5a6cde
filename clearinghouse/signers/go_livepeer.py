"""One remote signer over HTTP: the three routes of go-livepeer's `-remoteSigner`, and no judgement of the answers.

What goes up is built here from an allow-list (remote-signer protocol, sections 10-A8 and 10-A12): Content-Type, Accept,
one Signer-Auth-Id, and the headers configured for this signer. No header of a caller can reach it: there is no
parameter for one.

What comes back is a complete answer to the byte, or `NoAnswerError`. Nothing is asked twice here and no redirect is
followed: whom to ask next is the pool's decision.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
import tempfile
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from chain import shallow_json
from chain.http_client import (
    ClosedError,
    ConnectError,
    ExchangeError,
    HttpClient,
    NotHttpError,
    TimeIsUpError,
    TooLargeError,
    TruncatedError,
)
from chain.signatures import checksum_address, keccak, recover_eth_signer
from clearinghouse.signers.base import SignerAnswer

PAYMENT_PATH: Final = "/generate-live-payment"
IDENTITY_PATH: Final = "/sign-orchestrator-info"
DISCOVERY_PATH: Final = "/discover-orchestrators"

#: A payment of 100 tickets is about 20 kB; the rest is room for capabilities, which come back inside segCreds.
MAX_ANSWER_BYTES: Final = 1 << 20
#: An address and a signature in hex are about 210 bytes of JSON.
MAX_IDENTITY_BYTES: Final = 4096

#: Shorter than the 10 minutes after which go-livepeer closes idle connections, so that we are the side that closes.
_IDLE_TIMEOUT_S: Final = 60
#: What may stand in a query as it is; `%` because escapes are there already. Not `#`, blanks, control characters.
_QUERY_CHARACTERS: Final = "%&=+/?:@!$'()*,;-._~"

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Set here or by the HTTP client, one value each. A second one could change whose payment it is, or where a body ends.
_RESERVED_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Failure(StrEnum):
    """Why there is no usable answer: a closed set, fit for a metric's label."""

    #: Refused, unreachable, unknown host, TLS not agreed, or closed before an answer began.
    CONNECTION_FAILED = "connection_failed"
    TIMED_OUT = "timed_out"
    TRUNCATED = "answer_truncated"
    NOT_HTTP = "not_http"
    TOO_LARGE = "answer_too_large"
    REDIRECTED = "redirected"
    #: Our own client was closed while it waited.
    CLIENT_CLOSED = "client_closed"
    #: A complete answer to /sign-orchestrator-info, but not a 200.
    IDENTITY_REFUSED = "identity_refused"
    #: A 200 that holds no address, or whose signature is not by that address.
    IDENTITY_INVALID = "identity_invalid"
    #: A true identity, but another one than the pool's.
    WRONG_KEY = "wrong_key"


class NoAnswerError(Exception):
    """No usable answer. Nothing was released, so asking another signer is safe. Names no URL."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class SignerEndpoint:
    """Where a signer is and how to identify ourselves to it. Everything that may be secret stays out of its repr.

    `url`: http or https, without path, query or fragment; user:password in it becomes an Authorization header.
    `headers`: sent with every request to this signer; values are secrets.
    `ca_pem`: trusted in addition to the system's certificate authorities.
    `identity_pem`: our client certificate and its private key, concatenated.
    `name`: for logs, metrics and readiness; host:port when empty.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_pem: bytes | None = field(default=None, repr=False)
    identity_pem: bytes | None = field(default=None, repr=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A proven key: `answer` holds the address and a signature over it that recovers to the same address."""

    address: bytes
    answer: SignerAnswer


class GoLivepeerSigner:
    """A keep-alive HTTP/1.1 client of one signer. Connects on first use; a cancelled call drops its connection.

    Raises ValueError, without quoting URL or header values, when the endpoint cannot be used as configured.
    """

    def __init__(self, endpoint: SignerEndpoint, *, connect_timeout_s: float = 1.0) -> None:
        parts = _split_url(endpoint.url)
        hostname = parts.hostname or ""
        host = f"[{hostname}]" if ":" in hostname else hostname
        default_port = 443 if parts.scheme == "https" else 80
        port = parts.port or default_port
        self.name = endpoint.name or f"{host}:{port}"
        #: True when requests, and our credentials with them, cross a network unencrypted (protocol, section 10-A23).
        self.is_cleartext = parts.scheme == "http" and not _is_loopback(hostname)
        tls = _tls_context(endpoint, self.name) if parts.scheme == "https" else None
        headers = {
            "Host": host if port == default_port else f"{host}:{port}",
            "User-Agent": "livepeer-clearinghouse",
            "Accept": "application/json",
            **_static_headers(endpoint, parts),
        }
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")
        #: Of a payment, up to its auth id.
        self._payment_head = b"%bSigner-Auth-Id: " % self._post_head(PAYMENT_PATH)
        self._client = HttpClient(
            hostname,
            port,
            tls=tls,
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=_IDLE_TIMEOUT_S,
            body_max_bytes=MAX_ANSWER_BYTES,
        )

    def generate_payment(
        self, canonical: bytes, *, auth_id: str, timeout_s: float
    ) -> Coroutine[Any, Any, SignerAnswer]:
        """POST /generate-live-payment. `auth_id`: printable ASCII, not empty; anything else is a bug in the caller.

        Raises NoAnswerError. `timeout_s` covers everything from connecting to the last byte of the answer.
        Not `async`, which would be one coroutine more for each call to pass through: a bug shows at the call.
        """
        if not auth_id or not auth_id.isascii() or not auth_id.isprintable():
            raise ValueError("an auth id is printable ASCII and not empty")
        head = b"%b%b\r\n" % (self._payment_head, auth_id.encode("ascii"))
        return self._exchange(_with_body(head, canonical), timeout_s)

    async def prove_identity(self, *, timeout_s: float) -> Identity:
        """POST /sign-orchestrator-info and check the signature in the answer. Raises NoAnswerError."""
        answer = await self._exchange(_with_body(self._post_head(IDENTITY_PATH), b"{}"), timeout_s)
        if answer.status != 200:
            raise NoAnswerError(Failure.IDENTITY_REFUSED)
        return Identity(read_identity(answer.body), answer)

    async def discover_orchestrators(self, query: str, *, timeout_s: float) -> SignerAnswer:
        """GET /discover-orchestrators, the query unchanged but for characters no URL may hold. Raises NoAnswerError."""
        target = f"{DISCOVERY_PATH}?{quote(query, safe=_QUERY_CHARACTERS)}" if query else DISCOVERY_PATH
        return await self._exchange(b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode("ascii"), self._headers), timeout_s)

    async def close(self) -> None:
        """Requests in flight end with NoAnswerError(CLIENT_CLOSED). May be called twice."""
        await self._client.close()

    def _post_head(self, path: str) -> bytes:
        return b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\n" % (path.encode("ascii"), self._headers)

    async def _exchange(self, request: bytes, timeout_s: float) -> SignerAnswer:
        try:
            answer = await self._client.exchange(request, timeout_s=timeout_s)
        except ExchangeError as error:
            # Not chained: its cause may quote an address, and everything we act upon is in the failure.
            raise NoAnswerError(_FAILURES[type(error)]) from None
        if 300 <= answer.status < 400:
            raise NoAnswerError(Failure.REDIRECTED)
        if not 200 <= answer.status < 600:
            raise NoAnswerError(Failure.NOT_HTTP)
        status, headers, body = answer
        content_type = _ascii_header(headers, b"content-type") or "application/json"
        return SignerAnswer(status, body, _ascii_header(headers, b"livepeer-orchestrator-url"), content_type)

    def __repr__(self) -> str:
        return f"GoLivepeerSigner({self.name})"


def read_identity(body: bytes) -> bytes:
    """The 20-byte address in an answer of /sign-orchestrator-info, once its signature is found to be by that address.

    Source: remote-signer protocol, section 1.1; hex with or without 0x, as its consumers read it.
    Raises NoAnswerError(IDENTITY_INVALID).
    """
    if len(body) > MAX_IDENTITY_BYTES:
        raise NoAnswerError(Failure.IDENTITY_INVALID)
    try:
        claim = shallow_json.loads(body)
        address, signature = _hex_bytes(claim["address"]), _hex_bytes(claim["signature"])
        signer = recover_eth_signer(keccak(checksum_address(address).encode()), signature)
    except (ValueError, TypeError, KeyError) as error:  # a SignatureError is a ValueError
        raise NoAnswerError(Failure.IDENTITY_INVALID) from error
    if signer != address:
        raise NoAnswerError(Failure.IDENTITY_INVALID)
    return address


def _hex_bytes(text: object) -> bytes:
    """Raises TypeError or ValueError."""
    if not isinstance(text, str):
        raise TypeError("not a string")
    return bytes.fromhex(text.removeprefix("0x"))


def _with_body(head: bytes, body: bytes) -> bytes:
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def _ascii_header(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    """The header, or None where it is absent or cannot be sent on as it is.

    The orchestrator's URL repeats what a caller wrote into its OrchestratorInfo: odd bytes there are the caller's
    doing and must neither look like a fault of the signer nor break our own answer.
    """
    value = headers.get(name)
    if value is None or not value.isascii():
        return None
    text = value.decode("ascii")
    return text if text.isprintable() else None


_FAILURES: Final[dict[type[ExchangeError], Failure]] = {
    ConnectError: Failure.CONNECTION_FAILED,
    TimeIsUpError: Failure.TIMED_OUT,
    TruncatedError: Failure.TRUNCATED,
    NotHttpError: Failure.NOT_HTTP,
    TooLargeError: Failure.TOO_LARGE,
    ClosedError: Failure.CLIENT_CLOSED,
}


def _split_url(url: str) -> SplitResult:
    """Raises ValueError. The message never quotes the URL: a mistyped one may show its password anywhere."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        raise ValueError("a signer URL cannot be read: is it http[s]://host:port?") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
        raise ValueError("a signer URL needs http:// or https://, a host and a port, such as http://signer:8935")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("a signer URL has no path, query or fragment: the signer's routes are at the root of its host")
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: what it resolves to may change
        return False


def _static_headers(endpoint: SignerEndpoint, parts: SplitResult) -> dict[str, str]:
    """The configured headers, and Authorization from the URL. Raises ValueError naming headers, never their values."""
    headers = dict(endpoint.headers)
    names = [name.lower() for name in headers]
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise ValueError(
                f"header {name[:64]!r} of a signer is not a valid header name with a printable ASCII value"
            )
        if name.lower() in _RESERVED_HEADERS or name.lower().replace("_", "-").startswith("signer-"):
            raise ValueError(f"header {name!r} of a signer cannot be configured: it is set for each request")
    if len(set(names)) != len(names):
        raise ValueError("a header of a signer is configured twice, in different spelling")
    if parts.username is not None:
        if "authorization" in names:
            raise ValueError("a signer has credentials both in its URL and in an Authorization header: keep one")
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    return headers


def _tls_context(endpoint: SignerEndpoint, name: str) -> ssl.SSLContext:
    """The system's authorities and the configured one. Raises ValueError for unreadable certificates."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        if endpoint.ca_pem is not None:
            context.load_verify_locations(cadata=endpoint.ca_pem.decode("ascii"))
        if endpoint.identity_pem is not None:
            with tempfile.NamedTemporaryFile(prefix="clearinghouse-") as file:  # mode 0600; ssl reads only files
                file.write(endpoint.identity_pem)
                file.flush()
                context.load_cert_chain(file.name, password=_no_password)
    except (ssl.SSLError, ValueError):
        raise ValueError(
            f"the CA or client certificate of signer {name} cannot be used: is it PEM, with its key?"
        ) from None
    return context


def _no_password() -> str:
    """An encrypted key is refused; without this the terminal would be asked."""
    return ""
