"""What the local Stripe answers instead of an object, in Stripe's envelope."""

from __future__ import annotations

from typing import Any, Final

UNSUPPORTED_CODE: Final = "stripe_local_unsupported"


class StripeError(Exception):
    """A refusal as Stripe words it. `keeps_changes`: what the request did until then stands (a declined card does)."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        keeps_changes: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.keeps_changes = keeps_changes
        named = {"code": code, "message": message, "param": param, "type": kind, **more}
        self.error: dict[str, Any] = {name: value for name, value in named.items() if value is not None}

    def kept(self, **more: Any) -> StripeError:
        """The same refusal, with more to say; what the request did until then stands."""
        self.keeps_changes = True
        self.error.update(more)
        return self


def missing(kind: str, object_id: str, param: str) -> StripeError:
    """404: no object of that kind has this id."""
    told = kind.rpartition(".")[2].replace("_", " ")
    text = f"No such {told}: '{object_id}'"
    return StripeError(text, status=404, code="resource_missing", param=param)


def unsupported(what: str) -> StripeError:
    """400: Stripe does it, this server does not. Better said than silently left out."""
    return StripeError(f"The local Stripe server does not do this: {what}.", code=UNSUPPORTED_CODE)
