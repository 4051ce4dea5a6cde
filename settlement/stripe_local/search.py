"""Stripe's search queries, as far as they are exact: `metadata['key']:'value' AND email:'x'`, or with OR."""

from __future__ import annotations

import re
from typing import Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.parameters import Params

_CLAUSE: Final = re.compile(
    r"""\s*(?P<no>-?)(?P<field>[a-z_]+)(\[(?P<q>["'])(?P<key>[^"']+)(?P=q)\])?
        \s*(?P<op>[:~]|>=|<=|>|<)\s*(?:(?P<q2>["'])(?P<text>(?:\\.|[^\\])*?)(?P=q2)|(?P<number>\d+)|(?P<null>null))""",
    re.VERBOSE,
)
_JOIN: Final = re.compile(r"\s+(AND|OR|and|or)\s+|\s+")
_FIELDS: Final = {
    "customer": {"created", "email", "metadata", "name", "phone"},
    "invoice": {"created", "currency", "customer", "metadata", "number", "status", "total", "last_finalization_error"},
    "payment_intent": {"amount", "created", "currency", "customer", "metadata", "status"},
}


def searched(desk: Desk, params: Params, kind: str, url: str) -> Json:
    """The page of what the query finds, newest first. Real searches lag behind by up to a minute; this one does not."""
    clauses, any_of = _parsed(params.get("query"), _FIELDS[kind])
    wanted = any if any_of else all
    found = [
        one
        for one in reversed(list(desk.changes.each(kind)))
        if not one.get("_deleted") and wanted(_holds(clause, one) for clause in clauses)
    ]
    limit, first = params.get("limit", 10), int(params.get("page") or 0)
    has_more = len(found) > first + limit
    return {
        "object": "search_result",
        "data": found[first : first + limit],
        "has_more": has_more,
        "next_page": str(first + limit) if has_more else None,
        "url": url,
    }


def searcher(kind: str, url: str) -> Handler:
    """The call that searches objects of a kind."""
    return lambda desk, params: searched(desk, params, kind, url)


def _parsed(query: str, fields: set[str]) -> tuple[list[re.Match[str]], bool]:
    clauses, joins, at = [], set(), 0
    while at < len(query):
        clause = _CLAUSE.match(query, at)
        if clause is None or clause["field"] not in fields:
            raise StripeError(f"We were unable to parse your search query at character {at}: {query}", param="query")
        clauses.append(clause)
        at = clause.end()
        if at < len(query):
            join = _JOIN.match(query, at)
            if join is None:
                raise StripeError(f"We were unable to parse your search query at character {at}", param="query")
            joins.add((join[1] or "AND").upper())
            at = join.end()
    if len(joins) > 1:
        raise StripeError("A search query cannot combine AND and OR.", param="query")
    return clauses, joins == {"OR"}


def _holds(clause: re.Match[str], one: Json) -> bool:
    value = (one.get("metadata") or {}).get(clause["key"]) if clause["key"] else one.get(clause["field"])
    return _compared(clause, value) != bool(clause["no"])


def _compared(clause: re.Match[str], value: object) -> bool:
    if clause["null"]:
        return value is None
    if value is None:
        return False
    text = re.sub(r"\\(.)", r"\1", clause["text"] or clause["number"] or "")
    match clause["op"]:
        case ":":
            return str(value).lower() == text.lower()
        case "~":
            return text.lower() in str(value).lower()
        case ">":
            return int(str(value)) > int(text)
        case "<":
            return int(str(value)) < int(text)
        case ">=":
            return int(str(value)) >= int(text)
    return int(str(value)) <= int(text)
