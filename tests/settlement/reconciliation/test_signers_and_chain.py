"""The books against what signers report, and against the chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from chain.funding import Amounts
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.ids import show
from clearinghouse.signer_events.reconcile import accept_finding, open_findings
from settlement.reconciliation.report import Report
from settlement.topups.pursuing import State
from settlement.treasury import records
from tests.clearinghouse.signer_events.parts import World, data_of, reconcile_all, record
from tests.parts.devnet import Devnet
from tests.parts.event_signer import reporting_signer
from tests.parts.indexed import FACE_VALUE_WEI, Indexed, indexed, issued, prepared, ticket
from tests.parts.indexed import SENDER as INDEXED
from tests.parts.service import running
from tests.parts.topups import CONFIRMATIONS, SENDER, Funding, funding
from tests.parts.wallet import ETHER
from tests.settlement.reconciliation.parts import compared, differences, report_of, section


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with reporting_signer() as signer, running(database, signer_urls=[signer.url]) as service:
        yield World(service, signer, await service.house.new_gateway(tickets=10_000), tmp_path)


async def test_beyond_what_the_job_writes_down_all_is_summed_and_what_was_accepted_is_explained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.streams(2, 3)
    kept = [event for event in world.signer.tickets if data_of(event)["sequence_number"] != 1]
    await record(world.engine, world.folder, kept)
    await reconcile_all(world.engine)
    monkeypatch.setattr("clearinghouse.signer_events.reconcile.FINDINGS_PER_WINDOW_MAX", 1)
    ((ev_wei,),) = world.service.house.fetch("SELECT sum(ev_wei::numeric) FROM issuance WHERE sequence = 1")
    signers = section(await report_of(world.engine), "signer_events")
    assert {one.name: (one.count, one.sums) for one in signers.totals} == {
        "issuance_without_event": (2, ((ev_wei, "wei"),)), "sequence_missing": (2, ()),
    }  # fmt: skip
    async with world.engine.begin() as connection:
        for one in await open_findings(connection):
            await accept_finding(connection, one.kind, one.subject, reason="it was down", actor="test")
    assert (await report_of(world.engine)).differences_count == 0


async def test_what_signers_report_fits_the_issuances_but_for_what_is_missing(world: World) -> None:
    await world.streams(2, 4)
    events = world.signer.tickets
    (lost,) = [event for event in events if data_of(event)["sequence_number"] == 1][:1]
    await record(world.engine, world.folder, [event for event in events if event != lost])
    report = await report_of(world.engine)
    ((ev_wei,),) = world.service.house.fetch(
        "SELECT ev_wei FROM issuance WHERE recipient_rand_hash = %s AND sequence = 1",
        bytes.fromhex(data_of(lost)["pm_session_id"]),
    )
    assert differences(report) == {("issuance_without_event", f"{ev_wei}", "wei"), ("sequence_missing", "", "")}
    signers = section(report, "signer_events")
    missing = {one.name: one.subject for one in signers.differences}["issuance_without_event"]
    assert missing == world.issuance_of(lost)
    assert compared(signers)["events of signers"] == (7, [])
    assert world.service.house.fetch("SELECT count(*) FROM signer_event_finding") == [(0,)]  # nothing is written

    # What somebody has looked into is explained; and it is all well once the event has come after all.
    await reconcile_all(world.engine)
    async with world.engine.begin() as connection:
        await accept_finding(connection, "issuance_without_event", missing, reason="it was down", actor="test")
    assert differences(await report_of(world.engine)) == {("sequence_missing", "", "")}
    await record(world.engine, world.folder, [lost], "late.jsonl")
    assert differences(await report_of(world.engine)) == set()


async def reported(database: str) -> Report:
    engine = async_engine(in_role(database, ADMIN_ROLE))
    try:
        return await report_of(engine)
    finally:
        await engine.dispose()


async def test_luck_is_no_difference_and_a_ticket_that_was_not_issued_is_one(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with indexed(database, devnet, confirmations=3) as chain:
        engine = async_engine(in_role(database, ADMIN_ROLE))
        with psycopg.connect(database, autocommit=True) as owner:
            await issued(engine, owner, count=3)
        await engine.dispose()
        chain.redeem(ticket(1))
        await chain.catch_up()
        report = await reported(database)
        redemptions = section(report, "redemptions")
        assert redemptions.differences == []
        found = compared(redemptions)
        assert found["tickets of the period, with their expected value"] == (3, [f"{3 * FACE_VALUE_WEI} wei"])
        assert found["of them redeemed so far, with their face value"] == (1, [f"{FACE_VALUE_WEI} wei"])
        assert found["spread: redeemed above (below 0: below) expected"] == (1, [f"{-2 * FACE_VALUE_WEI} wei"])
        chain.redeem(ticket(9))
        await chain.catch_up()
        again = section(await reported(database), "redemptions")
        ((name, amount),) = [(one.name, one.amount) for one in again.differences]
        assert (name, amount) == ("redemption_foreign", (FACE_VALUE_WEI, "wei"))


async def test_a_movement_that_nobody_recorded_and_a_record_without_movement_are_found(
    database: str, devnet: Devnet
) -> None:
    async with indexed(database, devnet, confirmations=3) as chain, funding(database, devnet) as treasury:
        await chain.catch_up()
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("SELECT follow_chain_senders(ARRAY[%s]::bytea[])", [SENDER.address])
        sent = await treasury.send(Amounts(ETHER, ETHER // 2))
        treasury.mine(1 + CONFIRMATIONS)
        assert (await treasury.pursue()).topup.state is State.CONFIRMED
        await chain.catch_up()
        report = await reported(database)
        assert differences(report) == set()
        found = compared(section(report, "deposit"))
        assert found["payments into a deposit"] == (1, [f"{ETHER} wei"])
        assert found["top-ups of ours, confirmed"] == (1, [f"{ETHER * 3 // 2} wei"])
        await planted(chain, treasury)
        found_then = section(await reported(database), "deposit").differences
        assert [(one.name, one.amount) for one in found_then] == [
            ("movement_without_record", (7, "wei")), ("movement_amount_differs", (-1, "wei")),
        ]  # fmt: skip
        assert found_then[1].link == f"clearinghouse topup show {sent.id}"
        treasury.rewrite("UPDATE topup SET mined_hash = decode(repeat('ab', 32), 'hex'), reserve_wei = 0")
        again = section(await reported(database), "deposit").differences
        assert ("record_without_movement", (-ETHER, "wei")) in [(one.name, one.amount) for one in again]


async def test_what_operators_accept_is_a_record_and_what_they_void_is_none(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    devnet.fund(INDEXED.address, deposit_wei=7, reserve_wei=0)
    paid_in = {("movement_without_record", f"{amount}", "wei") for amount in (2 * ETHER, 4 * ETHER, 7)}
    async with indexed(database, devnet, confirmations=3) as chain:
        await chain.catch_up()
        assert differences(await reported(database)) == paid_in
        query = "SELECT transaction_hash FROM escrow_event GROUP BY 1 ORDER BY max(block_number)"
        hashes = [bytes(hash_) for (hash_,) in chain.query(query)]
        engine = async_engine(in_role(database, ADMIN_ROLE))
        async with engine.begin() as books:
            both, seven = [await records.accept(books, each, note="by Ann", actor="a test") for each in hashes]
            assert [len(both), len(seven)] == [2, 1]
            again = await records.accept(books, hashes[0], note="by Ann", actor="a test")
            assert all(each.was_there for each in again)
            with pytest.raises(records.RecordedOtherwise):
                await records.move(books, both[0].record.moved._replace(amount_wei=1), note="x", actor="a test")
        report = await reported(database)
        assert differences(report) == set()
        found = compared(section(report, "deposit"))
        assert found["payments that were accepted by hand"] == (3, [f"{6 * ETHER + 7} wei"])
        async with engine.begin() as books:
            await records.void(books, show("mov", seven[0].record.id), reason="of another pool", actor="a test")
            moved = seven[0].record.moved
            wrong = [
                moved._replace(amount_wei=5),  # paid in by less than the chain has
                moved._replace(kind=records.WITHDRAWAL, amount_wei=3),  # and nothing was withdrawn
                moved._replace(transaction_hash=b"\x01" * 32, block_number=10**9),  # where nothing was read yet
            ]
            for each in wrong:
                await records.move(books, each, note="by Ann", actor="a test")
        await engine.dispose()
        report = await reported(database)
        assert differences(report) == {("movement_amount_differs", "2", "wei"), ("record_without_movement", "3", "wei")}
        assert section(report, "deposit").not_compared == [
            "1 payments that were accepted by hand of other chains, senders or blocks than were read"
        ]


async def test_what_a_top_up_of_ours_has_paid_is_not_accepted_once_more(database: str, devnet: Devnet) -> None:
    async with indexed(database, devnet, confirmations=3) as chain, funding(database, devnet) as treasury:
        await chain.catch_up()
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("SELECT follow_chain_senders(ARRAY[%s]::bytea[])", [SENDER.address])
        sent = await treasury.send(Amounts(ETHER, 0))
        treasury.mine(1 + CONFIRMATIONS)
        await chain.catch_up()
        engine = async_engine(in_role(database, ADMIN_ROLE))
        async with engine.connect() as books:
            with pytest.raises(records.IsATopup, match=str(sent.id)):
                await records.accept(books, sent.attempts[-1].hash, note="by Ann", actor="a test")
        await engine.dispose()


async def planted(chain: Indexed, treasury: Funding) -> None:
    """Somebody pays 7 wei into the deposit, and our record says one wei more of the reserve than there was."""
    treasury.devnet.fund(SENDER.address, deposit_wei=7, reserve_wei=0)
    treasury.mine(1 + CONFIRMATIONS)
    await chain.catch_up()
    treasury.rewrite("UPDATE topup SET reserve_wei = reserve_wei + 1")
