"""A desk at which the process dies: before or after any call to Stripe, before or after any commit.

for desk in every_crash(till.desk): …      # the first step, the second, … until one run meets no crash
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.stripe_link.client import StripeLink
from settlement.stripe_link.desk import Desk

_T = TypeVar("_T")


class Crash(BaseException):
    """The process is no more. Nothing of ours may catch it."""


@contextmanager
def it_may_crash() -> Iterator[None]:
    """What ends in the block, has ended, be it in one of several tasks; others go on after it."""
    try:
        yield
    except Crash:
        return
    except BaseExceptionGroup as group:
        _, others = group.split(Crash)
        if others is not None:
            raise others from None


class Fuse:
    """Blows at the step with this number. `steps` are those that were met."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.steps: list[str] = []

    @property
    def has_blown(self) -> bool:
        return len(self.steps) >= self._at

    def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) == self._at:
            self.blow(name)

    def blow(self, name: str) -> None:
        raise Crash(name)


class CrashingLink(StripeLink):
    def __init__(self, link: StripeLink, fuse: Fuse) -> None:
        self.__dict__.update(link.__dict__)
        self._fuse = fuse

    async def call(
        self,
        function: Callable[..., Awaitable[_T]],
        *args: str,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> _T:
        name = getattr(function, "__qualname__", "a call")
        self._fuse.step(f"before {name}")
        made = await super().call(function, *args, params=params, idempotency_key=idempotency_key)
        self._fuse.step(f"after {name}")
        return made


class CrashingDesk(Desk):
    """`fuse` tells where it died."""

    def __init__(self, desk: Desk, at: int) -> None:
        fuse = Fuse(at)
        super().__init__(CrashingLink(desk.link, fuse), desk.engine)
        object.__setattr__(self, "_fuse", fuse)

    __slots__ = ("_fuse",)

    @property
    def fuse(self) -> Fuse:
        fuse: Fuse = self._fuse  # type: ignore[attr-defined] # a slot
        return fuse

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with super().transaction() as connection:
            yield connection
            self.fuse.step("before the commit")
        self.fuse.step("after the commit")


def until(desk: CrashingDesk, step: str) -> None:
    """It dies at the first step of this name."""
    fuse = desk.fuse

    def step_of(name: str) -> None:
        fuse.steps.append(name)
        if name == step:
            raise Crash(name)

    fuse.step = step_of  # type: ignore[method-assign]
