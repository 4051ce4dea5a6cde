"""The HTTP load generator. Each caller is one keep-alive connection with one call in flight and sessions of its own.

It shares the machine with what it measures, so it does as little as possible: the next request is the offer and the
bytes of `"state"` as the answer had them, neither decoded nor encoded again.
"""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from itertools import cycle

from tests.bench.jobs import Job, Result, WrongAnswer, answer_jobs, statistics
from tests.bench.offers import JOB_TYPE, TICKETS_PER_OFFER_MAX, Offers
from tests.bench.webhook_sessions import WebhookSession

ANSWER_TIMEOUT_S = 10
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Session:
    """A stream of payments: the request it sends next follows from the answer before."""

    __slots__ = ("_head", "_manifest_id", "_offer", "_offers", "_state", "_tickets_left")

    def __init__(self, offers: Offers, *, host: str, authorization: str, manifest_id: str) -> None:
        authorized = f"Authorization: {authorization}\r\n" if authorization else ""
        self._head = (
            f"POST /generate-live-payment HTTP/1.1\r\nHost: {host}\r\n{authorized}"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._manifest_id = manifest_id.encode()
        self._offers = offers
        self._offer = b""
        self._tickets_left = 0
        self._state = b"}"

    def next_request(self) -> bytes:
        if self._tickets_left == 0:
            self._offer = b'{"orchestrator":"%b","ManifestID":"%b","type":"%b"' % (
                self._offers.fresh_base64(),
                self._manifest_id,
                JOB_TYPE.encode(),
            )
            self._tickets_left = TICKETS_PER_OFFER_MAX
        self._tickets_left -= 1
        length = len(self._offer) + len(self._state)
        return b"%b%d\r\n\r\n%b%b" % (self._head, length, self._offer, self._state)

    def answered(self, body: bytes) -> None:
        """`{"payment":…,"segCreds":…,"state":{"State":…,"Sig":…}}`: its end is also the end of the next request."""
        place = body.rfind(b',"state":')
        if place < 0:
            raise WrongAnswer(f"an answer without a state: {body[:200]!r}")
        self._state = body[place:]


class Caller(asyncio.Protocol):
    """One connection. `call_until` is done when the last answer is there; sessions take turns."""

    def __init__(self, sessions: list[Session | WebhookSession], latencies_ns: array[int]) -> None:
        self._sessions = cycle(sessions)
        self._latencies_ns = latencies_ns
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._session: Session | WebhookSession | None = None
        self._sent_at_ns = self._until_ns = 0
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment] # uvloop's transports have no common base

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(ConnectionError(f"the server closed a connection: {error}"))

    async def call_until(self, until_ns: int) -> None:
        """Calls until `until_ns` of time.perf_counter_ns, at least once."""
        self._until_ns = until_ns
        self._done = asyncio.get_running_loop().create_future()
        self._call()
        await self._done

    def close(self) -> None:
        self._done = None
        if self._transport is not None:
            self._transport.close()

    def _call(self) -> None:
        assert self._transport is not None, "called after it connected"
        self._session = next(self._sessions)
        request = self._session.next_request()
        self._sent_at_ns = time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        length = _LENGTH.search(received, 0, head_end) if head_end >= 0 else None
        if length is None or len(received) < head_end + 4 + int(length[1]):
            self._received = received
            return
        now_ns = time.perf_counter_ns()
        self._received = b""
        try:
            self._answered(received, head_end + 4, now_ns)
        except WrongAnswer as error:
            self._fail(error)

    def _answered(self, received: bytes, body_at: int, now_ns: int) -> None:
        if received[9:12] != b"200":
            raise WrongAnswer(f"not a 200: {received[:1000].decode(errors='replace')}")
        assert self._session is not None
        self._session.answered(received[body_at:])
        self._latencies_ns.append(now_ns - self._sent_at_ns)
        if now_ns < self._until_ns:
            self._call()
        elif self._done is not None:
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class Fleet:
    """Callers that share nothing but the server; sessions outlive their connections."""

    def __init__(self, job: Job) -> None:
        self._host, self._port = job["host"], job["port"]
        callers = job["callers"]
        sessions = _sessions(job)
        self._sessions = [sessions[number::callers] for number in range(callers)]

    async def run(self, *, seconds: float, pause_s: float) -> Result:
        """Calls for `seconds`; with a pause, first waits for so long on connections that are open already."""
        latencies_ns = array("q")
        callers = [await self._connected(sessions, latencies_ns) for sessions in self._sessions]
        try:
            calls_before = 0
            if pause_s:
                await asyncio.gather(*(caller.call_until(0) for caller in callers))
                calls_before = len(latencies_ns)
                del latencies_ns[:]
                await asyncio.sleep(pause_s)
            started_ns = time.perf_counter_ns()
            until_ns = started_ns + int(seconds * 1e9)
            async with asyncio.timeout(seconds + ANSWER_TIMEOUT_S):
                await asyncio.gather(*(caller.call_until(until_ns) for caller in callers))
            result = statistics(latencies_ns, time.perf_counter_ns() - started_ns)
            return {**result, "answers": result["calls"] + calls_before}
        finally:
            for caller in callers:
                caller.close()

    async def _connected(self, sessions: list[Session | WebhookSession], latencies_ns: array[int]) -> Caller:
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(lambda: Caller(sessions, latencies_ns), self._host, self._port)
        return caller


def _sessions(job: Job) -> list[Session | WebhookSession]:
    """Of gateways that pay; or of a signer that asks about theirs, where the job has the signer's secret."""
    host, authorizations = job["host"], job["authorizations"]
    if signer_authorization := job.get("signer_authorization"):
        return [
            WebhookSession(host=host, authorization=authorization, signer_authorization=signer_authorization)
            for authorization in authorizations
        ]
    offers = Offers()
    return [
        Session(offers, host=host, authorization=authorization, manifest_id=f"bench-{number}")
        for number, authorization in enumerate(authorizations)
    ]


def main() -> None:
    fleets: dict[str, Fleet] = {}

    async def run(job: Job) -> Result:
        if job["fleet"] not in fleets:
            fleets[job["fleet"]] = Fleet(job)
        return await fleets[job["fleet"]].run(seconds=job["seconds"], pause_s=job.get("pause_s", 0))

    answer_jobs(run)


if __name__ == "__main__":
    main()
