"""Stripe's objects as handlers ask for them, and whose they are by their metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from clearinghouse.ids import parse
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk, Park

_T = TypeVar("_T")


async def fetch(
    desk: Desk, function: Callable[..., Awaitable[_T]], *ids: str, params: Mapping[str, Any] | None = None
) -> _T:
    """What Stripe says of it now. Parks where Stripe does not know it, or does not show it."""
    try:
        return await desk.link.call(function, *ids, params=params)
    except StripeRefused as refused:
        raise Park(f"Stripe does not show {ids[-1]}: {refused.message}") from refused


def id_of(reference: Any) -> str | None:
    """Of what Stripe gives as an id, or as the object when it was expanded."""
    return reference if isinstance(reference, str) or reference is None else str(reference.id)


def named_in(made: Any, key: str) -> UUID | None:
    """Which row of ours an object was made for: None where it was made for none, or by somebody else."""
    metadata = made.metadata
    shown = metadata.to_dict().get(key) if metadata is not None else None
    if not isinstance(shown, str):
        return None
    try:
        return parse("rfd" if shown.startswith("rfd_") else "pay", shown)
    except ValueError:
        return None
