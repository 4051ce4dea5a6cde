"""One process is overtaken by another at the worst moment: it has looked at the session, and not yet at the credit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from clearinghouse.lookups import Lookups, SessionFinding, SessionLookup
from tests.parts.client import Answer


def overtaking(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    """The next look at a session sees what was there before `call`, whose answer is in the list from then on."""
    answers: list[Answer] = []
    look = Lookups.session

    async def look_and_be_overtaken(self: Lookups, lookup: SessionLookup) -> SessionFinding:
        monkeypatch.setattr(Lookups, "session", look)
        found = await look(self, lookup)
        answers.append(await call())
        return found

    monkeypatch.setattr(Lookups, "session", look_and_be_overtaken)
    return answers
