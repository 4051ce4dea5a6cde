"""Lists: newest first, a page at a time, as Stripe pages them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler
from settlement.stripe_local.errors import StripeError, missing
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.store import INDEXED

_LIMIT_DEFAULT: Final = 10
_LIMIT_MAX: Final = 100
_COMPARED: Final[dict[str, Callable[[int, int], bool]]] = {
    "gt": int.__gt__,
    "gte": int.__ge__,
    "lt": int.__lt__,
    "lte": int.__le__,
}


def listed(
    desk: Desk,
    params: Params,
    kind: str,
    url: str,
    *filters: str,
    keep: Callable[[Json], bool] | None = None,
    **references: str,
) -> Json:
    """A page of all objects of a kind, by `created` and by the fields of `filters` where the request gives them."""
    given = {name: params.get(name) for name in filters if params.has(name)}
    referred = {name: value for name, value in given.items() if name in INDEXED and isinstance(value, str)}
    created = params.get("created")  # it is asked for, also where there is nothing to compare it with
    found = desk.changes.each(kind, **{**referred, **references})
    kept = [
        one
        for one in found
        if (keep is None or keep(one)) and all(_same(one, name, value) for name, value in given.items())
    ]
    return page([one for one in reversed(kept) if _created(one, created)], params, url, kind)


def lister(kind: str, url: str, *filters: str) -> Handler:
    """The call that lists objects of a kind."""
    return lambda desk, params: listed(desk, params, kind, url, *filters)


def getter(kind: str) -> Handler:
    """The call that retrieves one object of a kind."""
    return lambda desk, _params, object_id: desk.get(kind, object_id)


def page(newest_first: list[Json], params: Params, url: str, kind: str = "object") -> Json:
    """The page that the request asks for. Raises StripeError for a limit or a cursor that cannot be."""
    limit = params.get("limit", _LIMIT_DEFAULT)
    if not 1 <= limit <= _LIMIT_MAX:
        raise StripeError(f"Invalid limit: must be between 1 and {_LIMIT_MAX}", param="limit")
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise StripeError("You may only specify one of these parameters: starting_after, ending_before.")
    if before:
        older = newest_first[: _position(newest_first, before, "ending_before", kind)]
        return list_of(older[-limit:], url, has_more=len(older) > limit)
    first = _position(newest_first, after, "starting_after", kind) + 1 if after else 0
    rest = newest_first[first:]
    return list_of(rest[:limit], url, has_more=len(rest) > limit)


def list_of(data: Iterable[Json], url: str, *, has_more: bool = False) -> Json:
    """Stripe's envelope of a list."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}


def first_ten(data: Iterable[Json], url: str) -> Json:
    """A list inside another object: its first ten, oldest first; more of it is asked for at its URL."""
    some = list(islice(data, _LIMIT_DEFAULT + 1))
    return list_of(some[:_LIMIT_DEFAULT], url, has_more=len(some) > _LIMIT_DEFAULT)


def _position(objects: list[Json], object_id: str, param: str, kind: str) -> int:
    for position, one in enumerate(objects):
        if one["id"] == object_id:
            return position
    raise missing(kind, object_id, param)


def _same(one: Json, name: str, value: Any) -> bool:
    return bool(one.get(name) == value)


def _created(one: Json, wanted: Any) -> bool:
    if wanted is None or wanted == "":
        return True
    if isinstance(wanted, int):
        return bool(one["created"] == wanted)
    return all(_COMPARED[name](one["created"], bound) for name, bound in wanted.items())
