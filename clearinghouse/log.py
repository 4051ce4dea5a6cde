"""Structured logs on standard error: one event a line, UTC, without secrets.

Our own code logs through structlog; uvicorn, alembic, grpc and whatever else uses the standard library's logging come
out in the same form. A sign that succeeded is not logged, it is in the issuance table; a refusal is, with its code.
Secrets are taken out as a last step before rendering, by the name they are logged under and by what they look like.
That is a net, not a licence: nothing should log a secret in the first place.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from clearinghouse.config import LogSettings

REDACTED: Final = "[redacted]"
_SECRET_NAME: Final = re.compile(
    r"authorization|secret|passw|pepper|token|api_?key|dsn|database_url|conninfo|cookie", re.IGNORECASE
)
#: An identifier, a count or a place may be shown: `api_key_id`, `token_count`, `pepper_file`.
_SHOWN_NAME: Final = re.compile(r"_(id|count|file|name)$", re.IGNORECASE)
_SECRET_TEXTS: Final = (
    # The public part stays, of an API key and of a webhook secret.
    (re.compile(r"\b((?:lpch|lpws)_[0-9A-Za-z]+_)[0-9A-Za-z_-]+"), rf"\1{REDACTED}"),
    # Stripe's, of its API and of its webhooks.
    (re.compile(r"\b((?:sk|rk)_(?:live|test)_|whsec_)[0-9A-Za-z_-]{6,}"), rf"\1{REDACTED}"),
    (re.compile(r"//[^/@\s]+@"), f"//{REDACTED}@"),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"',]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\b(password\s*=\s*)('[^']*'|[^\s'\"]+)", re.IGNORECASE), rf"\1{REDACTED}"),
)
#: Larger integers lose digits in readers that take every number for a float: wei are written as text.
_JSON_INTEGER_MAX: Final = 2**53 - 1


def configure_logging(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Sets up logging for this process; again to change it. `stream` is standard error unless given."""
    level = getattr(logging, settings.level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,  # to text, so that it is searched for secrets too
                redact,
                _renderer(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "alembic", "grpc"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name in ("stripe", "httpx"):  # at info they tell of every request
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # at info it tells every start which dialect it speaks
    # A line per call would cost more than the call, and say less than the issuance table.
    logging.getLogger("uvicorn.access").disabled = True


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Every value as plain data, without secrets."""
    return {name: _plain(name, value) for name, value in event.items()}


def _plain(name: str, value: Any) -> Any:
    if value is None or type(value) is bool:
        return value
    if _SECRET_NAME.search(name) and not _SHOWN_NAME.search(name):
        return REDACTED
    if type(value) is int:
        return value if abs(value) <= _JSON_INTEGER_MAX else str(value)
    if type(value) is float:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, item) for item in value]
    return without_secrets(str(value))


def without_secrets(text: str) -> str:
    """The text, without what looks like a secret of ours: keys, webhook secrets, bearer tokens, passwords in URLs."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def _renderer(settings: LogSettings) -> Processor:
    if settings.format == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time", sort_keys=False)
