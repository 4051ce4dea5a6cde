"""Stripe's objects in memory, and one request's changes to them: all or none of them become visible.

One process serves, and a request's rules never wait while they work: requests are one after the other by nature.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from chain.shallow_json import loads
from settlement.stripe_local.description import Json

#: By what else than their id objects are looked up: listing the lines of one invoice must not look at every line.
INDEXED: Final = ("customer", "invoice", "payment_intent", "charge", "event")


class Store:
    """All objects by id, newest last; what is read from here must not be changed, `Changes` gives copies."""

    def __init__(self, journal: Path | None = None) -> None:
        self._objects: dict[str, Json] = {}
        self._by_kind: dict[str, dict[str, None]] = {}
        self._by_reference: dict[tuple[str, str, str], dict[str, None]] = {}
        self._journal: IO[str] | None = None
        if journal is not None:
            self._replay(journal)
            self._journal = journal.open("a", encoding="utf-8")

    def get(self, object_id: str) -> Json | None:
        """The object as it is, not to be changed."""
        return self._objects.get(object_id)

    def ids(self, kind: str, **references: str) -> Iterable[str]:
        """Ids of all objects of a kind, oldest first; with one reference (of INDEXED), only of those that have it."""
        for field, value in references.items():
            return self._by_reference.get((kind, field, value), {})
        return self._by_kind.get(kind, {})

    def apply(self, written: dict[str, Json | None]) -> None:
        """Makes a request's changes visible; None removes. Written to the journal first, and handed to the kernel."""
        if not written:
            return
        if self._journal is not None:
            self._journal.write(json.dumps(written, separators=(",", ":")) + "\n")
            self._journal.flush()
        self._take(written)

    def close(self) -> None:
        """The journal is closed; nothing may be applied afterwards."""
        if self._journal is not None:
            self._journal.close()

    def _take(self, written: dict[str, Json | None]) -> None:
        for object_id, value in written.items():
            old = self._objects.pop(object_id, None) if value is None else self._objects.get(object_id)
            for key in _keys(old):
                self._place(key).pop(object_id, None) if value is None or key not in _keys(value) else None
            if value is not None:
                self._objects[object_id] = value
                for key in _keys(value):
                    self._place(key)[object_id] = None

    def _place(self, key: tuple[str, ...]) -> dict[str, None]:
        if len(key) == 1:
            return self._by_kind.setdefault(key[0], {})
        kind, field, value = key
        return self._by_reference.setdefault((kind, field, value), {})

    def _replay(self, journal: Path) -> None:
        """Reads what was written. A last line that a crash cut off never became visible, and is dropped."""
        if not journal.exists():
            return
        whole = journal.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        for line in kept.splitlines():
            self._take(loads(line))
        if len(kept) != len(whole):
            with journal.open("r+b") as file:
                file.truncate(len(kept))


class Changes:
    """What one request has read and written so far: copies, which a handler changes as it likes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._touched: dict[str, Json | None] = {}

    def get(self, object_id: str) -> Json | None:
        """The object as this request sees it; changing it is all that it takes to write it."""
        if object_id not in self._touched:
            kept = self._store.get(object_id)
            if kept is None:
                return None
            self._touched[object_id] = copied(kept)
        return self._touched[object_id]

    def before(self, object_id: str) -> Json | None:
        """As it was before this request; not to be changed."""
        return self._store.get(object_id)

    def put(self, value: Json) -> Json:
        """A new object."""
        self._touched[value["id"]] = value
        return value

    def remove(self, object_id: str) -> None:
        """Gone, as a deleted draft is."""
        self._touched[object_id] = None

    def each(self, kind: str, **references: str) -> Iterator[Json]:
        """All objects of a kind, oldest first, as this request sees them. Only to be read: change what `get` gives."""
        seen = set()
        for object_id in list(self._store.ids(kind, **references)):
            seen.add(object_id)
            value = self._touched[object_id] if object_id in self._touched else self._store.get(object_id)
            if value is not None and _refers(value, references):
                yield value
        for object_id, value in list(self._touched.items()):
            if object_id not in seen and value is not None and value["object"] == kind and _refers(value, references):
                yield value

    def written(self) -> dict[str, Json | None]:
        """What differs from the store."""
        return {key: value for key, value in self._touched.items() if value != self._store.get(key)}


def copied(value: Any) -> Any:
    """A copy of what JSON can hold."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value


def _refers(value: Json, references: dict[str, str]) -> bool:
    return all(value.get(field) == wanted for field, wanted in references.items())


def _keys(value: Json | None) -> list[tuple[str, ...]]:
    if value is None:
        return []
    kind = value["object"]
    named = [(kind, field, value[field]) for field in INDEXED if isinstance(value.get(field), str)]
    return [(kind,), *named]
