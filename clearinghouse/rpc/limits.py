"""What one connection may ask of a gRPC port, in bytes, counts and seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """`read_timeout_s` is the time for a TLS handshake, for HTTP/2's first words, and for the first message of a call.

    A client that takes nothing of its answers for `idle_timeout_s` is cut off.
    """

    read_timeout_s: float = 10
    idle_timeout_s: float = 60
    #: A request has a few KiB.
    message_max_bytes: int = 256 * 1024
    #: gRPC's own limits are of the same order.
    metadata_max_bytes: int = 16 * 1024
    calls_per_connection_max_count: int = 256
    #: A peer that vanished without a word is noticed, also while a stream waits for its next request.
    keepalive_s: float = 30
    keepalive_timeout_s: float = 10
    #: Without a call.
    connection_idle_max_s: float = 15 * 60
    #: Every frame costs one of these: so many at once, so many a second in the long run, so many for each message.
    #: Clients ping and open windows while they talk; who does nothing else is restless.
    frames_max_count: float = 2000
    frames_per_s: float = 100
    frames_per_message: float = 16
