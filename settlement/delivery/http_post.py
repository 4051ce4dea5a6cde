"""One POST of JSON to a URL, and whether it was accepted. Nothing is followed, and no proxy is taken from anywhere."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from chain.http_client import ConnectError, ExchangeError, HttpAnswer, HttpClient, TimeIsUpError, TruncatedError
from settlement.delivery.message import NotAccepted

_ANSWER_MAX_BYTES: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}
#: A receiver that says so means this message, and will say so again.
REFUSING: Final = frozenset({400, 413, 422})


class Target:
    """Where to post to. `url` is http or https; what it holds besides the host may be secret, and is never named."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or not _is_plain(url):
            raise ValueError("http://host/path or https://host/path is needed, without user and password")
        self.host, self.port = parts.hostname, parts.port or _PORTS[parts.scheme]
        self.authority = parts.netloc
        self._path = parts.path or "/"
        self._query = f"?{parts.query}" if parts.query else ""
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None

    async def post(
        self, body: bytes, headers: Mapping[str, str], *, timeout_s: float, address: str | None = None
    ) -> HttpAnswer:
        """The answer, whatever it says; its body may be cut. Raises NotAccepted.

        `address` is an address of the host that it is sent to.
        """
        client = HttpClient(
            address or self.host, self.port, tls=self._tls, connect_timeout_s=timeout_s, idle_timeout_s=1,
            body_max_bytes=_ANSWER_MAX_BYTES, server_hostname=self.host,
        )  # fmt: skip
        try:
            return await client.exchange(self._request(body, headers), timeout_s=timeout_s)
        except TimeIsUpError:
            raise NotAccepted(f"{self.authority} gave no answer within {timeout_s:g} s") from None
        except ConnectError:
            raise NotAccepted(f"{self.authority} cannot be connected to, or hung up") from None
        except TruncatedError as error:
            if error.status is None:
                raise NotAccepted(f"{self.authority} hung up within its answer") from None
            # Of servers that close instead of saying how long their answer is. Only its status counts.
            return HttpAnswer(error.status, {}, b"")
        except ExchangeError as error:
            raise NotAccepted(f"{self.authority} gave no usable answer ({type(error).__name__})") from None
        finally:
            await client.close()

    def _request(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        sent = {
            "Host": self.authority, "User-Agent": "livepeer-clearinghouse", "Content-Type": "application/json",
            "Content-Length": str(len(body)), "Connection": "close", **headers,
        }  # fmt: skip
        lines = [f"POST {self._path}{self._query} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def post_json(
    target: Target,
    document: Any,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    refusing: frozenset[int] = REFUSING,
) -> None:
    """Raises NotAccepted unless the answer is of the 200s; final where its status is one of `refusing`."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    require_accepted(await target.post(body, headers, timeout_s=timeout_s), target.authority, refusing=refusing)


def require_accepted(answer: HttpAnswer, authority: str, *, refusing: frozenset[int] = frozenset()) -> None:
    """Raises NotAccepted. What the receiver wrote is not repeated: it could be anything."""
    if not 200 <= answer.status < 300:
        raise NotAccepted(f"{authority} answered {answer.status}", is_final=answer.status in refusing)


def split_plus(url: str) -> SplitResult:
    """Of `webhook+https://…` the parts with the scheme alone that is posted by."""
    parts = urlsplit(url)
    return parts._replace(scheme=parts.scheme.rpartition("+")[2])


def _is_plain(url: str) -> bool:
    return url.isascii() and all("!" <= char <= "~" for char in url)
