"""The bodies of the hot routes, for the OpenAPI document only: these routes decode and encode without a framework.

Tests hold the two together: the keys here are the keys the decoders know, and real answers fit these schemas.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaymentState(Shape):
    """As the answer before gave it, to the letter."""

    state: Base64
    sig: Base64


class MaxPrice(Shape):
    """The highest price to pay; where the orchestrator asks more, the call gets 481."""

    price: str = Field(description="Decimal, above zero.", examples=["4.5"])
    currency: str = Field(examples=["wei"])
    unit: str = Field(
        description="`seconds` for type live, `720p-pixel-seconds` for lv2v, `fixed` for fixed.",
        examples=["720p-pixel-seconds"],
    )


class SignTicketRequest(Shape):
    """A payment request in its one canonical spelling. Unknown keys are refused; null means not given."""

    orchestrator: Base64 = Field(description="An encoded net.OrchestratorInfo, as the orchestrator returned it.")
    state: PaymentState | None = Field(default=None, description="Absent on the first call of a session.")
    manifest_id: str = Field(default="", max_length=128, description="Printable ASCII. Required with a state.")
    app: str = Field(default="", max_length=256)
    in_pixels: int = Field(default=0, description="Required for an untyped job, ignored otherwise.")
    type: str = Field(default="", max_length=256, description="`live`, `lv2v`, `fixed` or empty.", examples=["lv2v"])
    max_price: MaxPrice | None = None
    capabilities: Base64 = Field(default="", description="An encoded net.Capabilities.")
    idempotency_key: str = Field(
        default="", max_length=255, description="The same key with the same request is charged and answered once."
    )
    end_user: str = Field(default="", max_length=255, description="Whom the gateway serves; recorded only.")


class Receipt(Shape):
    """What a payment cost; the same whenever the answer is repeated."""

    issuance_id: str
    session_id: str
    num_tickets: int
    ev_wei: str = Field(description="Expected value of the tickets, rounded up once: what is charged for.")
    fee_wei: str = Field(description="The fee as the signer computed it; recorded, not charged.")
    charge: str = Field(examples=["0.0123"])
    currency: str = Field(examples=["USD"])
    price: str = Field(description="`currency` per ETH.", examples=["3000"])
    markup_bps: int = Field(description="0 where a rate card set the price.")
    balance: str = Field(description="After this charge.", examples=["9.9877"])
    created_at: str


class SignTicketAnswer(Shape):
    payment: str = Field(description="Value of the Livepeer-Payment header.")
    seg_creds: str = Field(description="Value of the Livepeer-Segment header.")
    state: PaymentState
    receipt: Receipt


class LivePaymentState(Shape):
    State: Base64
    Sig: Base64


class LivePaymentMaxPrice(Shape):
    price: float | int = Field(description="A JSON number, or a string holding one; read exactly.")
    currency: str = Field(examples=["wei"])
    unit: str


class LivePaymentRequest(BaseModel):
    """go-livepeer's RemotePaymentRequest. Unknown keys are ignored; a known key in another case is refused."""

    orchestrator: Base64 = Field(description="An encoded net.OrchestratorInfo.")
    state: LivePaymentState | None = None
    ManifestID: str = Field(default="", max_length=128)
    app: str = Field(default="", max_length=256)
    inPixels: int = 0  # noqa: N815 (its name on the wire)
    type: str = Field(default="", max_length=256)
    maxPrice: LivePaymentMaxPrice | None = None  # noqa: N815
    capabilities: Base64 = ""


class LivePaymentAnswer(Shape):
    """go-livepeer's RemotePaymentResponse, the signer's own bytes."""

    payment: str
    segCreds: str  # noqa: N815
    state: LivePaymentState


class LivePaymentErrorMessage(Shape):
    message: str


class LivePaymentError(Shape):
    """go-livepeer's error envelope. The `Clearinghouse-Error` header has the code."""

    error: LivePaymentErrorMessage


class OrchestratorInfoSignature(Shape):
    """Whom orchestrators will be paid by, and its proof."""

    address: str = Field(description="EIP-55 hex.")
    signature: str = Field(description="0x and 65 bytes in hex.")


class WebhookState(BaseModel):
    """The signer's RemotePaymentState after the payment, with AuthExpiry and AuthID as they were before it."""

    StateID: str
    PMSessionID: str = Field(description="0x and 32 bytes in hex.")
    LastUpdate: str = Field(description="RFC 3339, with any offset.")
    OrchestratorAddress: str
    App: str
    AuthExpiry: int
    SenderNonce: int
    Balance: str = Field(description="Wei, as a whole number or a fraction.", examples=["125/7"])
    InitialPricePerUnit: int
    InitialPixelsPerUnit: int
    Type: str = Field(description="`live`, `lv2v` or `fixed`.")
    SequenceNumber: int
    AuthID: str


class WebhookQuestion(BaseModel):
    """What go-livepeer's signer sends to its -remoteSignerWebhookUrl. Unknown keys are ignored."""

    headers: dict[str, list[str]] = Field(
        description="Its caller's, of which Authorization and Clearinghouse-End-User mean something."
    )
    state: WebhookState


class WebhookVerdict(Shape):
    """`auth_id` with an approval, `reason` with a refusal. There is never an expiry."""

    status: int = Field(description="200, or 402, 403, 409, 429 or 503 for the signer's caller.")
    auth_id: str | None = None
    maxPrice: MaxPrice | None = None  # noqa: N815
    reason: str | None = Field(default=None, description="The code, a colon, and a sentence.")


class Problem(BaseModel):
    """RFC 9457. Further members are facts about the refusal; amounts among them are decimal strings."""

    type: str = Field(examples=["urn:livepeer:clearinghouse:out_of_credit"])
    title: str
    status: int
    detail: str = Field(description="For people; may be reworded.")
    code: str = Field(description="For programs; part of the API.", examples=["out_of_credit"])
    what_next: str = Field(description="What would have to change for the answer to become yes.")
    retry_after_s: int | None = Field(default=None, description="As in Retry-After; only where waiting helps.")
    orchestrator_url: str | None = Field(default=None, description="With 480: where to refresh the session.")
    rule: str | None = Field(default=None, description="Which rule of the policy refuses, where one does.")


HOT_SHAPES: Final[tuple[type[BaseModel], ...]] = (
    SignTicketRequest, SignTicketAnswer, LivePaymentRequest, LivePaymentAnswer, LivePaymentError,
    OrchestratorInfoSignature, WebhookQuestion, WebhookVerdict, Problem,
)  # fmt: skip
