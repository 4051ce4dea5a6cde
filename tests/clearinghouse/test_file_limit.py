"""Connections are files: the limit is raised where it may be, and where it is too low both ports hold fewer."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from clearinghouse.config import ListenSettings
from clearinghouse.file_limit import (
    CONNECTIONS_LEAST_COUNT,
    OTHER_FILES_COUNT,
    fitting,
    needed_count,
    raise_limit,
)

LISTEN = ListenSettings(connections_max_count=8192, grpc_connections_max_count=1024)


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_with_files_enough_the_ports_hold_what_the_settings_say() -> None:
    assert fitting(LISTEN, needed_count(LISTEN)) == (8192, 1024)
    assert fitting(LISTEN, 1 << 20) == (8192, 1024)


@pytest.mark.parametrize("files_max_count", [1024, 2000, 4096, 9000, 9727])
def test_with_fewer_each_port_has_its_part_and_the_database_its_files(files_max_count: int) -> None:
    http, grpc = fitting(LISTEN, files_max_count)
    assert http + grpc + OTHER_FILES_COUNT <= files_max_count
    assert http / grpc == pytest.approx(8, rel=0.05)


def test_a_hopeless_limit_leaves_a_few_connections() -> None:
    assert fitting(LISTEN, 256) == (CONNECTIONS_LEAST_COUNT, CONNECTIONS_LEAST_COUNT)


def test_the_limit_is_raised_to_what_is_needed_and_never_lowered(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    assert raise_limit(2000) == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2000
    assert raise_limit(1000) == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2000
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == limits[1], "what may be asked for later"


def test_it_is_raised_no_further_than_it_may_be(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearinghouse.file_limit.highest_limit", lambda: 1500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    assert raise_limit(2000) == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1500
