"""What may stand behind the question mark of a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from clearinghouse.errors import InvalidRequest


def only_query(*names: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency: these parameters, each once, and no others. A misspelled one that is ignored would seem obeyed."""

    async def require(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                raise InvalidRequest(f"unknown query parameter {name[:40]!a}: known are {', '.join(sorted(names))}")
            if len(request.query_params.getlist(name)) > 1:
                raise InvalidRequest(f"query parameter {name} is given more than once")

    return require
