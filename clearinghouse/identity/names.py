"""The names that operators give: of gateways, plans and signers. They go into URLs, file names and command lines."""

from __future__ import annotations

import re
from typing import Final

from clearinghouse.errors import InvalidRequest

NAME_CHARS_MAX: Final = 128

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def check_name(name: str, *, whose: str, id_prefix: str = "") -> None:
    """InvalidRequest says which rule the name of a `whose` breaks, whose ids begin with `id_prefix`."""
    if not 1 <= len(name) <= NAME_CHARS_MAX:
        raise InvalidRequest(f"a {whose}'s name has 1 to {NAME_CHARS_MAX} characters, not {len(name)}")
    if id_prefix and name.startswith(id_prefix):
        raise InvalidRequest(f"a {whose}'s name cannot begin with {id_prefix}, which marks ids")
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"a {whose}'s name has only the letters a to z and A to Z, digits, '.', '_' and '-', and begins with a "
            f"letter or digit: {name!r} does not"
        )


def may_be_name(name: str) -> bool:
    """Whether somebody may have given it. What nobody can have given is not asked of the database, which has no NUL."""
    return len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name) is not None
