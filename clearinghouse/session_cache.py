"""The newest state of recent sessions, in memory: a continuing stream costs no read.

Another process may have advanced a session since. So what is found here may let a request proceed (the commit decides
again) or repeat an answer (which was released once), but a refusal is confirmed by the database first.
"""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

from clearinghouse.lookups import SessionFinding, SessionLookup
from clearinghouse.sessions import RandUse, Session

#: Answers are two kilobytes as a rule; large ones must not fill the memory.
ANSWERS_MAX_BYTES = 96 * 1024 * 1024


class SessionCache:
    """Least recently used sessions, found by id and by the recipientRandHash they use at present."""

    def __init__(self, *, sessions_max_count: int, answers_max_bytes: int = ANSWERS_MAX_BYTES) -> None:
        self._sessions_max_count = sessions_max_count
        self._answers_max_bytes = answers_max_bytes
        self._answers_bytes = 0
        self._sessions: OrderedDict[UUID, tuple[Session, bytes, RandUse]] = OrderedDict()
        self._by_rand: dict[bytes, UUID] = {}

    def find(self, lookup: SessionLookup) -> SessionFinding | None:
        """None when memory cannot tell: then the database must."""
        user = self._sessions.get(self._by_rand.get(lookup.recipient_rand_hash, _NOBODY))
        if lookup.session_id is None:
            return SessionFinding(None, user[2], user[0]) if user is not None else None
        own = self._sessions.get(lookup.session_id)
        if own is None or user is None:
            return None
        return SessionFinding(own[0], user[2], user[0])

    def remember(self, session: Session, recipient_rand_hash: bytes, last_nonce: int) -> None:
        self.forget(session.id)
        rand = RandUse(session.id, session.gateway_id, last_nonce)
        self._sessions[session.id] = (session, recipient_rand_hash, rand)
        self._by_rand[recipient_rand_hash] = session.id
        self._answers_bytes += len(session.answer)
        while len(self._sessions) > self._sessions_max_count or self._answers_bytes > self._answers_max_bytes:
            self.forget(next(iter(self._sessions)))

    def forget(self, session_id: UUID) -> None:
        known = self._sessions.pop(session_id, None)
        if known is None:
            return
        self._answers_bytes -= len(known[0].answer)
        if self._by_rand.get(known[1]) == session_id:
            del self._by_rand[known[1]]


_NOBODY = UUID(int=0)
