"""The signer's HTTP surface over a real socket."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from clearinghouse.requests import MAX_BODY_BYTES, PaymentRequest
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.native import NativeSigner
from clearinghouse.signers.server import signer_app, signer_served
from tests.clearinghouse.signers.calls import KEY, Bench, Call, Paid, body, info

ROOT = Path(__file__).parents[3]


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


def exchange(url: str, method: str, path: str, data: Any, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, data, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


async def call(url: str, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None) -> Answer:
    return await asyncio.to_thread(exchange, url, method, path, data, headers or {})


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def url(bench: Bench) -> AsyncIterator[str]:
    async with signer_served(bench.signer()) as base_url:
        yield base_url


async def test_a_session_is_paid_over_http(url: str) -> None:
    first = await call(url, "POST", "/generate-live-payment", body(info(), type="fixed"))
    assert (first.status, first.headers["Content-Type"], first.body[-1:]) == (200, "application/json", b"\n")
    state = json.loads(first.body)["state"]
    second = await call(url, "POST", "/generate-live-payment", body(info(), type="fixed", ManifestID="m", state=state))
    assert Paid(SignerAnswer(second.status, second.body)).nonces == [2]


async def test_a_query_changes_the_way_but_not_the_answer(url: str) -> None:
    data = body(info(expires_in_s=0), inPixels=1)
    answers = [await call(url, "POST", f"/generate-live-payment{query}", data) for query in ("", "?a=b")]
    assert answers[0].status == answers[1].status == 480
    assert answers[0].body == answers[1].body
    assert {*answers[0].headers.items()} ^ {*answers[1].headers.items()} <= {
        ("date", answer.headers["date"]) for answer in answers
    }


async def test_the_address_is_proven_whatever_the_body(url: str) -> None:
    for data in (None, b"", b"{}", b"\xff" * 200_000):
        answer = await call(url, "POST", "/sign-orchestrator-info", data)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        document = json.loads(answer.body)
        assert list(document) == ["address", "signature"]
        assert bytes.fromhex(document["address"][2:]) == KEY.address
    await call(url, "POST", "/sign-orchestrator-info")


async def test_480_says_where_to_refresh(url: str) -> None:
    answer = await call(url, "POST", "/generate-live-payment", body(info(expires_in_s=0), inPixels=1))
    assert answer.status == 480
    assert answer.headers["Livepeer-Orchestrator-URL"] == "http://orch.example"
    assert answer.body == b'{"error":{"message":"refresh session for remote signer"}}\n'


async def test_a_transcoder_cannot_write_headers(url: str) -> None:
    offer = info(expires_in_s=0)
    offer.transcoder = "http://x\r\nSet-Cookie: a=b"
    answer = await call(url, "POST", "/generate-live-payment", body(offer, inPixels=1))
    assert answer.headers["Set-Cookie"] is None
    assert answer.headers["Livepeer-Orchestrator-URL"] == "http://x  Set-Cookie: a=b"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/generate-live-payment", "POST"),
        ("PUT", "/generate-live-payment", "POST"),
        ("GET", "/sign-orchestrator-info", "POST"),
        ("POST", "/discover-orchestrators", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_the_right_one(url: str, method: str, path: str, allow: str) -> None:
    answer = await call(url, method, path)
    assert (answer.status, answer.headers["Allow"], answer.body) == (405, allow, b"Method Not Allowed\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    ["/", "/generate-live-payment/", "/Generate-Live-Payment", "/sign-byoc-job", "/discover-orchestrators?caps=a/b"],
)
async def test_an_unknown_path_is_not_found(url: str, path: str) -> None:
    answer = await call(url, "GET", path)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("//generate-live-payment", "/generate-live-payment"),
        ("/a/../generate-live-payment", "/generate-live-payment"),
        ("/.//evil.example/", "/evil.example/"),
        ("//discover-orchestrators?caps=a/b", "/discover-orchestrators?caps=a/b"),
    ],
)
async def test_an_untidy_path_is_redirected_within_the_host(url: str, path: str, location: str) -> None:
    answer = await call(url, "POST", path)
    assert (answer.status, answer.headers["Location"]) == (301, location)


async def test_health_is_empty_and_well(url: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await call(url, method, "/healthz")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_ten_mebibytes_is_refused_while_it_still_arrives(url: str, chunked: bool) -> None:
    chunk = b" " * (1 << 16)
    data: Any = (chunk for _ in range(160)) if chunked else chunk * 160
    answer = await call(url, "POST", "/generate-live-payment", data)
    assert answer.status == 413
    assert answer.body == f'{{"error":{{"message":"request body is larger than {MAX_BODY_BYTES} bytes"}}}}\n'.encode()


async def test_an_endless_body_is_read_to_the_limit_and_no_further(bench: Bench) -> None:
    read, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1 << 16
        assert read <= MAX_BODY_BYTES + (1 << 16)
        return {"type": "http.request", "body": b" " * (1 << 16), "more_body": True}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/generate-live-payment", "query_string": b"", "headers": []}
    await signer_app(bench.signer())(scope, receive, send)
    assert sent[0]["status"] == 413


@pytest.mark.parametrize(
    "data", [b"", b"{not-json", b"[" * 200_000, b'{"orchestrator":"!"}', b'{"a":1,"a":2}', bytes(range(256))]
)
async def test_a_bad_body_is_refused_in_the_envelope(url: str, data: bytes) -> None:
    answer = await call(url, "POST", "/generate-live-payment", data)
    assert (answer.status, answer.headers["Content-Type"], answer.body[-1:]) == (400, "application/json", b"\n")
    assert json.loads(answer.body)["error"]["message"]


async def test_the_first_signer_auth_id_counts(url: str) -> None:
    def two_headers() -> Answer:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        data = body(info(), type="fixed")
        connection.putrequest("POST", "/generate-live-payment")
        connection.putheader("Content-Length", str(len(data)))
        connection.putheader("Signer-Auth-Id", "tenant")
        connection.putheader("signer-auth-id", "victim")
        connection.endheaders(data)
        try:
            return Answer(connection.getresponse())
        finally:
            connection.close()

    answer = await asyncio.to_thread(two_headers)
    assert Paid(SignerAnswer(answer.status, answer.body)).state.auth_id == "tenant"


async def test_a_refusal_of_the_signers_own_says_nothing(url: str) -> None:
    answer = await call(url, "POST", "/generate-live-payment", Call().body(), {"Signer-Auth-Id": "stranger"})
    assert (answer.status, answer.body) == (500, b'{"error":{"message":"Internal Server Error"}}\n')


async def test_without_an_escrow_reading_the_service_is_unavailable(url: str, bench: Bench) -> None:
    bench.escrow.reading = None
    answer = await call(url, "POST", "/generate-live-payment", body(info(), inPixels=1))
    assert (answer.status, answer.body) == (503, b'{"error":{"message":"Service Unavailable Error"}}\n')


class BrokenSigner(NativeSigner):
    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        raise RuntimeError("a bug that must not reach the caller")


async def test_a_bug_is_a_masked_500_and_the_server_lives_on(bench: Bench) -> None:
    async with signer_served(BrokenSigner(key=KEY, escrow=bench.escrow)) as url:
        answer = await call(url, "POST", "/generate-live-payment", body(info(), inPixels=1))
        assert (answer.status, answer.body) == (500, b'{"error":{"message":"Internal Server Error"}}\n')
        assert (await call(url, "GET", "/healthz")).status == 200


class SlowSigner(NativeSigner):
    """`told` is called when a payment has been accepted, which then takes its time."""

    told: Callable[[], object] = staticmethod(lambda: None)

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        self.told()
        await asyncio.sleep(0.3)
        return await super().generate_payment(request, auth_id=auth_id)


async def test_stopping_finishes_what_was_accepted(bench: Bench) -> None:
    signer, accepted = SlowSigner(key=KEY, escrow=bench.escrow, now_unix_ns=bench.clock), asyncio.Event()
    signer.told = accepted.set
    async with signer_served(signer) as url:
        answering = asyncio.create_task(call(url, "POST", "/generate-live-payment", body(info(), inPixels=1)))
        await accepted.wait()
    assert (await answering).status == 200
    with pytest.raises(OSError):
        await call(url, "GET", "/healthz")


async def test_a_client_that_hangs_up_in_mid_request_harms_nobody(url: str) -> None:
    _, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    writer.write(b"POST /generate-live-payment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await call(url, "GET", "/healthz")).status == 200


ALONE = """
import asyncio
from clearinghouse.process import run
from clearinghouse.signers.server import signer_served
from tests.clearinghouse.signers.test_server import SlowSigner
from tests.clearinghouse.signers.calls import KEY, Bench

async def main(stop):
    bench = Bench()
    signer = SlowSigner(key=KEY, escrow=bench.escrow, now_unix_ns=bench.clock)
    signer.told = lambda: print("accepted", flush=True)
    async with signer_served(signer) as url:
        print(url, flush=True)
        await stop.wait()

run(main)
"""


async def test_a_signer_of_its_own_answers_what_it_accepted_before_sigterm_ends_it() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ALONE, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            url = (await process.stdout.readline()).decode().strip()
            assert (await call(url, "GET", "/healthz")).status == 200
            answering = asyncio.create_task(call(url, "POST", "/generate-live-payment", body(info(), inPixels=1)))
            assert await process.stdout.readline() == b"accepted\n"
            process.send_signal(signal.SIGTERM)
            assert (await answering).status == 200
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
