"""How many files this process may have open, of which every connection is one (RLIMIT_NOFILE, `ulimit -n`)."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final, NamedTuple

from clearinghouse.config import ListenSettings

#: For all that is no caller's connection: the database, signers, sockets that listen, logs, and what the runtime has.
OTHER_FILES_COUNT: Final = 512
#: Of each port, however low the limit is.
CONNECTIONS_LEAST_COUNT: Final = 16


class Fitting(NamedTuple):
    """Connections of the two ports that the limit allows: never more than the settings do."""

    http_count: int
    grpc_count: int


def needed_count(listen: ListenSettings) -> int:
    """Files that the service has open when both ports are full."""
    return listen.connections_max_count + listen.grpc_connections_max_count + OTHER_FILES_COUNT


def highest_limit() -> int:
    """To which a process may raise its own limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def raise_limit(needed: int) -> int:
    """Raises the limit to what is needed, as far as this process may, and returns what it is then.

    The lower one is from the time of select(), which nothing here calls.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(needed, highest_limit())
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems have a lower one of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft if soft != resource.RLIM_INFINITY else needed


def fitting(listen: ListenSettings, files_max_count: int) -> Fitting:
    """The settings where there are files enough, otherwise each port's part of what there is."""
    http, grpc = listen.connections_max_count, listen.grpc_connections_max_count
    there = files_max_count - OTHER_FILES_COUNT
    if there >= http + grpc:
        return Fitting(http, grpc)
    parts = (max(CONNECTIONS_LEAST_COUNT, there * wanted // (http + grpc)) for wanted in (http, grpc))
    return Fitting(*parts)
