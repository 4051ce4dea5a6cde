"""Objects with every field that Stripe's description requires: what a handler does not set is null, false or empty."""

from __future__ import annotations

from typing import Any

from settlement.stripe_local.description import Description, Json, Schema


def blank(description: Description, kind: str, fields: Json) -> Json:
    """The object with these fields. Raises ValueError where the description has no such field, or requires one more."""
    schema = description.schema(kind)
    if unknown := sorted(set(fields) - set(schema["properties"])):
        raise ValueError(f"Stripe's {kind} has no {', '.join(unknown)}")
    return _filled(description, schema, fields, kind)


def _filled(description: Description, schema: Schema, fields: Json, path: str) -> Json:
    required = set(schema.get("required", ()))
    value: Json = {}
    for name, inner in schema.get("properties", {}).items():
        if name in fields:
            value[name] = fields[name]
        elif description.resolved(inner).get("nullable") or inner.get("nullable"):
            value[name] = None
        elif name in required:
            value[name] = _empty(description, inner, f"{path}.{name}")
    return value


def _empty(description: Description, schema: Schema, path: str) -> Any:
    schema = description.resolved(schema)
    if "anyOf" not in schema:
        kind, allowed = schema.get("type"), schema.get("enum")
        if kind == "object":
            return _filled(description, schema, {}, path)
        if kind == "array":
            return []
        if kind == "boolean":
            return False
        if allowed is not None and len(allowed) == 1:
            return allowed[0]
    raise ValueError(f"{path} has no empty value: it must be given")
