"""What the commit refuses because of the sender's deposit: in the published order, on every way in, to the wei."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import psycopg
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from chain.messages import decode_base64
from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseStub
from clearinghouse.commits import GroupCommit
from clearinghouse.coverage.lead import Lead
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from tests.parts.asking import ask, asking, first_state, question
from tests.parts.books import Connection, Usage, commit_together, new_gateway, usage
from tests.parts.service import OURS, Service, our_body, running
from tests.parts.stack import SIGNER_KEY, TICKET_EV_WEI, Stream

if TYPE_CHECKING:
    from clearinghouse.api.pb.clearinghouse_pb2_grpc import ClearinghouseAsyncStub

SENDER = b"\x33" * 20
EV_WEI = 10**15
PATIENCE_S = 120


@pytest.fixture
async def serve(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE))
    yield engine
    await engine.dispose()


async def totals_wei(engine: AsyncEngine) -> dict[UUID, int]:
    """All that was ever released for each gateway: what shares begin with."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT id, ev_total_wei FROM account WHERE gateway_id IS NOT NULL"))
        return {id_: int(ev_wei) for id_, ev_wei in rows}


async def gate(
    engine: AsyncEngine,
    level: str,
    *,
    sender: bytes = SENDER,
    face_value_max_wei: int | None = None,
    valid_s: int = 60,
    allowances_wei: Mapping[UUID, int] | None = None,
    seen_wei: Mapping[UUID, int] | None = None,
) -> None:
    """As whoever watches sets it. What each gateway may release from now on is on top of what was seen of it."""
    seen_wei = seen_wei or await totals_wei(engine)
    ends_wei = [ev_wei + (allowances_wei or {}).get(id_, 0) for id_, ev_wei in seen_wei.items()]
    query = """SELECT set_coverage_gate(:sender, :level, CAST(:cap AS numeric), :valid_s, CAST(:gateways AS uuid[]),
                                        CAST(:ends_wei AS numeric[]))"""
    given = {"sender": sender, "level": level, "cap": face_value_max_wei, "valid_s": valid_s}
    async with engine.begin() as connection:
        await connection.execute(text(query), {**given, "gateways": list(seen_wei), "ends_wei": ends_wei})


def codes(connection: Connection, *calls: Usage) -> list[str | None]:
    return [code for code, _ in commit_together(connection, calls, is_covered=True)]


# --- one by one -------------------------------------------------------------------------------------------------------


async def test_without_a_gate_that_is_valid_nothing_is_released_and_where_it_is_not_enforced_everything(
    database: str, serve: AsyncEngine
) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        call = usage(*new_gateway(owner))
        assert codes(owner, call) == ["coverage_unknown"]
        await gate(serve, "ok", sender=b"\x34" * 20)
        assert codes(owner, call) == ["coverage_unknown"], "the gate of another sender says nothing"
        await gate(serve, "ok")
        assert codes(owner, call) == [None]
        await gate(serve, "ok", valid_s=0)
        assert codes(owner, call) == ["replayed"], "what was paid for stays available"
        further = call.continued()
        assert codes(owner, further) == ["coverage_unknown"]
        assert [code for code, _ in commit_together(owner, [further])] == [None]


async def test_in_one_batch_every_item_is_judged_by_its_own_sender(database: str, serve: AsyncEngine) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        gateway, key = new_gateway(owner)
        await gate(serve, "ok")
        await gate(serve, "low", sender=b"\x34" * 20)
        senders = [b"\x34" * 20, SENDER, b"\x35" * 20, SENDER, b"\x34" * 20]
        assert codes(owner, *(usage(gateway, key, sender=sender) for sender in senders)) == [
            "coverage_low", None, "coverage_unknown", None, "coverage_low",
        ]  # fmt: skip


@pytest.mark.parametrize("level", ["low", "critical"])
async def test_below_low_no_session_is_begun_and_those_that_were_go_on(
    database: str, serve: AsyncEngine, level: str
) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        gateway, key = new_gateway(owner)
        await gate(serve, "watch")
        seen, shown = usage(gateway, key), usage(gateway, key, approved=b"states")
        assert codes(owner, seen, shown) == [None, None]
        owner.execute("SELECT close_idle_sessions(%s, interval '0')", [gateway])
        await gate(serve, level, allowances_wei={gateway: 10**18} if level == "critical" else None)
        assert codes(owner, seen.continued(), usage(gateway, key), usage(gateway, key, approved=b"states")) == [
            None, "coverage_low", "coverage_low",
        ]  # fmt: skip


async def test_the_cap_on_face_values_holds_to_the_wei_at_every_level(database: str, serve: AsyncEngine) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        gateway, key = new_gateway(owner)
        for level in ("ok", "watch"):
            await gate(serve, level, face_value_max_wei=EV_WEI)
            larger = usage(gateway, key, ev_wei=EV_WEI + 1)
            assert codes(owner, usage(gateway, key, ev_wei=EV_WEI), larger) == [None, "face_value"]
        unseen = usage(gateway, key, ev_wei=5 * EV_WEI, approved=b"states")
        assert codes(owner, unseen) == [None], "the webhook is shown no face value: its signers have a bound"


async def test_refusals_come_in_the_published_order(database: str, serve: AsyncEngine) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        poor, key = new_gateway(owner, credit=0)
        rich = new_gateway(owner)
        large = usage(poor, key, ev_wei=10 * EV_WEI)
        order = []
        order += codes(owner, Usage(poor, key, large.charge, large.ev_wei, markup_bps=7))
        order += codes(owner, large)
        await gate(serve, "critical", face_value_max_wei=EV_WEI)
        order += codes(owner, large)
        await gate(serve, "ok", face_value_max_wei=EV_WEI)
        order += codes(owner, large)
        await gate(serve, "ok")
        order += codes(owner, large)
        first = usage(*rich)
        assert codes(owner, first) == [None]
        await gate(serve, "critical")
        owner.execute("UPDATE account SET calls_day_max = 1 WHERE id = %s", [rich[0]])
        order += codes(owner, first.continued())
        owner.execute("UPDATE account SET calls_day_max = 2 WHERE id = %s", [rich[0]])
        order += codes(owner, first.continued())
        assert order == [
            "terms_changed", "coverage_unknown", "coverage_low", "face_value", "out_of_credit", "calls_per_day",
            "coverage_critical",
        ]  # fmt: skip


async def test_a_repeat_for_which_nothing_is_due_needs_no_share(database: str, serve: AsyncEngine) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        gateway, key = new_gateway(owner)
        await gate(serve, "ok")
        first = usage(gateway, key, approved=b"states")
        assert codes(owner, first) == [None]
        await gate(serve, "critical")
        assert codes(owner, first.continued()) == ["coverage_critical"]
        assert codes(owner, nothing_due(first)) == [None]
        assert owner.execute("SELECT count(*) FROM exposure_delta").fetchone() == (1,), "no ticket, no row"


def nothing_due(call: Usage) -> Usage:
    """At the webhook: the session's state moved on, and no ticket with it."""
    again = call.continued(num_tickets=0)
    return Usage(**{**vars(again), "repeats_max_count": 5})


async def test_shares_are_not_set_by_an_old_look(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED"):
            connection.execute("SELECT set_coverage_gate('', 'ok', NULL, 1, '{}', '{}')")


# --- shares -----------------------------------------------------------------------------------------------------------


async def test_a_share_is_used_to_the_last_wei_within_a_batch_and_over_batches(
    database: str, serve: AsyncEngine
) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        gateway, other = new_gateway(owner), new_gateway(owner)
        await gate(serve, "ok")
        streams = [usage(*gateway, ev_wei=EV_WEI) for _ in range(6)] + [usage(*other, ev_wei=EV_WEI)]
        assert set(codes(owner, *streams)) == {None}
        await gate(serve, "critical", allowances_wei={gateway[0]: 3 * EV_WEI - 1})
        assert codes(owner, *(each.continued() for each in streams[:4])) == [
            None, None, "coverage_critical", "coverage_critical",
        ]  # fmt: skip
        assert codes(owner, streams[6].continued()) == ["coverage_critical"], "who was given nothing has nothing"
        assert codes(owner, _worth(streams[4].continued(), EV_WEI - 1)) == [None]
        assert codes(owner, _worth(streams[5].continued(), 1)) == ["coverage_critical"]


def _worth(call: Usage, ev_wei: int) -> Usage:
    again = usage(call.gateway_id, call.key_id, ev_wei=ev_wei)
    return Usage(**{**vars(call), "ev_wei": ev_wei, "charge": again.charge})


async def test_what_was_released_beyond_a_new_share_is_taken_from_the_others(database: str, serve: AsyncEngine) -> None:
    """A snapshot is divided while payments go on by the old shares: it must not be given away twice."""
    with psycopg.connect(database, autocommit=True) as owner:
        one, two, three = (new_gateway(owner) for _ in range(3))
        await gate(serve, "ok")
        streams = {each[0]: usage(*each, ev_wei=EV_WEI) for each in (one, two, three)}
        assert set(codes(owner, *streams.values())) == {None}
        await gate(serve, "critical", allowances_wei={one[0]: 9 * EV_WEI})
        seen_wei = await totals_wei(serve)
        assert codes(owner, _worth(streams[one[0]].continued(), 4 * EV_WEI)) == [None]
        await gate(serve, "critical", seen_wei=seen_wei, allowances_wei={two[0]: 3 * EV_WEI, three[0]: 6 * EV_WEI})
        rows = owner.execute(
            "SELECT id, ev_total_max_wei - ev_total_wei FROM cover_share AS share JOIN account ON id = share.gateway_id"
        ).fetchall()
        left = {gateway: int(wei) for gateway, wei in rows}
        assert sum(left.values()) == 5 * EV_WEI, "9 were divided, and 4 of them are gone"
        assert left.keys() <= {two[0], three[0]}


async def test_shares_are_set_when_payments_by_the_old_ones_have_ended(database: str, serve: AsyncEngine) -> None:
    with psycopg.connect(database, autocommit=True) as owner, psycopg.connect(database) as paying:
        one, two = new_gateway(owner), new_gateway(owner)
        await gate(serve, "ok")
        streams = [usage(*one, ev_wei=EV_WEI), usage(*two, ev_wei=EV_WEI)]
        assert codes(owner, *streams) == [None, None]
        await gate(serve, "critical", allowances_wei={one[0]: EV_WEI})
        seen_wei = await totals_wei(serve)
        assert codes(paying, streams[0].continued()) == [None]
        setting = asyncio.create_task(gate(serve, "critical", seen_wei=seen_wei, allowances_wei={two[0]: EV_WEI}))
        await asyncio.sleep(0.3)
        assert not setting.done()
        paying.commit()
        await setting
        assert codes(owner, streams[1].continued()) == ["coverage_critical"], "it was spent by the other"


@pytest.mark.parametrize("seed", range(3))
async def test_many_payers_release_no_more_than_their_shares_whoever_divides_meanwhile(
    database: str, serve: AsyncEngine, seed: int
) -> None:
    """What remains is divided again and again, by snapshots that are old when their shares are set."""
    dice = random.Random(seed)
    remaining_wei = 150 * EV_WEI
    with psycopg.connect(database, autocommit=True) as owner, ThreadPoolExecutor(4) as pool:
        gateways = [new_gateway(owner) for _ in range(4)]
        await gate(serve, "ok")
        streams = [[usage(*gateway, ev_wei=EV_WEI, sender=SENDER) for _ in range(4)] for gateway in gateways]
        assert set(codes(owner, *(each for some in streams for each in some))) == {None}
        began_wei = _released_wei(owner)
        await _divide(serve, began_wei + remaining_wei, gateways, dice)

        give_up_s = time.monotonic() + PATIENCE_S

        def pay(own: list[Usage], seed: int) -> None:
            own_dice = random.Random(seed)
            with psycopg.connect(database, autocommit=True) as connection:
                turns = itertools.count()
                # Whoever had no share when its turns came goes on until half of all is spent, which is seen below.
                while next(turns) < 30 or _released_wei(connection) - began_wei <= remaining_wei // 2:
                    assert time.monotonic() < give_up_s, "the shares are not spent"
                    batch = [_worth(each.continued(), own_dice.randint(1, 2 * EV_WEI)) for each in own]
                    for index, code in enumerate(codes(connection, *batch)):
                        assert code in {None, "coverage_critical"}
                        own[index] = batch[index] if code is None else own[index]

        paying = [pool.submit(pay, own, dice.randrange(1000)) for own in streams]
        while not all(each.done() for each in paying):
            await _divide(serve, began_wei + remaining_wei, gateways, dice)
        for each in paying:
            each.result()
        spent_wei = _released_wei(owner) - began_wei
        assert remaining_wei // 2 < spent_wei <= remaining_wei
        assert owner.execute("SELECT * FROM exposure_difference()").fetchall() == []


def _released_wei(owner: Connection) -> int:
    ((ev_wei,),) = owner.execute("SELECT sum(ev_wei) FROM issuance")
    return int(ev_wei)


async def _divide(engine: AsyncEngine, until_wei: int, gateways: list[tuple[UUID, UUID]], dice: random.Random) -> None:
    """Among some of the gateways, at random: whoever is left out must not have spent what the others are given."""
    seen_wei = await totals_wei(engine)
    remaining_wei = until_wei - sum(seen_wei.values())
    assert remaining_wei >= 0
    chosen = dice.sample([id_ for id_, _ in gateways], dice.randint(1, len(gateways)))
    allowances = {id_: remaining_wei // len(chosen) for id_ in chosen}
    await asyncio.sleep(dice.random() * 0.02)
    await gate(engine, "critical", seen_wei=seen_wei, allowances_wei=allowances)


# --- on every way in --------------------------------------------------------------------------------------------------


@pytest.fixture
async def covered(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service whose commits obey the gates, which the test sets: it has the lead, so that the service stands by."""
    real = GroupCommit.__init__

    def enforced(self: GroupCommit, *given: Any, **named: Any) -> None:
        real(self, *given, **{**named, "is_coverage_enforced": True})

    monkeypatch.setattr(GroupCommit, "__init__", enforced)
    lead = await Lead.connected(database, role=SERVE_ROLE, silent_max_s=600)
    try:
        assert await lead.take([SIGNER_KEY.address])
        async with running(database, webhook={"enabled": True}) as service:
            yield service
            await service.house.require_sound_books()
    finally:
        await lead.close()


#: By code: the level, the further arguments of the gate, whether the call goes on with a session, status, Retry-After.
REFUSALS: dict[str, tuple[str, dict[str, Any], bool, int, int | None]] = {
    "coverage_unknown": ("ok", {"valid_s": 0}, True, 503, 5),
    "coverage_low": ("low", {}, False, 503, 60),
    "coverage_critical": ("critical", {}, True, 503, 60),
    "ticket_not_allowed": ("ok", {"face_value_max_wei": 1}, True, 403, None),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_the_refusal_is_the_same_on_http_and_grpc_and_the_session_goes_on_afterwards(
    covered: Service, serve: AsyncEngine, code: str
) -> None:
    level, how, goes_on, status, retry_after_s = REFUSALS[code]
    gateway, begun = await covered.house.new_gateway(), covered.new_stream()
    await gate(serve, "ok", sender=SIGNER_KEY.address)
    await covered.pay(gateway, begun)
    await gate(serve, level, sender=SIGNER_KEY.address, **how)
    stream = begun if goes_on else covered.new_stream()
    before = covered.house.fingerprint()
    for answer in (
        await covered.sign(gateway, stream.body()),
        await covered.sign(gateway, json.dumps(our_body(stream.document())).encode(), path=OURS),
    ):
        assert (answer.status, answer.code) == (status, code), answer.body
        assert answer.header("retry-after") == (None if retry_after_s is None else str(retry_after_s))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{covered.running.grpc_port}") as channel:
        stub: ClearinghouseAsyncStub = ClearinghouseStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.SignTicket(_message(stream), metadata=(("authorization", gateway.authorization),))
    expected = grpc.StatusCode.PERMISSION_DENIED if status == 403 else grpc.StatusCode.UNAVAILABLE
    assert raised.value.code() is expected
    told = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert told is not None
    info, retry = ErrorInfo(), RetryInfo()
    told.details[0].Unpack(info)
    assert info.reason == code
    if retry_after_s is not None:
        assert told.details[1].Unpack(retry)
        assert retry.retry_delay.seconds == retry_after_s
    assert covered.house.fingerprint() == before, "nothing was charged or recorded"
    await gate(serve, "ok", sender=SIGNER_KEY.address)
    await covered.pay(gateway, stream)


def _message(stream: Stream) -> pb.SignTicketRequest:
    request = pb.SignTicketRequest(
        orchestrator=stream.offer.SerializeToString(), manifest_id=stream.manifest_id, type=stream.job_type
    )
    if (state := stream.document().get("state")) is not None:
        request.state.state = decode_base64(state["State"])
        request.state.sig = decode_base64(state["Sig"])
    return request


@pytest.mark.parametrize("code", ["coverage_unknown", "coverage_low", "coverage_critical"])
async def test_the_webhook_says_no_and_the_session_goes_on_afterwards(
    covered: Service, serve: AsyncEngine, code: str
) -> None:
    level, how, goes_on, status, _ = REFUSALS[code]
    gateway, begun = await covered.house.new_gateway(), covered.new_stream()
    await gate(serve, "ok", sender=SIGNER_KEY.address)
    async with asking(covered) as signer:
        await signer.pay(gateway, begun)
        await gate(serve, level, sender=SIGNER_KEY.address, **how)
        stream, before = begun if goes_on else covered.new_stream(), covered.house.fingerprint()
        with capture_logs() as logs:
            answer = await signer.sign(gateway, stream.body())
        assert answer.status == status
        told = [(each["route"], each["code"]) for each in logs if each["event"] == "refused"]
        assert told == [("webhook", code)], "the signer hands on no reason of a 503"
        assert covered.house.fingerprint() == before
        await gate(serve, "ok", sender=SIGNER_KEY.address)
        await signer.pay(gateway, stream)


async def test_the_webhooks_verdict_has_the_reason_and_when_to_try_again(covered: Service, serve: AsyncEngine) -> None:
    gateway, secret = await covered.house.new_gateway(), await covered.house.new_webhook_secret()
    for level, code in (("", "coverage_unknown: "), ("critical", "coverage_low: ")):
        if level:
            await gate(serve, level, sender=SIGNER_KEY.address)
        verdict = (await ask(covered, secret, question(gateway, first_state()))).json
        assert verdict["status"] == 503
        assert verdict["reason"].startswith(code)
        assert verdict["reason"].endswith(f" Try again in {REFUSALS[code[:-2]][4]} s.")


async def test_a_share_is_for_all_processes_together(covered: Service, serve: AsyncEngine, database: str) -> None:
    gateway = await covered.house.new_gateway(tickets=200)
    await gate(serve, "ok", sender=SIGNER_KEY.address)
    streams = [covered.new_stream() for _ in range(40)]
    async with running(database) as second:
        both = (covered, second)
        await asyncio.gather(*(both[i % 2].pay(gateway, stream) for i, stream in enumerate(streams)))
        await gate(
            serve,
            "critical",
            sender=SIGNER_KEY.address,
            allowances_wei={gateway.id: 7 * TICKET_EV_WEI + TICKET_EV_WEI - 1},
        )
        answers = await asyncio.gather(*(both[i % 2].sign(gateway, stream.body()) for i, stream in enumerate(streams)))
    assert [answer.status for answer in answers].count(200) == 7
    assert {answer.code for answer in answers if answer.status != 200} == {"coverage_critical"}
