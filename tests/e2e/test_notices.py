"""A gateway is told about itself by `clearinghouse work`, where `clearinghouse notices set` said that it listens.

Its receivers are real: an HTTPS server with a certificate of an authority that the worker trusts, and a mail server.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from settlement.delivery.signatures import is_signed
from tests.parts.certificates import Authority
from tests.parts.program import Home, new_home
from tests.parts.receiver import Post, http_receiver, mail_receiver

pytestmark = pytest.mark.slow

PATIENCE_S = 120


async def until(is_so: Callable[[], Any], what: str) -> None:
    give_up_at_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up_at_s, f"waited in vain for: {what}"
        await asyncio.sleep(0.05)


def tls_server(home: Home) -> tuple[ssl.SSLContext, str]:
    """What it serves with, and the file of the authority to trust."""
    authority = Authority()
    issued = authority.issue()
    certificate, authorities = home.folder / "receiver.pem", home.folder / "authority.pem"
    certificate.write_bytes(issued.cert_pem + issued.key_pem)
    authorities.write_bytes(authority.cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context, str(authorities)


async def test_a_gateway_hears_of_its_balance_its_suspension_and_a_test_by_webhook_and_by_mail() -> None:
    with new_home() as home:
        context, authorities = tls_server(home)
        async with http_receiver(503, 200, tls=context) as hook, mail_receiver() as mails:
            await asyncio.to_thread(home.json, "gateway", "create", "acme")
            await asyncio.to_thread(home.json, "credit", "grant", "acme", "50", "--reason", "top-up")
            url = f"https://localhost:{hook.port}/hooks"
            await asyncio.to_thread(
                home.json, "notices", "set", "acme", "--webhook", url, "--email", "billing@acme.example",
                "--low-balance", "60",
            )  # fmt: skip
            secret = (await asyncio.to_thread(home.json, "notices", "secret", "acme"))["secret"].encode()
            settings = {
                "SSL_CERT_FILE": authorities,
                "CLEARINGHOUSE_NOTICES__PRIVATE_HOSTS_ALLOWED": "true",
                "CLEARINGHOUSE_NOTICES__MAIL_URL": f"mailto://127.0.0.1:{mails.port}?from=billing@ch.example",
            }
            worker = home.start("work", "--data-dir", home.data_dir, "--metrics-port", 0, environment=settings)
            await until(lambda: len(hook.posts) == 2 and mails.mails, "the first notice, at the second attempt")
            await asyncio.to_thread(home.json, "gateway", "suspend", "acme", "--reason", "unpaid")
            await asyncio.to_thread(home.json, "notices", "test", "acme")
            await until(lambda: len(hook.posts) == 4 and len(mails.mails) == 3, "the suspension and the test")
            listed = await asyncio.to_thread(home.json, "notices", "list", "acme")
            worker.terminate()
            assert await asyncio.to_thread(worker.wait) == 0
        assert "Traceback" not in worker.log
        assert secret.decode() not in worker.log
    refused, *taken = hook.posts
    assert all(signed(post, secret) for post in hook.posts)
    assert refused.document["id"] == taken[0].document["id"]
    assert {post.document["type"] for post in taken} == {"balance.low", "gateway.suspended", "test"}
    assert {post.document["data"].get("number") for post in taken} == {1, 2, None}
    assert {str(mail["Subject"]) for mail in mails.mails} == {
        "acme: the balance is low", "acme is suspended", "acme: a test",
    }  # fmt: skip
    assert set(mails.recipients) == {"billing@acme.example"}
    assert {way["state"] for notice in listed["items"] for way in notice["sent"]} == {"delivered"}


def signed(post: Post, secret: bytes) -> bool:
    signature = post.headers["clearinghouse-signature"]
    return is_signed(post.body, signature, secret, now_unix_s=int(time.time()), tolerance_s=PATIENCE_S)
