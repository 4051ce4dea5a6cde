"""The OpenAPI document as one page of HTML: no script, nothing loaded from elsewhere, readable on paper too."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

#: Path, method, and what the document says of the two.
Operation = tuple[str, str, dict[str, Any]]

_STYLE_FILE: Final = "docs_page.css"
_REF_PREFIX: Final = "#/components/schemas/"
#: The shell's variable of each way to authenticate.
_TOKENS: Final = {
    "apiKey": "API_KEY",
    "webhookSecret": "WEBHOOK_SECRET",
    "adminToken": "ADMIN_TOKEN",
    "metricsToken": "METRICS_TOKEN",
}
_CODE: Final = re.compile(r"`([^`]+)`")


def docs_page(document: dict[str, Any]) -> str:
    """Everything in it is escaped; only backticks and blank lines of descriptions mean something."""
    info = document["info"]
    operations = list(_operations(document))
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])} API</title><style>{_style()}</style></head><body>",
            f"<nav>{_contents(document, operations)}</nav><main>",
            f"<header><h1>{escape(info['title'])}</h1><p class=lead>{escape(info['summary'])}</p>",
            f"{_prose(info['description'])}<p>For programs: <a href=openapi.json>openapi.json</a>, ",
            f"version {escape(info['version'])}.</p></header>",
            *(_section(document, tag, operations) for tag in document["tags"]),
            f"<section><h2 id=codes>Codes</h2>{_codes(document)}</section>",
            f"<section><h2 id=schemas>Schemas</h2>{''.join(_schemas(document))}</section>",
            "</main></body></html>",
        )
    )


@cache
def content_security_policy() -> str:
    """Nothing but the page's own style, which is named by its hash."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"{nothing}; style-src 'sha256-{digest}'"


@cache
def _style() -> str:
    return files(__package__).joinpath(_STYLE_FILE).read_text()


# --- parts of the page ------------------------------------------------------------------------------------------------


def _operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _contents(document: dict[str, Any], operations: Iterable[Operation]) -> str:
    parts = []
    for tag in document["tags"]:
        entries = "".join(
            f'<li><a href="#{_anchor(method, path)}"><b class={method}>{method.upper()}</b> {escape(path)}</a></li>'
            for path, method, operation in operations
            if tag["name"] in operation["tags"]
        )
        if entries:
            parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{entries}</ul>")
    return "".join((*parts, "<h2><a href=#codes>Codes</a></h2><h2><a href=#schemas>Schemas</a></h2>"))


def _section(document: dict[str, Any], tag: dict[str, str], operations: Iterable[Operation]) -> str:
    shown = [
        _operation(document, path, method, operation)
        for path, method, operation in operations
        if tag["name"] in operation["tags"]
    ]
    heading = f"<h2>{escape(tag['name'])}</h2>{_prose(tag['description'])}"
    return f"<section>{heading}{''.join(shown)}</section>" if shown else ""


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    return "".join(
        (
            f'<article id="{_anchor(method, path)}">',
            f"<h3><b class={method}>{method.upper()}</b> <code>{escape(path)}</code></h3>",
            _prose(operation.get("description", "")),
            _parameters(operation),
            _body(document, operation),
            f"<h4>Example</h4><pre>{escape(_curl(document, path, method, operation))}</pre>",
            _responses(operation),
            "</article>",
        )
    )


def _parameters(operation: dict[str, Any]) -> str:
    rows = (
        (f"<code>{escape(given['name'])}</code>", f"in {escape(given['in'])}", _text(given.get("description", "")))
        for given in operation.get("parameters", ())
    )
    return _table("Parameters", rows)


def _body(document: dict[str, Any], operation: dict[str, Any]) -> str:
    schema = _body_schema(operation)
    if schema is None:
        return ""
    return f"<h4>Body: {_type(schema)}</h4>{_properties(_resolved(document, schema))}"


def _responses(operation: dict[str, Any]) -> str:
    rows = []
    for status, answer in sorted(operation["responses"].items()):
        shapes = ", ".join(
            f"{_type(content['schema'])} <small>{escape(kind)}</small>" if content.get("schema") else escape(kind)
            for kind, content in answer.get("content", {}).items()
        )
        rows.append((f"<code>{escape(status)}</code>", _text(answer["description"]), shapes))
    return _table("Answers", rows)


def _codes(document: dict[str, Any]) -> str:
    rows = (
        (f"<code>{escape(refusal['code'])}</code>", str(refusal["status"]), _text(refusal["what_next"]))
        for refusal in document["x-codes"]
    )
    return _table("", rows)


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<article id="schema-{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        yield f"{_prose(schema.get('description', ''))}{_properties(schema)}</article>"


def _properties(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        (
            f"<code>{escape(name)}</code>{'' if name in required else ' <small>optional</small>'}",
            _type(given),
            _text(given.get("description", "")),
        )
        for name, given in schema.get("properties", {}).items()
    )
    return _table("", rows)


def _table(heading: str, rows: Iterable[tuple[str, ...]]) -> str:
    """Cells are HTML already."""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"{f'<h4>{heading}</h4>' if heading else ''}<table>{lines}</table>" if lines else ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(_REF_PREFIX))
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(" ".join(filter(None, (schema.get("contentEncoding"), schema.get("type", "any")))))


# --- examples ---------------------------------------------------------------------------------------------------------


def _curl(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    """A command to paste, with the shell's variables for what differs from reader to reader."""
    shell_path = re.sub(r"\{(\w+)\}", lambda found: f"${found[1].upper()}", path)
    verb = "" if method == "get" else f"-X {method.upper()} "
    lines = [f'curl {verb}"$CLEARINGHOUSE_URL{shell_path}"']
    schemes = [name for needed in operation["security"] for name in needed]
    if schemes:
        token = _TOKENS[schemes[0]]
        lines.append(f'-H "Authorization: Bearer ${token}"')
    if (schema := _body_schema(operation)) is not None:
        body = _example(document, schema)
        lines.append(f"-d '{json.dumps(body, ensure_ascii=False)}'")
    return " \\\n  ".join(lines)


def _body_schema(operation: dict[str, Any]) -> dict[str, Any] | None:
    schema: dict[str, Any] | None = (
        operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    )
    return schema


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """What is required, and what has an example of its own."""
    schema = _resolved(document, schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("type") == "object":
        required = schema.get("required", ())
        return {
            name: _example(document, given)
            for name, given in schema.get("properties", {}).items()
            if name in required or given.get("examples")
        }
    if "anyOf" in schema:
        return _example(document, schema["anyOf"][0])
    return {"string": "…", "integer": 0, "number": 0, "array": []}.get(schema.get("type", ""))


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].removeprefix(_REF_PREFIX)]
    return found


# --- text -------------------------------------------------------------------------------------------------------------


def _prose(text: str) -> str:
    return "".join(f"<p>{_text(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph.strip())


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _anchor(method: str, path: str) -> str:
    return f"{method}-{re.sub(r'[^A-Za-z0-9]+', '-', path).strip('-')}"
