"""TLS and mTLS on both ports of the running program, with certificates of an authority made for the test."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.pb import clearinghouse_pb2_grpc as pb_grpc
from tests.parts.certificates import Authority, Certified
from tests.parts.program import PATIENCE_S, Home, Serving, new_home
from tests.parts.stack import Clock, Stream, offer


class Files:
    """The PEM files that the service and its clients are given."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.stranger = Authority(), Authority("another authority")
        server = self.authority.issue()
        self.folder = folder
        self.cert, self.key = self._write("server.pem", server.cert_pem), self._write("server.key", server.key_pem)
        self.ca = self._write("ca.pem", self.authority.cert_pem)

    def environment(self, *, mutual: bool) -> dict[str, str]:
        settings = {"CERT_FILE": self.cert, "KEY_FILE": self.key, **({"CLIENT_CA_FILE": self.ca} if mutual else {})}
        return {f"CLEARINGHOUSE_LISTEN__TLS_{name}": str(path) for name, path in settings.items()}

    def client_context(self, client: Certified | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if client is not None:
            context.load_cert_chain(
                self._write("client.pem", client.cert_pem), self._write("client.key", client.key_pem)
            )
        return context

    def channel_credentials(self, client: Certified | None = None) -> grpc.ChannelCredentials:
        key_pem, cert_pem = (client.key_pem, client.cert_pem) if client is not None else (None, None)
        return grpc.ssl_channel_credentials(self.authority.cert_pem, key_pem, cert_pem)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


@pytest.fixture(scope="module")
def files(home: Home) -> Files:
    return Files(home.folder)


@pytest.fixture(scope="module")
def with_tls(home: Home, files: Files) -> Serving:
    return home.dev(environment=files.environment(mutual=False))


@pytest.fixture(scope="module")
def with_mtls(home: Home, files: Files) -> Serving:
    return home.dev(environment=files.environment(mutual=True))


def sign_by_https(serving: Serving, context: ssl.SSLContext | None) -> tuple[int, Any]:
    """Status and body of a payment; without a context over plain HTTP."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", serving.http_port, timeout=PATIENCE_S, context=context)
        if context is not None
        else http.client.HTTPConnection("127.0.0.1", serving.http_port, timeout=PATIENCE_S)
    )
    try:
        headers = {"Authorization": f"Bearer {serving.facts['api_key']}"}
        connection.request("POST", "/generate-live-payment", Stream(offer(Clock())).body(), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def sign_by_grpcs(serving: Serving, credentials: grpc.ChannelCredentials | None) -> Any:
    """The answer; without credentials over plain HTTP/2."""
    target, stream = f"127.0.0.1:{serving.grpc_port}", Stream(offer(Clock()))
    request = pb.SignTicketRequest(
        orchestrator=stream.offer.SerializeToString(), manifest_id=stream.manifest_id, type=stream.job_type
    )
    with (
        grpc.secure_channel(target, credentials) if credentials is not None else grpc.insecure_channel(target)
    ) as channel:
        metadata = (("authorization", f"Bearer {serving.facts['api_key']}"),)
        return pb_grpc.ClearinghouseStub(channel).SignTicket(request, metadata=metadata, timeout=PATIENCE_S)


def require_success(serving: Serving, files: Files, client: Certified | None) -> None:
    status, answer = sign_by_https(serving, files.client_context(client))
    assert status == 200, answer
    assert base64.b64decode(answer["payment"])
    assert sign_by_grpcs(serving, files.channel_credentials(client)).receipt.num_tickets == 1


def require_refusal(serving: Serving, files: Files, client: Certified | None) -> None:
    """In the handshake: TLS 1.3 tells the client when it first reads."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        sign_by_https(serving, files.client_context(client))
    with pytest.raises(grpc.RpcError) as refused:
        sign_by_grpcs(serving, files.channel_credentials(client))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_with_tls_both_ports_sign_for_clients_who_trust_the_authority(with_tls: Serving, files: Files) -> None:
    require_success(with_tls, files, None)


def test_with_tls_dev_tells_an_https_address(with_tls: Serving) -> None:
    assert with_tls.facts["http_url"].startswith("https://")


def test_with_tls_nothing_is_served_in_clear(with_tls: Serving) -> None:
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        sign_by_https(with_tls, None)
    with pytest.raises(grpc.RpcError):
        sign_by_grpcs(with_tls, None)


def test_a_client_that_does_not_know_the_authority_does_not_send_its_key(with_tls: Serving, files: Files) -> None:
    elsewhere = ssl.create_default_context(cadata=files.stranger.cert_pem.decode())
    with pytest.raises(ssl.SSLCertVerificationError):
        sign_by_https(with_tls, elsewhere)


def test_with_mtls_both_ports_sign_for_clients_with_a_certificate(with_mtls: Serving, files: Files) -> None:
    require_success(with_mtls, files, files.authority.issue("a gateway"))


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's"])
def test_with_mtls_both_ports_refuse_clients_without_a_certificate_of_the_authority(
    with_mtls: Serving, files: Files, whose: str
) -> None:
    require_refusal(with_mtls, files, files.stranger.issue("a gateway") if whose == "a stranger's" else None)


def test_sign_demo_works_over_tls_with_the_authority(with_tls: Serving, home: Home, files: Files) -> None:
    for way_in in ((), ("--grpc-target", f"127.0.0.1:{with_tls.grpc_port}")):
        signed = home.json("sign-demo", "--url", with_tls.facts["http_url"], "--ca-file", files.ca, *way_in)
        assert len(signed["payments"]) == 1


@pytest.mark.parametrize("broken", ["no certificate", "another's key", "no file"])
def test_a_certificate_that_cannot_be_used_is_named_at_the_start(home: Home, files: Files, broken: str) -> None:
    unusable = home.folder / f"{broken}.pem"
    if broken != "no file":
        unusable.write_bytes(b"not PEM" if broken == "no certificate" else files.authority.issue().key_pem)
    changed = "KEY_FILE" if broken == "another's key" else "CERT_FILE"
    environment = {**files.environment(mutual=False), f"CLEARINGHOUSE_LISTEN__TLS_{changed}": str(unusable)}
    program = home.start_dev(environment=environment)
    assert program.wait() == 1, program.story
    (line,) = [line for line in program.log.splitlines() if line.startswith("bad_configuration: ")]
    assert "tls_cert_file" in line or "tls_key_file" in line or str(unusable) in line, line
    assert "Traceback" not in program.log
