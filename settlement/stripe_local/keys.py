"""API keys: secret ones may do everything, restricted ones what they were given."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final, Literal

from settlement.stripe_local.errors import StripeError

#: Printed at start and in every example. It opens nothing but a server on the developer's own machine.
DEFAULT_KEY: Final = "sk_test_local_clearinghouse"
#: What events are signed with for the endpoints that are given at start. As secret as the key.
DEFAULT_WEBHOOK_SECRET: Final = "whsec_local_clearinghouse"  # noqa: S105
Right = Literal["read", "write"]


@dataclass(frozen=True)
class ApiKeys:
    """Which keys open this server. `restricted`: of each key, what it may do by resource ("invoices": "write")."""

    secret: frozenset[str] = frozenset({DEFAULT_KEY})
    restricted: dict[str, dict[str, Right]] = field(default_factory=dict)

    def require(self, authorization: str | None, method: str, path: str) -> str:
        """The key that a request came with. Raises StripeError: 401 without a valid one, 403 without the right."""
        key = _key_in(authorization)
        if key.startswith(("sk_live_", "rk_live_")):
            text = "This is a local test server. A live key was sent to it: roll that key, and look where it is used."
            raise StripeError(text, status=401, code="livemode_mismatch")
        if key in self.secret:
            return key
        if key not in self.restricted:
            raise StripeError(f"Invalid API Key provided: {masked(key)}", status=401)
        resource = _resource(path)
        right = self.restricted[key].get(resource)
        if right is None or (method != "GET" and right != "write"):
            needed = "read" if method == "GET" else "write"
            text = (
                f"The provided key '{masked(key)}' does not have the required permissions for this endpoint. "
                f"Having the '{resource}_{needed}' permission would allow this request to continue."
            )
            raise StripeError(text, status=403, code="more_permissions_required")
        return key


def masked(key: str) -> str:
    """A key as it may be shown."""
    return f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 16 else "*" * len(key)


def _resource(path: str) -> str:
    parts = path.strip("/").split("/")
    return "_".join(parts[1:3]) if parts[1:2] in (["checkout"], ["test_helpers"]) else "".join(parts[1:2])


def _key_in(authorization: str | None) -> str:
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError) as error:
            raise StripeError("The Authorization header cannot be read.", status=401) from error
    text = "You did not provide an API key. Use HTTP basic or bearer authentication with your secret key."
    raise StripeError(text, status=401)
