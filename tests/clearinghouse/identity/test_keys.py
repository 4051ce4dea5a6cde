from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.identity import gateways, keys
from clearinghouse.identity.keys import API_KEY
from clearinghouse.identity.secret_texts import secret_hmac
from clearinghouse.ids import show, uuid7
from tests.parts.books import Connection, commit, usage

PEPPER = b"0123456789abcdef" * 4


@pytest.fixture
async def gateway_id(admin: AsyncEngine) -> UUID:
    async with admin.begin() as connection:
        return (await gateways.create(connection, "acme")).id


async def test_the_database_has_the_hmac_and_nothing_of_the_secret(
    admin: AsyncEngine, owner: Connection, gateway_id: UUID
) -> None:
    async with admin.begin() as connection:
        new = await keys.create(connection, gateway_id, pepper=PEPPER, name="production")
    read = API_KEY.read(new.api_key)
    row = owner.execute("SELECT secret_hmac, api_key::text FROM api_key").fetchone()
    assert row is not None
    assert row[0] == secret_hmac(PEPPER, read.secret)
    assert read.secret.hex() not in row[1]
    assert read.public_id == new.key.public_id
    assert new.api_key not in repr(new)


async def test_a_gateway_has_several_active_keys_at_once(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        made = [await keys.create(connection, gateway_id, pepper=PEPPER, name=f"key {n}") for n in range(3)]
        listed = await keys.list_keys(connection, gateway_id)
    assert [key.id for key in listed] == [new.key.id for new in reversed(made)]
    assert {key.status for key in listed} == {"active"}


async def test_a_key_is_found_by_its_id_and_its_public_id(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        key = (await keys.create(connection, gateway_id, pepper=PEPPER)).key
        for name in (show("key", key.id), key.public_id, f"lpch_{key.public_id}"):
            assert await keys.find(connection, name) == key
        for name in (show("key", uuid7()), "0" * 16, ""):
            with pytest.raises(NotFound, match="there is no API key"):
                await keys.find(connection, name)
        with pytest.raises(InvalidRequest, match="the id of an API key"):
            await keys.find(connection, "key_1")


async def test_a_whole_key_is_not_taken_as_a_name_and_not_repeated(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        new = await keys.create(connection, gateway_id, pepper=PEPPER)
        with pytest.raises(InvalidRequest, match="a whole API key, and a secret") as refused:
            await keys.revoke(connection, new.api_key)
    assert new.api_key[30:60] not in str(refused.value)


async def test_rotating_gives_a_new_key_now_and_ends_the_old_one_after_the_grace_period(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    async with admin.begin() as connection:
        old = (await keys.create(connection, gateway_id, pepper=PEPPER, name="production")).key
        new = await keys.rotate(connection, old.public_id, pepper=PEPPER, grace=timedelta(hours=2))
        ending = await keys.find(connection, old.public_id)
    assert (new.key.name, new.key.gateway_id, new.key.status, new.key.expires_at) == (
        "production", gateway_id, "active", None,
    )  # fmt: skip
    assert new.key.public_id != old.public_id
    assert ending.status == "active"
    assert ending.expires_at == new.key.created_at + timedelta(hours=2)


async def test_without_a_grace_period_the_old_key_ends_at_once(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        old = (await keys.create(connection, gateway_id, pepper=PEPPER)).key
        await keys.rotate(connection, old.public_id, pepper=PEPPER, grace=timedelta(0))
        assert (await keys.find(connection, old.public_id)).status == "expired"


async def test_rotating_never_lengthens_the_life_of_the_old_key(admin: AsyncEngine, gateway_id: UUID) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    async with admin.begin() as connection:
        old = (await keys.create(connection, gateway_id, pepper=PEPPER, expires_at=soon)).key
        await keys.rotate(connection, old.public_id, pepper=PEPPER)
        assert (await keys.find(connection, old.public_id)).expires_at == soon


async def test_a_key_that_has_ended_is_not_rotated(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        key = (await keys.create(connection, gateway_id, pepper=PEPPER)).key
        await keys.revoke(connection, key.public_id)
        with pytest.raises(Conflict, match="is revoked"):
            await keys.rotate(connection, key.public_id, pepper=PEPPER)
        assert len(await keys.list_keys(connection, gateway_id)) == 1


async def test_revoking_again_keeps_the_first_time(admin: AsyncEngine, gateway_id: UUID) -> None:
    async with admin.begin() as connection:
        key = (await keys.create(connection, gateway_id, pepper=PEPPER)).key
        revoked = await keys.revoke(connection, show("key", key.id))
    assert revoked.status == "revoked"
    async with admin.begin() as connection:
        assert await keys.revoke(connection, key.public_id) == revoked


async def test_no_charge_is_committed_for_a_revoked_or_expired_key(
    admin: AsyncEngine, owner: Connection, gateway_id: UUID
) -> None:
    owner.execute("UPDATE account SET credit_limit = 100 WHERE id = %s", [gateway_id])
    async with admin.begin() as connection:
        active, revoked, expired = [(await keys.create(connection, gateway_id, pepper=PEPPER)).key for _ in range(3)]
        await keys.revoke(connection, revoked.public_id)
        await keys.rotate(connection, expired.public_id, pepper=PEPPER, grace=timedelta(0))
    codes = [commit(owner, usage(gateway_id, key.id))[0] for key in (active, revoked, expired)]
    assert codes == [None, "unauthenticated", "unauthenticated"]


@pytest.mark.parametrize("name", ["x" * 129, "two\nlines", "\x1b[31m"])
async def test_unusable_key_names_are_refused(admin: AsyncEngine, gateway_id: UUID, name: str) -> None:
    async with admin.begin() as connection:
        with pytest.raises(InvalidRequest, match="a key's name"):
            await keys.create(connection, gateway_id, pepper=PEPPER, name=name)


async def test_a_key_cannot_be_made_expired(admin: AsyncEngine, gateway_id: UUID) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    async with admin.begin() as connection:
        with pytest.raises(InvalidRequest, match="in the past"):
            await keys.create(connection, gateway_id, pepper=PEPPER, expires_at=past)
