"""The newest state of recent sessions, in memory: a continuing stream costs no read.

Another process may have advanced a session since. So what is found here may let a request proceed (the commit decides
again) or repeat an answer (which was released once), but a refusal is confirmed by the database first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple
from uuid import UUID

from clearinghouse.lookups import SessionFinding, SessionLookup
from clearinghouse.sessions import RandUse, Session

#: Answers are two kilobytes as a rule; large ones must not fill the memory.
ANSWERS_MAX_BYTES = 96 * 1024 * 1024


class _Known(NamedTuple):
    session: Session
    recipient_rand_hash: bytes
    rand: RandUse


class SessionCache:
    """Least recently used sessions, found by id and by the recipientRandHash they use at present."""

    def __init__(self, *, sessions_max_count: int, answers_max_bytes: int = ANSWERS_MAX_BYTES) -> None:
        self._sessions_max_count = sessions_max_count
        self._answers_max_bytes = answers_max_bytes
        self._answers_bytes = 0
        #: By the session's id as a number, which hashes and compares faster than a UUID.
        self._sessions: OrderedDict[int, _Known] = OrderedDict()
        self._by_rand: dict[bytes, _Known] = {}

    def find(self, lookup: SessionLookup) -> SessionFinding | None:
        """None when memory cannot tell: then the database must."""
        user = self._by_rand.get(lookup.recipient_rand_hash)
        if user is None:
            return None
        if lookup.session_id is None:
            return SessionFinding(None, user.rand, user.session)
        own = self._sessions.get(lookup.session_id.int)
        return SessionFinding(own.session, user.rand, user.session) if own is not None else None

    def remember(self, session: Session, recipient_rand_hash: bytes, last_nonce: int) -> None:
        self.forget(session.id)
        known = _Known(session, recipient_rand_hash, RandUse(session.id, session.gateway_id, last_nonce))
        self._sessions[session.id.int] = self._by_rand[recipient_rand_hash] = known
        self._answers_bytes += _kept_bytes(session)
        while len(self._sessions) > self._sessions_max_count or self._answers_bytes > self._answers_max_bytes:
            self.forget(next(iter(self._sessions.values())).session.id)

    def forget(self, session_id: UUID) -> None:
        known = self._sessions.pop(session_id.int, None)
        if known is None:
            return
        self._answers_bytes -= _kept_bytes(known.session)
        if self._by_rand.get(known.recipient_rand_hash) is known:
            del self._by_rand[known.recipient_rand_hash]


def _kept_bytes(session: Session) -> int:
    return len(session.answer) + (len(session.approved) if session.approved is not None else 0)
