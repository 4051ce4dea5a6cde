"""What a load balancer and an operator ask: may this instance be sent calls, and if not, what is wrong?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

CHECK_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Check:
    """The result of looking at one part. `detail` says what was found, or what is wrong and what to do about it."""

    name: str
    ok: bool
    detail: str


class NotReady(Exception):
    """Raised by a probe; the text becomes the check's detail. It is shown to anybody, so it holds no secret."""


#: Looks at one part; returns what it found or raises NotReady.
Probe = Callable[[], Awaitable[str]]


class Readiness:
    """All probes together. An unexpected exception in one means not ready, with no more than its type shown.

    Anybody may ask, without a key: who asks while somebody else's look is under way hears of that one.
    """

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes
        self._look: asyncio.Task[list[Check]] | None = None

    async def checks(self) -> list[Check]:
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._looked(), name="readiness")
        return await asyncio.shield(self._look)

    async def _looked(self) -> list[Check]:
        return list(await asyncio.gather(*(self._check(name, probe) for name, probe in self._probes.items())))

    async def is_ready(self) -> bool:
        return all(check.ok for check in await self.checks())

    async def _check(self, name: str, probe: Probe) -> Check:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return Check(name, True, await probe())
        except NotReady as reason:
            return Check(name, False, str(reason))
        except TimeoutError:
            return Check(name, False, f"did not answer within {CHECK_TIMEOUT_S} s")
        except Exception as error:
            log.exception("readiness_check_failed", check=name)
            return Check(name, False, f"failed with {type(error).__name__}: see the log")
