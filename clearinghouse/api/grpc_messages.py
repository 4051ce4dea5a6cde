"""Between the messages of livepeer.clearinghouse.v1 and what the service works with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from chain import shallow_json
from chain.fees import MaxPrice
from chain.messages import decode_base64
from chain.payment_state import SignedState
from clearinghouse.api.answers import answer_parts, timeless_fields
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.errors import InvalidRequest, SignerAnswerInvalid
from clearinghouse.ids import show
from clearinghouse.issuances import Issuance, Page, issuance_json
from clearinghouse.ledger.accounts import Standing
from clearinghouse.ledger.money import show_amount
from clearinghouse.requests import PaymentRequest, payment_request
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signing import SignedAnswer

AnyMessage = TypeVar("AnyMessage", bound=Message)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_S_PER_DAY: Final = 86_400


def decode(kind: type[AnyMessage], encoded: bytes) -> AnyMessage:
    """Raises InvalidRequest for bytes that are not a message of this kind."""
    try:
        return kind.FromString(encoded)
    except DecodeError:
        raise InvalidRequest(f"The request is not an encoded {kind.DESCRIPTOR.full_name}.") from None


def payment_request_of(message: pb.SignTicketRequest) -> PaymentRequest:
    """Raises InvalidRequest or RequestTooLarge, as for go-livepeer's JSON with the same content."""
    state, price = message.state, message.max_price
    return payment_request(
        orchestrator=message.orchestrator,
        state=SignedState(state.state, state.sig) if message.HasField("state") else None,
        manifest_id=message.manifest_id,
        app=message.app,
        in_pixels=message.in_pixels,
        type=message.type,
        max_price=MaxPrice(price.price, price.currency, price.unit) if message.HasField("max_price") else None,
        capabilities=message.capabilities,
    )


def signed_message(signed: SignedAnswer) -> pb.SignTicketResponse:
    """A released payment. The same answer, also when it is repeated, always gives the same bytes."""
    answer, receipt = answer_parts(signed), signed.receipt
    # Dicts are taken as the messages that they stand for; messages would be made, and then copied.
    return pb.SignTicketResponse(
        payment=answer.payment,
        seg_creds=answer.seg_creds,
        state={"state": decode_base64(answer.state), "sig": decode_base64(answer.sig)},  # type: ignore[arg-type]
        receipt={"created_at": _timestamp(receipt.created_at), **timeless_fields(receipt)},  # type: ignore[arg-type]
    )


def _timestamp(instant: datetime) -> dict[str, int]:
    """A google.protobuf.Timestamp. Its own FromDatetime would take as long as all the other fields do."""
    since_epoch = instant - _EPOCH
    return {
        "seconds": since_epoch.days * _S_PER_DAY + since_epoch.seconds,
        "nanos": since_epoch.microseconds * 1000,
    }


def orchestrator_info_message(answer: SignerAnswer) -> pb.SignOrchestratorInfoResponse:
    """Raises SignerAnswerInvalid for anything but a 200 with an address and a signature."""
    if answer.status != 200:
        raise SignerAnswerInvalid(f"The signer answered {answer.status} instead of its address and signature.")
    try:
        document = shallow_json.loads(answer.body)
        return pb.SignOrchestratorInfoResponse(address=document["address"], signature=document["signature"])
    except (ValueError, KeyError, TypeError):
        raise SignerAnswerInvalid("The signer's answer is no address and signature.") from None


def balance_message(standing: Standing) -> pb.GetBalanceResponse:
    return pb.GetBalanceResponse(
        gateway_id=show("gw", standing.gateway_id),
        available=show_amount(standing.available),
        balance=show_amount(standing.balance),
        credit_limit=show_amount(standing.credit_limit),
        currency=standing.currency,
    )


def page_message(page: Page) -> pb.ListIssuancesResponse:
    return pb.ListIssuancesResponse(
        items=[_issuance_message(issuance) for issuance in page.items], next_cursor=page.next_cursor or ""
    )


def _issuance_message(issuance: Issuance) -> pb.Issuance:
    """The fields are those of GET /v1/issuances, by the same names; only times have a type of their own."""
    times = {"created_at": issuance.created_at, "price_observed_at": issuance.price_observed_at}
    return pb.Issuance(**{**issuance_json(issuance), **times})
