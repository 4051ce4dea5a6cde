"""Which Stripe the commands ask that work on the books of a `clearinghouse dev --stripe-local`: its own.

DATA_DIR/stripe-local.jsonl   the journal of that Stripe, locked for as long as it lives
DATA_DIR/stripe-local.url     where it listens, mode 0600; gone when it ends. One that a kill left there counts for
                              nothing: nobody holds the lock, and whoever takes it removes that file first

It is for the embedded database alone: in one data directory are the books and the Stripe that belong together. Books
elsewhere may be anybody's, and are never shown a Stripe that was not configured for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from clearinghouse.cli.context import BadConfiguration, settings_of

if TYPE_CHECKING:
    from clearinghouse.config import Settings

JOURNAL: Final = "stripe-local.jsonl"
_URL: Final = "stripe-local.url"
#: Whoever sets one of these means another Stripe, or none.
_CONFIGURED: Final = frozenset({"api_key", "api_url", "livemode"})
_LOCK_TIMEOUT_S: Final = 1  # a command may be looking whether anybody holds it


def settings_with_stripe(data_dir: Path | None, *, config: Path | None = None) -> Settings:
    """The settings of a command that talks to Stripe. What is configured wins; whose Stripe is asked is said.

    Raises BadConfiguration.
    """
    from clearinghouse.demo import with_local_stripe

    settings = settings_of(data_dir, config=config)
    try:
        url = _url_of_dev(settings)
    except OSError as error:
        raise BadConfiguration(f"the local Stripe of `clearinghouse dev` cannot be looked up: {error}") from error
    if url is None:
        return settings
    typer.echo(f"TEST MODE: asking the local Stripe of `clearinghouse dev` at {url}. No money moves.", err=True)
    local = with_local_stripe(settings)
    return local.model_copy(update={"stripe": local.stripe.model_copy(update={"api_url": url})})


@contextmanager
def journal_locked(data_dir: Path) -> Iterator[Path]:
    """The journal, for one local Stripe at a time. Raises BadConfiguration while there is another."""
    from clearinghouse.database.file_locks import exclusive_lock

    journal = data_dir / JOURNAL
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(journal, timeout_s=_LOCK_TIMEOUT_S))
        except TimeoutError as error:
            raise BadConfiguration(f"{journal} is in use: does another `clearinghouse dev` run here?") from error
        (data_dir / _URL).unlink(missing_ok=True)  # what a kill left: with the lock held it would be believed
        yield journal


@contextmanager
def url_told(data_dir: Path, url: str) -> Iterator[None]:
    """While the block lasts, commands find it. For whoever holds the journal's lock."""
    from clearinghouse.secrets import replace

    file = data_dir / _URL
    replace(file, url)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _url_of_dev(settings: Settings) -> str | None:
    """None where something of Stripe is configured, or nothing runs. Raises OSError."""
    from clearinghouse.database.file_locks import SharedLock

    is_configured = not _CONFIGURED.isdisjoint(settings.stripe.model_fields_set)
    if is_configured or settings.database_url is not None or settings.admin_database_url is not None:
        return None
    try:
        url = (settings.data_dir / _URL).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    try:
        SharedLock(settings.data_dir / JOURNAL, timeout_s=0).release()
    except TimeoutError:
        return url  # it is held: somebody lives there
    return None
