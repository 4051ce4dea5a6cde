"""A node's word, over a WebSocket, that something happened to our escrows: at which block it is worth to look now.

Nothing of it is believed. Readings go through the quorum as ever, and go on when there is no word; a word only makes
them begin sooner.

Subscribed are the logs that are read anyway (log_reader.filters), and not the newest blocks: Arbitrum makes four of
them a second, 350,000 messages a day that providers charge for, and hardly one of those blocks has to do with us. So
that a connection which has gone silent shows all the same, the newest block's number is asked for over it, and again:

    ──▶ eth_chainId                     ◀── 0xa4b1
    ──▶ eth_subscribe logs (escrows)    ◀── id         ──▶ eth_blockNumber  ◀── 0x64     it must answer, and go up
    ──▶ eth_subscribe logs (rounds)     ◀── id         ◀── a log of block 0x66           look at 0x66
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from chain import shallow_json
from chain.quorum import read_uint
from chain.rpc import RpcError

CONNECT_TIMEOUT_S: Final = 10
#: A log has some hundred bytes.
MESSAGE_BYTES_MAX: Final = 256 * 1024
#: Questions in the time after which a connection counts as silent.
_QUESTIONS_COUNT: Final = 3


class Ending(StrEnum):
    """Why a feed ended: a closed set, fit for a metric's label."""

    CONNECTION_FAILED = "connection_failed"
    CLOSED = "closed"
    #: Nothing was answered for too long, or the newest block stayed what it was.
    SILENT = "silent"
    #: A subscription or a question was answered with an error.
    REFUSED = "refused"
    MALFORMED = "malformed"
    WRONG_CHAIN = "wrong_chain"


class FeedEnded(Exception):
    """There is nothing more to come. Names no URL: providers put their keys into it."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


async def listen(
    url: str,
    filters: Sequence[Mapping[str, Any]],
    *,
    chain_id: int,
    silent_max_s: float,
    subscribed: Callable[[], None],
    heard: Callable[[int], None],
    is_wanted: Callable[[], bool],
) -> None:
    """Calls `heard` with the block of every log that one of the `filters` lets through, `subscribed` once before.

    Returns soon after `is_wanted` says no. Raises FeedEnded.
    """
    try:
        # What a library logs may have the URL in it. Neither a proxy of the environment nor compression is wanted.
        socket = await connect(
            url, logger=_silent_logger(), user_agent_header="livepeer-clearinghouse", proxy=None, compression=None,
            open_timeout=CONNECT_TIMEOUT_S, close_timeout=1, ping_interval=None, max_size=MESSAGE_BYTES_MAX,
        )  # fmt: skip
    except (WebSocketException, OSError, TimeoutError):
        raise FeedEnded(Ending.CONNECTION_FAILED) from None
    try:
        await _Feed(socket, silent_max_s, subscribed, heard).run(chain_id, filters, is_wanted)
    except (WebSocketException, OSError):
        raise FeedEnded(Ending.CLOSED) from None
    finally:
        await socket.close()


class _Feed:
    """One connection."""

    def __init__(
        self,
        socket: ClientConnection,
        silent_max_s: float,
        subscribed: Callable[[], None],
        heard: Callable[[int], None],
    ) -> None:
        self._socket = socket
        self._silent_max_s = silent_max_s
        self._subscribed, self._heard = subscribed, heard
        #: Of the logs that were asked for: what is pushed under another id is nobody's business here.
        self._ids: set[str] = set()
        self._asked_count = 0
        self._awaited: dict[int, Callable[[Any], None]] = {}
        self._newest_number = -1
        self._rose_at_s = time.monotonic()

    async def run(self, chain_id: int, filters: Sequence[Mapping[str, Any]], is_wanted: Callable[[], bool]) -> None:
        await self._ask("eth_chainId", [], partial(_require_chain, chain_id))
        for each in filters:
            await self._ask("eth_subscribe", ["logs", each], partial(self._take_subscription, len(filters)))
        pause_s = self._silent_max_s / _QUESTIONS_COUNT
        while is_wanted():
            await self._ask("eth_blockNumber", [], self._take_newest)
            await self._hear(pause_s)
            if time.monotonic() - self._rose_at_s > self._silent_max_s:
                raise FeedEnded(Ending.SILENT)

    async def _hear(self, for_s: float) -> None:
        try:
            async with asyncio.timeout(for_s):
                while True:
                    self._take(await self._socket.recv())
        except TimeoutError:
            return

    async def _ask(self, method: str, params: Sequence[Any], take: Callable[[Any], None]) -> None:
        self._asked_count += 1
        self._awaited[self._asked_count] = take
        question = {"jsonrpc": "2.0", "id": self._asked_count, "method": method, "params": params}
        try:
            async with asyncio.timeout(self._silent_max_s):  # whoever does not read does not answer either
                await self._socket.send(json.dumps(question))
        except TimeoutError:
            raise FeedEnded(Ending.SILENT) from None

    def _take(self, message: str | bytes) -> None:
        """An answer or a log. Raises FeedEnded."""
        try:
            said = shallow_json.loads(message)
        except ValueError:
            raise FeedEnded(Ending.MALFORMED) from None
        if not isinstance(said, dict):
            raise FeedEnded(Ending.MALFORMED)
        if said.get("error") is not None:
            raise FeedEnded(Ending.REFUSED)
        if said.get("method") == "eth_subscription":
            self._take_log(said.get("params"))
            return
        number = said.get("id")
        take = self._awaited.pop(number, None) if type(number) is int else None
        if take is None:
            raise FeedEnded(Ending.MALFORMED)
        take(said.get("result"))

    def _take_subscription(self, wanted_count: int, id_: Any) -> None:
        if not isinstance(id_, str):
            raise FeedEnded(Ending.MALFORMED)
        self._ids.add(id_)
        if len(self._ids) == wanted_count:
            self._subscribed()

    def _take_newest(self, result: Any) -> None:
        if (number := _number(result)) > self._newest_number:
            self._newest_number, self._rose_at_s = number, time.monotonic()

    def _take_log(self, params: Any) -> None:
        """One that was taken back, in a reorganisation, is worth a look too."""
        if not isinstance(params, dict) or not isinstance(params.get("result"), dict):
            raise FeedEnded(Ending.MALFORMED)
        id_ = params.get("subscription")
        if isinstance(id_, str) and id_ in self._ids:
            self._heard(_number(params["result"].get("blockNumber")))


def _require_chain(chain_id: int, result: Any) -> None:
    if _number(result) != chain_id:
        raise FeedEnded(Ending.WRONG_CHAIN)


def _number(result: Any) -> int:
    try:
        return read_uint(result)
    except RpcError:
        raise FeedEnded(Ending.MALFORMED) from None


def _silent_logger() -> logging.Logger:
    """Of nobody's: it is in no hierarchy, and says nothing."""
    return logging.Logger("websocket", level=logging.CRITICAL + 1)
