"""The end of a gRPC port: what was accepted is answered, nothing more is accepted, and nobody can put it off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from clearinghouse.rpc.frames import ACK, Code, Kind, frame, goaway
from tests.clearinghouse.rpc.port_parts import (
    DEAF,
    ECHO,
    LARGE,
    LARGE_BYTES,
    NEVER,
    PATIENT,
    STREAM,
    STUBBORN,
    WIDE_OPEN,
    Port,
    running,
    until,
    visiting,
)


@contextlib.asynccontextmanager
async def closing(port: Port, grace_s: float) -> AsyncIterator[None]:
    task = asyncio.create_task(port.rpc.close(grace_s))
    yield
    async with asyncio.timeout(30):
        await task


async def test_what_was_accepted_is_answered_nothing_more_is_and_the_idle_end() -> None:
    async with running() as port, visiting(port) as busy, visiting(port) as idle:
        stream_id = busy.ask(NEVER, b"hello")
        await idle.answer(idle.ask(ECHO, b"hello"))
        await until(lambda: NEVER in port.work.begun)
        async with closing(port, 60):
            await idle.hears_all()
            assert idle.goodbyes == [Code.NO_ERROR] * 2  # soon, and now
            assert (await busy.answer(busy.ask(ECHO, b"hello"))).reset is Code.REFUSED_STREAM
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port.number)
            port.work.let_go.set()
            assert (await busy.answer(stream_id)).messages == [b"hello"]
            await busy.hears_all()
        assert port.cuts() == {}


async def test_what_arrives_after_a_goodbye_is_answered_until_the_client_has_heard_of_it() -> None:
    async with running() as port, visiting(port) as visitor:
        await visitor.answer(visitor.ask(ECHO, b"hello"))
        async with closing(port, 5):
            while not visitor.pinged:
                assert await visitor.hears()
            late = visitor.ask(ECHO, b"late")
            assert (await visitor.answer(late)).messages == [b"late"]
            visitor.say(frame(Kind.PING, ACK, 0, visitor.pinged))
            assert (await visitor.answer(visitor.ask(ECHO, b"too late"))).reset is Code.REFUSED_STREAM
            await visitor.hears_all()  # and closed, though the client does not
        assert visitor.last_stream_ids == [(1 << 31) - 1, late]


async def test_calls_beyond_the_grace_end_with_unavailable() -> None:
    async with running() as port, visiting(port) as visitor:
        stream_ids = [
            visitor.ask(NEVER, b"hello"),
            visitor.ask(STREAM, b"hello", is_end=False),
            visitor.ask(DEAF, b"hello"),
            visitor.ask(ECHO, is_end=False),
        ]
        await until(lambda: port.calls.taken_count == 4)
        async with closing(port, 0.1):
            for stream_id in stream_ids:
                assert (await visitor.answer(stream_id)).status is grpc.StatusCode.UNAVAILABLE
            await visitor.hears_all()
        assert port.work.cancelled == [NEVER, STREAM, DEAF]


async def test_an_answer_that_is_not_taken_within_the_grace_is_taken_back() -> None:
    async with running() as port, visiting(port) as visitor:
        stream_id = visitor.ask(LARGE, b"")
        await until(lambda: port.work.begun)
        async with closing(port, 0.1):
            assert (await visitor.answer(stream_id)).reset is Code.CANCEL
            await visitor.hears_all()


async def test_who_does_not_read_cannot_put_it_off() -> None:
    async with running() as port, visiting(port, hello=WIDE_OPEN) as visitor:
        for _ in range(3):
            visitor.ask(LARGE, b"")
        visitor.ask(NEVER, b"")
        await until(lambda: len(port.work.begun) == 4)
        started_s = time.monotonic()
        async with closing(port, 0.1):
            pass
        assert time.monotonic() - started_s < 20
        assert port.is_empty()


async def test_work_that_has_something_to_bring_to_an_end_is_waited_for() -> None:
    async with running() as port, visiting(port) as visitor:
        visitor.ask(STUBBORN, b"hello")
        await until(lambda: port.work.begun)
        visitor.leave()
        await until(port.is_empty)
        task = asyncio.create_task(port.rpc.close(0))
        await until(lambda: not port.rpc.open)
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done
        port.work.let_go.set()
        async with asyncio.timeout(30):
            await task
        assert port.work.cancelled == [STUBBORN]


async def test_who_leaves_gets_all_of_its_answer_and_what_it_says_after_that_harms_nobody() -> None:
    """The connection is closing by then, and waits until everything is sent."""
    async with running() as port, visiting(port, hello=WIDE_OPEN) as visitor:
        stream_id = visitor.ask(LARGE, b"")
        visitor.say(goaway(0, Code.NO_ERROR))
        await until(lambda: port.work.begun)
        for _ in range(3):
            visitor.ask(ECHO, b"hello")
            visitor.say(frame(Kind.PING, 0, 0, bytes(8)))
        assert (await visitor.answer(stream_id)).messages == [bytes(LARGE_BYTES)]
        await visitor.hears_all()
        await until(port.is_empty)


@pytest.mark.parametrize("turns", range(6))
async def test_a_port_that_closes_forgets_no_connection_that_it_has_just_accepted(turns: int) -> None:
    """However far it has come by then: after some of these turns of the event loop it is accepted and not begun."""
    with socket.socket() as visitor:
        async with running() as port:
            visitor.connect(("127.0.0.1", port.number))
            visitor.shutdown(socket.SHUT_WR)  # so that nobody waits for it at the end
            for _ in range(turns):
                await asyncio.sleep(0)
        visitor.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            while visitor.recv(100):
                pass


async def test_of_clients_that_call_all_the_time_every_call_that_was_begun_is_answered() -> None:
    """It is the books that are asked: what has begun here, and what has been answered there."""
    answered_count = 0

    async def call_on(target: str) -> None:
        nonlocal answered_count
        channel: Any
        async with grpc.aio.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            echo = channel.unary_unary(ECHO)
            with contextlib.suppress(grpc.aio.AioRpcError):
                while True:
                    assert await echo(b"hello") == b"hello"
                    answered_count += 1

    async with running(replace(PATIENT, calls_per_connection_max_count=8)) as port:
        clients = [asyncio.create_task(call_on(port.target)) for _ in range(8)]
        await until(lambda: answered_count > 100)
        async with closing(port, 30):
            pass
        async with asyncio.timeout(30):
            await asyncio.gather(*clients)
        assert port.work.begun.count(ECHO) == answered_count
        assert port.work.cancelled == []


async def test_a_port_that_never_listened_closes() -> None:
    async with running() as port:
        await port.rpc.close(0)
        await port.rpc.close(0)
