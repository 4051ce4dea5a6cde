"""A refusal in gRPC's words: a status, and details that a program can act on (google.rpc.Status)."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as PackedStatus

from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.errors import InvalidRequest, RefreshSession, Refusal
from clearinghouse.rpc.status import Status

#: Where gRPC's clients look for a google.rpc.Status.
DETAILS_KEY: Final = "grpc-status-details-bin"
ERROR_DOMAIN: Final = "clearinghouse.livepeer"
#: A status travels in headers, of which clients accept 8 KiB. The message is in there up to three times, once
#: percent-encoded (3 bytes for 1) and otherwise in base64 (4 for 3).
METADATA_MAX_BYTES: Final = 8192
TEXT_MAX_BYTES: Final = 512
URL_MAX_BYTES: Final = 2048
assert 3 * TEXT_MAX_BYTES + (2 * TEXT_MAX_BYTES + URL_MAX_BYTES) * 4 // 3 < METADATA_MAX_BYTES - 2048  # room for facts

STATUS_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    402: grpc.StatusCode.FAILED_PRECONDITION,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    480: grpc.StatusCode.FAILED_PRECONDITION,
    481: grpc.StatusCode.FAILED_PRECONDITION,
    482: grpc.StatusCode.FAILED_PRECONDITION,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
}


def refusal_status(refusal: Refusal) -> Status:
    """The status that ends a call with this refusal."""
    message = clipped(refusal.message)
    packed = PackedStatus(code=STATUS_CODES[refusal.http_status].value[0], message=message)
    for detail in _details(refusal, message):
        wrapped = AnyMessage()
        wrapped.Pack(detail)
        packed.details.append(wrapped)
    return Status(STATUS_CODES[refusal.http_status], message, ((DETAILS_KEY, packed.SerializeToString()),))


def refusal_message(refusal: Refusal) -> pb.Refusal:
    """The same inside a stream, which goes on."""
    return pb.Refusal(
        code=refusal.code,
        message=clipped(refusal.message),
        what_next=refusal.what_next,
        http_status=refusal.http_status,
        retry_after_s=refusal.retry_after_s or 0,
        orchestrator_url=_orchestrator_url(refusal),
    )


def internal_status(incident: str) -> Status:
    """For a bug: a stranger learns how to name it, nothing of what it is."""
    return Status(grpc.StatusCode.INTERNAL, _internal_text(incident))


def internal_refusal(incident: str) -> pb.Refusal:
    """The same inside a stream."""
    return pb.Refusal(code="internal_error", message=_internal_text(incident), http_status=500)


def _internal_text(incident: str) -> str:
    return f"Internal error. The operator finds it in the log as incident {incident}."


def clipped(text: str, *, bytes_max: int = TEXT_MAX_BYTES) -> str:
    """Text that may come from a stranger, fit for a status: bounded, and without what UTF-8 cannot express."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    ellipsis = "…"
    return encoded[: bytes_max - len(ellipsis.encode())].decode("utf-8", "ignore") + ellipsis


def _details(refusal: Refusal, message: str) -> list[Message]:
    metadata = {name: clipped(str(value)) for name, value in refusal.facts.items()}
    metadata |= {"http_status": str(refusal.http_status), "what_next": refusal.what_next}
    if url := _orchestrator_url(refusal):
        metadata["orchestrator_url"] = url
    details: list[Message] = [ErrorInfo(reason=refusal.code, domain=ERROR_DOMAIN, metadata=metadata)]
    if refusal.retry_after_s is not None:
        details.append(RetryInfo(retry_delay=Duration(seconds=refusal.retry_after_s)))
    if isinstance(refusal, InvalidRequest):
        details.append(BadRequest(field_violations=[BadRequest.FieldViolation(description=message)]))
    return details


def _orchestrator_url(refusal: Refusal) -> str:
    return clipped(refusal.orchestrator_url, bytes_max=URL_MAX_BYTES) if isinstance(refusal, RefreshSession) else ""
