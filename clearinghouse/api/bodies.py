"""Request bodies of the management routes: strict JSON, keys that are known, values of exactly the right kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from clearinghouse.api.wiring import Wired
from clearinghouse.asgi import read_body
from clearinghouse.errors import InvalidRequest
from clearinghouse.identity.gateways import DEFAULT_CURRENCY
from clearinghouse.identity.plans import DEFAULT_PLAN
from clearinghouse.identity.secret_texts import DEFAULT_GRACE
from clearinghouse.instants import parse_rfc3339
from clearinghouse.strict_json import Number, kind_of, parse_object, refuse_unknown

#: Of what is written into a path: ids and names, without space or control characters.
PATH_PATTERN: Final = r"^[!-~]{1,140}$"


def _text(value: object) -> object:
    if type(value) is not str:  # a Number is a str too
        raise ValueError(f"a string is needed, not {kind_of(value)}")
    return value


def _whole(value: object) -> object:
    if type(value) is not int:
        raise ValueError(f"a whole number is needed, not {kind_of(value)}")
    return value


def _truth(value: object) -> object:
    if type(value) is not bool:
        raise ValueError(f"true or false is needed, not {kind_of(value)}")
    return value


def _amount(value: object) -> object:
    if type(value) in (int, Number):
        raise ValueError(
            f'an amount is a decimal string: write "{str(value)[:40]}" in quotes, since many readers round JSON numbers'
        )
    return _text(value)


def _instant(value: object) -> object:
    _text(value)
    return parse_rfc3339(str(value))


Text = Annotated[str, BeforeValidator(_text)]
Whole = Annotated[int, BeforeValidator(_whole)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Amount = Annotated[
    str,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "examples": ["12.50"]}),
]
Most = Annotated[
    str,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": r"^(none|[0-9]+(\.[0-9]+)?)$", "examples": ["25", "none"]}),
]
#: Of a gateway, which may also leave it to its plan.
OwnMost = Annotated[
    str,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": r"^(none|inherit|[0-9]+(\.[0-9]+)?)$", "examples": ["25", "inherit"]}),
]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-01-01T00:00:00Z"]}),
]


class Body(BaseModel):
    """What a caller sends. Unknown keys are refused, and no refusal repeats a value that may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NewGateway(Body):
    name: Text = Field(description="Letters, digits, '.', '_' and '-'; unique.", examples=["studio"])
    currency: Text = Field(default=DEFAULT_CURRENCY, description="Of the gateway's account, for ever.")
    markup_bps: Whole = Field(default=0, description="On top of the tickets' value; 100 are one percent.")
    minimum_charge: Amount = Field(default="0", description="Per call.", examples=["0.0001"])
    credit_limit: Amount = Field(default="0", description="How far below zero the balance may go.", examples=["0"])
    plan: Text = Field(default=DEFAULT_PLAN, description="Whose limits it has.")


class Suspension(Body):
    reason: Text = Field(description="One line; the gateway sees it.", examples=["invoice overdue"])


class NewCreditLimit(Body):
    credit_limit: Amount = Field(description="How far below zero the balance may go.", examples=["50"])


class NewPricing(Body):
    """One of the two, or both; what is left out stays as it is."""

    markup_bps: Whole | None = Field(default=None, description="100 are one percent.", examples=[250])
    minimum_charge: Amount | None = Field(default=None, description="Per call.", examples=["0.0001"])


_REQUESTS: Final = "On average."
_BURST: Final = "Requests at once."
_CALLS: Final = "Paid calls; a day begins at 00:00 UTC."
_SPEND_DAY: Final = "In the account's currency."
_SPEND_MONTH: Final = "In the account's currency, by calendar month, UTC."
_EV_OPEN: Final = "Expected value, in wei, of the tickets released today and on the two days before."
_SESSIONS: Final = "At once; new ones are refused, none is cut off."
_PER_ORCHESTRATOR: Final = "The same with one orchestrator."
_PRICE_LIVE: Final = "Highest price of jobs of type live, in wei per second."
_PRICE_LV2V: Final = "Highest price of jobs of type lv2v, in wei per pixel."
_PRICE_FIXED: Final = "Highest price of jobs of type fixed, in wei per call."
_PRICE_UNTYPED: Final = "Highest price of jobs without a type, in wei per pixel."


class NewKeyLimits(Body):
    """Any of them; what is left out stays as it is, and "none" takes a limit away."""

    requests_per_s: Most | None = Field(default=None, description=_REQUESTS)
    burst_count: Most | None = Field(default=None, description=_BURST)
    calls_per_day: Most | None = Field(default=None, description=_CALLS)
    spend_per_day: Most | None = Field(default=None, description=_SPEND_DAY)
    spend_per_month: Most | None = Field(default=None, description=_SPEND_MONTH)
    ev_open: Most | None = Field(default=None, description=_EV_OPEN)
    sessions_open: Most | None = Field(default=None, description=_SESSIONS)


class NewPlan(NewKeyLimits):
    """Any of them; what is left out stays as it is, which is no limit in a new plan. "none" takes a limit away."""

    currency: Text | None = Field(
        default=None,
        description="Of the limits on spend, which need one: only gateways of this currency can then be on the plan. "
        '"none" takes it away.',
        examples=["USD"],
    )
    sessions_open_per_orchestrator: Most | None = Field(default=None, description=_PER_ORCHESTRATOR)
    price_live: Most | None = Field(default=None, description=_PRICE_LIVE)
    price_lv2v: Most | None = Field(default=None, description=_PRICE_LV2V)
    price_fixed: Most | None = Field(default=None, description=_PRICE_FIXED)
    price_untyped: Most | None = Field(default=None, description=_PRICE_UNTYPED)


class NewGatewayLimits(Body):
    """Any of them; what is left out stays as it is. They stand in place of those of the gateway's plan.

    "none" is no limit whatever the plan says, "inherit" what the plan says. Of a price, the lower ceiling holds.
    """

    requests_per_s: OwnMost | None = Field(default=None, description=_REQUESTS)
    burst_count: OwnMost | None = Field(default=None, description=_BURST)
    calls_per_day: OwnMost | None = Field(default=None, description=_CALLS)
    spend_per_day: OwnMost | None = Field(default=None, description=_SPEND_DAY)
    spend_per_month: OwnMost | None = Field(default=None, description=_SPEND_MONTH)
    ev_open: OwnMost | None = Field(default=None, description=_EV_OPEN)
    sessions_open: OwnMost | None = Field(default=None, description=_SESSIONS)
    sessions_open_per_orchestrator: OwnMost | None = Field(default=None, description=_PER_ORCHESTRATOR)
    price_live: OwnMost | None = Field(default=None, description=_PRICE_LIVE)
    price_lv2v: OwnMost | None = Field(default=None, description=_PRICE_LV2V)
    price_fixed: OwnMost | None = Field(default=None, description=_PRICE_FIXED)
    price_untyped: OwnMost | None = Field(default=None, description=_PRICE_UNTYPED)


class ChosenPlan(Body):
    plan: Text = Field(description="Of those there are.", examples=["small"])


class Withdrawal(Body):
    amount: Amount = Field(description="In the gateway's currency.")
    reason: Text = Field(description="One line: what the books will say about it.", examples=["prepaid by wire"])
    idempotency_key: Text | None = Field(
        default=None, description="The same key books once. The Idempotency-Key header does the same."
    )


class Grant(Withdrawal):
    expires_at: Instant | None = Field(default=None, description="When what is left of this grant lapses.")


class NewKey(Body):
    name: Text = Field(default="", description="For people; need not be unique.", examples=["production"])
    expires_at: Instant | None = Field(default=None, description="Without it, the key does not expire.")


class SecretRotation(Body):
    grace_s: Whole | None = Field(
        default=None, description="Seconds the old one goes on working; 86400 if not given.", examples=[3600]
    )

    def grace(self) -> timedelta:
        """InvalidRequest for what no calendar holds; whoever rotates judges the rest."""
        try:
            return DEFAULT_GRACE if self.grace_s is None else timedelta(seconds=self.grace_s)
        except OverflowError:
            raise InvalidRequest("grace_s: the grace period must be between nothing and 100 years") from None


class Rotation(SecretRotation):
    expires_at: Instant | None = Field(default=None, description="Of the new key.")


class NewWebhookSigner(Body):
    name: Text = Field(description="Letters, digits, '.', '_' and '-'; unique.", examples=["signer-1"])
    sender: Text = Field(
        description="Address that signs its tickets.", examples=["0x70997970C51812dc3A010C7d01b50e0d17dc79C8"]
    )
    face_value_max_wei: Amount | None = Field(
        default=None, description="Largest face value it signs, as set at the signer; the webhook is not shown any."
    )


class SecretRevocation(Body):
    secret: Text | None = Field(
        default=None, description="Public id of one secret. Without it the signer is revoked, with all its secrets."
    )


class NewTopup(Body):
    method: Text = Field(
        description="checkout: a link to Stripe's page; card: the saved card is charged; bank_transfer: instructions "
        "for a transfer; setup: a link to a page where a card is saved, without an amount.",
        examples=["checkout"],
    )
    amount: Amount | None = Field(default=None, description="In the account's currency.", examples=["50.00"])
    save_card: Truth = Field(default=False, description="With checkout: save the card for later top-ups.")


class Nothing(Body):
    """No field: an empty body or {}."""


BODIES: Final[tuple[type[Body], ...]] = (
    NewGateway, Suspension, NewCreditLimit, NewPricing, NewGatewayLimits, NewKeyLimits, NewPlan, ChosenPlan, Withdrawal,
    Grant, NewKey, Rotation, SecretRotation, NewWebhookSigner, SecretRevocation, NewTopup, Nothing,
)  # fmt: skip

Model = TypeVar("Model", bound=Body)


def decode_body(model: type[Model], raw: bytes, *, bytes_max: int) -> Model:
    """An empty body is {}. Raises InvalidRequest or RequestTooLarge."""
    document = parse_object(raw or b"{}", bytes_max=bytes_max, what="a request body")
    refuse_unknown(document, frozenset(model.model_fields))
    try:
        return model.model_validate({key: value for key, value in document.items() if value is not None})
    except ValidationError as error:
        raise InvalidRequest(first_reason(error.errors())) from None


def first_reason(errors: Any) -> str:
    """One sentence out of what pydantic found: the first thing to correct."""
    error = errors[0]
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{place} is missing"
    reason = str(error.get("ctx", {}).get("error", "")) or error["msg"]
    return f"{place}: {reason}"


def json_body(model: type[Model]) -> Any:
    """The dependency that reads the request's body as `model`. Its content type is not asked for: only JSON is read."""

    async def read(request: Request, wired: Wired) -> Body:
        raw = await read_body(request.receive, bytes_max=wired.body_max_bytes, timeout_s=wired.read_timeout_s)
        return decode_body(model, raw, bytes_max=wired.body_max_bytes)

    dependency: Callable[..., Awaitable[Body]] = read
    return Depends(dependency)
