"""What a handler works at during one request: the objects, the time, and the events that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from settlement.stripe_local.blanks import blank
from settlement.stripe_local.description import API_VERSION, Description, Json
from settlement.stripe_local.errors import missing
from settlement.stripe_local.ids import new_id
from settlement.stripe_local.store import Changes, Store, copied

#: What does a call: of the desk, the parameters, and what stands in the path's places.
Handler = Callable[..., Json]
#: Not an object of Stripe's: an event that still has to reach an endpoint. It is removed when it has, or is given up.
DELIVERY = "_delivery"


def wants(endpoint: Json, kind: str) -> bool:
    """Whether an endpoint is to be told about this kind of event."""
    return endpoint["status"] == "enabled" and not {"*", kind}.isdisjoint(endpoint["enabled_events"])


@dataclass(frozen=True)
class House:
    """How this Stripe account is set up."""

    base_url: str = "http://stripe.local.invalid"
    country: str = "US"
    currency: str = "usd"
    #: Stripe Tax, as far as it goes here: percent by the customer's country, exclusive. Nobody else is taxed.
    tax_percent_by_country: dict[str, str] = field(default_factory=dict)


class Desk:
    """One request's work. Nothing of it is visible to others before it is written."""

    def __init__(
        self, store: Store, description: Description, house: House, now_s: int, request: Json | None = None
    ) -> None:
        self.changes = Changes(store)
        self.description = description
        self.house = house
        self.now_s = now_s
        self._request = request

    def new(self, kind: str, **fields: Any) -> Json:
        """A new object with everything that Stripe requires of its kind; what is not given is null, false or empty."""
        given: Json = {"id": new_id(kind), "object": kind, **fields}
        properties = self.description.schema(kind)["properties"]
        for name, value in (("created", self.now_s), ("livemode", False)):
            if name in properties:
                given.setdefault(name, value)
        return self.changes.put(blank(self.description, kind, given))

    def get(self, kind: str, object_id: str, param: str = "id") -> Json:
        """The object, to be changed as needed. Raises StripeError (404) if there is none of that kind."""
        found = self.changes.get(object_id)
        if found is None or found["object"] != kind:
            raise missing(kind, object_id, param)
        return found

    def tell(self, kind: str, subject: Json) -> Json:
        """An event about an object as it is now; what an update has changed is in previous_attributes."""
        data: Json = {"object": {name: copied(value) for name, value in subject.items() if name[0] != "_"}}
        if kind.endswith(".updated"):
            data["previous_attributes"] = self._previous(subject)
        endpoints = [one["id"] for one in self.changes.each("webhook_endpoint") if wants(one, kind)]
        event = self.new(
            "event",
            type=kind,
            data=data,
            api_version=API_VERSION,
            pending_webhooks=len(endpoints),
            request=self._request,
        )
        for endpoint in endpoints:
            self.changes.put(
                {
                    "id": f"{event['id']}>{endpoint}",
                    "object": DELIVERY,
                    "event": event["id"],
                    "endpoint": endpoint,
                    "attempts": 0,
                }
            )
        return event

    def _previous(self, subject: Json) -> Json:
        before = self.changes.before(subject["id"]) or {}
        return {
            name: copied(before.get(name))
            for name, value in subject.items()
            if name[0] != "_" and before.get(name) != value
        }


def with_metadata(subject: Json, given: Any) -> None:
    """Merges metadata as Stripe does: an empty value removes a key, an empty text removes all."""
    if given == "":
        subject["metadata"] = {}
    elif given is not None:
        merged = {**(subject.get("metadata") or {}), **given}
        subject["metadata"] = {name: value for name, value in merged.items() if value != ""}
