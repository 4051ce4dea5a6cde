"""The doubles behave as the contracts they stand for: what the tests of the chain rest on."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import decode

from chain.signatures import SigningKey, keccak
from chain.tickets import WIN_PROB_CERTAIN, Ticket, ticket_hash
from tests.parts.devnet import FIRST_ROUND, Devnet, round_hash
from tests.parts.devnet.network import ChainRefused

ETHER = 10**18
SENDER = SigningKey(keccak(b"a sender on the devnet"))
ORCHESTRATOR, OTHER = b"\x0a" * 20, b"\x0b" * 20
RAND = 77


def ticket(**changes: Any) -> Ticket:
    fields: dict[str, Any] = {
        "recipient": ORCHESTRATOR, "sender": SENDER.address, "face_value_wei": ETHER, "win_prob": WIN_PROB_CERTAIN,
        "sender_nonce": 1,
        "recipient_rand_hash": keccak(RAND.to_bytes(32, "big")), "creation_round": FIRST_ROUND,
        "creation_round_block_hash": round_hash(FIRST_ROUND),
    }  # fmt: skip
    return Ticket(**fields | changes)


def redeem(devnet: Devnet, of: Ticket, *, sig: bytes | None = None, rand: int = RAND) -> None:
    devnet.redeem(of, SENDER.eth_sign(ticket_hash(of)) if sig is None else sig, rand)


def sender_info(devnet: Devnet) -> tuple[int, ...]:
    """Deposit, withdraw round, reserve, claimed in this round."""
    return decode(["uint256"] * 4, devnet.call("TicketBroker", "getSenderInfo(address)", SENDER.address))


def fees(devnet: Devnet, of: bytes = ORCHESTRATOR) -> int:
    return int.from_bytes(devnet.call("BondingManager", "fees(address)", of), "big")


@pytest.fixture
def funded(devnet: Devnet) -> Devnet:
    """Two active orchestrators, a deposit of two and a reserve of four."""
    devnet.join(ORCHESTRATOR, OTHER)
    devnet.next_round()
    devnet.fund(SENDER.address, deposit_wei=2 * ETHER, reserve_wei=4 * ETHER)
    return devnet


def test_a_ticket_of_our_signing_is_redeemed_once_from_the_deposit(funded: Devnet) -> None:
    redeem(funded, ticket())
    assert (sender_info(funded)[0], fees(funded)) == (ETHER, ETHER)
    with pytest.raises(ChainRefused, match="ticket is used"):
        redeem(funded, ticket())
    redeem(funded, ticket(sender_nonce=2))
    assert sender_info(funded) == (0, 0, 4 * ETHER, 0)


def test_what_the_deposit_lacks_comes_from_the_rounds_share_of_the_reserve(funded: Devnet) -> None:
    redeem(funded, ticket(face_value_wei=7 * ETHER))
    assert sender_info(funded) == (0, 0, 2 * ETHER, 2 * ETHER)  # half of the reserve: the pool has two
    assert fees(funded) == 4 * ETHER
    redeem(funded, ticket(sender_nonce=2))  # its share is gone: nothing is paid, and the ticket is used all the same
    assert fees(funded) == 4 * ETHER
    redeem(funded, ticket(recipient=OTHER, sender_nonce=3))
    assert fees(funded, OTHER) == ETHER


@pytest.mark.parametrize(
    ("changes", "how", "reason"),
    [
        ({"creation_round": FIRST_ROUND - 1}, {}, "creationRoundBlockHash is invalid"),
        ({"creation_round_block_hash": keccak(b"x")}, {}, "creationRoundBlockHash is invalid"),
        ({"win_prob": 0}, {}, "ticket did not win"),
        ({"sender": OTHER}, {}, "invalid signature"),
        ({"recipient": b"\x0c" * 20}, {}, "must be registered"),
        ({}, {"rand": 78}, "recipientRand does not match"),
        ({}, {"sig": bytes(65)}, "invalid signature"),
        ({}, {"sig": b"\x01" * 64}, "invalid signature"),
    ],
)
def test_a_ticket_that_is_wrong_is_refused(
    funded: Devnet, changes: dict[str, Any], how: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ChainRefused, match=reason):
        redeem(funded, ticket(**changes), **how)


def test_a_ticket_is_valid_in_its_own_round_and_in_the_next(funded: Devnet) -> None:
    funded.begin_round()
    with pytest.raises(ChainRefused, match="not initialized"):
        redeem(funded, ticket(sender_nonce=2))
    funded.next_round()
    with pytest.raises(ChainRefused, match="ticket is expired"):
        redeem(funded, ticket(sender_nonce=3))


def test_an_unlock_is_cancelled_by_the_senders_own_funds_and_by_nobody_elses(funded: Devnet) -> None:
    with funded.acting_as(SENDER.address):
        funded.send("TicketBroker", "unlock()", sender=SENDER.address)
        assert sender_info(funded)[1] == funded.round + 2
        funded.fund(SENDER.address, deposit_wei=1)
        assert sender_info(funded)[1] == funded.round + 2
        funded.send("TicketBroker", "fundDeposit()", value_wei=1, sender=SENDER.address)
    assert sender_info(funded)[1] == 0


def test_a_withdrawal_takes_everything_and_the_withdraw_round_stays(funded: Devnet) -> None:
    funded.withdraw_everything(SENDER.address)
    assert sender_info(funded) == (0, funded.round, 0, 0)
    with pytest.raises(ChainRefused, match="unlocked"):
        redeem(funded, ticket(creation_round=funded.round, creation_round_block_hash=round_hash(funded.round)))


def test_an_orchestrator_is_active_from_the_round_after_it_joined_to_the_one_it_left_in(devnet: Devnet) -> None:
    def active() -> bool:
        return bool(int.from_bytes(devnet.call("BondingManager", "isActiveTranscoder(address)", ORCHESTRATOR), "big"))

    devnet.join(ORCHESTRATOR)
    assert not active()
    devnet.next_round()
    assert active()
    devnet.leave(ORCHESTRATOR)
    assert active()
    devnet.next_round()
    assert not active()
