"""A payment request, decoded strictly: what the front and the native signer both understand by one body.

The reference signer reads JSON forgivingly: keys in any case, the last duplicate wins, whatever follows the first
value is ignored. Two readers that forgive differently see two requests in one body, so here a body has one reading or
none (remote-signer protocol, section 10, A9, A13 and A20). `PaymentRequest.canonical` is that reading written out
again: it is what gets hashed and what gets forwarded, never the caller's own bytes.

Checks follow the order of section 1.2, steps 2 to 6; the wording is the reference signer's where it names one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import MAX_EMAX, MIN_EMIN, Context
from typing import Any, Final

from chain.fees import MaxPrice
from chain.messages import (
    MessageError,
    OrchestratorInfo,
    Price,
    TicketParams,
    decode_offer_text,
    decode_orchestrator_info,
    encode_base64,
    normalise_capabilities,
)
from chain.payment_state import SignedState, decode_state_text
from chain.pb import lp_rpc_pb2 as pb
from clearinghouse.errors import InvalidRequest, RequestTooLarge
from clearinghouse.strict_json import (
    INT64,
    Number,
    base64_of,
    integer_of,
    kind_of,
    object_of,
    parse_object,
    refuse_variants,
    text_of,
)

MAX_BODY_BYTES: Final = 1 << 20
#: They come back in every answer, which is stored and remembered. Usual ones have a few hundred bytes.
MAX_CAPABILITIES_BYTES: Final = 16 * 1024
MAX_STRING_CHARS: Final = 256
MAX_MANIFEST_ID_CHARS: Final = 128
MAX_URL_CHARS: Final = 2048


@dataclass(slots=True)
class PaymentRequest:
    """One call of /generate-live-payment. Empty text, 0 and b"" mean "not given", as they do on the wire."""

    info: OrchestratorInfo
    state: SignedState | None
    manifest_id: str
    app: str
    in_pixels: int
    type: str
    max_price: MaxPrice | None
    capabilities: bytes
    #: Of the offer, which has them: one without is refused.
    params: TicketParams = field(init=False, repr=False, compare=False)
    price: Price = field(init=False, repr=False, compare=False)
    _canonical: bytes | None = field(default=None, init=False, repr=False, compare=False)
    _capabilities: pb.Capabilities | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.info.price is not None, "offers without a price are refused when decoded"
        self.params, self.price = offered_params(self.info), self.info.price

    @property
    def canonical(self) -> bytes:
        """The request as go-livepeer JSON: exact keys, fixed order, re-encoded protobufs, nothing unknown.

        Requests that mean the same have the same bytes. Raises InvalidRequest where the capabilities do not decode.
        """
        if self._canonical is None:
            self._canonical = _encode_canonical(self)
        return self._canonical

    def decoded_capabilities(self) -> pb.Capabilities | None:
        """The capabilities after the signer's round trip, None when there are none. InvalidRequest if malformed."""
        if self._capabilities is None and self.capabilities:
            try:
                self._capabilities = normalise_capabilities(self.capabilities)
            except MessageError as error:
                raise InvalidRequest(str(error)) from error
        return self._capabilities


def decode_payment_request(body: bytes) -> PaymentRequest:
    """Read go-livepeer's JSON. Raises InvalidRequest, or RequestTooLarge above MAX_BODY_BYTES; nothing else."""
    document = parse_object(body, bytes_max=MAX_BODY_BYTES, what="a payment request")
    refuse_variants(document, _REQUEST_KEYS)
    return payment_request(
        orchestrator=base64_of(document, "orchestrator", decode=decode_offer_text),
        state=_signed_state(document),
        manifest_id=text_of(document, "ManifestID"),
        app=text_of(document, "app"),
        in_pixels=integer_of(document, "inPixels"),
        type=text_of(document, "type"),
        max_price=_max_price(document),
        capabilities=base64_of(document, "capabilities"),
    )


def payment_request(
    *,
    orchestrator: bytes,
    state: SignedState | None,
    manifest_id: str,
    app: str,
    in_pixels: int,
    type: str,  # noqa: A002 (the field's name on every wire)
    max_price: MaxPrice | None,
    capabilities: bytes,
) -> PaymentRequest:
    """The same request from typed fields (gRPC, /v1/signTicket), with the same checks and the same refusals."""
    state = state if state is not None and (state.state or state.sig) else None
    state_bytes = len(state.state) + len(state.sig) if state else 0
    if len(orchestrator) + len(capabilities) + state_bytes > MAX_BODY_BYTES:
        raise RequestTooLarge(f"request is larger than {MAX_BODY_BYTES} bytes")
    if len(capabilities) > MAX_CAPABILITIES_BYTES:
        raise InvalidRequest(f"capabilities are larger than {MAX_CAPABILITIES_BYTES} bytes")
    _require_manifest_id(manifest_id)
    require_label("app", app)
    require_label("type", type)
    if in_pixels not in INT64:
        raise InvalidRequest("inPixels does not fit in 64 bits")
    return PaymentRequest(
        info=_payable_info(orchestrator),
        state=state,
        manifest_id=manifest_id,
        app=app,
        in_pixels=in_pixels,
        type=type,
        max_price=_normalised_max_price(max_price) if max_price is not None else None,
        capabilities=capabilities,
    )


def offered_params(info: OrchestratorInfo) -> TicketParams:
    """Of the offer of a decoded request, which has them."""
    assert info.ticket_params is not None, "offers without ticket parameters are refused when decoded"
    return info.ticket_params


def require_manifest_and_capabilities(request: PaymentRequest) -> None:
    """Section 1.2, steps 8 and 9: a continued session names its manifest, and capabilities decode."""
    if request.state is not None and not request.manifest_id:
        raise InvalidRequest("missing manifestID")
    request.decoded_capabilities()


def _payable_info(orchestrator: bytes) -> OrchestratorInfo:
    """Section 1.2, steps 3 to 6."""
    if not orchestrator:
        raise InvalidRequest("missing orchestrator")
    try:
        info = decode_orchestrator_info(orchestrator)
    except MessageError as error:
        raise InvalidRequest(str(error)) from error
    if info.price is None or not info.price.price_per_unit or not info.price.pixels_per_unit:
        raise InvalidRequest("missing or zero priceInfo")
    if info.price.price_per_unit < 0 or info.price.pixels_per_unit < 0:
        # The reference signer lets these pass and then signs them away (section 10-A14).
        raise InvalidRequest("missing or zero priceInfo: pricePerUnit and pixelsPerUnit must both be positive")
    if info.ticket_params is None:
        raise InvalidRequest("missing ticketParams in OrchestratorInfo")
    if len(info.transcoder) > MAX_URL_CHARS:  # it comes back in a header, where clients stop reading at 64 KiB
        raise InvalidRequest(f"transcoder in OrchestratorInfo is longer than {MAX_URL_CHARS} characters")
    if "\x00" in info.transcoder:  # it is recorded, and PostgreSQL has no NUL in text
        raise InvalidRequest("transcoder in OrchestratorInfo contains a NUL character")
    return info


# --- text and numbers -------------------------------------------------------------------------------------------------

#: JSON's number, which is also what the reference signer accepts inside a string for maxPrice.price.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_EXACT: Final = Context(prec=MAX_STRING_CHARS, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


def _require_manifest_id(manifest_id: str) -> None:
    """Printable ASCII only: segCreds sign it with the ticket key, so it must not be able to spell a ticket (A20)."""
    if len(manifest_id) > MAX_MANIFEST_ID_CHARS or not (manifest_id.isascii() and manifest_id.isprintable()):
        raise InvalidRequest(f"ManifestID must be at most {MAX_MANIFEST_ID_CHARS} printable ASCII characters")


def require_label(key: str, text: str) -> None:
    """Bounded, storable, printable in a log: PostgreSQL has no NUL in text, and surrogates have no UTF-8."""
    if len(text) > MAX_STRING_CHARS:
        raise InvalidRequest(f"{key} is longer than {MAX_STRING_CHARS} characters")
    if not text.isprintable() and _CONTROL.search(text):  # what is printable has none, and that is seen sooner
        raise InvalidRequest(f"{key} contains a control character")


def _normalised_max_price(max_price: MaxPrice) -> MaxPrice:
    """One spelling per meaning: 4, "4.0" and 40e-1 are one price, " WEI" is wei. Step 16 judges what they are."""
    currency, unit = max_price.currency.strip().lower(), max_price.unit.strip().lower()
    require_label("maxPrice.currency", currency)
    require_label("maxPrice.unit", unit)
    price = max_price.price
    if not price:
        return MaxPrice(price="", currency=currency, unit=unit)
    if len(price) > MAX_STRING_CHARS:
        raise InvalidRequest(f"maxPrice.price is longer than {MAX_STRING_CHARS} characters")
    if not _NUMBER.fullmatch(price):
        raise InvalidRequest(f"invalid number literal {price!a} in maxPrice.price")
    exact = _EXACT.create_decimal(price).normalize(_EXACT)
    if not exact.is_finite():
        raise InvalidRequest("maxPrice.price must be a positive decimal: its exponent is out of range")
    if not exact:
        return MaxPrice(price="0", currency=currency, unit=unit)
    text = f"{exact:f}" if abs(exact.adjusted()) < 30 else str(exact)  # either way the value decides the text
    return MaxPrice(price=text, currency=currency, unit=unit)


# --- JSON -------------------------------------------------------------------------------------------------------------

_REQUEST_KEYS: Final = frozenset(
    {"state", "orchestrator", "ManifestID", "app", "inPixels", "type", "maxPrice", "capabilities"}
)
_STATE_KEYS: Final = frozenset({"State", "Sig"})
_MAX_PRICE_KEYS: Final = frozenset({"price", "currency", "unit"})


def _object(document: dict[str, Any], key: str, known: frozenset[str]) -> dict[str, Any] | None:
    value = object_of(document, key)
    if value is not None:
        refuse_variants(value, known, inside=f"{key}.")
    return value


def _signed_state(document: dict[str, Any]) -> SignedState | None:
    state = _object(document, "state", _STATE_KEYS)
    if state is None:
        return None
    return SignedState(
        state=base64_of(state, "State", "state.", decode=decode_state_text), sig=base64_of(state, "Sig", "state.")
    )


def _max_price(document: dict[str, Any]) -> MaxPrice | None:
    max_price = _object(document, "maxPrice", _MAX_PRICE_KEYS)
    if max_price is None:
        return None
    price = max_price.get("price")
    if price == "" or type(price) not in (str, int, Number, type(None)):
        raise InvalidRequest(f"cannot unmarshal {kind_of(price)} into maxPrice.price: it must be a number")
    return MaxPrice(
        price="" if price is None else str(price),
        currency=text_of(max_price, "currency", "maxPrice."),
        unit=text_of(max_price, "unit", "maxPrice."),
    )


# --- the canonical form -----------------------------------------------------------------------------------------------


def _encode_canonical(request: PaymentRequest) -> bytes:
    """Member by member: base64 needs no escaping, and it is nearly all there is."""
    members: list[str] = []
    if (state := request.state) is not None:
        members.append(f'"state":{{"State":"{encode_base64(state.state)}","Sig":"{encode_base64(state.sig)}"}}')
    members.append(f'"orchestrator":"{request.info.text}"')
    if request.manifest_id:
        members.append(f'"ManifestID":{_encode(request.manifest_id)}')
    if request.app:
        members.append(f'"app":{_encode(request.app)}')
    if request.in_pixels:
        members.append(f'"inPixels":{request.in_pixels}')
    if request.type:
        members.append(f'"type":{_encode(request.type)}')
    if (price := request.max_price) is not None:
        texts = {"price": price.price, "currency": price.currency, "unit": price.unit}
        members.append(f'"maxPrice":{_encode({name: text for name, text in texts.items() if text})}')
    if (capabilities := request.decoded_capabilities()) is not None:
        encoded = encode_base64(capabilities.SerializeToString(deterministic=True))
        members.append(f'"capabilities":"{encoded}"')
    return f"{{{','.join(members)}}}".encode("ascii")


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
