"""Hashes, expected values and the winning test beyond the vectors."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.signatures import keccak
from chain.tickets import (
    WIN_PROB_CERTAIN,
    Ticket,
    aux_data,
    batch_ev_wei,
    batch_preimage,
    is_winning,
    recipient_rand_hash,
    ticket_ev,
    ticket_hash,
)

UINT256 = st.integers(0, WIN_PROB_CERTAIN)
ZERO = Ticket(bytes(20), bytes(20), 0, 0, 0, bytes(32), 0, bytes(32))
H41 = bytes.fromhex("41b1a0649752af1b28b3dc29a1556eee781e4a4c3a1f7f53f90fa834de098c4d")
H76 = bytes.fromhex("7624778dedc75f8b322b9fa1632a610d40b85e106c7d9bf0e743a9ce291b9c6f")


@pytest.mark.parametrize(
    ("ticket", "digest"),
    [
        (replace(ZERO, sender_nonce=2**32 - 1), "e1393fc7f6de093780674022f96cb8e3872235167d037c04d554e58c0e63d280"),
        (replace(ZERO, sender_nonce=1), "ce0918ba94518293e9712effbe5fca4f1f431089833a5b8c257cb1e024595f68"),
        (
            replace(ZERO, face_value_wei=1, win_prob=500),
            "87ef13f2d37e4d5352a01d3c77b8179d80e0887f1953bfabfd0bfd7b0f689ddd",
        ),
        (
            replace(ZERO, face_value_wei=500, win_prob=1),
            "aa4b35071043587992ac8b9dd1b2cf1d8311130e6458cf0b2342484e21af5f5b",
        ),
        (
            replace(ZERO, recipient=bytes.fromhex("73AEd7b5dEb30222fa896f399d46cC99c7BEe57F")),
            "81e353ae39046e2b77b9f996abbaeed527fda559b61ef90f299c4499dd508ccc",
        ),
        (replace(ZERO, recipient_rand_hash=H41), "be5eaf9a49a39540b9bb02f1a21904f61324a29819e2c032824bfaa10c100b17"),
        (
            replace(ZERO, creation_round=10, creation_round_block_hash=H41),
            "e502907c16036ab3d11b78c5a2e93c20f3d6415c67f91de4ed01348182b3b2e2",
        ),
    ],
)
def test_the_hash_is_the_contracts(ticket: Ticket, digest: str) -> None:
    assert ticket_hash(ticket).hex() == digest


@pytest.mark.parametrize(
    ("creation_round", "block_hash", "encoded"),
    [
        (0, H76, bytes(32) + H76),
        (5, bytes(32), (5).to_bytes(32, "big") + bytes(32)),
        (0, bytes(32), b""),
        (5, H76, (5).to_bytes(32, "big") + H76),
    ],
)
def test_auxiliary_data_is_empty_only_without_round_and_hash(
    creation_round: int, block_hash: bytes, encoded: bytes
) -> None:
    assert aux_data(creation_round, block_hash) == encoded


@pytest.mark.parametrize(
    ("face_value_wei", "win_prob", "rounded_wei"),
    [(1000, WIN_PROB_CERTAIN // 2, 500), (1000, 0, 0), (1000, WIN_PROB_CERTAIN, 1000), (0, 999, 0)],
)
def test_expected_value_of_one_ticket(face_value_wei: int, win_prob: int, rounded_wei: int) -> None:
    assert round(ticket_ev(face_value_wei, win_prob)) == rounded_wei


@given(UINT256, UINT256, st.integers(0, 10_000))
def test_a_batch_is_charged_its_exact_value_or_less_than_one_wei_more(face: int, win_prob: int, count: int) -> None:
    exact = count * Fraction(face * win_prob, WIN_PROB_CERTAIN)
    assert exact <= batch_ev_wei(face, win_prob, count) < exact + 1


def test_the_charge_of_a_batch_is_rounded_once_and_not_per_ticket() -> None:
    assert batch_ev_wei(1, WIN_PROB_CERTAIN // 2, 100) == 50
    assert batch_ev_wei(1, 1, 100) == 1
    assert batch_ev_wei(1, 0, 100) == 0


@given(
    st.builds(
        Ticket,
        recipient=st.binary(min_size=20, max_size=20),
        sender=st.binary(min_size=20, max_size=20),
        face_value_wei=UINT256,
        win_prob=UINT256,
        sender_nonce=st.integers(0, 2**32 - 1),
        recipient_rand_hash=st.binary(min_size=32, max_size=32),
        creation_round=st.integers(0, 2**63 - 1),
        creation_round_block_hash=st.sampled_from([bytes(32), H76]),
    ),
    st.integers(1, 20),
    st.integers(0, 2**32 - 21),
)
def test_a_batch_hashes_as_its_tickets_do_one_by_one(ticket: Ticket, count: int, first: int) -> None:
    def plain(nonce: int) -> bytes:
        numbers = (ticket.face_value_wei, ticket.win_prob, nonce)
        words = b"".join(number.to_bytes(32, "big") for number in numbers)
        aux = aux_data(ticket.creation_round, ticket.creation_round_block_hash)
        return keccak(ticket.recipient + ticket.sender + words + ticket.recipient_rand_hash + aux)

    assert batch_preimage(ticket).hashes(first, count) == [plain(nonce) for nonce in range(first, first + count)]


@pytest.mark.parametrize(
    "broken",
    [
        replace(ZERO, recipient=bytes(19)),
        replace(ZERO, sender=bytes(21)),
        replace(ZERO, recipient_rand_hash=bytes(31)),
        replace(ZERO, creation_round=-1),
        replace(ZERO, creation_round_block_hash=b""),
        replace(ZERO, face_value_wei=2**256),
        replace(ZERO, face_value_wei=-1),
        replace(ZERO, win_prob=2**256),
        replace(ZERO, sender_nonce=2**32),
        replace(ZERO, sender_nonce=-1),
    ],
)
def test_a_ticket_the_contract_could_not_read_is_not_hashed(broken: Ticket) -> None:
    with pytest.raises(ValueError, match=r"address|hash|round|face value|win_prob|nonces"):
        ticket_hash(broken)


def test_a_certain_ticket_wins_and_an_impossible_one_never() -> None:
    signature = bytes(range(65))
    assert is_winning(signature, 10, WIN_PROB_CERTAIN)
    assert not is_winning(signature, 10, 0)
    drawn = int.from_bytes(keccak(signature + (10).to_bytes(32, "big")), "big")
    assert not is_winning(signature, 10, drawn)
    assert is_winning(signature, 10, drawn + 1)


def test_the_recipients_secret_hashes_to_its_commitment() -> None:
    assert recipient_rand_hash(10).hex() == "c65a7bb8d6351c1cf70c95a316cc6a92839c986682d98bc35f958f4883f9d2a8"
