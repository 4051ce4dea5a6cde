"""Webhook signers: who may ask before a payment is released, with which secret, and until when."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.errors import Conflict, InvalidRequest, LimitReached, NotFound, Unauthenticated
from clearinghouse.identity import gateways, keys, webhook_signers
from clearinghouse.identity.secret_texts import secret_hmac
from clearinghouse.identity.webhook_signers import (
    SECRETS_REMEMBER_S,
    WEBHOOK_SECRET,
    NewWebhookSecret,
    SignerAuthenticator,
    WebhookSecretNeeded,
    WebhookSigner,
)
from clearinghouse.ids import show, uuid7
from clearinghouse.lookups import Lookups, WebhookSecretRecord
from clearinghouse.request_rates import KEY_LOOKUPS, Rate
from tests.parts.books import Connection

PEPPER = b"0123456789abcdef" * 4
SENDER = bytes(range(20))


async def created(admin: AsyncEngine, name: str = "signer-1") -> NewWebhookSecret:
    async with admin.begin() as connection:
        return await webhook_signers.create(
            connection, name, sender=SENDER, pepper=PEPPER, face_value_max_wei=2 * 10**17
        )


async def rotated(admin: AsyncEngine, *, grace: timedelta = timedelta(hours=24)) -> NewWebhookSecret:
    async with admin.begin() as connection:
        return await webhook_signers.rotate(connection, "signer-1", pepper=PEPPER, grace=grace)


async def revoked(admin: AsyncEngine, *, secret: str | None = None) -> webhook_signers.RegisteredSigner:
    async with admin.begin() as connection:
        return await webhook_signers.revoke(connection, "signer-1", secret=secret)


def public_id(new: NewWebhookSecret) -> str:
    return WEBHOOK_SECRET.read(new.webhook_secret).public_id


# --- registering ------------------------------------------------------------------------------------------------------


async def test_the_database_has_the_hmac_and_nothing_of_the_secret(admin: AsyncEngine, owner: Connection) -> None:
    new = await created(admin)
    read = WEBHOOK_SECRET.read(new.webhook_secret)
    row = owner.execute("SELECT public_id, secret_hmac, webhook_secret::text FROM webhook_secret").fetchone()
    assert row is not None
    assert row[:2] == (read.public_id, secret_hmac(PEPPER, read.secret))
    assert read.secret.hex() not in row[2]
    assert new.webhook_secret not in repr(new)


async def test_a_signer_is_found_by_its_name_and_its_id_and_its_name_is_taken(admin: AsyncEngine) -> None:
    registered = (await created(admin)).registered
    assert registered.signer == WebhookSigner(registered.signer.id, "signer-1", SENDER, 2 * 10**17)
    async with admin.begin() as connection:
        for name in ("signer-1", show("whs", registered.signer.id)):
            assert await webhook_signers.find(connection, name) == registered
        for name in ("signer-2", show("whs", uuid7())):
            with pytest.raises(NotFound, match="there is no webhook signer"):
                await webhook_signers.find(connection, name)
        with pytest.raises(InvalidRequest, match="the id of a webhook signer"):
            await webhook_signers.find(connection, "whs_1")
        assert await webhook_signers.list_signers(connection) == [registered]
    with pytest.raises(Conflict, match="named signer-1 already"):
        await created(admin)


async def test_a_third_valid_secret_is_refused_until_one_has_ended(admin: AsyncEngine) -> None:
    first = await created(admin)
    second = await rotated(admin)
    with pytest.raises(Conflict, match=f"2 valid secrets, {public_id(second)} and {public_id(first)}"):
        await rotated(admin)
    await revoked(admin, secret=public_id(first))
    third = await rotated(admin)
    assert [secret.status for secret in third.registered.secrets] == ["active", "active", "revoked"]


async def test_two_rotations_at_once_do_not_leave_three_valid_secrets(admin: AsyncEngine) -> None:
    await created(admin)
    outcomes = await asyncio.gather(*(rotated(admin) for _ in range(4)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(NewWebhookSecret) == 1
    assert [type(outcome) for outcome in outcomes].count(Conflict) == 3
    async with admin.begin() as connection:
        secrets = (await webhook_signers.find(connection, "signer-1")).secrets
    assert [secret.status for secret in secrets] == ["active", "active"]


async def test_without_a_grace_period_all_others_end_at_once_however_many_there_are(admin: AsyncEngine) -> None:
    await created(admin)
    await rotated(admin)
    newest = await rotated(admin, grace=timedelta(0))
    assert [secret.status for secret in newest.registered.secrets] == ["active", "expired", "expired"]


async def test_rotating_never_lengthens_the_life_of_an_old_secret(admin: AsyncEngine) -> None:
    first = await created(admin)
    before = (await rotated(admin, grace=timedelta(minutes=5))).registered.secrets[1]
    await revoked(admin, secret=public_id(first))
    after = (await rotated(admin, grace=timedelta(days=300))).registered.secrets[2]
    assert (after.public_id, after.expires_at) == (before.public_id, before.expires_at)


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=40_000)])
async def test_an_impossible_grace_period_is_refused(admin: AsyncEngine, grace: timedelta) -> None:
    await created(admin)
    with pytest.raises(InvalidRequest, match="between nothing and 100 years"):
        await rotated(admin, grace=grace)


async def test_a_revoked_signer_gets_no_new_secret_and_revoking_again_keeps_the_first_time(admin: AsyncEngine) -> None:
    await created(admin)
    ended = await revoked(admin)
    assert ended.revoked_at is not None
    assert await revoked(admin) == ended
    with pytest.raises(Conflict, match="signer-1 is revoked"):
        await rotated(admin)


async def test_a_secret_of_another_signer_is_not_revoked(admin: AsyncEngine) -> None:
    await created(admin)
    other = await created(admin, "signer-2")
    with pytest.raises(NotFound, match="signer-1 has no secret"):
        await revoked(admin, secret=public_id(other))
    with pytest.raises(InvalidRequest, match="a whole webhook secret"):
        await revoked(admin, secret=other.webhook_secret)


@pytest.mark.parametrize("wei", ["", "0", "-1", "1.5", "1e18", "٣", "9" * 31])
def test_a_face_value_that_is_none_is_refused(wei: str) -> None:
    with pytest.raises(InvalidRequest, match="a whole number of wei above 0"):
        webhook_signers.parse_face_value(wei)
    assert webhook_signers.parse_face_value("200000000000000000") == 2 * 10**17
    assert webhook_signers.parse_face_value(None) is None


# --- recognising ------------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """One serving process: its look-ups, counted, and its clock."""

    authenticator: SignerAuthenticator
    lookups: CountedLookups
    ahead: timedelta = field(default=timedelta(0))

    async def accepts(self, secret: str) -> bool:
        try:
            await self.authenticator.authenticate(f"Bearer {secret}")
        except Unauthenticated:
            return False
        return True


class CountedLookups(Lookups):
    asked = 0

    async def webhook_secret(self, public_id: str) -> WebhookSecretRecord | None:
        self.asked += 1
        return await super().webhook_secret(public_id)


def process(database: str, *, remember_s: float = SECRETS_REMEMBER_S) -> Process:
    lookups = CountedLookups(database, batch_rows_max_count=64)
    made: Process

    def now() -> datetime:
        return datetime.now(UTC) + made.ahead

    made = Process(SignerAuthenticator(lookups, pepper=PEPPER, remember_s=remember_s, now=now), lookups)
    return made


@pytest.fixture
async def twins(database: str) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes that remember a secret for a short while."""
    pair = process(database, remember_s=0.2), process(database, remember_s=0.2)
    yield pair
    for one in pair:
        await one.lookups.close()


@pytest.fixture
async def alone(database: str) -> AsyncIterator[Process]:
    one = process(database)
    yield one
    await one.lookups.close()


async def test_a_secret_leads_to_its_signer_and_is_looked_up_once(admin: AsyncEngine, alone: Process) -> None:
    new = await created(admin)
    for _ in range(5):
        assert await alone.authenticator.authenticate(f"Bearer {new.webhook_secret}") == new.registered.signer
    assert alone.lookups.asked == 1


async def test_a_signer_without_a_face_value_has_none(admin: AsyncEngine, alone: Process) -> None:
    async with admin.begin() as connection:
        new = await webhook_signers.create(connection, "plain", sender=SENDER, pepper=PEPPER)
    found = await alone.authenticator.authenticate(f"Bearer {new.webhook_secret}")
    assert (found.name, found.sender, found.face_value_max_wei) == ("plain", SENDER, None)


async def test_only_a_whole_right_secret_is_accepted(admin: AsyncEngine, alone: Process) -> None:
    secret = (await created(admin)).webhook_secret
    body = secret[:22] + "0" * 64
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme")
        api_key = (await keys.create(connection, gateway.id, pepper=PEPPER)).api_key
    for wrong in (
        "", "Bearer ", secret, f"Digest {secret}", f"Bearer {secret[:-1]}", f"Bearer {WEBHOOK_SECRET.new(PEPPER)[0]}",
        f"Bearer {body}{zlib.crc32(body.encode()):08x}", f"Bearer {api_key}",
        f"Bearer {api_key.replace('lpch', 'lpws')}", f"Bearer {secret}, Bearer {secret}", f"Bearer {secret}\udce9",
    ):  # fmt: skip
        with pytest.raises(WebhookSecretNeeded) as refused:
            await alone.authenticator.authenticate(wrong)
        assert secret[22:60] not in refused.value.message
    assert await alone.accepts(secret)


async def test_during_a_rotation_both_secrets_are_valid_and_afterwards_only_the_new_one(
    admin: AsyncEngine, twins: tuple[Process, Process]
) -> None:
    old = (await created(admin)).webhook_secret
    for one in twins:
        assert await one.accepts(old)
    new = (await rotated(admin, grace=timedelta(hours=2))).webhook_secret
    for one in twins:
        assert (await one.accepts(old), await one.accepts(new)) == (True, True)
    await asyncio.sleep(0.25)  # by now every process knows of the end
    for one in twins:
        assert (await one.accepts(old), await one.accepts(new)) == (True, True)
        one.ahead = timedelta(hours=2, seconds=1)
        assert (await one.accepts(old), await one.accepts(new)) == (False, True)


@pytest.mark.parametrize("whole", [True, False], ids=["the signer", "the secret"])
async def test_what_is_revoked_is_refused_by_every_process_once_it_reads_again(
    admin: AsyncEngine, twins: tuple[Process, Process], whole: bool
) -> None:
    new = await created(admin)
    for one in twins:
        assert await one.accepts(new.webhook_secret)
    await revoked(admin, secret=None if whole else public_id(new))
    await asyncio.sleep(0.25)
    for one in twins:
        assert not await one.accepts(new.webhook_secret)


def test_what_is_remembered_is_read_again_within_half_a_minute() -> None:
    assert SECRETS_REMEMBER_S <= 30


async def test_made_up_secrets_are_not_looked_up(twins: tuple[Process, Process]) -> None:
    one, _ = twins
    before = one.lookups.asked
    for _ in range(10):
        assert not await one.accepts(WEBHOOK_SECRET.new(secrets.token_bytes(32))[0])
    assert one.lookups.asked == before


async def test_secrets_of_another_database_cannot_make_us_look_them_up_for_ever_nor_keep_a_signer_out(
    admin: AsyncEngine, twins: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_signers, "UNKNOWN_SECRETS", few := Rate(per_s=1, burst_count=20))
    one, _ = twins
    secret = (await created(admin)).webhook_secret
    assert await one.accepts(secret)
    before, began_s = one.lookups.asked, monotonic()
    made_up = [f"Bearer {WEBHOOK_SECRET.new(PEPPER)[0]}" for _ in range(5 * few.burst_count)]
    outcomes = await asyncio.gather(*(one.authenticator.authenticate(each) for each in made_up), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {WebhookSecretNeeded, LimitReached}
    assert {outcome.facts["rule"] for outcome in outcomes if isinstance(outcome, LimitReached)} == {KEY_LOOKUPS}
    assert one.lookups.asked - before <= few.burst_count + 1 + int(monotonic() - began_s)
    await asyncio.sleep(0.25)  # the signer is not remembered any more, and still not a stranger
    assert await one.accepts(secret)
