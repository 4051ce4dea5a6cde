"""Idempotency keys, as Stripe honours them: the first answer again, whatever it was, once the work had begun."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.store import Store

KEPT_S: Final = 24 * 3600
LENGTH_MAX: Final = 255
#: Kept beside the objects, so that they outlive a restart together.
RECORD: Final = "_idempotency"


def fingerprint(method: str, path: str, body: str) -> str:
    """What must be the same for a key to mean the same request."""
    return hashlib.sha256(f"{method} {path}\n{body}".encode()).hexdigest()


class IdempotencyKeys:
    """The keys that are in use now; those that were used are in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._in_use: set[str] = set()

    @contextmanager
    def using(self, api_key: str, key: str, print_: str, now_s: int) -> Iterator[Json | None]:
        """For the time of a request: the record of its first time, or None if this is it.

        Raises StripeError: 400 where the key stands for another request, 409 while the first is being worked on.
        """
        record_id = record_id_of(api_key, key)
        if record_id in self._in_use:
            text = f"There is currently another in-progress request using this Idempotent Key: {key}"
            raise StripeError(text, status=409, kind="idempotency_error", code="idempotency_key_in_use")
        record = self._store.get(record_id)
        if record is not None and now_s - record["created"] >= KEPT_S:
            record = None
        if record is not None and record["print"] != print_:
            text = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request."
            )
            raise StripeError(text, kind="idempotency_error")
        self._in_use.add(record_id)
        try:
            yield record
        finally:
            self._in_use.discard(record_id)


def record_id_of(api_key: str, key: str) -> str:
    """Where the record of a key is kept. Keys of different API keys have nothing to do with each other."""
    if len(key) > LENGTH_MAX:
        raise StripeError(f"Idempotency keys may have at most {LENGTH_MAX} characters.", kind="idempotency_error")
    return f"{RECORD}:{hashlib.sha256(api_key.encode()).hexdigest()[:16]}:{key}"


def record(record_id: str, print_: str, now_s: int, status: int, body: str) -> Json:
    """What is remembered of a request that was worked on."""
    return {"id": record_id, "object": RECORD, "print": print_, "created": now_s, "status": status, "body": body}
