"""Whether the process may have as many files open as it may have connections."""

from __future__ import annotations

from typing import Final

from clearinghouse.checkup.findings import Finding, ok, warning
from clearinghouse.config import ListenSettings
from clearinghouse.file_limit import fitting, highest_limit, needed_count

NAME: Final = "open files"


def check(listen: ListenSettings) -> list[Finding]:
    """About the limit of whoever runs the check, which is the service's only if it is started in the same way."""
    limit, needed = highest_limit(), needed_count(listen)
    if limit >= needed:
        return [ok(NAME, f"{needed} are enough for all connections, and as many are allowed")]
    fits = fitting(listen, limit)
    return [
        warning(
            NAME,
            f"at most {limit} are allowed, and {needed} are needed for all connections: the ports would hold "
            f"{fits.http_count} and {fits.grpc_count} connections at once",
            "Raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower listen.connections_max_count and "
            "listen.grpc_connections_max_count.",
        )
    ]
