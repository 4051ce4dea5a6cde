"""The native signer's webhook: the cases of section 5.7, section 6's table of outcomes, and whatever else may happen.

On real sockets: a signer that listens, and a receiver that answers as the test says.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chain.http_client import HttpAnswer
from chain.pb import lp_rpc_pb2 as pb
from chain.tickets import recipient_rand_hash
from clearinghouse.errors import SignerFailed
from clearinghouse.signers import asking
from clearinghouse.signers.asking import AskingSigner, Webhook, go_headers, webhook_body
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.native import NativeSigner, SignerLimits
from clearinghouse.signers.server import signer_served
from tests.clearinghouse.signers.calls import (
    NOW_UNIX_NS,
    SECOND_NS,
    Bench,
    Call,
    Paid,
    body,
    info,
    message,
)
from tests.clearinghouse.signers.receiver import AGREES, Receiver, http_answer, receiving, says
from tests.clearinghouse.signers.test_server import call
from tests.parts.certificates import Authority
from tests.parts.program import new_home

NOW_UNIX_S = NOW_UNIX_NS // SECOND_NS
MASKED = b'{"error":{"message":"Internal Server Error"}}\n'


class Asked:
    """A signer that listens, asks `receiver`, and pays one session at a time."""

    def __init__(self, url: str, receiver: Receiver, bench: Bench) -> None:
        self.url, self.receiver, self.bench = url, receiver, bench
        self.state: dict[str, str] | None = None

    async def post(self, data: bytes, **headers: str) -> SignerAnswer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await call(self.url, "POST", "/generate-live-payment", data, names)
        return SignerAnswer(answer.status, answer.body, answer.headers["Livepeer-Orchestrator-URL"])

    async def pay(
        self, offer: pb.OrchestratorInfo | None = None, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> SignerAnswer:
        """The next fixed call of the session. A 200 moves the session on."""
        state = {"state": self.state} if self.state else {}
        request = body(offer or info(), **({"type": "fixed", "ManifestID": "m"} | state | fields))
        answer = await self.post(request, **(headers or {}))
        if answer.status == 200:
            self.state = Paid(answer).signed_state
        return answer

    @property
    def times_asked(self) -> int:
        return len(self.receiver.questions)


@asynccontextmanager
async def asked(
    *answers: bytes | None, bench: Bench | None = None, timeout_s: float = 5.0, headers: dict[str, str] | None = None
) -> AsyncIterator[Asked]:
    bench = bench or Bench()
    async with receiving(*answers) as receiver, asking_signer(bench, receiver.url, headers or {}, timeout_s) as url:
        yield Asked(url, receiver, bench)


@asynccontextmanager
async def asking_signer(
    bench: Bench, webhook_url: str, headers: dict[str, str] | None = None, timeout_s: float = 5.0
) -> AsyncIterator[str]:
    webhook = Webhook(webhook_url, headers or {}, timeout_s=timeout_s)
    try:
        async with signer_served(AskingSigner(bench.signer(), webhook)) as url:
            yield url
    finally:
        await webhook.close()


def wei(price: Any, unit: str = "fixed", currency: str = "wei") -> dict[str, Any]:
    return {"price": price, "currency": currency, "unit": unit}


# --- section 5.7: the cases of the reference --------------------------------------------------------------------------


def test_without_a_webhook_a_payment_needs_nobodys_agreement() -> None:
    assert Bench().post(body(info(), type="fixed")).status == 200


async def test_a_price_above_the_webhooks_is_refused() -> None:
    async with asked(says(status=200, maxPrice=wei(0.5))) as signer:
        answer = await signer.pay()
        assert answer.status == 481
        assert message(answer) == "orchestrator price 1.000 exceeds auth webhook maxPrice ceiling 0.500"


async def test_a_price_equal_to_the_webhooks_passes() -> None:
    async with asked(says(status=200, maxPrice=wei("1.0"))) as signer:
        assert (await signer.pay()).status == 200


async def test_a_webhooks_price_in_another_currency_is_a_502() -> None:
    async with asked(says(status=200, maxPrice=wei(1, currency="usd"))) as signer:
        answer = await signer.pay()
        assert (answer.status, message(answer)) == (502, "signer auth invalid maxPrice: maxPrice.currency must be wei")


def priced(numerator: int, denominator: int = 1) -> pb.OrchestratorInfo:
    return info(price=(numerator, denominator))


def at_most(ceiling: Fraction) -> Bench:
    return Bench(limits=SignerLimits(max_price_per_unit=ceiling))


async def test_of_four_ceilings_the_lowest_decides_and_the_webhooks_comes_last() -> None:
    async with asked(bench=at_most(Fraction(3))) as signer:
        assert (await signer.pay(priced(2), maxPrice=wei(2))).status == 200
        assert signer.times_asked == 1

        answer = await signer.pay(priced(7, 4), maxPrice=wei(1.5))
        assert (answer.status, "request maxPrice" in message(answer)) == (481, True)
        answer = await signer.pay(priced(9, 4), maxPrice=wei(2.5))
        assert (answer.status, "initial session price" in message(answer)) == (481, True)
        assert signer.times_asked == 1, "what the signer itself refuses is not asked about"

    async with asked(bench=at_most(Fraction(3, 2))) as signer:
        answer = await signer.pay(priced(7, 4), maxPrice=wei(2))
        assert (answer.status, "configured maximum price" in message(answer)) == (481, True)
        assert signer.times_asked == 0

    async with asked(AGREES, says(status=200, maxPrice=wei(0.5))) as signer:
        assert (await signer.pay(maxPrice=wei(1.5))).status == 200
        answer = await signer.pay(maxPrice=wei(1.5))
        assert (answer.status, "auth webhook maxPrice" in message(answer)) == (481, True)
        assert signer.times_asked == 2


async def test_headers_app_and_session_reach_the_webhook() -> None:
    async with asked() as signer:
        assert (
            await signer.pay(app="some-app", headers={"x-request-id": "r1", "authorization": "Bearer k"})
        ).status == 200
        [question] = signer.receiver.questions
        shown = question.document
        assert list(shown) == ["headers", "state"]
        assert shown["headers"]["X-Request-Id"] == ["r1"]
        assert shown["headers"]["Authorization"] == ["Bearer k"]
        assert "Host" not in shown["headers"]
        assert shown["state"]["App"] == "some-app"
        assert shown["state"]["PMSessionID"] == f"0x{recipient_rand_hash(10).hex()}"


async def test_an_agreement_is_enough() -> None:
    async with asked(says(status=200)) as signer:
        answer = await signer.pay()
        assert answer.status == 200
        state = Paid(answer).state
        assert (state.auth_expiry_unix_s, state.auth_id) == (0, "")


async def test_expiry_and_auth_id_go_into_the_state() -> None:
    async with asked(says(status=200, expiry=NOW_UNIX_S + 60, auth_id="from-webhook")) as signer:
        state = Paid(await signer.pay()).state
        assert (state.auth_expiry_unix_s, state.auth_id) == (NOW_UNIX_S + 60, "from-webhook")


async def test_without_the_webhooks_auth_id_the_callers_counts() -> None:
    async with asked() as signer:
        assert Paid(await signer.pay(headers={"Signer-Auth-Id": "from-header"})).state.auth_id == "from-header"


async def test_the_webhooks_auth_id_goes_before_the_callers() -> None:
    async with asked(says(status=200, auth_id="from-webhook")) as signer:
        assert Paid(await signer.pay(headers={"Signer-Auth-Id": "from-header"})).state.auth_id == "from-webhook"


async def test_an_agreement_that_lasts_is_not_asked_for_again_and_still_binds_the_caller() -> None:
    async with asked(says(status=200, expiry=NOW_UNIX_S + 60, auth_id="cached")) as signer:
        assert (await signer.pay()).status == 200
        assert (await signer.pay()).status == 200
        assert signer.times_asked == 1
        answer = await signer.pay(headers={"Signer-Auth-Id": "new-header-auth-id"})
        assert (answer.status, answer.body) == (500, MASKED)
        assert Paid(await signer.pay(headers={"Signer-Auth-Id": "cached"})).state.auth_expiry_unix_s == NOW_UNIX_S + 60
        assert signer.times_asked == 1


@pytest.mark.parametrize("expiry", [NOW_UNIX_S - 1, 1, 0, -1, -(2**63)])
async def test_an_agreement_that_is_over_is_asked_for_again(expiry: int) -> None:
    async with asked(says(status=200, expiry=expiry)) as signer:
        assert Paid(await signer.pay()).state.auth_expiry_unix_s == expiry
        assert (await signer.pay()).status == 200
        assert signer.times_asked == 2


async def test_an_agreement_lasts_through_the_second_of_its_expiry() -> None:
    async with asked(says(status=200, expiry=NOW_UNIX_S + 10), AGREES) as signer:
        assert (await signer.pay()).status == 200
        signer.bench.clock.advance(10)
        assert Paid(await signer.pay()).state.auth_expiry_unix_s == NOW_UNIX_S + 10
        assert signer.times_asked == 1
        signer.bench.clock.advance(1)
        assert Paid(await signer.pay()).state.auth_expiry_unix_s == 0, "as the second answer says: ask every time"
        assert signer.times_asked == 2


async def test_the_webhook_cannot_hand_a_session_to_another() -> None:
    async with asked(says(status=200, auth_id="first"), says(status=200, auth_id="second"), AGREES) as signer:
        assert (await signer.pay()).status == 200
        answer = await signer.pay()
        assert (answer.status, answer.body) == (500, MASKED)
        assert Paid(await signer.pay()).state.auth_id == "first", "what failed changed nothing"


# --- section 6: every outcome -----------------------------------------------------------------------------------------

OUTCOMES: dict[str, tuple[bytes | None, int, str]] = {
    "denied": (says(status=403, reason="denied"), 403, "denied"),
    "without a reason": (says(status=429), 429, "signer auth rejected request with status 429"),
    "an empty reason": (says(status=402, reason=""), 402, "signer auth rejected request with status 402"),
    "500 is masked": (says(status=500, reason="secret"), 500, "Internal Server Error"),
    "503 is masked": (says(status=503, reason="secret"), 503, "Service Unavailable Error"),
    "502 is not": (says(status=502, reason="shown"), 502, "shown"),
    "480": (says(status=480, reason="refresh"), 480, "refresh"),
    "481": (says(status=481, reason="too dear"), 481, "too dear"),
    "482": (says(status=482, reason="nothing"), 482, "nothing"),
    "201": (says(status=201, reason="made"), 201, "made"),
    "599": (says(status=599, reason="odd"), 599, "odd"),
    "a reason in markup": (says(status=400, reason="<a&b>\u2028é"), 400, "<a&b>\u2028é"),
    "a reason that is no text": (http_answer(b'{"status":400,"reason":"a\\ud800b"}'), 400, "a\ufffdb"),
    "a price beside a no": (says(status=403, reason="no", maxPrice={"price": 1}), 403, "no"),
    "names in another case": (http_answer(b'{"Status":403,"REASON":"no"}'), 403, "no"),
    "the last of two": (http_answer(b'{"status":200,"status":403,"reason":"no"}'), 403, "no"),
    "members we do not know": (says(status=403, reason="no", more={"a": [1.5, None]}), 403, "no"),
    "HTTP 401": (http_answer(b'{"status":200}', status="401 Unauthorized"), 500, ""),
    "HTTP 201": (http_answer(b'{"status":200}', status="201 Created"), 500, ""),
    "HTTP 204": (b"HTTP/1.1 204 No Content\r\n\r\n", 500, ""),
    "nothing": (http_answer(b""), 500, ""),
    "no JSON": (http_answer(b"OK"), 500, ""),
    "half of it": (http_answer(b'{"status":200'), 500, ""),
    "something after it": (http_answer(b'{"status":200}x'), 500, ""),
    "a second one after it": (http_answer(b'{"status":200}{}'), 500, ""),
    "another kind": (http_answer(b"[200]"), 500, ""),
    "null": (http_answer(b"null"), 500, ""),
    "no status": (says(expiry=123), 500, ""),
    "null status": (says(status=None), 500, ""),
    "status 0": (says(status=0), 500, ""),
    "negative status": (says(status=-200), 500, ""),
    "status as a float": (http_answer(b'{"status":200.0}'), 500, ""),
    "status as text": (says(status="200"), 500, ""),
    "status as a truth": (says(status=True), 500, ""),
    "status beyond 64 bits": (says(status=2**63), 500, ""),
    "status 103": (says(status=103), 500, ""),
    "status 600": (says(status=600), 500, ""),
    "status 1000": (says(status=1000), 500, ""),
    "expiry as a float": (http_answer(b'{"status":200,"expiry":123.0}'), 500, ""),
    "expiry as text": (says(status=200, expiry="123"), 500, ""),
    "auth_id as a number": (says(status=200, auth_id=1), 500, ""),
    "auth_id beyond any state": (says(status=200, auth_id="x" * 257), 500, ""),
    "reason as a number": (says(status=403, reason=1), 500, ""),
    "a wrong type before a right one": (http_answer(b'{"status":"x","status":200}'), 500, ""),
    "NaN": (http_answer(b'{"status":200,"a":NaN}'), 500, ""),
    "deep": (http_answer(b'{"status":200,"a":' + b"[" * 9999 + b"]" * 9999 + b"}"), 500, ""),
    "price as a word": (says(status=200, maxPrice=wei("wat")), 500, ""),
    "price as an empty word": (says(status=200, maxPrice=wei("")), 500, ""),
    "price as a truth": (says(status=200, maxPrice=wei(True)), 500, ""),
    "maxPrice as a number": (says(status=200, maxPrice=5), 500, ""),
    "currency as a number": (says(status=200, maxPrice=wei(1, currency=5)), 500, ""),  # type: ignore[arg-type]
    "no price": (says(status=200, maxPrice={}), 502, "maxPrice.price must be a positive decimal"),
    "price 0": (says(status=200, maxPrice=wei(0)), 502, "maxPrice.price must be a positive decimal"),
    "negative price": (says(status=200, maxPrice=wei("-1")), 502, "maxPrice.price must be a positive decimal"),
    "enormous price": (http_answer(b'{"status":200,"maxPrice":{"price":1e999999999}}'), 502, "exponent"),
    "another unit": (says(status=200, maxPrice=wei(1, "seconds")), 502, "maxPrice.unit must be fixed"),
    "no HTTP": (b"220 mail.example ESMTP\r\n\r\n", 500, ""),
    "hangs up": (b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{", 500, ""),
    "huge": (http_answer(b" " * (1 << 20) + b'{"status":200}'), 500, ""),
    "huge head": (http_answer(b'{"status":200}', headers="X: " + "a" * 600_000 + "\r\n"), 500, ""),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_each_outcome_has_its_answer_and_releases_nothing(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, status, text = OUTCOMES[outcome]
    monkeypatch.setattr(NativeSigner, "_sign", lambda *_: pytest.fail("nothing was agreed to"))
    async with asked(raw) as signer:
        answer = await signer.pay()
        assert (answer.status, text in message(answer)) == (status, True), answer
        if text == "":
            assert answer.body == MASKED
        assert answer.orchestrator_url is None
        assert signer.times_asked == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none_and_the_connection_goes_on(status: int) -> None:
    async with asked(says(status=status, reason="unheard")) as signer:
        request = body(info(), type="fixed")
        post = b"POST /generate-live-payment HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            len(request),
            request,
        )
        reader, writer = await asyncio.open_connection(urlsplit(signer.url).hostname, urlsplit(signer.url).port)
        for _ in range(2):
            writer.write(post)
            assert f" {status} ".encode() in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (b'{"status":200,"maxPrice":null}', True),
        (b'{"status":200,"maxPrice":{"price":1,"currency":" WEI ","unit":"Fixed"}}', True),
        (b'{"status":200,"maxPrice":{"Price":"1e0","CURRENCY":"wei","unit":"fixed"}}', True),
        (b' {"status": 200, "reason": "a reason to agree"} \r\n', True),
        (b'{"status":200,"maxPrice":{"price":0.999,"currency":"wei","unit":"fixed"}}', False),
    ],
)
async def test_an_agreement_may_be_written_in_many_ways(answer: bytes, accepted: bool) -> None:
    async with asked(http_answer(answer)) as signer:
        assert (await signer.pay()).status == (200 if accepted else 481)


async def test_an_untyped_job_has_no_unit_that_a_webhooks_price_could_be_in() -> None:
    async with asked(says(status=200, maxPrice=wei(1, ""))) as signer:
        answer = await signer.pay(type="", inPixels=1)
        assert (answer.status, "requires payment type" in message(answer)) == (502, True)


# --- the question -----------------------------------------------------------------------------------------------------


async def test_the_state_shown_is_the_next_one_with_the_old_agreement() -> None:
    async with asked(says(status=200, expiry=NOW_UNIX_S + 1, auth_id="tenant"), AGREES) as signer:
        first = Paid(await signer.pay(headers={"Signer-Auth-Id": "tenant"})).state
        signer.bench.clock.advance(5)
        second = Paid(await signer.pay()).state
        shown = [question.document["state"] for question in signer.receiver.questions]
        assert (shown[0]["AuthID"], shown[0]["AuthExpiry"]) == ("", 0)
        assert (shown[1]["AuthID"], shown[1]["AuthExpiry"]) == ("tenant", NOW_UNIX_S + 1)
        for state, seen in zip((first, second), shown, strict=True):
            assert seen["StateID"] == state.state_id
            assert (seen["SequenceNumber"], seen["SenderNonce"]) == (state.sequence_number, state.sender_nonce)
            assert seen["Balance"] == str(state.balance)
        assert shown[1]["LastUpdate"] == "2026-04-07T20:00:05.123456789Z"


#: What a Go server and encoder make of GO_REQUEST and this state: written by Go 1.26, net/http and encoding/json.
GO_REQUEST_HEADERS = (
    b"Host: signer\r\nuser-agent: x\r\nAUTHORIZATION: Bearer a<b>&c\r\nx-request-id: one\r\nX-Request-ID: two\r\n"
    b'x-odd_name.a!b: a\tb "q" \\ \x80 caf\xc3\xa9 \xe2\x80\xa8 \xef\xbf\xbd \xe2\x82\r\nx-empty:\r\n'
    b"x-space:   a  b  \r\n3x-a: \xed\xa0\x80\r\nx&a: 1\r\nx: 2\r\nx!a: 3\r\nPragma: no-cache\r\nTE: trailers\r\n"
    b"signer-auth-id: t\r\nContent-Length: 2\r\n"
)
GO_HEADERS = (
    r'"3x-A":["\ufffd\ufffd\ufffd"],"Authorization":["Bearer a\u003cb\u003e\u0026c"],"Cache-Control":["no-cache"],'
    r'"Content-Length":["2"],"Pragma":["no-cache"],"Signer-Auth-Id":["t"],"Te":["trailers"],"User-Agent":["x"],'
    r'"X":["2"],"X!a":["3"],"X\u0026a":["1"],"X-Empty":[""],'
    r'"X-Odd_name.a!b":["a\tb \"q\" \\ \ufffd café \u2028 ' + "\ufffd" + r' \ufffd\ufffd"],'
    r'"X-Request-Id":["one","two"],"X-Space":["a  b"]'
)
GO_STATE = (
    r'{"StateID":"00ff","PMSessionID":"0xc65a7bb8d6351c1cf70c95a316cc6a92839c986682d98bc35f958f4883f9d2a8",'
    r'"LastUpdate":"2026-04-07T20:00:00.123456789Z","OrchestratorAddress":"0x0000000000000000000000000000000000000001",'
    r'"App":"a\u003cb\u003e\u0026\u2028\"\\\b\u0001é","AuthExpiry":-7,"SenderNonce":12,"Balance":"125/7",'
    r'"InitialPricePerUnit":150,"InitialPixelsPerUnit":175,"Type":"lv2v","SequenceNumber":3,"AuthID":"tenant"}'
)


def test_the_question_is_byte_for_byte_as_go_writes_it() -> None:
    lines = [line.split(b":", 1) for line in GO_REQUEST_HEADERS.splitlines()]
    headers = [(name.lower(), value.strip(b" ")) for name, value in lines]
    call = Call()
    state = call.state._replace(
        last_update_unix_ns=NOW_UNIX_NS,
        app='a<b>&\u2028"\\\b\x01é',
        auth_expiry_unix_s=-7,
        sender_nonce=12,
        balance=Fraction(125, 7),
        initial_price=call.state.initial_price._replace(price_per_unit=150, pixels_per_unit=175),
        type="lv2v",
    )
    assert webhook_body(headers, state) == f'{{"headers":{{{GO_HEADERS}}},"state":{GO_STATE}}}'.encode()


async def test_the_headers_of_a_real_request_are_shown_as_go_shows_them() -> None:
    async with asked() as signer:
        reader, writer = await asyncio.open_connection(urlsplit(signer.url).hostname, urlsplit(signer.url).port)
        request = body(info(), type="fixed")
        head = GO_REQUEST_HEADERS.replace(b"Content-Length: 2", b"Content-Length: %d" % len(request))
        writer.write(b"POST /generate-live-payment HTTP/1.1\r\n%b\r\n%b" % (head, request))
        assert b" 200 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
        writer.close()
        await writer.wait_closed()
        wanted = GO_HEADERS.replace('"Content-Length":["2"]', f'"Content-Length":["{len(request)}"]')
        [question] = signer.receiver.questions
        assert question.body.startswith(f'{{"headers":{{{wanted}}},"state":{{"StateID":'.encode())
        assert question.headers["content-length"] == str(len(question.body))


def test_headers_of_the_transfer_are_not_shown_and_a_given_cache_control_is_kept() -> None:
    chunked = [(b"host", b"a"), (b"transfer-encoding", b"chunked"), (b"trailer", b"X"), (b"x", b"1")]
    assert go_headers(chunked) == {"X": ["1"]}
    assert go_headers([(b"trailer", b"X")]) == {"Trailer": ["X"]}
    own = [(b"pragma", b"no-cache"), (b"cache-control", b"max-age=0")]
    assert go_headers(own) == {"Pragma": ["no-cache"], "Cache-Control": ["max-age=0"]}
    assert go_headers([(b"pragma", b"x"), (b"pragma", b"no-cache")]) == {"Pragma": ["x", "no-cache"]}


async def test_the_question_goes_to_the_url_with_the_configured_headers() -> None:
    given = {"authorization": "Bearer hook", "content-type": "application/vnd.a+json", "X-Tenant": "a, b"}
    async with asked(headers=given) as signer:
        assert (await signer.pay(headers={"authorization": "Bearer caller"})).status == 200
        [question] = signer.receiver.questions
        assert question.request_line == "POST /authorize?tenant=a%20b HTTP/1.1"
        assert question.headers["host"] == urlsplit(signer.receiver.origin).netloc
        assert question.headers["authorization"] == "Bearer hook"
        assert question.headers["content-type"] == "application/vnd.a+json"
        assert question.headers["x-tenant"] == "a, b"
    async with asked() as signer:
        await signer.pay()
        assert signer.receiver.questions[0].headers["content-type"] == "application/json"


async def test_questions_share_a_connection() -> None:
    async with asked() as signer:
        for _ in range(3):
            assert (await signer.pay()).status == 200
        assert (signer.times_asked, signer.receiver.connections) == (3, 1)


async def test_what_cannot_be_paid_is_not_asked_about() -> None:
    async with asked() as signer:
        assert (await signer.pay(info(expires_in_s=0))).status == 480
        assert (await signer.pay(headers={"Signer-Auth-Id": "x" * 257})).status == 400
        assert (await signer.post(b"{not-json")).status == 400
        signer.bench.escrow.reading = None
        assert (await signer.pay()).status == 503
        assert signer.times_asked == 0


async def test_only_payments_are_asked_about() -> None:
    async with asked() as signer:
        assert (await call(signer.url, "POST", "/sign-orchestrator-info")).status == 200
        assert (await call(signer.url, "GET", "/discover-orchestrators")).status == 404
        assert (await call(signer.url, "GET", "/healthz")).status == 200
        assert signer.times_asked == 0


# --- what may go wrong on the way -------------------------------------------------------------------------------------


async def test_a_webhook_that_never_answers_is_given_up_in_time() -> None:
    assert asking.TIMEOUT_S == 5.0
    async with asked(None, timeout_s=0.3) as signer:
        began_s = time.monotonic()
        answer = await signer.pay()
        assert (answer.status, answer.body) == (500, MASKED)
        assert 0.25 < time.monotonic() - began_s < 20
        async with asyncio.timeout(30):
            await signer.receiver.abandoned.wait()


async def test_a_webhook_that_answers_drop_by_drop_is_given_up_as_well() -> None:
    async with asked(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{", timeout_s=0.3) as signer:
        assert (await signer.pay()).body == MASKED


@asynccontextmanager
async def asking_in_vain(signer: Asked) -> AsyncIterator[None]:
    """A client whose payment is being asked about, and who hangs up when the block ends."""
    request = body(info(), type="fixed")
    _, writer = await asyncio.open_connection(urlsplit(signer.url).hostname, urlsplit(signer.url).port)
    writer.write(b"POST /generate-live-payment HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request))
    writer.write(request)
    async with asyncio.timeout(10):
        while not signer.times_asked:
            await asyncio.sleep(0.01)
    yield
    writer.close()
    await writer.wait_closed()


async def test_when_the_client_goes_the_webhook_is_given_up_at_once() -> None:
    async with asked(None, AGREES, timeout_s=60.0) as signer:
        async with asking_in_vain(signer):
            await asyncio.sleep(0.1)
            assert not signer.receiver.abandoned.is_set()
        async with asyncio.timeout(30):
            await signer.receiver.abandoned.wait()
        assert (await signer.pay()).status == 200


async def test_a_slow_webhook_keeps_no_other_caller_waiting() -> None:
    async with asked(None, AGREES, timeout_s=60.0) as signer, asking_in_vain(signer):
        assert (await signer.pay(info(recipient_rand=11))).status == 200
        assert not signer.receiver.abandoned.is_set()


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as elsewhere:
        for status in ("301 Moved Permanently", "303 See Other", "307 Temporary Redirect"):
            moved = http_answer(b'{"status":200}', status=status, headers=f"Location: {elsewhere.url}\r\n")
            async with asked(moved) as signer:
                assert (await signer.pay()).body == MASKED
        assert elsewhere.connections == 0, "the question holds the caller's credentials"


async def test_a_webhook_that_is_not_there_releases_nothing() -> None:
    async with asking_signer(Bench(), "http://127.0.0.1:9/authorize") as url:
        answer = await call(url, "POST", "/generate-live-payment", body(info(), type="fixed"))
        assert (answer.status, answer.body) == (500, MASKED)


async def test_a_webhook_that_failed_once_is_asked_again() -> None:
    async with asked(b"garbage\r\n\r\n", AGREES) as signer:
        assert (await signer.pay()).status == 500
        assert (await signer.pay()).status == 200


async def test_over_tls_the_webhook_must_prove_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    server = authority.issue()
    pem = tmp_path / "server.pem"
    pem.write_bytes(server.cert_pem + server.key_pem)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    trusted = tmp_path / "ca.pem"
    for known, status in ((authority, 200), (Authority("another"), 500)):
        trusted.write_bytes(known.cert_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        async with receiving(tls=tls) as receiver, asking_signer(Bench(), receiver.url) as url:
            answer = await call(url, "POST", "/generate-live-payment", body(info(), type="fixed"))
            assert (answer.status, len(receiver.questions)) == (status, 1 if status == 200 else 0)


async def test_what_goes_to_the_log_holds_no_url_and_no_secret() -> None:
    webhook = Webhook("http://127.0.0.1:9/authorize?token=secret", {"Authorization": "Bearer secret"})
    with pytest.raises(SignerFailed) as caught:
        await webhook.ask(b"secret")
    assert "secret" not in caught.value.message + repr(webhook)
    with pytest.raises(SignerFailed) as caught:
        asking.read_answer(HttpAnswer(200, {}, b'{"status":200,"auth_id":secret}'))
    assert "secret" not in caught.value.message


@pytest.mark.slow
async def test_the_program_asks_whom_its_settings_name_and_tells_no_secret() -> None:
    async with receiving(says(status=200, auth_id="tenant"), says(status=402, reason="no credit")) as receiver:
        with new_home() as home:
            headers = home.folder / "headers"
            headers.write_text("Authorization: Bearer top-secret\n", encoding="utf-8")
            headers.chmod(0o600)
            environment = {
                "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_URL": receiver.url,
                "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_HEADERS_FILE": str(headers),
            }
            program = await asyncio.to_thread(home.start, "signer", "--port", 0, environment=environment)
            found = await asyncio.to_thread(program.wait_for, r"^signing for 0x\w+ .*at (http://\S+)$")
            offer = info()
            offer.auth_token.expiration = 2**62
            request = body(offer, type="fixed")
            statuses = [(await call(found[1], "POST", "/generate-live-payment", request)).status for _ in range(2)]
            assert statuses == [200, 402]
            assert receiver.questions[0].headers["authorization"] == "Bearer top-secret"
            assert "top-secret" not in program.log + program.out
            assert f"asked for at {urlsplit(receiver.url).netloc}" in program.log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "settings", "told"),
    [
        (("signer", "--port", "0"), {"WEBHOOK_HEADERS": "Authorization: Bearer top-secret"}, "webhook_headers needs"),
        (("signer", "--port", "0"), {"WEBHOOK_URL": "http://u:top-secret@a/"}, "credentials do not belong into a URL"),
        (("serve",), {"WEBHOOK_URL": "https://a/?top-secret"}, "is for `clearinghouse signer`"),
        (("dev", "--http-port", "0", "--grpc-port", "0"), {"WEBHOOK_URL": "https://a/?top-secret"}, "asks no webhook"),
    ],
)
def test_a_webhook_that_would_not_be_asked_stops_the_start(
    command: tuple[str, ...], settings: dict[str, str], told: str
) -> None:
    environment = {f"CLEARINGHOUSE_SIGNER__NATIVE__{name}": value for name, value in settings.items()}
    with new_home() as home:
        done = home.run(*command, environment=environment)
        assert done.code == 1, done
        assert told in " ".join(done.err.split())
        assert "top-secret" not in done.err + done.out
