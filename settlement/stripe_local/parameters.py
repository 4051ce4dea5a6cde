"""Parameters as Stripe's description wants them: checked, and turned from texts into values."""

from __future__ import annotations

import re
from typing import Any, Final

from settlement.stripe_local.description import Description, Schema
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.forms import Raw

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]{1,12})?")
_BOOLEANS: Final = {"true": True, "false": False}
_POSITION: Final = re.compile(r"[0-9]+")


class Params:
    """What a request asks for. What a handler has not looked at is refused in the end, and not silently left out."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._seen: set[str] = {"expand"}

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default where it was not given."""
        self._seen.add(name)
        return self._values.get(name, default)

    def has(self, name: str) -> bool:
        """Whether it was given at all: an empty text is given, and unsets."""
        self._seen.add(name)
        return name in self._values

    def names(self) -> set[str]:
        """What was given, looked at or not."""
        return set(self._values)

    def only(self, *names: str) -> dict[str, Any]:
        """Those of these that were given; an empty text, which unsets, becomes None."""
        self._seen.update(names)
        return {name: _unset(self._values[name]) for name in names if name in self._values}

    def require_all_seen(self) -> None:
        """Raises StripeError for what Stripe would heed and this server does not."""
        if unseen := sorted(set(self._values) - self._seen):
            raise unsupported(f"the parameter {', '.join(unseen)} of this call")


def _unset(value: Any) -> Any:
    return None if value == "" else value


def checked(description: Description, schema: Schema, raw: Raw, path: str = "") -> Any:
    """The value that the schema describes. Raises StripeError (400) with the parameter's name in Stripe's form."""
    schema = description.resolved(schema)
    if "anyOf" in schema:
        return _any_of(description, schema["anyOf"], raw, path)
    kind = schema.get("type")
    if kind == "object":
        return _object(description, schema, raw, path)
    if kind == "array":
        return _array(description, schema, raw, path)
    if isinstance(raw, dict):
        raise StripeError(f"Invalid {kind}: {path} is an object", param=path)
    return _scalar(schema, raw, path)


def _any_of(description: Description, schemas: list[Schema], raw: Raw, path: str) -> Any:
    """The first that fits; if none does, what the one of the same shape had against it."""
    errors = []
    for schema in sorted(schemas, key=lambda one: _shape(description.resolved(one)) != isinstance(raw, dict)):
        try:
            return checked(description, schema, raw, path)
        except StripeError as error:
            errors.append(error)
    raise errors[0]


def _shape(schema: Schema) -> bool:
    return schema.get("type") in {"object", "array"}


def _object(description: Description, schema: Schema, raw: Raw, path: str) -> dict[str, Any]:
    if isinstance(raw, str):
        raise StripeError("Invalid object", param=path)
    properties, more = schema.get("properties", {}), schema.get("additionalProperties")
    values = {}
    for name, value in raw.items():
        inner = f"{path}[{name}]" if path else name
        if name in properties:
            values[name] = checked(description, properties[name], value, inner)
        elif isinstance(more, dict):  # a map: an empty text takes its key away
            values[name] = value if value == "" else checked(description, more, value, inner)
        else:
            raise StripeError(f"Received unknown parameter: {inner}", code="parameter_unknown", param=inner)
    for name in schema.get("required", []):
        if name not in values:
            inner = f"{path}[{name}]" if path else name
            raise StripeError(f"Missing required param: {inner}.", code="parameter_missing", param=inner)
    return values


def _array(description: Description, schema: Schema, raw: Raw, path: str) -> list[Any]:
    if isinstance(raw, str) or not all(_POSITION.fullmatch(key) for key in raw):
        raise StripeError("Invalid array", param=path)
    inner = sorted(raw.items(), key=lambda item: int(item[0]))
    return [checked(description, schema["items"], value, f"{path}[{key}]") for key, value in inner]


def _scalar(schema: Schema, raw: str, path: str) -> Any:
    kind, allowed = schema.get("type"), schema.get("enum")
    if allowed is not None and raw not in allowed:
        told = ", ".join(name or "''" for name in allowed)
        raise StripeError(f"Invalid {path}: must be one of {told}", param=path)
    if kind == "string":
        return _string(schema, raw, path)
    if kind == "boolean":
        if raw not in _BOOLEANS:
            raise StripeError(f"Invalid boolean: {raw}", param=path)
        return _BOOLEANS[raw]
    if kind == "integer":
        if not _INTEGER.fullmatch(raw):
            raise StripeError(f"Invalid integer: {raw}", code="parameter_invalid_integer", param=path)
        return int(raw)
    if kind == "number":
        if not _NUMBER.fullmatch(raw):
            raise StripeError(f"Invalid number: {raw}", param=path)
        return float(raw)  # no amount is a number in Stripe's API: percentages and dimensions are
    raise unsupported(f"the form of {path}")


def _string(schema: Schema, raw: str, path: str) -> str:
    if raw == "" and "enum" not in schema:
        text = (
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a parameter; "
            f"however '{path}' cannot be unset. You should remove '{path}' from your request or give it a value."
        )
        raise StripeError(text, code="parameter_invalid_empty", param=path)
    if len(raw) > schema.get("maxLength", len(raw)):
        text = f"Invalid string: {path} must be at most {schema['maxLength']} characters"
        raise StripeError(text, code="parameter_invalid_string_too_long", param=path)
    if schema.get("format") == "decimal" and not _DECIMAL.fullmatch(raw):
        raise StripeError(f"Invalid decimal: {raw}; decimal values may have at most 12 decimal places", param=path)
    return raw
