"""`clearinghouse sign-demo` against a running `clearinghouse dev`: receipts, sessions, and precise refusals."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from chain.messages import decode_payment
from tests.parts.certificates import Authority
from tests.parts.program import Done, Home, Serving, new_home, run

TICKET_CHARGE = Decimal("0.000024")  # 8·10⁹ wei at the 3,000 USD per ETH that are declared by default


@dataclass(frozen=True)
class Demo:
    """A running service and the commands on its data directory."""

    home: Home
    serving: Serving

    def sign(self, *arguments: str | Path | int, **environment: str) -> Done:
        variables = {"CLEARINGHOUSE_URL": self.serving.http_url, **environment}
        return self.home.run("sign-demo", *arguments, environment=variables)

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.serving.grpc_port}"

    @property
    def api_key(self) -> str:
        return str(self.serving.facts["api_key"])

    def available(self) -> Decimal:
        return Decimal(self.home.json("balance", "demo")["available"])


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with new_home() as home:
        yield Demo(home, home.dev())


@pytest.fixture
def poor_key(demo: Demo) -> str:
    """The key of a gateway without credit."""
    name = f"poor-{os.urandom(4).hex()}"
    demo.home.json("gateway", "create", name)
    return str(demo.home.json("key", "create", name)["api_key"])


def receipts(done: Done) -> list[dict[str, Any]]:
    return [payment["receipt"] for payment in done.json["payments"]]


def test_a_ticket_is_signed_charged_and_shown_with_the_new_balance(demo: Demo) -> None:
    before = demo.available()
    done = demo.sign()
    assert done.code == 0, done
    shown = dict(line.split("  ", 1) for line in done.out.splitlines() if "  " in line)
    after = demo.available()
    assert before - after == TICKET_CHARGE
    assert {name: value.strip() for name, value in shown.items() if name not in {"issuance", "session"}} == {
        "tickets": "1",
        "expected value": "8000000000 wei",
        "price": "3000 USD per ETH",
        "charge": f"{TICKET_CHARGE} USD",
        "balance": f"{after} USD",
    }
    assert done.out.splitlines()[-1] == f"balance now {after} USD, available {after}"
    assert "Livepeer-Payment" not in done.out


def test_several_payments_continue_one_session(demo: Demo) -> None:
    answer = demo.sign("--count", 3, "--json")
    signed = receipts(answer)
    (session_id,) = {receipt["session_id"] for receipt in signed}
    assert [receipt["num_tickets"] for receipt in signed] == [1, 1, 1]
    listed = demo.home.json("issuances", "demo", "--session", session_id)["items"]
    assert [item["id"] for item in listed] == [receipt["issuance_id"] for receipt in reversed(signed)]
    assert [item["first_nonce"] for item in listed] == [3, 2, 1]
    assert answer.json["balance"]["available"] == signed[-1]["balance"]


def test_grpc_gives_the_same_receipt_as_http(demo: Demo) -> None:
    over_http, over_grpc = demo.sign("--json"), demo.sign("--grpc-target", demo.grpc_target, "--count", 2, "--json")
    (one,), (first, second) = receipts(over_http), receipts(over_grpc)
    assert first.keys() == one.keys()
    unequal = {"issuance_id", "session_id", "created_at", "balance"}
    assert {k: v for k, v in first.items() if k not in unequal} == {k: v for k, v in one.items() if k not in unequal}
    assert first["session_id"] == second["session_id"] != one["session_id"]
    assert over_grpc.json["balance"].items() <= {**over_http.json["balance"], **over_grpc.json["balance"]}.items()
    assert over_grpc.json["balance"]["available"] == second["balance"] == str(demo.available())


@pytest.mark.parametrize(("job_type", "tickets"), [("live", 5), ("lv2v", 30)])
def test_jobs_metered_by_time_pay_ahead(demo: Demo, job_type: str, tickets: int) -> None:
    (receipt,) = receipts(demo.sign("--type", job_type, "--json"))
    assert receipt["num_tickets"] == tickets
    assert receipt["ev_wei"] == str(tickets * 8 * 10**9)


def test_where_nothing_is_due_it_says_so_and_goes_on(demo: Demo) -> None:
    done = demo.sign("--type", "live", "--count", 4, "--interval", 0, "--json")
    last = done.json["payments"][-1]  # the second and third left more than a ticket's worth behind
    assert last["code"] == "no_tickets"
    assert "receipt" not in last
    assert "nothing is due yet" in demo.sign("--type", "live", "--count", 4, "--interval", 0).out


def test_the_headers_are_shown_on_request_and_are_a_payment(demo: Demo) -> None:
    (payment,) = demo.sign("--payments", "--json").json["payments"]
    assert decode_payment(payment["payment"]).nonces == (1,)
    assert payment["seg_creds"]
    assert "Livepeer-Payment  C" in demo.sign("--payments").out


def test_the_key_comes_from_a_file_else_the_environment_else_the_demo_gateway(demo: Demo, poor_key: str) -> None:
    file = demo.home.folder / "key.txt"
    file.write_text(demo.api_key + "\n", encoding="utf-8")
    assert demo.sign().code == 0
    assert "out_of_credit" in demo.sign(CLEARINGHOUSE_API_KEY=poor_key).err
    assert demo.sign("--api-key-file", file, CLEARINGHOUSE_API_KEY=poor_key).code == 0


def test_a_key_cannot_be_given_as_an_argument(demo: Demo) -> None:
    assert demo.sign("--api-key", demo.api_key).code == 2


@pytest.mark.parametrize("over_grpc", [False, True], ids=["http", "grpc"])
def test_a_refusal_is_shown_with_code_message_and_what_next(demo: Demo, poor_key: str, over_grpc: bool) -> None:
    where = ("--grpc-target", demo.grpc_target) if over_grpc else ()
    for key, code, what_next in (
        (poor_key, "out_of_credit: ", "Top up the account, then send the same request again"),
        ("lpch_wrong", "unauthenticated: ", "Send `Authorization: Bearer <api key>`"),
    ):
        done = demo.sign(*where, CLEARINGHOUSE_API_KEY=key)
        first, second = done.err.strip().splitlines()
        assert (done.code, done.out) == (1, "")
        assert first.startswith(code)
        assert len(first) > len(code)
        assert second.startswith(what_next)
        assert key not in done.err


@pytest.mark.parametrize("where", [("--url", "http://127.0.0.1:9"), ("--grpc-target", "127.0.0.1:9")])
def test_where_no_service_answers_it_says_how_to_start_one(demo: Demo, where: tuple[str, str]) -> None:
    done = demo.sign(*where)
    assert done.code == 1
    assert done.err.startswith(f"service_unreachable: no service answers at {where[1]}: ")
    assert "Start it (`clearinghouse dev`" in done.err


def test_without_any_key_it_says_where_one_could_come_from(demo: Demo) -> None:
    done = run("sign-demo", "--data-dir", demo.home.folder / "nowhere", folder=demo.home.folder)
    assert done.code == 1
    assert f"no API key: {demo.home.folder / 'nowhere/secrets/demo_api_key'} cannot be read" in done.err
    assert "set CLEARINGHOUSE_API_KEY or --api-key-file; `clearinghouse dev` makes" in done.err
    assert not (demo.home.folder / "nowhere").exists()


def test_a_file_that_holds_no_key_is_named(demo: Demo) -> None:
    file = demo.home.folder / "empty"
    assert "bad_configuration: no API key: " in demo.sign("--api-key-file", file).err
    file.write_text("\n", encoding="utf-8")
    assert f"{file} holds no API key" in demo.sign("--api-key-file", file).err


@contextmanager
def stranger(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A web server that is no clearinghouse: its URL, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Into the test's output only what failed."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (307, b""), (502, b"Bad Gateway"), (404, b"{}")])
def test_something_else_at_that_address_is_told_from_a_refusal_and_no_redirect_is_followed(
    demo: Demo, status: int, body: bytes
) -> None:
    with stranger(status, body) as (url, asked):
        done = demo.sign("--url", url)
    assert done.code == 1
    assert done.err.startswith("not_the_service: ")
    assert f"answered {status}" in done.err
    assert asked == ["/v1/signTicket"]
    assert demo.api_key not in done.err


def test_exporting_the_variables_of_a_client_does_not_break_other_commands(demo: Demo) -> None:
    environment = {"CLEARINGHOUSE_URL": demo.serving.http_url, "CLEARINGHOUSE_API_KEY": demo.api_key}
    assert demo.home.run("balance", "demo", environment=environment).code == 0


def test_over_tls_only_a_service_whose_authority_is_trusted_gets_the_key() -> None:
    with new_home() as home:
        authority, stranger_ca = Authority(), Authority("somebody else")
        server = authority.issue()
        files = {"ca": authority.cert_pem, "other": stranger_ca.cert_pem, "crt": server.cert_pem, "key": server.key_pem}
        for name, pem in files.items():
            (home.folder / f"{name}.pem").write_bytes(pem)
        serving = home.dev(
            environment={
                "CLEARINGHOUSE_LISTEN__TLS_CERT_FILE": str(home.folder / "crt.pem"),
                "CLEARINGHOUSE_LISTEN__TLS_KEY_FILE": str(home.folder / "key.pem"),
            }
        )
        over_http = ("sign-demo", "--url", f"https://127.0.0.1:{serving.http_port}", "--ca-file")
        over_grpc = ("sign-demo", "--grpc-target", f"127.0.0.1:{serving.grpc_port}", "--ca-file")
        for command in (over_http, over_grpc):
            assert home.run(*command, home.folder / "ca.pem").code == 0
        assert "not_the_service: no TLS could be agreed" in home.run(*over_http, home.folder / "other.pem").err
        assert "service_unreachable: " in home.run(*over_grpc, home.folder / "other.pem").err
        assert "not_the_service: " in home.run("sign-demo", "--url", f"http://127.0.0.1:{serving.http_port}").err
        assert "--ca-file" in home.run(*over_http, home.folder / "key.pem").err
        assert len(home.json("issuances", "demo")["items"]) == 2
