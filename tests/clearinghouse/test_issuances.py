from __future__ import annotations

import base64
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.signatures import checksum_address
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.identity import gateways, keys
from clearinghouse.ids import show, uuid7
from clearinghouse.instants import parse_rfc3339
from clearinghouse.issuances import (
    get_issuance,
    issuance_json,
    list_issuances,
    page_json,
    parse_issuance_id,
)
from tests.parts.books import Connection, Usage, commit, usage


@dataclass(frozen=True)
class Issued:
    acme: UUID
    other: UUID
    key: UUID
    calls: list[Usage]
    others_call: Usage


@pytest.fixture
async def issued(admin: AsyncEngine, owner: Connection) -> Issued:
    """Seven payments of one gateway, five of them in one session, and one of another gateway in between."""
    async with admin.begin() as connection:
        acme = (await gateways.create(connection, "acme", credit_limit=Decimal(1000), markup_bps=250)).id
        other = (await gateways.create(connection, "other", credit_limit=Decimal(1000))).id
        key = (await keys.create(connection, acme, pepper=b"p" * 32)).key.id
        others_key = (await keys.create(connection, other, pepper=b"p" * 32)).key.id
    call = usage(acme, key, ev_wei=3 * 10**15, markup_bps=250, num_tickets=3, end_user="user 7")
    calls = [call]
    for tickets in (1, 2, 1, 1):
        call = call.continued(num_tickets=tickets)
        calls.append(call)
    others_call = usage(other, others_key)
    calls += [usage(acme, key, markup_bps=250, manifest_id=None), usage(acme, key, markup_bps=250)]
    for one in (*calls[:3], others_call, *calls[3:]):
        assert commit(owner, one)[0] is None
    return Issued(acme, other, key, calls, others_call)


async def test_an_issuance_shows_everything_it_was_recorded_with(admin: AsyncEngine, issued: Issued) -> None:
    first = issued.calls[0]
    async with admin.connect() as connection:
        shown = issuance_json(await get_issuance(connection, issued.acme, first.issuance_id))
    created_at = parse_rfc3339(shown.pop("created_at"))
    assert created_at.tzinfo is not None
    assert shown == {
        "id": show("iss", first.issuance_id),
        "session_id": show("ses", first.session_id),
        "key_id": show("key", issued.key),
        "num_tickets": 3,
        "ev_wei": "3000000000000000",
        "fee_wei": "3000000000000000",
        "charge": "6.15",
        "currency": "USD",
        "price": "2000",
        "price_source": "declared",
        "price_observed_at": "2026-04-07T20:00:00.000000Z",
        "markup_bps": 250,
        "balance_after": "-6.15",
        "manifest_id": "stream-1",
        "app": "app",
        "job_type": "lv2v",
        "pipeline": "live-video-to-video",
        "model": "streamdiffusion",
        "orchestrator": checksum_address(b"\x11" * 20),
        "recipient": checksum_address(b"\x22" * 20),
        "transcoder": "https://orchestrator.example:8935",
        "end_user": "user 7",
        "first_nonce": 1,
        "face_value_wei": "1000000000000000",
        "win_prob": str(WIN_PROB_CERTAIN),
        "way": "proxy",
        **dict.fromkeys(("rate_card", "rate_version", "rate_per", "rate_quantity", "rerated_charge", "rerated_by")),
    }


async def test_an_issuance_of_the_webhook_shows_what_is_not_known_as_such(
    admin: AsyncEngine, owner: Connection, issued: Issued
) -> None:
    call = usage(issued.acme, issued.key, markup_bps=250, approved=b"{}")
    assert commit(owner, call)[0] is None
    async with admin.connect() as connection:
        shown = issuance_json(await get_issuance(connection, issued.acme, call.issuance_id))
    assert (shown["way"], shown["ev_wei"]) == ("webhook", "1000000000000000")
    assert [shown[name] for name in ("recipient", "face_value_wei", "win_prob")] == [None, None, None]


async def test_pages_hold_every_issuance_once_newest_first(admin: AsyncEngine, issued: Issued) -> None:
    for limit in (1, 2, 3, 6, 7, 1000):
        seen: list[UUID] = []
        cursor = None
        async with admin.connect() as connection:
            while True:
                page = await list_issuances(connection, issued.acme, limit=limit, cursor=cursor)
                seen += [item.id for item in page.items]
                assert 1 <= len(page.items) <= limit
                if (cursor := page.next_cursor) is None:
                    break
        assert seen == [call.issuance_id for call in reversed(issued.calls)]


async def test_what_is_issued_meanwhile_does_not_shift_a_later_page(
    admin: AsyncEngine, owner: Connection, issued: Issued
) -> None:
    async with admin.connect() as connection:
        first = await list_issuances(connection, issued.acme, limit=3)
    commit(owner, usage(issued.acme, issued.key))
    async with admin.connect() as connection:
        second = await list_issuances(connection, issued.acme, limit=3, cursor=first.next_cursor)
    expected = [call.issuance_id for call in reversed(issued.calls)][:6]
    assert [item.id for item in (*first.items, *second.items)] == expected


async def test_one_session_can_be_listed_alone(admin: AsyncEngine, issued: Issued) -> None:
    async with admin.connect() as connection:
        page = await list_issuances(connection, issued.acme, limit=3, session_id=issued.calls[0].session_id)
        rest = await list_issuances(
            connection, issued.acme, cursor=page.next_cursor, session_id=issued.calls[0].session_id
        )
    assert [item.first_nonce for item in (*page.items, *rest.items)] == [8, 7, 5, 4, 1]


async def test_what_belongs_to_another_gateway_is_not_found(admin: AsyncEngine, issued: Issued) -> None:
    async with admin.connect() as connection:
        for stranger in (issued.others_call.issuance_id, uuid7()):
            with pytest.raises(NotFound, match="there is no issuance iss_"):
                await get_issuance(connection, issued.acme, stranger)
        page = await list_issuances(connection, issued.acme, session_id=issued.others_call.session_id)
    assert page_json(page) == {"items": [], "next_cursor": None}


async def test_a_session_without_a_manifest_has_an_empty_one(admin: AsyncEngine, issued: Issued) -> None:
    async with admin.connect() as connection:
        assert (await get_issuance(connection, issued.acme, issued.calls[5].issuance_id)).manifest_id == ""


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_the_limit_is_1_to_1000(admin: AsyncEngine, limit: int) -> None:
    async with admin.connect() as connection:
        with pytest.raises(InvalidRequest, match="limit must be 1 to 1000"):
            await list_issuances(connection, uuid7(), limit=limit)


@pytest.mark.parametrize(
    "cursor",
    ["x", "!!!!", "ü", "AQ", base64.urlsafe_b64encode(b"\x02" + bytes(16)).decode(),
     base64.urlsafe_b64encode(b"\x01" + bytes(17)).decode(), "A" * 10_000],
)  # fmt: skip
async def test_a_cursor_that_is_not_ours_is_refused(admin: AsyncEngine, cursor: str) -> None:
    async with admin.connect() as connection:
        with pytest.raises(InvalidRequest, match="cursor"):
            await list_issuances(connection, uuid7(), cursor=cursor)


def test_an_id_of_something_else_is_not_found() -> None:
    made = uuid7()
    assert parse_issuance_id(show("iss", made)) == made
    for text in ("", "1", show("gw", made)):
        with pytest.raises(NotFound):
            parse_issuance_id(text)


async def test_the_serving_role_may_read_issuances(database: str, issued: Issued) -> None:
    engine = async_engine(in_role(database, SERVE_ROLE), pool_size=1)
    try:
        async with engine.connect() as connection:
            assert len((await list_issuances(connection, issued.acme)).items) == 7
    finally:
        await engine.dispose()
