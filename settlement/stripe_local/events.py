"""Events and the endpoints that hear of them."""

from __future__ import annotations

from typing import Final

from settlement.delivery.http_post import Target
from settlement.stripe_local.description import API_VERSION, Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.ids import letters
from settlement.stripe_local.lists import listed
from settlement.stripe_local.parameters import Params

_KEPT_S: Final = 30 * 24 * 3600


def list_events(desk: Desk, params: Params) -> Json:
    """GET /v1/events: those of the last 30 days."""
    kinds = {*(params.get("types") or ()), *params.only("type").values()}

    def wanted(event: Json) -> bool:
        kind = event["type"]
        named = not kinds or kind in kinds or any(one[-2:] == ".*" and kind.startswith(one[:-1]) for one in kinds)
        return named and bool(event["created"] > desk.now_s - _KEPT_S)

    return listed(desk, params, "event", "/v1/events", keep=wanted)


def retrieve_event(desk: Desk, _params: Params, event_id: str) -> Json:
    """GET /v1/events/{id}."""
    return desk.get("event", event_id)


def create_endpoint(desk: Desk, params: Params) -> Json:
    """POST /v1/webhook_endpoints: the answer, and no later one, has the secret."""
    if params.get("api_version") not in (None, API_VERSION):
        raise StripeError(f"The local Stripe server sends events of {API_VERSION} alone.", param="api_version")
    made = new_endpoint(desk, params.get("url"), params.get("enabled_events"), [f"whsec_local_{letters(32)}"])
    made.update(params.only("description"))
    with_metadata(made, params.get("metadata"))
    return {**made, "secret": made["_secrets"][0]}


def new_endpoint(desk: Desk, url: str, enabled_events: list[str], secrets: list[str]) -> Json:
    """An endpoint whose events are signed with each of these secrets. Raises StripeError for what is no URL."""
    try:
        Target(url)
    except ValueError as error:
        raise StripeError(f"Invalid URL: {error}", code="url_invalid", param="url") from error
    made = desk.new(
        "webhook_endpoint",
        url=url,
        enabled_events=enabled_events,
        metadata={},
        status="enabled",
        api_version=API_VERSION,
    )
    made["_secrets"] = secrets
    return made


def update_endpoint(desk: Desk, params: Params, endpoint_id: str) -> Json:
    """POST /v1/webhook_endpoints/{webhook_endpoint}."""
    found = desk.get("webhook_endpoint", endpoint_id)
    found.update(params.only("description", "enabled_events", "url"))
    if params.has("disabled"):
        found["status"] = "disabled" if params.get("disabled") else "enabled"
    with_metadata(found, params.get("metadata"))
    return found


def retrieve_endpoint(desk: Desk, _params: Params, endpoint_id: str) -> Json:
    """GET /v1/webhook_endpoints/{webhook_endpoint}."""
    return desk.get("webhook_endpoint", endpoint_id)


def list_endpoints(desk: Desk, params: Params) -> Json:
    """GET /v1/webhook_endpoints."""
    return listed(desk, params, "webhook_endpoint", "/v1/webhook_endpoints")


def delete_endpoint(desk: Desk, _params: Params, endpoint_id: str) -> Json:
    """DELETE /v1/webhook_endpoints/{webhook_endpoint}: what was on its way to it does not arrive."""
    desk.get("webhook_endpoint", endpoint_id)
    desk.changes.remove(endpoint_id)
    return {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True}


HANDLERS: Final[dict[str, Handler]] = {
    "GET /v1/events": list_events,
    "GET /v1/events/{id}": retrieve_event,
    "POST /v1/webhook_endpoints": create_endpoint,
    "GET /v1/webhook_endpoints": list_endpoints,
    "GET /v1/webhook_endpoints/{webhook_endpoint}": retrieve_endpoint,
    "POST /v1/webhook_endpoints/{webhook_endpoint}": update_endpoint,
    "DELETE /v1/webhook_endpoints/{webhook_endpoint}": delete_endpoint,
}
