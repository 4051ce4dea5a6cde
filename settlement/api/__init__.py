"""What settlement adds to the management API: routes that `clearinghouse serve` is given by the console script.

The service itself knows nothing of them: it serves what it is handed, under its own token, limits and refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearinghouse.api.wiring import Routes


def operators_routes() -> tuple[Routes, ...]:
    """All of them."""
    from settlement.api.customers import ROUTES  # noqa: PLC0415 (the console script starts fast)

    return (ROUTES,)
