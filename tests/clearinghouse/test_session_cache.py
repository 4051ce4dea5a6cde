"""What is remembered of sessions is bounded, in number and in bytes."""

from __future__ import annotations

from uuid import UUID

from clearinghouse.lookups import SessionLookup
from clearinghouse.session_cache import SessionCache
from clearinghouse.sessions import Session


def session(number: int, answer: bytes) -> Session:
    return Session(
        id=UUID(int=number),
        gateway_id=UUID(int=1),
        orchestrator=bytes(20),
        recipient=bytes(20),
        job_type="live",
        manifest_id=None,
        app="",
        transcoder="",
        head_state_hash=bytes(32),
        request_hash=bytes(32),
        issuance_id=UUID(int=2),
        answer=answer,
    )


def remembered(cache: SessionCache, numbers: range) -> list[int]:
    return [n for n in numbers if cache.find(SessionLookup(None, bytes([n]) * 32)) is not None]


def test_the_oldest_session_is_forgotten_first() -> None:
    cache = SessionCache(sessions_max_count=3)
    for n in range(10, 16):
        cache.remember(session(n, b"x"), bytes([n]) * 32, 1)
    assert remembered(cache, range(10, 16)) == [13, 14, 15]


def test_large_answers_do_not_fill_the_memory() -> None:
    cache = SessionCache(sessions_max_count=100, answers_max_bytes=1000)
    for n in range(10, 20):
        cache.remember(session(n, b"x" * 400), bytes([n]) * 32, 1)
        cache.remember(session(n, b"y" * 400), bytes([n]) * 32, 2)  # the newer answer takes the place of the older
    assert remembered(cache, range(10, 20)) == [18, 19]


def test_a_state_of_an_unknown_session_is_left_to_the_database() -> None:
    cache = SessionCache(sessions_max_count=3)
    cache.remember(session(10, b"x"), bytes([10]) * 32, 1)
    assert cache.find(SessionLookup(UUID(int=11), bytes([10]) * 32)) is None
    assert cache.find(SessionLookup(UUID(int=10), bytes([11]) * 32)) is None
    found = cache.find(SessionLookup(UUID(int=10), bytes([10]) * 32))
    assert found is not None
    assert found.rand is not None
    assert found.rand.last_nonce == 1
