"""A18: manifest, type, unit and capabilities are the caller's to choose, and choosing anew would lower the bill."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from chain.pb import lp_rpc_pb2 as net
from clearinghouse.commits import Issuance, Outcome
from clearinghouse.errors import SessionMismatch
from tests.abuses.attack import refused_everywhere
from tests.parts.service import Service, running
from tests.parts.stack import TICKET_CHARGE_USD, TICKET_EV_WEI, Stream, TestGateway, running_stack


def another_transcoder(stream: Stream) -> None:
    stream.offer.transcoder = "https://accomplice.example:8935"


def no_transcoder(stream: Stream) -> None:
    stream.offer.transcoder = ""


def another_recipient(stream: Stream) -> None:
    stream.offer.ticket_params.recipient = b"\x0c" * 20


def another_manifest(stream: Stream) -> None:
    stream.manifest_id = "another"


@pytest.mark.parametrize("swap", [another_transcoder, no_transcoder, another_recipient, another_manifest])
async def test_a_session_keeps_whom_it_began_with(
    service: Service, gateway: TestGateway, swap: Callable[[Stream], None]
) -> None:
    stream = service.new_stream()
    await service.pay(gateway, stream)
    swapped = copy.deepcopy(stream)
    swap(swapped)
    for _ in range(2):
        said = await refused_everywhere(service, gateway, swapped, 403, "session_mismatch")
        assert swap.__name__.split("_")[1] in said.lower(), "refused before anything is signed, and it says why"
        swapped.refresh()
    await service.pay(gateway, stream)


async def test_a_transcoder_swapped_at_another_process_is_found_out_there(database: str) -> None:
    async with running(database) as first, running(database) as second:
        gateway = await first.house.new_gateway()
        stream = first.new_stream()
        await first.pay(gateway, stream)
        another_transcoder(stream)
        await refused_everywhere(second, gateway, stream, 403, "session_mismatch")


async def test_the_commit_holds_a_session_to_its_transcoder_too(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was read before it: the database has the last word."""
    async with running_stack(database) as stack:
        commit, asked = stack.commits.commit, list[Issuance]()

        async def swap_on_the_way(issuance: Issuance) -> Outcome:
            asked.append(issuance)
            return await commit(issuance if len(asked) == 1 else issuance._replace(transcoder="https://x.example:1"))

        monkeypatch.setattr(stack.commits, "commit", swap_on_the_way)
        gateway, stream = await stack.new_gateway(), stack.new_stream()
        await stack.pay(gateway, stream)
        with pytest.raises(SessionMismatch):
            await stack.pay(gateway, stream)
        assert (await stack.standing(gateway)).usage_total == TICKET_CHARGE_USD


async def test_a_type_cannot_be_changed_to_one_whose_unit_is_cheaper(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream(job_type="live")
    await service.pay(gateway, stream)
    for stream.job_type in ("fixed", "lv2v", ""):
        assert await refused_everywhere(service, gateway, stream, 400, "invalid_request") == "job type mismatch"


async def test_capabilities_do_not_raise_the_ceiling(database: str) -> None:
    """In go-livepeer the ceilings of all models that a caller names add up."""
    policy = {"price_fixed_max_wei_per_unit": str(TICKET_EV_WEI)}
    async with running(database, policy=policy) as service:
        gateway = await service.house.new_gateway()
        capabilities = net.Capabilities(bitstring=[1 << 35], capacities={35: 1})
        for number in range(50):
            capabilities.constraints.PerCapability[35].models[f"model-{number}"].warm = True
        stream = service.new_stream(tickets=2, capabilities=capabilities.SerializeToString())
        await refused_everywhere(service, gateway, stream, 481, "price_exceeded", rule="price")
