"""One signer over HTTP: what goes up, what comes back, and what is refused, on real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from chain.signatures import SigningKey, checksum_address
from clearinghouse.signers.go_livepeer import (
    MAX_ANSWER_BYTES,
    Failure,
    GoLivepeerSigner,
    NoAnswerError,
    SignerEndpoint,
    read_identity,
)
from tests.parts import faulty_signer as faulty
from tests.parts.faulty_signer import FaultySigner

KEY = SigningKey(b"\x01" * 32)
OTHER_KEY = SigningKey(b"\x02" * 32)


@asynccontextmanager
async def client_of(endpoint: SignerEndpoint) -> AsyncIterator[GoLivepeerSigner]:
    client = GoLivepeerSigner(endpoint)
    try:
        yield client
    finally:
        await client.close()


async def failure_of(client: GoLivepeerSigner, timeout_s: float = 0.4) -> Failure:
    with pytest.raises(NoAnswerError) as refused:
        await client.generate_payment(b"{}", auth_id="tenant-1", timeout_s=timeout_s)
    return refused.value.failure


# --- what goes up -----------------------------------------------------------------------------------------------------


async def test_nothing_but_the_allowed_headers_goes_up_each_with_one_value() -> None:
    async with FaultySigner(KEY) as signer:
        endpoint = SignerEndpoint(signer.url, headers={"Authorization": "Bearer up", "X-Tenant": "acme"})
        async with client_of(endpoint) as client:
            await client.generate_payment(b'{"orchestrator":"AA=="}', auth_id="tenant-1", timeout_s=10.0)
    (request,) = signer.payments
    assert sorted((name.lower(), value) for name, value in request.headers) == [
        ("accept", "application/json"),
        ("authorization", "Bearer up"),
        ("content-length", "23"),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{signer.port}"),
        ("signer-auth-id", "tenant-1"),
        ("user-agent", "livepeer-clearinghouse"),
        ("x-tenant", "acme"),
    ]
    assert (request.method, request.body) == ("POST", b'{"orchestrator":"AA=="}')


@pytest.mark.parametrize("auth_id", ["", "a\r\nSigner-Auth-Id: b", "é", "a\x00"])
async def test_an_auth_id_that_could_become_two_headers_is_never_sent(auth_id: str) -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        with pytest.raises(ValueError, match="printable ASCII"):
            await client.generate_payment(b"{}", auth_id=auth_id, timeout_s=1.0)
    assert signer.seen == []


async def test_credentials_in_the_url_become_a_header_and_appear_nowhere_else() -> None:
    async with FaultySigner(KEY) as signer:
        url = signer.url.replace("http://", "http://ops:p%40ss@")
        async with client_of(SignerEndpoint(url)) as client:
            await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)
            assert client.name == f"127.0.0.1:{signer.port}"
            assert "ss" not in repr(client)
    assert signer.payments[0].values("Authorization") == ["Basic b3BzOnBAc3M="]


async def test_the_environment_cannot_put_a_proxy_between_us_and_the_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        answer = await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("", "/discover-orchestrators"),
        ("caps=text-to-image%2Fsd&caps=live/x", "/discover-orchestrators?caps=text-to-image%2Fsd&caps=live/x"),
        ("caps=a b#c\r\nX: y", "/discover-orchestrators?caps=a%20b%23c%0D%0AX:%20y"),
        ("caps=../../generate-live-payment", "/discover-orchestrators?caps=../../generate-live-payment"),
    ],
)
async def test_a_discovery_query_goes_up_as_it_is_and_cannot_leave_the_query(query: str, target: str) -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        await client.discover_orchestrators(query, timeout_s=10.0)
    (request,) = signer.seen
    assert (request.method, request.target, request.body) == ("GET", target, b"")
    assert request.values("Signer-Auth-Id") == []


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 400, 402, 404, 429, 480, 481, 482, 500, 502, 503, 504])
async def test_a_complete_answer_comes_back_to_the_byte_whatever_its_status(status: int) -> None:
    body = b'{"error":{"message":"\\u003c\xc3\xa9"}} \n'
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        signer.on_payment = faulty.answers(status, body, ("Livepeer-Orchestrator-URL", "https://orch:8935"))
        answer = await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)
    assert (answer.status, answer.body, answer.orchestrator_url) == (status, body, "https://orch:8935")
    assert answer.content_type == "application/json"


async def test_a_body_that_says_it_is_compressed_is_not_touched() -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        signer.on_payment = faulty.answers(200, b"\x1f\x8bno", ("Content-Encoding", "gzip"))
        answer = await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)
    assert answer.body == b"\x1f\x8bno"


async def test_an_orchestrator_url_that_no_header_can_hold_is_left_out_of_the_answer() -> None:
    """A caller wrote it, so it must neither break our answer nor make the signer look broken."""
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        signer.on_payment = faulty.answers(480, b"{}", ("Livepeer-Orchestrator-URL", "https://orch\xe9"))
        answer = await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)
    assert (answer.status, answer.orchestrator_url) == (480, None)


async def test_an_answer_of_exactly_the_largest_size_is_complete_and_one_byte_more_is_too_large() -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        signer.on_payment = faulty.answers(200, b"x" * MAX_ANSWER_BYTES)
        answer = await client.generate_payment(b"{}", auth_id="t", timeout_s=5.0)
        assert answer.body == b"x" * MAX_ANSWER_BYTES
        signer.on_payment = faulty.answers(200, b"x" * (MAX_ANSWER_BYTES + 1))
        assert await failure_of(client, 5.0) is Failure.TOO_LARGE


FAULTS = [
    (faulty.hangs_before_headers(), Failure.TIMED_OUT),
    (faulty.hangs_mid_body(), Failure.TIMED_OUT),
    (faulty.trickles(), Failure.TIMED_OUT),
    (faulty.closes_without_answer(), Failure.CONNECTION_FAILED),
    (faulty.closes_mid_body(), Failure.TRUNCATED),
    (faulty.closes_mid_chunk(), Failure.TRUNCATED),
    (faulty.talks_garbage(), Failure.NOT_HTTP),
    (faulty.answers(999), Failure.NOT_HTTP),
    (faulty.declares_huge_body(), Failure.TOO_LARGE),
    (faulty.streams_huge_body(), Failure.TOO_LARGE),
    (faulty.redirects("http://127.0.0.1:9/elsewhere"), Failure.REDIRECTED),
]


@pytest.mark.parametrize(("behaviour", "failure"), FAULTS, ids=lambda value: getattr(value, "value", "signer"))
async def test_whatever_is_not_a_complete_answer_is_named_and_asked_for_once(
    behaviour: faulty.Behaviour, failure: Failure
) -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        await client.prove_identity(timeout_s=10.0)  # a kept-alive connection is where clients like to ask again
        signer.on_payment = behaviour
        began_s = time.monotonic()
        assert await failure_of(client, 0.4) is failure
        assert time.monotonic() - began_s < 20, "it would hang for ever"
    assert len(signer.payments) == 1


async def test_a_closed_port_and_an_unknown_host_are_connection_failures() -> None:
    async with FaultySigner(KEY) as signer:
        pass
    for url in (signer.url, "http://no-such-host.invalid:8935"):
        async with client_of(SignerEndpoint(url)) as client:
            assert await failure_of(client, 2.0) is Failure.CONNECTION_FAILED


async def test_connections_are_kept_and_a_cancelled_call_drops_its_own_at_once() -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        for _ in range(5):
            await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)
        assert signer.connections == 1
        signer.on_payment = faulty.hangs_before_headers()
        call = asyncio.create_task(client.generate_payment(b"{}", auth_id="t", timeout_s=60.0))
        async with asyncio.timeout(30):
            while len(signer.payments) < 6:
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            while signer.connections:
                await asyncio.sleep(0.01)
        signer.on_payment = faulty.answers(200, faulty.PAYMENT_ANSWER)
        assert (await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)).status == 200


async def test_closing_the_client_ends_a_call_that_waits() -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        signer.on_payment = faulty.hangs_before_headers()
        call = asyncio.create_task(failure_of(client, 30.0))
        async with asyncio.timeout(30):
            while not signer.payments:
                await asyncio.sleep(0.01)
            await client.close()
            assert await call is Failure.CLIENT_CLOSED
        await client.close()


# --- the identity -----------------------------------------------------------------------------------------------------


async def test_a_true_identity_is_proved_and_its_bytes_are_kept() -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        identity = await client.prove_identity(timeout_s=10.0)
    assert identity.address == KEY.address
    assert json.loads(identity.answer.body)["address"] == checksum_address(KEY.address)


async def test_an_identity_that_is_not_a_200_is_refused() -> None:
    async with FaultySigner(KEY) as signer, client_of(SignerEndpoint(signer.url)) as client:
        signer.on_identity = faulty.answers(503)
        with pytest.raises(NoAnswerError) as refused:
            await client.prove_identity(timeout_s=10.0)
    assert refused.value.failure is Failure.IDENTITY_REFUSED


ADDRESS = checksum_address(KEY.address)
SIGNATURE = KEY.bsign(ADDRESS.encode()).hex()


def test_hex_in_any_case_with_or_without_its_prefix_is_one_address() -> None:
    for address in (ADDRESS, ADDRESS[2:], ADDRESS.lower()):
        for signature in ("0x" + SIGNATURE, SIGNATURE, SIGNATURE.upper()):
            assert read_identity(faulty.identity_body(address, signature)) == KEY.address


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b"[" * 4096,
        b'{"address":1,"signature":2}',
        faulty.identity_body("0x12", "0x" + SIGNATURE),
        faulty.identity_body(ADDRESS, "0x" + SIGNATURE[:-2]),
        faulty.identity_body(ADDRESS, "0x" + "zz" * 65),
        faulty.identity_body(ADDRESS, "0x" + "00" * 65),
        faulty.identity_body(ADDRESS, "0x" + OTHER_KEY.bsign(ADDRESS.encode()).hex()),
        faulty.identity_body(checksum_address(OTHER_KEY.address), "0x" + SIGNATURE),
        faulty.identity_body(ADDRESS, "0x" + KEY.eth_sign(ADDRESS.encode()).hex()),
        faulty.identity_body(ADDRESS, "0x" + KEY.bsign(ADDRESS.lower().encode()).hex()),
        faulty.identity_body(ADDRESS, "0x" + SIGNATURE) + b" " * 4096,
    ],
)
def test_an_address_without_its_own_signature_over_it_is_no_identity(body: bytes) -> None:
    with pytest.raises(NoAnswerError) as refused:
        read_identity(body)
    assert refused.value.failure is Failure.IDENTITY_INVALID


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, *, wants_client_certificate: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if wants_client_certificate:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_signer_behind_a_private_authority_is_trusted_when_the_authority_is_given(
    authority: trustme.CA,
) -> None:
    async with FaultySigner(KEY, tls=server_side(authority, wants_client_certificate=False)) as signer:
        async with client_of(SignerEndpoint(signer.url)) as stranger:
            assert await failure_of(stranger, 2.0) is Failure.CONNECTION_FAILED
        async with client_of(SignerEndpoint(signer.url, ca_pem=authority.cert_pem.bytes())) as client:
            assert (await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)).status == 200


async def test_a_client_certificate_is_shown_to_a_signer_that_asks_for_one(authority: trustme.CA) -> None:
    certificate = authority.issue_cert("clearinghouse.example").private_key_and_cert_chain_pem.bytes()
    ca_pem = authority.cert_pem.bytes()
    async with FaultySigner(KEY, tls=server_side(authority, wants_client_certificate=True)) as signer:
        async with client_of(SignerEndpoint(signer.url, ca_pem=ca_pem)) as stranger:
            assert await failure_of(stranger, 2.0) is Failure.CONNECTION_FAILED
        async with client_of(SignerEndpoint(signer.url, ca_pem=ca_pem, identity_pem=certificate)) as client:
            assert (await client.generate_payment(b"{}", auth_id="t", timeout_s=10.0)).status == 200


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (SignerEndpoint("signer:8935"), "needs http://"),
        (SignerEndpoint("ftp://signer"), "needs http://"),
        (SignerEndpoint("http://"), "needs http://"),
        (SignerEndpoint("http://signer:0"), "needs http://"),
        (SignerEndpoint("http://u:s3cret/x@signer:8935"), "cannot be read"),
        (SignerEndpoint("http://signer/base?k=s3cret"), "no path, query or fragment"),
        (SignerEndpoint("http://s", headers={"Signer-Auth-Id": "s3cret"}), "'Signer-Auth-Id'.*for each request"),
        (SignerEndpoint("http://s", headers={"signer_auth_id": "s3cret"}), "for each request"),
        (SignerEndpoint("http://s", headers={"Content-Length": "3"}), "for each request"),
        (SignerEndpoint("http://s", headers={"X-Key": "s3cret\r\nHost: evil"}), "'X-Key'.*printable"),
        (SignerEndpoint("http://s", headers={"X Key": "s3cret"}), "valid header name"),
        (SignerEndpoint("http://s", headers={"X-Key": "s3cret", "x-key": "b"}), "twice"),
        (SignerEndpoint("http://u:s3cret@s", headers={"Authorization": "Bearer s3cret"}), "keep one"),
        (SignerEndpoint("https://s", ca_pem=b"s3cret"), "is it PEM"),
        (SignerEndpoint("https://s", identity_pem=b"s3cret"), "is it PEM"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_without_showing_its_secrets(
    endpoint: SignerEndpoint, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        GoLivepeerSigner(endpoint)
    assert "s3cret" not in str(refused.value) + repr(endpoint)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "name", "is_cleartext"),
    [
        ("http://127.0.0.1:8935", "127.0.0.1:8935", False),
        ("http://[::1]:8935/", "[::1]:8935", False),
        ("http://localhost", "localhost:80", False),
        ("http://signer-a:8935", "signer-a:8935", True),
        ("https://signer-a", "signer-a:443", False),
    ],
)
async def test_plain_http_beyond_this_machine_is_noticed(url: str, name: str, is_cleartext: bool) -> None:
    async with client_of(SignerEndpoint(url)) as client:
        assert (client.name, client.is_cleartext) == (name, is_cleartext)
