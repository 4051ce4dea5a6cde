"""What an HTTP request needs of a URL that may be a secret: providers put their keys into host, path, query and user.

No error and no repr quotes any part of it.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from chain.http_client import HttpClient

#: From servers that close idle connections after a minute or so; one that we close first is never used too late.
_IDLE_TIMEOUT_S = 30
_CONNECT_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A URL taken apart. `path` has the query; `fragment` never goes over the wire. Host and credentials: `fields`."""

    host: str = field(repr=False)
    port: int
    is_tls: bool
    path: str = field(repr=False)
    fragment: str
    fields: bytes = field(repr=False)

    def head(self, method: str, *, accept: str = "application/json") -> bytes:
        """The request's first lines, without the empty one after which a body may follow."""
        first = f"{method} {self.path} HTTP/1.1\r\n".encode("ascii")
        return first + self.fields + f"User-Agent: livepeer-clearinghouse\r\nAccept: {accept}\r\n".encode("ascii")

    def client(self, *, body_max_bytes: int) -> HttpClient:
        """Connects when first used; https is verified against the system's authorities."""
        return HttpClient(
            self.host,
            self.port,
            tls=ssl.create_default_context() if self.is_tls else None,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            idle_timeout_s=_IDLE_TIMEOUT_S,
            body_max_bytes=body_max_bytes,
        )


def parse_target(url: str, *, name: str) -> HttpTarget:
    """Raises ValueError, which calls it `name`, for a URL that cannot be used."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path.encode("ascii")
        fields = f"Host: {parts.netloc.rpartition('@')[2]}\r\n".encode("ascii")
    except ValueError:  # a UnicodeEncodeError is one; both quote the URL
        raise ValueError(f"the URL of {name} cannot be used") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable() or " " in url:
        raise ValueError(f"the URL of {name} is not of the form https://host/path")
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        fields += b"Authorization: Basic %b\r\n" % base64.b64encode(user)
    return HttpTarget(parts.hostname, port, parts.scheme == "https", path, parts.fragment, fields)
