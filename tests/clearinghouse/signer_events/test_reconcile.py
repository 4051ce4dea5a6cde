"""A signer's own reports against the books, signed and paid for over HTTP: what was injected is found, nothing else."""

from __future__ import annotations

import random
import uuid

from chain.signatures import SigningKey, keccak
from clearinghouse.sessions import auth_id as auth_id_of
from clearinghouse.signer_events.faults import SEVERITY, Found, Severity
from clearinghouse.signer_events.reconcile import Expected
from tests.clearinghouse.signer_events.parts import (
    World,
    changed,
    data_of,
    findings,
    found,
    id_of,
    reconcile_all,
    record,
)

SEED = 20261121


def gap_before(event: str) -> str:
    data = data_of(event)
    number = data["sequence_number"] - 1
    return f"{data['session_id']}:{number}-{number}"


async def test_honest_events_in_any_order_give_no_finding(world: World) -> None:
    await world.streams(5, 6)
    lines = list(world.signer.events)
    random.Random(SEED).shuffle(lines)
    counts = await record(world.engine, world.folder, lines)
    assert (counts.lines["new"], counts.lines["bad"]) == (60, 0)
    assert await found(world.engine) == set()
    report = await reconcile_all(world.engine)
    assert report.events == 30


async def test_exactly_the_injected_faults_are_found(world: World) -> None:
    streams = await world.streams(6, 6)
    chains = [[event for event in world.signer.tickets if data_of(event)["auth_id"] == auth_id] for auth_id in
              dict.fromkeys(data_of(event)["auth_id"] for event in world.signer.tickets)]  # fmt: skip
    lost, first_lost, twice = chains[0][2], chains[1][0], chains[2][3]
    wanted = {
        (Found.ISSUANCE_WITHOUT_EVENT, world.issuance_of(lost)),
        (Found.SEQUENCE_MISSING, gap_before(chains[0][3])),
        (Found.ISSUANCE_WITHOUT_EVENT, world.issuance_of(first_lost)),
        (Found.DUPLICATE, id_of(twice)),
        (Found.TICKETS_DIFFER, id_of(chains[3][1])),
        (Found.FEE_DIFFERS, id_of(chains[4][5])),
        (Found.AMOUNT_DIFFERS, id_of(chains[4][5])),  # the fee is a part of the amount
        (Found.AMOUNT_DIFFERS, id_of(chains[5][5])),
    }
    altered = {
        chains[3][1]: changed(chains[3][1], num_tickets=9),
        chains[4][5]: changed(chains[4][5], computed_fee=str(int(data_of(chains[4][5])["computed_fee"]) + 3)),
        chains[5][5]: changed(chains[5][5], session_balance=str(int(data_of(chains[5][5])["session_balance"]) + 5)),
    }
    # The key, used behind our back: with no name, with a made-up one, with the name of a session of ours, and a replay
    # of what the service had signed.
    names = ("", "someone-else", f"gw_{'0' * 32}", data_of(chains[0][0])["auth_id"])
    foreign = [await world.behind_our_back(world.service.new_stream(), auth_id=name) for name in names]
    foreign.append(await world.behind_our_back(streams[0]))
    wanted |= {(Found.EVENT_WITHOUT_ISSUANCE, id_of(event)) for event in foreign}
    lines = [altered.get(event, event) for event in world.signer.tickets if event not in {lost, first_lost}]
    lines.append(twice)
    random.Random(SEED).shuffle(lines)
    await record(world.engine, world.folder, lines)
    assert await found(world.engine) == wanted


async def test_a_replay_at_the_signer_of_what_was_issued_is_found(world: World) -> None:
    stream = world.service.new_stream()
    await world.service.pay(world.gateway, stream)
    state = stream.state
    await world.service.pay(world.gateway, stream)
    stream.state = state
    copy = await world.behind_our_back(stream)  # same session, same number, same ticket parameters: other tickets
    await record(world.engine, world.folder, world.signer.tickets)
    assert await found(world.engine) == {("event_without_issuance", id_of(copy))}


async def test_a_number_that_was_signed_and_neither_reported_nor_issued_is_found(world: World) -> None:
    stream = world.service.new_stream()
    await world.service.pay(world.gateway, stream)
    hidden = await world.behind_our_back(stream)
    stream.refresh()
    await world.service.pay(world.gateway, stream)  # the service takes the state: it is signed, and of this session
    await record(world.engine, world.folder, [event for event in world.signer.tickets if event != hidden])
    state_id = data_of(hidden)["session_id"]
    assert await found(world.engine) == {("sequence_not_issued", f"{state_id}:1-1")}


async def test_a_late_event_resolves_what_was_missing(world: World) -> None:
    await world.streams(1, 4)
    tickets = world.signer.tickets
    await record(world.engine, world.folder, tickets[:1] + tickets[2:])
    assert {kind for kind, _ in await found(world.engine)} == {"issuance_without_event", "sequence_missing"}
    await record(world.engine, world.folder, tickets[1:2], "late.jsonl")
    assert await found(world.engine) == set()
    await reconcile_all(world.engine)
    assert world.service.house.fetch("SELECT count(*) FROM signer_event_finding WHERE resolved_at IS NULL") == [(0,)]


async def test_a_copy_that_says_something_else_is_critical(world: World) -> None:
    await world.streams(1, 2)
    first, second = world.signer.tickets
    await record(world.engine, world.folder, [first, changed(first, num_tickets=3), second])
    assert await found(world.engine) == {("copies_differ", id_of(first))}


async def test_the_same_line_read_again_is_no_duplicate(world: World) -> None:
    await world.streams(1, 3)
    await record(world.engine, world.folder, world.signer.tickets)
    counts = await record(world.engine, world.folder, world.signer.tickets)
    assert (counts.lines["new"], counts.lines["repeated"]) == (0, 3)
    assert await found(world.engine) == set()


async def test_payments_outside_the_policy_are_found(world: World) -> None:
    await world.streams(1, 2)
    payments = [event for event in world.signer.events if '"create_new_payment"' in event]
    stranger = changed(payments[0], id=str(uuid.uuid4()), sender="0x" + SigningKey(keccak(b"stranger")).address.hex())
    large = changed(payments[0], id=str(uuid.uuid4()), faceValue="1.5 ETH")
    elsewhere = changed(payments[0], id=str(uuid.uuid4()), recipient="0x" + "11" * 20)
    await record(world.engine, world.folder, [*payments, stranger, large, elsewhere])
    assert await found(world.engine) == set()
    expected = Expected(
        sender=world.signer.address,
        recipients=(bytes.fromhex(data_of(payments[0])["recipient"].removeprefix("0x")),),
        face_value_max_wei=10**18,
    )
    wanted = {("payment_outside_policy", id_of(event)) for event in (stranger, large, elsewhere)}
    assert await found(world.engine, expected) == wanted


async def test_a_session_of_another_gateway_explains_nothing(world: World) -> None:
    await world.streams(1, 1)
    other = await world.service.house.new_gateway()
    (event,) = world.signer.tickets
    session_id = data_of(event)["auth_id"].partition("ses_")[2]
    forged = changed(event, id=str(uuid.uuid4()), auth_id=auth_id_of(other.id, uuid.UUID(session_id)))
    await record(world.engine, world.folder, [event, forged])
    assert ("event_without_issuance", id_of(forged)) in await found(world.engine)


async def test_open_findings_come_gravest_first(world: World) -> None:
    await world.streams(1, 3)
    await world.behind_our_back(world.service.new_stream())
    tickets = world.signer.tickets
    await record(world.engine, world.folder, [tickets[0], tickets[0], *tickets[2:]])
    await reconcile_all(world.engine)
    severities = [finding.severity for finding in await findings(world.engine)]
    assert severities == sorted(severities, key=list(Severity).index)
    assert {SEVERITY[Found(finding.kind)] for finding in await findings(world.engine)} == set(Severity)
