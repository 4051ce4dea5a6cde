"""The gRPC load generator: unary SignTicket calls, each caller on a connection of its own, as in tests.bench.load."""

from __future__ import annotations

import asyncio
import base64
import time
from array import array
from itertools import cycle

import grpc

from clearinghouse.api.pb import clearinghouse_pb2 as pb
from tests.bench.jobs import Job, Result, WrongAnswer, answer_jobs, statistics
from tests.bench.offers import JOB_TYPE, TICKETS_PER_OFFER_MAX, Offers

METHOD = "/livepeer.clearinghouse.v1.Clearinghouse/SignTicket"
ANSWER_TIMEOUT_S = 10
#: Without it all channels to one target would share one connection.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


class Session:
    """A stream of payments over gRPC."""

    def __init__(self, offers: Offers, *, authorization: str, manifest_id: str) -> None:
        self.metadata = (("authorization", authorization),)
        self._offers = offers
        self._tickets_left = 0
        self._request = pb.SignTicketRequest(manifest_id=manifest_id, type=JOB_TYPE)

    def next_request(self) -> bytes:
        if self._tickets_left == 0:
            self._request.orchestrator = self._offers.fresh()
            self._tickets_left = TICKETS_PER_OFFER_MAX
        self._tickets_left -= 1
        encoded: bytes = self._request.SerializeToString()
        return encoded

    def answered(self, encoded: bytes) -> None:
        self._request.state.CopyFrom(pb.SignTicketResponse.FromString(encoded).state)
        if not self._request.state.sig:
            raise WrongAnswer("an answer without a state")


class Fleet:
    """Callers with a channel each."""

    def __init__(self, job: Job) -> None:
        self._target = f"{job['host']}:{job['port']}"
        offers, callers = Offers(), job["callers"]
        sessions = [
            Session(offers, authorization=authorization, manifest_id=f"bench-grpc-{number}")
            for number, authorization in enumerate(job["authorizations"])
        ]
        self._sessions = [cycle(sessions[number::callers]) for number in range(callers)]
        #: An answer as it came, for the echo server to repeat.
        self._sample = b""

    async def run(self, *, seconds: float) -> Result:
        latencies_ns = array("q")
        channels = [grpc.aio.insecure_channel(self._target, options=_OWN_CONNECTION) for _ in self._sessions]
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await asyncio.gather(*(channel.channel_ready() for channel in channels))
            started_ns = time.perf_counter_ns()
            until_ns = started_ns + int(seconds * 1e9)
            calls = [
                self._call_until(until_ns, channel, sessions, latencies_ns)
                for channel, sessions in zip(channels, self._sessions, strict=True)
            ]
            await asyncio.gather(*calls)
            result = statistics(latencies_ns, time.perf_counter_ns() - started_ns)
        except grpc.aio.AioRpcError as error:
            raise WrongAnswer(f"{error.code()}: {error.details()}") from error
        finally:
            await asyncio.gather(*(channel.close(None) for channel in channels))
        return {**result, "answers": result["calls"], "sample": base64.b64encode(self._sample).decode()}

    async def _call_until(
        self, until_ns: int, channel: grpc.aio.Channel, sessions: cycle[Session], latencies_ns: array[int]
    ) -> None:
        sign_ticket = channel.unary_unary(METHOD, None, None)
        now_ns = 0
        while now_ns < until_ns:
            session = next(sessions)
            request = session.next_request()
            sent_at_ns = time.perf_counter_ns()
            answer = await sign_ticket(request, metadata=session.metadata, timeout=ANSWER_TIMEOUT_S)
            now_ns = time.perf_counter_ns()
            latencies_ns.append(now_ns - sent_at_ns)
            session.answered(answer)
            self._sample = answer


def main() -> None:
    fleets: dict[str, Fleet] = {}

    async def run(job: Job) -> Result:
        if job["fleet"] not in fleets:
            fleets[job["fleet"]] = Fleet(job)
        return await fleets[job["fleet"]].run(seconds=job["seconds"])

    answer_jobs(run)


if __name__ == "__main__":
    main()
