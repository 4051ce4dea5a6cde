"""All checks at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final

from clearinghouse.checkup import (
    chain,
    chain_feed,
    configuration,
    data_dir,
    database,
    files,
    price,
    service,
    signers,
    stripe,
    tls,
    worker,
)
from clearinghouse.checkup.findings import Finding, error
from clearinghouse.config import Settings

#: Each check has shorter limits of its own; this one is for what they did not foresee.
CHECK_TIMEOUT_S: Final = 10


async def examine(settings: Settings, *, config_file: Path | None) -> list[Finding]:
    """Every finding, in the order of the checks and not of their ends."""
    checks: Mapping[str, Awaitable[list[Finding]]] = {
        "configuration": asyncio.to_thread(configuration.check, settings, config_file=config_file),
        "data directory": asyncio.to_thread(data_dir.check, settings),
        "database": database.check(settings),
        "worker": worker.check(settings),
        "signer": signers.check(settings),
        "chain": chain.check(settings),
        "chain feed": chain_feed.check(settings),
        "price": price.check(settings),
        "Stripe": stripe.check(settings),
        "TLS": asyncio.to_thread(tls.check, settings),
        "open files": asyncio.to_thread(files.check, settings.listen),
        "service": asyncio.to_thread(service.check, settings.listen),
    }
    found = await asyncio.gather(*(_within_limit(name, check) for name, check in checks.items()))
    return list(itertools.chain.from_iterable(found))


async def _within_limit(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check
    except TimeoutError:
        return [error(name, f"not known after {CHECK_TIMEOUT_S} s", "Look for what hangs: name resolution, a disk.")]
    except OSError as reason:
        return [error(name, f"cannot be looked at: {reason}", "Run as the user the service runs as.")]
