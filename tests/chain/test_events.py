"""Logs to events: what the contracts emit is read exactly, and nothing else passes for it."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from chain.events import (
    ESCROW_TOPICS,
    NEW_ROUND,
    REDEEMED,
    EscrowChange,
    EscrowEvent,
    EventError,
    Log,
    NewRound,
    Place,
    Redemption,
    decode_escrow_log,
    decode_round_log,
    parse_log,
)
from chain.log_reader import RangeWidth
from chain.signatures import keccak

SENDER, OTHER, BROKER = b"\x51" * 20, b"\x52" * 20, b"\x0b" * 20
PLACE = Place(7, 3, b"\x01" * 32, b"\x02" * 32)

#: Remote-signer protocol, section 8.3.
PUBLISHED = """
    5159e237d952190e68d5215430f305831be7c9c8776d1377c76679ae4773413f
    b52b99b9e83551fcbd069b559cc3e823e2a1a3bad8ece46561ea77524394c850
    5c2b394723f408a40a60335e24b71829642e35f350cebe2036a96a66e895ea98
    c389eb51ed006dbf2528507f010efdf5225ea596e1e1741d74f550dab1925ee7
    8b87351a208c06e3ceee59d80725fd77a23b4129e1b51ca231fc89b40712649c
    f7870c5b224cbc19873599e46ccfc7103934650509b1af0c3ce90138377c2004
    fa044b7b93a40365dc68049797c2eb06918523d694e5d56e406cac3eb35578e5
    df273cb619d95419a9cd0ec88123a0538c85064229baa6363788f743fff90deb
""".split()  # noqa: SIM905 - as the page has them


def log(topic: bytes, *addresses: bytes, data: bytes = b"") -> Log:
    return Log(PLACE, BROKER, (topic, *(address.rjust(32, b"\0") for address in addresses)), data)


def document(**changes: Any) -> dict[str, Any]:
    """A log as a node gives it."""
    fields: dict[str, Any] = {
        "address": "0x" + BROKER.hex(), "topics": ["0x" + NEW_ROUND.hex(), "0x" + bytes(31).hex() + "05"],
        "data": "0x" + bytes(32).hex(), "blockNumber": "0x7", "logIndex": "0x3", "blockHash": "0x" + "01" * 32,
        "transactionHash": "0x" + "02" * 32, "removed": False, "transactionIndex": "0x0",
    }  # fmt: skip
    return fields | changes


def test_the_topics_are_those_of_the_protocol() -> None:
    assert {topic.hex() for topic in ESCROW_TOPICS} == set(PUBLISHED)
    assert NEW_ROUND.hex() == "22f2fc17c5daf07db2379b3a03a8ef20a183f761097a58fce219c8a14619e786"


uint256 = st.integers(min_value=0, max_value=2**256 - 1)


@given(uint256, uint256, uint256, uint256, uint256, st.binary(min_size=32, max_size=32))
def test_a_redeemed_ticket_is_read_exactly(  # noqa: PLR0917
    face_value: int, win_prob: int, nonce: int, rand: int, round_: int, block_hash: bytes
) -> None:
    aux = round_.to_bytes(32, "big") + block_hash
    data = encode(["uint256", "uint256", "uint256", "uint256", "bytes"], [face_value, win_prob, nonce, rand, aux])
    found = decode_escrow_log(log(REDEEMED, SENDER, OTHER, data=data))
    assert found == Redemption(
        PLACE, SENDER, OTHER, face_value, win_prob, nonce, rand.to_bytes(32, "big"), round_, block_hash
    )
    assert isinstance(found, Redemption)
    assert found.recipient_rand_hash == keccak(rand.to_bytes(32, "big"))


@pytest.mark.parametrize("aux_bytes", [0, 32, 63, 65, 96])
def test_a_redeemed_ticket_with_other_aux_data_is_none(aux_bytes: int) -> None:
    data = encode(["uint256", "uint256", "uint256", "uint256", "bytes"], [1, 2, 3, 4, bytes(aux_bytes)])
    with pytest.raises(EventError):
        decode_escrow_log(log(REDEEMED, SENDER, OTHER, data=data))


def test_what_happens_to_an_escrow_is_read_exactly() -> None:
    topics = [bytes.fromhex(topic) for topic in PUBLISHED]
    deposit, reserve, claimed, _, paid, unlock, cancelled, withdrawal = topics
    kind = EscrowChange
    cases = {
        log(deposit, SENDER, data=encode(["uint256"], [5])): EscrowEvent(
            PLACE, kind.DEPOSIT_FUNDED, SENDER, amount_wei=5
        ),
        log(reserve, SENDER, data=encode(["uint256"], [6])): EscrowEvent(
            PLACE, kind.RESERVE_FUNDED, SENDER, amount_wei=6
        ),
        log(claimed, SENDER, data=OTHER.rjust(32, b"\0") + encode(["uint256"], [7])): EscrowEvent(
            PLACE, kind.RESERVE_CLAIMED, SENDER, party=OTHER, amount_wei=7
        ),
        log(paid, SENDER, OTHER, data=encode(["uint256"], [8])): EscrowEvent(
            PLACE, kind.TICKET_PAID, SENDER, party=OTHER, amount_wei=8
        ),
        log(unlock, SENDER, data=encode(["uint256", "uint256"], [9, 11])): EscrowEvent(
            PLACE, kind.UNLOCK, SENDER, start_round=9, end_round=11
        ),
        log(cancelled, SENDER): EscrowEvent(PLACE, kind.UNLOCK_CANCELLED, SENDER),
        log(withdrawal, SENDER, data=encode(["uint256", "uint256"], [1, 2])): EscrowEvent(
            PLACE, kind.WITHDRAWAL, SENDER, amount_wei=1, reserve_wei=2
        ),
    }
    for given_, expected in cases.items():
        assert decode_escrow_log(given_) == expected
        with pytest.raises(EventError):
            decode_escrow_log(Log(PLACE, BROKER, given_.topics, given_.data + b"\0"))
        with pytest.raises(EventError):
            decode_escrow_log(Log(PLACE, BROKER, given_.topics[:-1], given_.data))
        with pytest.raises(EventError):
            decode_escrow_log(Log(PLACE, BROKER, (*given_.topics[:-1], b"\x01" * 32), given_.data))


def test_a_log_of_a_node_is_read_with_its_place() -> None:
    assert decode_round_log(parse_log(document())) == NewRound(PLACE, 5, bytes(32))


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": True},
        {"removed": 0},
        {"blockNumber": None},  # of a block that is not mined
        {"blockNumber": 7},
        {"blockNumber": "0x"},
        {"logIndex": "0x-1"},
        {"blockHash": "0x01"},
        {"address": "0x" + "0b" * 21},
        {"topics": None},
        {"topics": ["0x" + "00" * 31]},
        {"topics": ["0x" + "00" * 32] * 5},
        {"data": "00"},
        {"data": "0x0"},
        {"data": None},
    ],
)
def test_what_is_no_log_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EventError):
        decode_round_log(parse_log(document(**changes)))


@given(st.integers(min_value=1, max_value=5000), st.integers(min_value=1, max_value=5000))
def test_the_width_of_ranges_finds_what_an_endpoint_takes(max_count: int, taken_count: int) -> None:
    """And keeps near it: of many requests few are refused, and no range is less than a third of what would be taken."""
    width = RangeWidth(max_count)
    counts = []
    for _ in range(200):
        counts.append(width.count)
        if width.count > taken_count:
            width.refused()
        else:
            width.answered()
    settled = counts[100:]
    assert all(1 <= count <= max_count for count in counts)
    assert min(settled) * 3 >= min(max_count, taken_count)
    if max_count <= taken_count:
        assert set(counts) == {max_count}
    elif taken_count >= 8:
        assert sum(count > taken_count for count in settled) <= 25
