"""A program on a machine whose clock is wrong, for as long as it runs.

    python -m tests.parts.wrong_clock SECONDS MODULE [ARGUMENT…]

Python asks the machine in two places, and both are replaced before anything else is loaded. SECONDS are added: with
some below nothing the clock is slow.
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time
from typing import Any

_RIGHT = datetime.datetime


class _IsOne(type):
    """What a library in C has made is an instance too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _RIGHT)


def put_wrong(by_s: float) -> None:
    """Of this process, from now on, for whatever is imported afterwards."""

    class Wrong(_RIGHT, metaclass=_IsOne):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _RIGHT.now(tz) + datetime.timedelta(seconds=by_s)

    right = time.time
    datetime.datetime = Wrong  # type: ignore[misc]
    time.time = lambda: right() + by_s


if __name__ == "__main__":
    _, seconds, module, *arguments = sys.argv
    put_wrong(float(seconds))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
