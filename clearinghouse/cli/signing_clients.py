"""Two small clients of a running service, one for each port, as `sign-demo` needs them.

Both give and take what POST /v1/signTicket does. The API key goes to the service named and nowhere else: no redirect is
followed, no proxy is asked.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import urlsplit

from chain import shallow_json
from clearinghouse.errors import InvalidRequest, Refusal

if TYPE_CHECKING:
    import grpc

#: Longer than limits.request_deadline_s may be, so that the service's own answer comes first.
TIMEOUT_S: Final = 35
_ANSWER_BYTES_MAX: Final = 4 << 20


class ServiceUnreachable(Refusal):
    """Nobody answers where the service should be."""

    code, http_status = "service_unreachable", 503
    what_next = (
        "Start it (`clearinghouse dev`, `clearinghouse serve`), or say where it runs: --url or CLEARINGHOUSE_URL, "
        "--grpc-target for gRPC."
    )


class NotTheService(Refusal):
    """Somebody answers, but not in the clearinghouse's words."""

    code, http_status = "not_the_service", 502
    what_next = "Check the address and what stands before the service; `clearinghouse doctor` looks at it too."


class Declined(Exception):
    """The service said no, in its own words."""

    def __init__(self, code: str, message: str, what_next: str) -> None:
        super().__init__(message)
        self.code, self.message, self.what_next = code, message, what_next

    def __str__(self) -> str:
        return f"{self.code}: {self.message}\n{self.what_next}".rstrip()


class Client(Protocol):
    """A service that runs. Raises Declined, ServiceUnreachable or NotTheService."""

    def sign(self, request: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/signTicket, or the same over gRPC."""
        ...

    def balance(self) -> dict[str, Any]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@dataclass(slots=True)
class HttpClient:
    """Over one connection. InvalidRequest where `url` or `ca_file` cannot be used."""

    url: str
    api_key: str = field(repr=False)
    ca_file: Path | None = None
    _connection: http.client.HTTPConnection = field(init=False, repr=False)
    _prefix: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in {"http", "https"} or parts.username or parts.query or parts.fragment:
            raise InvalidRequest("--url needs the form http://host:port or https://host:port")
        self._prefix = parts.path.rstrip("/")
        if parts.scheme == "https":
            context = ssl.create_default_context(cadata=_pem(self.ca_file))
            self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def sign(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._exchange("POST", "/v1/signTicket", json.dumps(request).encode())

    def balance(self) -> dict[str, Any]:
        return self._exchange("GET", "/v1/balance", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.api_key}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            self._connection.request(method, self._prefix + path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read(_ANSWER_BYTES_MAX)
        except ssl.SSLError as error:
            reason = f"no TLS could be agreed with {self.url}: {error.reason or error}; --ca-file names its authority"
            raise NotTheService(reason) from error
        except http.client.HTTPException as error:
            raise NotTheService(f"what answers at {self.url} does not speak HTTP ({type(error).__name__})") from error
        except OSError as error:
            raise ServiceUnreachable(f"no service answers at {self.url}: {error.strerror or error}") from error
        return self._read(path, answer.status, content)

    def _read(self, path: str, status: int, content: bytes) -> dict[str, Any]:
        try:
            document = shallow_json.loads(content)
        except ValueError:
            document = None
        match document:
            case dict() if status == http.HTTPStatus.OK:
                return document
            case {"code": str(code), "detail": str(detail), **more}:
                raise Declined(code, detail, str(more.get("what_next", "")))
        raise NotTheService(f"{self.url}{path} answered {status}, but not as a clearinghouse does")


@dataclass(slots=True)
class GrpcClient:
    """`target` is host:port. Without `ca_file` the connection is not encrypted."""

    target: str
    api_key: str = field(repr=False)
    ca_file: Path | None = None
    _channel: grpc.Channel = field(init=False, repr=False)
    _stub: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import grpc

        from clearinghouse.api.pb import clearinghouse_pb2_grpc as pb_grpc

        options = [("grpc.enable_http_proxy", 0)]
        if self.ca_file is None:
            self._channel = grpc.insecure_channel(self.target, options)
        else:
            credentials = grpc.ssl_channel_credentials((_pem(self.ca_file) or "").encode())
            self._channel = grpc.secure_channel(self.target, credentials, options)
        self._stub = pb_grpc.ClearinghouseStub(self._channel)

    def sign(self, request: dict[str, Any]) -> dict[str, Any]:
        from clearinghouse.api.pb import clearinghouse_pb2 as pb

        state = request.get("state")
        message = pb.SignTicketRequest(
            orchestrator=base64.b64decode(request["orchestrator"]),
            state=None if state is None else pb.PaymentState(**{k: base64.b64decode(v) for k, v in state.items()}),
            manifest_id=request["manifest_id"],
            app=request["app"],
            type=request["type"],
        )
        answer = self._call(self._stub.SignTicket, message)
        return {
            "payment": answer.payment,
            "seg_creds": answer.seg_creds,
            "state": {
                "state": base64.b64encode(answer.state.state).decode(),
                "sig": base64.b64encode(answer.state.sig).decode(),
            },
            "receipt": _as_json(answer.receipt),
        }

    def balance(self) -> dict[str, Any]:
        from clearinghouse.api.pb import clearinghouse_pb2 as pb

        return _as_json(self._call(self._stub.GetBalance, pb.GetBalanceRequest()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def _call(self, method: Any, message: Any) -> Any:
        import grpc

        try:
            return method(message, timeout=TIMEOUT_S, metadata=[("authorization", f"Bearer {self.api_key}")])
        except grpc.RpcError as error:
            raise _refusal_in(error, self.target) from error


def _refusal_in(error: Any, target: str) -> Declined | ServiceUnreachable | NotTheService:
    """What a gRPC status means. Only the clearinghouse's own has an ErrorInfo of its domain."""
    import grpc
    from google.rpc.error_details_pb2 import ErrorInfo
    from grpc_status import rpc_status

    from clearinghouse.api.grpc_refusals import ERROR_DOMAIN

    status, info = rpc_status.from_call(error), ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            return Declined(info.reason, error.details(), info.metadata["what_next"])
    if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return ServiceUnreachable(f"no service answers at {target}: {error.details()}")
    return NotTheService(f"{target} answered {error.code().name}: {error.details()}")


def _as_json(message: Any) -> dict[str, Any]:
    """As the HTTP API has it, zeros and empty texts included."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _pem(path: Path | None) -> str | None:
    """InvalidRequest where the file holds no certificate that can be used."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise InvalidRequest(f"--ca-file {path} cannot be used: {error}") from error
    return text
