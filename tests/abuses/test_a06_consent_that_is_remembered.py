"""A6: a signer that remembers a webhook's consent until AuthExpiry would sign any number of calls unmetered."""

from __future__ import annotations

from chain.payment_state import SignedState, decode_state, encode_state
from tests.parts.service import Service
from tests.parts.stack import TICKET_CHARGE_USD, TestGateway

FAR_AHEAD_UNIX_S = 4_000_000_000


async def test_no_state_says_that_later_calls_need_not_be_asked_about(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream()
    for _ in range(3):
        await service.pay(gateway, stream)
        assert stream.state is not None
        assert decode_state(stream.state.state).auth_expiry_unix_s == 0


async def test_every_call_is_metered_and_a_revocation_holds_in_mid_session(
    service: Service, gateway: TestGateway
) -> None:
    stream, before = service.new_stream(), service.house.sums(gateway).balance
    for _ in range(5):
        await service.pay(gateway, stream)
    assert before - service.house.sums(gateway).balance == 5 * TICKET_CHARGE_USD
    await service.house.revoke(gateway)
    assert (await service.sign(gateway, stream.body())).status == 401


async def test_a_caller_cannot_write_an_expiry_into_a_state(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream()
    await service.pay(gateway, stream)
    assert stream.state is not None
    lasting = decode_state(stream.state.state)._replace(auth_expiry_unix_s=FAR_AHEAD_UNIX_S)
    stream.state = SignedState(encode_state(lasting), stream.state.sig)
    stream.refresh()
    refused = await service.sign(gateway, stream.body())
    assert (refused.status, refused.message) == (400, "invalid sig")
    assert service.house.sums(gateway).issuances == 1
