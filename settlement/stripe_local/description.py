"""Stripe's published OpenAPI description, as far as this server needs it: data/openapi.json.gz, made by distil.py."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, Final, NamedTuple

from chain.shallow_json import loads
from settlement.stripe_local.amendments import amend

Json = dict[str, Any]
Schema = dict[str, Any]

#: What the SDK sends and this server answers with. The description is older: see amendments.py.
API_VERSION: Final = "2026-10-28.endive"


class Operation(NamedTuple):
    """One method of one path: `form` is the schema of its parameters, in the body or (GET) in the query."""

    name: str  # "POST /v1/invoices/{invoice}/pay"
    form: Schema
    answer: Schema


@dataclass(frozen=True)
class Description:
    """The description, read once at start."""

    document: Json

    @classmethod
    def packaged(cls) -> Description:
        """The one that comes with this package, brought up to API_VERSION."""
        packed = resources.files(__package__).joinpath("data/openapi.json.gz").read_bytes()
        document = loads(gzip.decompress(packed))
        amend(document)
        return cls(document)

    @property
    def version(self) -> str:
        """Stripe's version of what is described."""
        return str(self.document["version"])

    def found(self, method: str, path: str) -> tuple[Operation, tuple[str, ...]] | None:
        """The operation, and what stands in the path's places; None if Stripe has no such URL.

        A path without places goes before one that has them: /v1/invoices/create_preview is no invoice.
        """
        parts = path.strip("/").split("/")
        best: tuple[int, str, tuple[str, ...]] | None = None
        for pattern in self._patterns.get((method, len(parts)), ()):
            places = _matched(pattern, parts)
            if places is not None and (best is None or len(places) < best[0]):
                best = (len(places), f"{method} /{'/'.join(pattern)}", places)
        if best is None:
            return None
        described = self.document["operations"][best[1]]
        return Operation(best[1], described["form"], described["answer"]), best[2]

    def schema(self, name: str) -> Schema:
        """A named schema. Raises KeyError if the description has none of that name."""
        found: Schema = self.document["schemas"][name]
        return found

    def resolved(self, schema: Schema) -> Schema:
        """The schema itself, where it is a reference."""
        while "$ref" in schema:
            schema = self.schema(schema["$ref"].rpartition("/")[2])
        return schema

    @cached_property
    def _patterns(self) -> dict[tuple[str, int], list[list[str]]]:
        patterns: dict[tuple[str, int], list[list[str]]] = {}
        for name in self.document["operations"]:
            method, _, path = name.partition(" /")
            parts = path.split("/")
            patterns.setdefault((method, len(parts)), []).append(parts)
        return patterns


def _matched(pattern: list[str], parts: list[str]) -> tuple[str, ...] | None:
    places = []
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith("{") and part:
            places.append(part)
        elif expected != part:
            return None
    return tuple(places)
