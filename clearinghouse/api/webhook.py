"""Where signers ask: go-livepeer's `-remoteSignerWebhookUrl` and `-remoteSignerWebhookHeaders` (protocol, section 6).

    Authorization: Bearer lpws_…                                          the signer's own secret
    {"headers": {"Authorization": ["Bearer lpch_…"], …}, "state": {…}}    its caller's headers, the state to release

Whoever is not one of our signers, or asks nothing that can be read, gets an HTTP error, which the signer hides from
its caller: it is the operators' affair. Everything else is a verdict, and HTTP 200. Of the caller's headers two mean
something; Signer-Auth-Id is not one of them, and our auth_id goes before it at the signer (section 10, A8).
"""

from __future__ import annotations

from typing import Any, Final

from chain.payment_state import PaymentState, StateError, payment_state_of
from clearinghouse.api.heads import read_head
from clearinghouse.approving import Approving, Question
from clearinghouse.asgi import Reply
from clearinghouse.errors import InvalidRequest, Refusal
from clearinghouse.hot_routes import HotRequest
from clearinghouse.identity.webhook_signers import WEBHOOK_PATH, SignerAuthenticator
from clearinghouse.metrics import Metrics
from clearinghouse.strict_json import kind_of, object_of, parse_object, refuse_variants, shown
from clearinghouse.verdicts import rejection

#: The second is what other services of the field call it.
PATHS: Final = (WEBHOOK_PATH, "/authorize")
#: A head of 64 KiB, quoted, and a state.
QUESTION_MAX_BYTES: Final = 128 * 1024
JSON: Final = (b"content-type", b"application/json")
_KEYS: Final = frozenset({"headers", "state"})


class NoQuestion(Exception):
    """Whoever called asked nothing that has a verdict; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Webhook:
    """The handler of both paths."""

    def __init__(self, approving: Approving, signers: SignerAuthenticator, *, metrics: Metrics) -> None:
        self._approving = approving
        self._signers = signers
        self._metrics = metrics

    async def answer(self, request: HotRequest) -> Reply:
        """An approval. Raises NoQuestion, or the Refusal that is the verdict."""
        received_at_s = self._metrics.now_s() - request.waited_s
        try:
            signer = await self._signers.authenticate(read_head(request.headers).authorization)
            authorization, end_user, state = read_question(request.read())
        except Refusal as refusal:
            raise NoQuestion(refusal) from refusal
        try:
            approval = await self._approving.approve(Question(signer, authorization, end_user, state, received_at_s))
        except Refusal as refusal:
            refusal.facts["signer"] = signer.name  # for the log
            raise
        return Reply(200, approval.body, [JSON])


def verdict(refusal: Refusal) -> Reply:
    return Reply(200, rejection(refusal), [JSON])


def read_question(body: bytes) -> tuple[str, str, PaymentState]:
    """The caller's Authorization and Clearinghouse-End-User, "" where there is not one value, and the state.

    Raises InvalidRequest, or RequestTooLarge.
    """
    document = parse_object(body, bytes_max=QUESTION_MAX_BYTES, what="a signer's question")
    refuse_variants(document, _KEYS)
    headers, state = object_of(document, "headers"), object_of(document, "state")
    if headers is None or state is None:
        raise InvalidRequest(f"missing {'headers' if headers is None else 'state'}")
    values = _values(headers)
    try:
        return _one(values, "authorization"), _one(values, "clearinghouse-end-user"), payment_state_of(state)
    except StateError as error:
        raise InvalidRequest(f"invalid state: {error}") from error


def _values(headers: dict[str, Any]) -> dict[str, list[str]]:
    """By name in lower case; a name in two cases would be two headers to one reader and one to another."""
    found: dict[str, list[str]] = {}
    for name, values in headers.items():
        if not isinstance(values, list) or not all(type(value) is str for value in values):
            raise InvalidRequest(f"cannot unmarshal {kind_of(values)} into headers.{shown(name)} of type []string")
        if found.setdefault(name.lower(), values) is not values:
            raise InvalidRequest(f"header {shown(name)} is there in two spellings")
    return found


def _one(values: dict[str, list[str]], name: str) -> str:
    """Two values are as good as none: two readers could take different ones."""
    given = values.get(name, [])
    return given[0].strip() if len(given) == 1 else ""
