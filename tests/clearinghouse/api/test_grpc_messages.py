"""Messages made the quick way are the ones that protobuf's own way makes."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from chain.messages import decode_base64
from clearinghouse.api.answers import read_answer, timeless_fields
from clearinghouse.api.grpc_messages import signed_message
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.lookups import Receipt
from clearinghouse.signing import SignedAnswer

INSTANTS = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones())  # noqa: DTZ001
AMOUNTS = st.decimals(min_value=0, max_value=10**15, places=18)


@given(
    INSTANTS | st.just(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    st.tuples(st.uuids(), st.uuids(), AMOUNTS, AMOUNTS),
    st.tuples(st.text(), st.text(), st.binary(), st.binary()),
)
def test_a_released_payment_is_the_message_of_nested_messages(
    created_at: datetime, numbers: tuple[UUID, UUID, Decimal, Decimal], parts: tuple[str, str, bytes, bytes]
) -> None:
    issuance_id, session_id, charge, balance = numbers
    receipt = Receipt(issuance_id, session_id, 1, 10**18, 7, charge, "USD", charge, 1000, balance, created_at)
    payment, seg_creds, state, sig = parts
    document = {
        "payment": payment,
        "segCreds": seg_creds,
        "state": {"State": base64.b64encode(state).decode(), "Sig": base64.b64encode(sig).decode()},
    }
    body = json.dumps(document).encode()

    answer = read_answer(body)
    nested = pb.SignTicketResponse(
        payment=answer.payment,
        seg_creds=answer.seg_creds,
        state=pb.PaymentState(state=decode_base64(answer.state), sig=decode_base64(answer.sig)),
        receipt=pb.Receipt(created_at=created_at, **timeless_fields(receipt)),  # type: ignore[arg-type]
    )
    quick = signed_message(SignedAnswer(body, receipt, replayed=False, overhead_s=0.001))
    assert quick.SerializeToString() == nested.SerializeToString()
