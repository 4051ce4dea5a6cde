"""Asks a webhook before a payment is released: go-livepeer's `-remoteSignerWebhookUrl` (protocol, section 6).

    payment due ──▶ agreed until later (AuthExpiry)? ──no──▶ POST {"headers": …, "state": …} ──▶ judged: 25, 26, 27
                                  │                                                                 │
                                  └──yes──▶ whose session it is: 28 ◀────────────agreed─────────────┘
                                                    │
                                                    └──▶ signed

The state shown is the one after the payment, with AuthExpiry and AuthID as they were before it. The reference signer
signs first and asks then; here nothing is signed that was not agreed to (section 10, A11), which nobody can tell from
outside. As there: one attempt, five seconds, and the work ends with the client that wanted it.

Where this differs: a redirect is not followed, because every body has the callers' credentials in it, and no proxy is
taken from the environment. A status that HTTP cannot carry as a last word (below 200 or above 599) is the webhook's
mistake and becomes a 500; the reference would answer 200 with an error in it, or hang up. Answers are bounded (A13).
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from chain.fees import MaxPrice, PriceFormatError, parse_max_price
from chain.http_client import ExchangeError, HttpAnswer, HttpClient
from chain.payment_state import PaymentState, encode_state
from chain.shallow_json import require_shallow
from clearinghouse.errors import Refusal, SignerAnswerInvalid, SignerFailed, SignersUnavailable
from clearinghouse.requests import MAX_STRING_CHARS, PaymentRequest
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.envelope import error_envelope, go_string
from clearinghouse.signers.native import (
    NativeSigner,
    continued_auth_id,
    not_signed,
    require_price,
    require_short_auth_id,
)
from clearinghouse.strict_json import INT64, Number

#: go-livepeer's, from connecting to the last byte of the answer.
TIMEOUT_S: Final = 5.0
#: A usual answer has 100 bytes. The reference reads to the end, wherever that is.
ANSWER_BYTES_MAX: Final = 64 * 1024
#: Shorter than the 5 s after which common servers close an idle connection, so that we are the side that closes.
_IDLE_TIMEOUT_S: Final = 4

#: Of a request, as the ASGI server has them: names in lower case, in the order in which they came.
Headers = Sequence[tuple[bytes, bytes]]


class AskingSigner:
    """A native signer that releases a payment only after the webhook has agreed to it."""

    def __init__(self, signer: NativeSigner, webhook: Webhook) -> None:
        self._signer = signer
        self._webhook = webhook

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str, headers: Headers) -> SignerAnswer:
        """Steps 7 to 29 of section 1.2. `auth_id` and `headers` are the caller's: Signer-Auth-Id, and all of them.

        Raises SignersUnavailable where there is no escrow reading to sign by. Cancelling ends the webhook's call too.
        """
        try:
            due = self._signer.payment_due(request, auth_id="")
            require_short_auth_id(auth_id)
            agreement = await self._agreement(due.next_state, headers)  # 25: as the webhook says, or 500
            if agreement is not None:
                require_agreed_price(request, agreement.max_price)  # 26: 502, 27: 481
            state = agreed_state(due.next_state, agreement, auth_id)  # 28: 500
        except SignersUnavailable:
            raise
        except Rejection as rejection:
            return rejection.answer
        except Refusal as refusal:
            return not_signed(refusal)
        return await self._signer.sign_due(request, replace(due, next_state=state))

    async def sign_orchestrator_info(self) -> SignerAnswer:
        """Never asked about."""
        return await self._signer.sign_orchestrator_info()

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        """Never asked about."""
        return await self._signer.discover_orchestrators(query)

    async def _agreement(self, state: PaymentState, headers: Headers) -> Agreement | None:
        """What the webhook agrees to; None where it agreed before, to everything until a time that is not over."""
        if must_be_asked(state):
            return read_answer(await self._webhook.ask(webhook_body(headers, state)))
        return None


class Webhook:
    """Where to ask. Connects on first use; belongs to one event loop.

    `url`: http or https, without user and password. `headers` go with every question and may be secrets; they replace
    our own Content-Type and User-Agent. https is verified against the system's authorities.
    Both are checked where the settings are (clearinghouse.config).
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        hostname, is_tls = parts.hostname or "", parts.scheme == "https"
        default_port = 443 if is_tls else 80
        port = parts.port or default_port
        host = f"[{hostname}]" if ":" in hostname else hostname
        #: For logs. The rest of the URL may hold a secret.
        self.name = f"{host}:{port}"
        own = {
            "Host": host if port == default_port else self.name,
            "User-Agent": "livepeer-clearinghouse",
            "Content-Type": "application/json",
        }
        lines = own | {canonical_name(name): value for name, value in headers.items()}
        target = quote(parts.path or "/", safe=_URL_CHARACTERS)
        if parts.query:
            target += f"?{quote(parts.query, safe=_URL_CHARACTERS + '?')}"
        self._head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._timeout_s = timeout_s
        self._client = HttpClient(
            hostname,
            port,
            tls=_tls_context() if is_tls else None,
            connect_timeout_s=timeout_s,
            idle_timeout_s=_IDLE_TIMEOUT_S,
            body_max_bytes=ANSWER_BYTES_MAX,
        )

    async def ask(self, body: bytes) -> HttpAnswer:
        """One attempt. Raises SignerFailed where there is no complete answer in time."""
        request = f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
        try:
            return await self._client.exchange(request, timeout_s=self._timeout_s)
        except ExchangeError as error:
            # Not chained: its cause may quote an address, and only the log would have it.
            raise SignerFailed(f"the webhook {self.name} gave no answer: {type(error).__name__}") from None

    async def close(self) -> None:
        """Questions in flight end with SignerFailed. May be called twice."""
        await self._client.close()

    def __repr__(self) -> str:
        return f"Webhook({self.name})"


#: What may stand in a URL as it is; `%` because escapes are there already.
_URL_CHARACTERS: Final = "%&=+/:@!$'()*,;-._~"


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


# --- the question -----------------------------------------------------------------------------------------------------


def must_be_asked(state: PaymentState) -> bool:
    """Unless an earlier answer holds until this second or later. An expiry of 0, or a negative one, never holds."""
    assert state.last_update_unix_ns is not None, "the next state is dated by this call"
    return state.last_update_unix_ns // 10**9 > state.auth_expiry_unix_s


def webhook_body(headers: Headers, state: PaymentState) -> bytes:
    """The question, byte for byte as go-livepeer writes it. It holds the caller's credentials: never log it."""
    in_order = sorted(go_headers(headers).items())
    members = ",".join(f"{go_string(name)}:[{','.join(map(go_string, values))}]" for name, values in in_order)
    return b'{"headers":{%b},"state":%b}' % (members.encode(), encode_state(state))


def go_headers(headers: Headers) -> dict[str, list[str]]:
    """The headers as Go's server hands them on: canonical names, every value, some taken out and one put in."""
    handed_on: dict[str, list[str]] = {}
    for name, value in headers:
        values = handed_on.setdefault(canonical_name(name.decode("latin-1")), [])
        values.append(value.strip(b" \t").decode("utf-8", "surrogateescape"))
    handed_on.pop("Host", None)
    if handed_on.pop("Transfer-Encoding", None):  # always "chunked"; only such a body can have trailers
        handed_on.pop("Trailer", None)
    if handed_on.get("Pragma", [""])[0] == "no-cache":
        handed_on.setdefault("Cache-Control", ["no-cache"])
    return handed_on


def canonical_name(name: str) -> str:
    """Go's form of a header's name: X-Request-Id."""
    return "-".join(part.capitalize() for part in name.split("-"))


# --- the answer -------------------------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """What a webhook says with status 200."""

    #: Until when it need not be asked again; 0: ask every time.
    expiry_unix_s: int
    #: Whose session it is; empty: as the caller's header says.
    auth_id: str
    max_price: MaxPrice | None


class Rejection(Exception):
    """The webhook's own no, as the caller gets it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"rejected with status {status}")
        may_have_body = status not in (204, 304)
        self.answer = SignerAnswer(status, error_envelope(status, reason) if may_have_body else b"")


def read_answer(answer: HttpAnswer) -> Agreement:
    """Raises Rejection where the webhook says no, and SignerFailed where it says nothing that can be understood."""
    if answer.status != 200:
        raise SignerFailed(f"the webhook answered with HTTP status {answer.status}")
    said = _decode(answer.body)
    if said.status is None or said.status <= 0:
        raise SignerFailed("the webhook's answer has no positive status")
    if said.status == 200:
        if len(said.auth_id) > MAX_STRING_CHARS:
            raise SignerFailed(f"the webhook's auth_id is longer than {MAX_STRING_CHARS} characters")
        return Agreement(said.expiry, said.auth_id, said.max_price)
    if not 200 < said.status < 600:
        raise SignerFailed(f"the webhook's answer has status {said.status}, which no HTTP answer can have")
    raise Rejection(said.status, said.reason or f"signer auth rejected request with status {said.status}")


def require_agreed_price(request: PaymentRequest, max_price: MaxPrice | None) -> None:
    """Steps 26 and 27."""
    if max_price is None:
        return
    try:
        ceiling = parse_max_price(max_price, request.type)
    except PriceFormatError as error:
        raise SignerAnswerInvalid(f"signer auth invalid maxPrice: {error}") from error
    price = request.price
    require_price(Fraction(price.price_per_unit, price.pixels_per_unit), ("auth webhook maxPrice", ceiling))


def agreed_state(state: PaymentState, agreement: Agreement | None, auth_id: str) -> PaymentState:
    """Step 28: the state to sign. The webhook's auth id goes before the caller's, and neither may change."""
    if agreement is None:
        return state._replace(auth_id=continued_auth_id(state, auth_id))
    return state._replace(
        auth_expiry_unix_s=agreement.expiry_unix_s,
        auth_id=continued_auth_id(state, agreement.auth_id or auth_id),
    )


# --- JSON as Go reads it ----------------------------------------------------------------------------------------------
#
# Names in any case, the last of a repeated one counts, null says nothing, others are skipped; but every known member
# must have its type, each time it comes, and nothing may follow the object. go-livepeer's webhooks are read so.


@dataclass(slots=True)
class _Said:
    """The members of an answer; what was not said has Go's zero value."""

    status: int | None = None
    reason: str = ""
    expiry: int = 0
    auth_id: str = ""
    max_price: MaxPrice | None = None


class _Members(list[tuple[str, Any]]):
    """A JSON object, member by member as written."""


def _decode(body: bytes) -> _Said:
    """Raises SignerFailed. Its text quotes nothing of the answer."""
    try:
        text = body.decode("utf-8", "replace")
        require_shallow(text)
        document = _DECODER.decode(text)
        return _said(_members(document)) if document is not None else _Said()
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise SignerFailed(f"the webhook's answer cannot be read: {reason}") from None


def _said(members: Iterator[tuple[str, Any]]) -> _Said:
    said = _Said()
    for name, value in members:
        match name:
            case "status":
                said.status = None if value is None else _int64(value, name)
            case "maxprice":
                said.max_price = None if value is None else _max_price(_members(value), said.max_price)
            case _ if value is None:
                pass
            case "reason":
                said.reason = _text(value, name)
            case "expiry":
                said.expiry = _int64(value, name)
            case "auth_id":
                said.auth_id = _text(value, name)
    return said


def _max_price(members: Iterator[tuple[str, Any]], earlier: MaxPrice | None) -> MaxPrice:
    said = earlier or MaxPrice(price="", currency="", unit="")
    for name, value in members:
        match name:
            case _ if value is None:
                pass
            case "price":
                said = replace(said, price=_number(value, "maxPrice.price"))
            case "currency":
                said = replace(said, currency=_text(value, "maxPrice.currency"))
            case "unit":
                said = replace(said, unit=_text(value, "maxPrice.unit"))
    return said


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) is not _Members:
        raise ValueError("an object is needed")
    return ((name.casefold(), member) for name, member in value)


def _int64(value: Any, name: str) -> int:
    if type(value) is not Number or not _WHOLE.fullmatch(value) or int(value) not in INT64:
        raise ValueError(f"{name} must be a whole number of 64 bits")
    return int(value)


def _text(value: Any, name: str) -> str:
    if type(value) is not str:
        raise ValueError(f"{name} must be a string")
    return _SURROGATE.sub("\ufffd", value)


def _number(value: Any, name: str) -> str:
    """A number, or a string that holds one."""
    if type(value) is not Number and not (type(value) is str and _JSON_NUMBER.fullmatch(value)):
        raise ValueError(f"{name} must be a number")
    return str(value)


def _no_constant(_name: str) -> Any:
    raise ValueError("NaN and the infinities are not JSON")


#: Of at most 20 characters, so that int() is cheap.
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_Members, parse_int=Number, parse_float=Number, parse_constant=_no_constant
)
