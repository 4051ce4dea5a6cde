"""Stripe's form encoding: `a[b][0][c]=1` and `a[]=1`, read into nested mappings and lists of texts."""

from __future__ import annotations

import re
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from settlement.stripe_local.errors import StripeError

#: A text, or what was in brackets: positions of a list are keys too, until a schema says that it is a list.
Raw: TypeAlias = "str | dict[str, Raw]"

_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)\Z")
_PARTS: Final = re.compile(r"\[([^\[\]]*)\]")


def decoded(text: str) -> dict[str, Raw]:
    """The parameters of a body or a query. Raises StripeError (400) where names contradict each other."""
    tree: dict[str, Raw] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors="strict"):
        found = _NAME.match(name)
        if found is None:
            raise StripeError(f"Invalid parameter name: {name}", param=name)
        _put(tree, [found[1], *_PARTS.findall(found[2])], value, name)
    return tree


def _put(tree: dict[str, Raw], parts: list[str], value: str, name: str) -> None:
    here = tree
    for position, part in enumerate(parts):
        key = part or _next_position(here, opens_new=position == len(parts) - 1, parts=parts[position + 1 :])
        if position == len(parts) - 1:
            here[key] = value
            return
        inner = here.setdefault(key, {})
        if isinstance(inner, str):
            raise StripeError(f"Invalid parameters: {name} is both a value and an object", param=name)
        here = inner


def _next_position(here: dict[str, Raw], *, opens_new: bool, parts: list[str]) -> str:
    """`a[]=x` is another element; `a[][b]=x` belongs to the last one until that has a `b`."""
    last = here.get(str(len(here) - 1))
    if opens_new or not isinstance(last, dict) or parts[0] in last:
        return str(len(here))
    return str(len(here) - 1)
