"""Notices, from a balance that falls to a gateway's own HTTPS server and mailbox: PostgreSQL and sockets are real."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.identity import gateways
from clearinghouse.identity.gateways import Gateway
from clearinghouse.ids import parse, show
from clearinghouse.ledger import transfers
from clearinghouse.public_hosts import IPAddress
from settlement.delivery.courier import Courier
from settlement.delivery.outbox import Backoff
from settlement.delivery.signatures import is_signed
from settlement.notices import sent
from settlement.notices.carrier import NoticeCarrier
from settlement.notices.evaluate import NoticeEvaluation
from settlement.notices.targets import Target, rotate_secret, secret_of, set_target, target_of
from settlement.schedule import Tick
from tests.parts.certificates import Authority
from tests.parts.receiver import HttpReceiver, http_receiver, mail_receiver

PEPPER = b"p" * 32


@dataclass
class House:
    conninfo: str
    admin: AsyncEngine
    work: AsyncEngine
    settings: NoticeSettings
    gateway: Gateway
    tls: ssl.SSLContext

    async def grant(self, amount: str) -> None:
        async with self.admin.begin() as connection:
            await transfers.grant(connection, self.gateway.id, Decimal(amount), reason="top-up", actor="test")

    async def withdraw(self, amount: str) -> None:
        async with self.admin.begin() as connection:
            await transfers.withdraw(connection, self.gateway.id, Decimal(amount), reason="test", actor="test")

    async def target(self, **what: Any) -> None:
        async with self.admin.begin() as connection:
            await set_target(connection, Target(self.gateway.id, **what), actor="test")

    async def evaluate(self) -> str:
        return await NoticeEvaluation(self.settings, DunningSettings()).tick(Tick(self.work, datetime.now(UTC)))

    async def deliver(self, *, resolves_to: str = "127.0.0.1", later: timedelta = timedelta(0)) -> str:
        async def resolver(host: str) -> Sequence[IPAddress]:
            return [IPv4Address(resolves_to)]

        carrier = NoticeCarrier(self.work, self.settings, lambda: PEPPER, resolver=resolver, tls=self.tls)
        courier = Courier("notice", carrier, backoff=Backoff(10, 3600, 3), timeout_s=5)
        return await courier.tick(Tick(self.work, datetime.now(UTC) + later))

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server_tls(authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    issued = authority.issue()
    (tmp_path / "cert.pem").write_bytes(issued.cert_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem")
    return context


@pytest.fixture
async def house(database: str, authority: Authority) -> AsyncIterator[House]:
    admin, work = async_engine(in_role(database, ADMIN_ROLE)), async_engine(in_role(database, WORK_ROLE))
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme")
    tls = ssl.create_default_context(cadata=authority.cert_pem.decode())
    yield House(database, admin, work, NoticeSettings(private_hosts_allowed=True), gateway, tls)
    await admin.dispose()
    await work.dispose()


def url_of(receiver: HttpReceiver) -> str:
    return f"https://localhost:{receiver.port}/hooks?tenant=1"


async def test_a_gateway_hears_of_its_balance_by_signed_webhook(house: House, server_tls: ssl.SSLContext) -> None:
    await house.grant("50")
    async with http_receiver(tls=server_tls) as hook:
        await house.target(webhook_url=url_of(hook))
        assert await house.evaluate() == "nothing to say"
        await house.withdraw("45")
        assert await house.evaluate() == "1 notices"
        assert await house.evaluate() == "nothing to say"
        assert await house.deliver() == "1 delivered"
        (post,) = hook.posts
    assert post.path == "/hooks?tenant=1"
    secret = secret_of(PEPPER, house.gateway.id, 1).encode()
    assert is_signed(post.body, post.headers["clearinghouse-signature"], secret, now_unix_s=int(time.time()))
    event = post.document
    assert event["type"] == "balance.low"
    assert event["data"] == {
        "gateway_id": show("gw", house.gateway.id), "gateway": "acme", "number": 1, "status": "low", "available": "5",
        "currency": "USD", "low_balance": "10", "depleted_below": "0.01",
    }  # fmt: skip
    assert event["id"] == post.headers["idempotency-key"]


async def test_a_gateway_hears_by_mail(house: House) -> None:
    async with mail_receiver() as mails:
        mail_url = f"mailto://127.0.0.1:{mails.port}?from=billing@ch.example"
        house.settings = NoticeSettings(mail_url=mail_url)
        await house.target(email="money+acme@acme.example")
        await house.evaluate()
        assert await house.deliver() == "1 delivered"
        (mail,) = mails.mails
    assert mails.recipients == ["money+acme@acme.example"]
    assert mail["Subject"] == "acme: the balance is used up"
    assert "can spend 0 USD" in mail.get_content()


async def test_with_two_secrets_in_force_it_is_signed_with_both(house: House, server_tls: ssl.SSLContext) -> None:
    async with http_receiver(tls=server_tls) as hook:
        await house.target(webhook_url=url_of(hook))
        async with house.admin.begin() as connection:
            target = await rotate_secret(connection, house.gateway.id, grace=timedelta(hours=1), actor="test")
        await house.evaluate()
        await house.deliver()
        (post,) = hook.posts
    header, now_unix_s = post.headers["clearinghouse-signature"], int(time.time())
    for version in (1, 2):
        secret = secret_of(PEPPER, house.gateway.id, version).encode()
        assert is_signed(post.body, header, secret, now_unix_s=now_unix_s)
    assert len(target.secrets(PEPPER, datetime.now(UTC) + timedelta(hours=2))) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "192.168.1.1"])
async def test_a_webhook_that_leads_into_our_own_network_is_not_connected_to(
    house: House, server_tls: ssl.SSLContext, address: str
) -> None:
    house.settings = NoticeSettings()
    async with http_receiver(tls=server_tls) as hook:
        await house.target(webhook_url=url_of(hook).replace("localhost", "innocent.example"))
        await house.evaluate()
        assert await house.deliver(resolves_to=address) == "1 failed"
        assert hook.posts == []
    assert house.fetch("SELECT error FROM delivery") == [(f"{address} is not a public address",)]


async def test_a_receiver_with_anothers_certificate_gets_nothing(house: House, server_tls: ssl.SSLContext) -> None:
    async with http_receiver(tls=server_tls) as hook:
        await house.target(webhook_url=f"https://bank.example:{hook.port}/")
        await house.evaluate()
        assert await house.deliver() == "1 failed"
        assert hook.posts == []


async def test_what_was_given_up_is_listed_and_replayed_under_its_id(house: House, server_tls: ssl.SSLContext) -> None:
    async with http_receiver(503, 500, 503, 200, tls=server_tls) as hook:
        await house.target(webhook_url=url_of(hook))
        await house.evaluate()
        for minutes in (0, 5, 10, 200):
            await house.deliver(later=timedelta(minutes=minutes))
        async with house.admin.begin() as connection:
            (notice,) = await sent.list_notices(connection, gateway_id=house.gateway.id, only_dead=True)
            assert notice["sent"] == [
                {"channel": "webhook", "state": "dead", "attempts": 3, "error": f"localhost:{hook.port} answered 503"}
            ]
            assert await sent.replay(connection, [parse("ntc", notice["id"])], now=datetime.now(UTC)) == 1
        assert await house.deliver() == "1 delivered"
        ids = {post.document["id"] for post in hook.posts}
    assert len(ids) == 1
    assert len(hook.posts) == 4
    async with house.admin.begin() as connection:
        assert await sent.list_notices(connection, gateway_id=None, only_dead=True) == []
        with pytest.raises(NotFound):
            await sent.replay(connection, [house.gateway.id], now=datetime.now(UTC))


async def test_a_gateway_without_a_target_is_told_nothing_and_it_is_kept_what_there_was_to_tell(house: House) -> None:
    assert await house.evaluate() == "1 notices"
    assert house.fetch("SELECT type, number FROM notice") == [("balance.depleted", 1)]
    assert house.fetch("SELECT count(*) FROM delivery") == [(0,)]


async def test_own_thresholds_stand_above_those_of_the_settings(house: House) -> None:
    await house.grant("50")
    await house.target(low_balance=Decimal(60), depleted_below=Decimal(20))
    await house.evaluate()
    assert house.fetch("SELECT type FROM notice") == [("balance.low",)]
    await house.withdraw("31")
    await house.evaluate()
    assert house.fetch("SELECT type FROM notice ORDER BY number") == [("balance.low",), ("balance.depleted",)]


async def test_credit_that_has_expired_counts_as_gone_before_it_is_booked(house: House) -> None:
    async with house.admin.begin() as connection:
        await transfers.grant(
            connection, house.gateway.id, Decimal(50), reason="trial", actor="test",
            expires_at=datetime.now(UTC) + timedelta(seconds=30),
        )  # fmt: skip
    assert await house.evaluate() == "nothing to say"
    later = Tick(house.work, datetime.now(UTC) + timedelta(seconds=31))
    assert await NoticeEvaluation(house.settings, DunningSettings()).tick(later) == "1 notices"


@pytest.mark.parametrize(
    "what",
    [
        {"webhook_url": "http://acme.example/"}, {"webhook_url": "https://user:pass@acme.example/"},
        {"webhook_url": "https://acme.example/#x"}, {"webhook_url": "ftp://acme.example"},
        {"email": "not an address"}, {"email": "a@b.example?cc=c@d.example"}, {"email": "a@b.example,c@d.example"},
        {"low_balance": Decimal(1), "depleted_below": Decimal(2)},
    ],
)  # fmt: skip
async def test_what_cannot_be_written_to_is_refused(house: House, what: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await house.target(**what)


async def test_no_secret_is_in_the_database(house: House) -> None:
    await house.target(webhook_url="https://acme.example/")
    async with house.admin.connect() as connection:
        target = await target_of(connection, house.gateway.id)
    ((row,),) = house.fetch("SELECT notice_target::text FROM notice_target")
    assert all(secret.decode().removeprefix("lphk_") not in row for secret in target.secrets(PEPPER, datetime.now(UTC)))
