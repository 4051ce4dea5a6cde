"""The service itself, where one runs at the configured port: what it says of its own readiness."""

from __future__ import annotations

import http.client
import ipaddress
import ssl
from typing import Any, Final

from chain import shallow_json
from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import ListenSettings

NAME: Final = "service"
_TIMEOUT_S: Final = 4
_ANSWER_BYTES_MAX: Final = 1 << 20


def check(listen: ListenSettings) -> list[Finding]:
    if listen.http_port == 0:
        return [ok(NAME, "its port is taken freely at each start, so it cannot be looked for")]
    where = f"{listen.host}:{listen.http_port}"
    try:
        status, content = _ask(listen)
    except ConnectionRefusedError:
        return [ok(NAME, f"none runs at {where}")]
    except ssl.SSLError as reason:
        if listen.tls_client_ca_file is not None:
            return [ok(NAME, f"one runs at {where}; it asks for a client certificate, so it was not looked at further")]
        return [_stranger(where, f"no TLS could be agreed with it ({reason.reason or type(reason).__name__})")]
    except (http.client.HTTPException, TimeoutError, ConnectionError) as reason:
        return [_stranger(where, f"it does not answer GET /readyz in HTTP ({type(reason).__name__})")]
    except OSError as reason:
        return [error(NAME, f"{where} cannot be reached: {reason.strerror or reason}", "Correct listen.host.")]
    return _read(where, status, content)


def _ask(listen: ListenSettings) -> tuple[int, bytes]:
    host = _reachable(listen.host)
    if listen.tls_cert_file is None:
        connection = http.client.HTTPConnection(host, listen.http_port, timeout=_TIMEOUT_S)
    else:
        context = ssl.create_default_context()
        context.check_hostname = False  # it is our own port, under whatever name; nothing secret is said there
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, listen.http_port, timeout=_TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_BYTES_MAX)
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """An address to connect to, for one that means "all of this machine"."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _read(where: str, status: int, content: bytes) -> list[Finding]:
    try:
        document = shallow_json.loads(content)
    except ValueError:
        document = None
    match document:
        case {"ready": True} if status == http.HTTPStatus.OK:
            return [ok(NAME, f"runs at {where} and is ready")]
        case {"ready": False, "checks": list(checks)}:
            return [_not_ready(where, check) for check in checks if isinstance(check, dict) and not check.get("ok")]
    return [_stranger(where, f"GET /readyz gives {status}, and not what a clearinghouse says")]


def _not_ready(where: str, check: dict[str, Any]) -> Finding:
    return error(
        f"{NAME} {check.get('name')}",
        f"the service at {where} is not ready: {check.get('detail')}",
        "Its log says more; the other findings here may give the reason.",
    )


def _stranger(where: str, why: str) -> Finding:
    return warning(
        NAME,
        f"something else has the port {where}: {why}",
        "End it, or choose another listen.http_port; if it is the service, restart it with this configuration.",
    )
