"""Endpoints that are listened to: each is of the chain and takes subscriptions. Without them nothing is missed."""

from __future__ import annotations

import asyncio
from typing import Final

from chain.contracts import Contracts
from chain.log_reader import filters
from chain.networks import NETWORKS
from clearinghouse.checkup.findings import Finding, ok, warning
from clearinghouse.config import Settings
from clearinghouse.config_chain import ChainSettings

NAME: Final = "chain feed"
TIMEOUT_S: Final = 5
#: The logs of nobody: whether they are taken is what matters.
_NOBODY: Final = bytes(20)


async def check(settings: Settings) -> list[Finding]:
    """Nothing where none is configured."""
    urls = [url.get_secret_value() for url in settings.chain.ws_urls or ()]
    return [*await asyncio.gather(*(_endpoint(f"ws-{at}", url, settings.chain) for at, url in enumerate(urls, 1)))]


async def _endpoint(endpoint: str, url: str, chain: ChainSettings) -> Finding:
    from chain.log_feed import FeedEnded, listen  # noqa: PLC0415 - a tenth of a second that few need

    name = f"{NAME} {endpoint}"
    subscribed = asyncio.Event()
    listening = asyncio.create_task(
        listen(
            url, filters(Contracts(*[_NOBODY] * 4), [_NOBODY]), chain_id=NETWORKS[chain.network].chain_id,
            silent_max_s=TIMEOUT_S, subscribed=subscribed.set, heard=lambda _: None, is_wanted=lambda: True,
        )
    )  # fmt: skip
    waiting = asyncio.create_task(subscribed.wait())
    try:
        await asyncio.wait([listening, waiting], timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if subscribed.is_set():
            return ok(name, f"is of {chain.network} and takes subscriptions")
        ended = listening.exception() if listening.done() else None
        said = str(ended) if isinstance(ended, FeedEnded) else f"no answer within {TIMEOUT_S} s"
        return warning(name, f"is of no use: {said}", "Check its URL and its key. Polls go on without it.")
    finally:
        listening.cancel()
        waiting.cancel()
        await asyncio.gather(listening, waiting, return_exceptions=True)
