"""An empty deposit: what winners get of the reserve, by the contract and by our own arithmetic."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from eth_abi.abi import decode

from chain.exposure import orchestrator_float
from chain.signatures import SigningKey, keccak
from chain.tickets import WIN_PROB_CERTAIN, Ticket, ticket_hash
from tests.parts.devnet import Devnet, round_hash
from tests.parts.devnet.network import ChainRefused

GWEI = 10**9
SENDER = SigningKey(keccak(b"a sender whose deposit runs dry"))
ORCHESTRATORS = [bytes([number]) * 20 for number in range(0x0A, 0x0E)]
RAND = 77


@dataclass
class Drained:
    """A sender on the chain and what its orchestrators have earned."""

    devnet: Devnet
    nonce: int = 0
    said: list[str] = field(default_factory=list)

    def redeem(self, face_value_wei: int, recipient: bytes) -> int:
        """A winner of this round. What was paid for it."""
        self.nonce += 1
        ticket = Ticket(
            recipient=recipient, sender=SENDER.address, face_value_wei=face_value_wei, win_prob=WIN_PROB_CERTAIN,
            sender_nonce=self.nonce, recipient_rand_hash=keccak(RAND.to_bytes(32, "big")),
            creation_round=self.devnet.round, creation_round_block_hash=round_hash(self.devnet.round),
        )  # fmt: skip
        before = self.fees(recipient)
        self.devnet.redeem(ticket, SENDER.eth_sign(ticket_hash(ticket)), RAND)
        return self.fees(recipient) - before

    def fees(self, recipient: bytes) -> int:
        return self.asked("BondingManager", "fees(address)", recipient)

    def funds(self) -> tuple[int, int, int]:
        """Deposit, reserve, claimed in this round."""
        info = self.devnet.call("TicketBroker", "getSenderInfo(address)", SENDER.address)
        deposit, _, reserve, claimed = decode(["uint256"] * 4, info)
        return deposit, reserve, claimed

    def share(self, recipient: bytes) -> int:
        """By the contract."""
        return self.asked("TicketBroker", "claimableReserve(address,address)", SENDER.address, recipient)

    def share_we_compute(self, recipient: bytes) -> int:
        deposit, reserve, claimed = self.funds()
        return orchestrator_float(
            deposit_wei=deposit,
            reserve_wei=reserve,
            claimed_in_round_wei=claimed,
            pool_size_count=self.asked("BondingManager", "getTranscoderPoolSize()"),
            claimed_by_it_wei=self.asked("TicketBroker", "claimedReserve(address,address)", SENDER.address, recipient),
        ).reserve_share_wei

    def asked(self, contract: str, signature: str, *arguments: Any) -> int:
        return int.from_bytes(self.devnet.call(contract, signature, *arguments), "big")


@pytest.fixture
def drained(devnet: Devnet) -> Drained:
    """Four orchestrators, a deposit of 10 and a reserve of 40."""
    devnet.join(*ORCHESTRATORS)
    devnet.next_round()
    devnet.fund(SENDER.address, deposit_wei=10 * GWEI, reserve_wei=40 * GWEI)
    return Drained(devnet)


def test_winners_drain_the_deposit_and_then_each_orchestrators_share_of_the_reserve(drained: Drained) -> None:
    first, second, *_ = ORCHESTRATORS
    assert drained.redeem(8 * GWEI, first) == 8 * GWEI
    assert drained.redeem(8 * GWEI, first) == 8 * GWEI  # 2 of the deposit, 6 of its share of 10
    assert drained.funds() == (0, 34 * GWEI, 6 * GWEI)
    assert drained.redeem(8 * GWEI, first) == 4 * GWEI  # what is left of its share; the rest is never paid
    assert drained.redeem(8 * GWEI, first) == 0
    assert drained.redeem(8 * GWEI, second) == 8 * GWEI  # nobody else can eat it
    assert drained.funds() == (0, 22 * GWEI, 18 * GWEI)


def test_a_new_round_divides_what_is_left_of_the_reserve_anew(drained: Drained) -> None:
    first, *_ = ORCHESTRATORS
    drained.redeem(20 * GWEI, first)
    assert drained.redeem(GWEI, first) == 0
    drained.devnet.next_round()
    assert drained.funds() == (0, 30 * GWEI, 0)
    assert drained.redeem(8 * GWEI, first) == 30 * GWEI // 4


def test_without_deposit_and_reserve_nothing_is_redeemed_and_the_winner_is_not_used_up(drained: Drained) -> None:
    drained.devnet.leave(ORCHESTRATORS[1])
    drained.devnet.leave(ORCHESTRATORS[2])
    drained.devnet.leave(ORCHESTRATORS[3])
    drained.redeem(100 * GWEI, ORCHESTRATORS[0])
    assert drained.funds()[:2] == (0, 0)
    with pytest.raises(ChainRefused, match="deposit and reserve are zero"):
        drained.redeem(GWEI, ORCHESTRATORS[0])
    drained.devnet.fund(SENDER.address, deposit_wei=GWEI)
    drained.nonce -= 1
    assert drained.redeem(GWEI, ORCHESTRATORS[0]) == GWEI


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_our_arithmetic_of_floats_is_the_contracts_whatever_happens(drained: Drained, seed: int) -> None:
    """Winners, funds, rounds, orchestrators that come and go: before each winner it is known what will be paid."""
    dice, devnet, claims = random.Random(seed), drained.devnet, 0
    pool = ORCHESTRATORS[:]
    for _ in range(40):
        match dice.choice(["redeem"] * 5 + ["fund", "round", "leave", "join"]):
            case "fund":
                devnet.fund(SENDER.address, deposit_wei=dice.randrange(5 * GWEI), reserve_wei=dice.randrange(20 * GWEI))
            case "round":
                devnet.next_round()
            case "leave" if len(pool) > 1:
                devnet.leave(pool.pop(dice.randrange(len(pool))))
            case "join":
                pool.append(bytes([0x20 + len(drained.said)]) * 20)
                devnet.join(pool[-1])
                devnet.next_round()
            case _:
                recipient, face_value_wei = dice.choice(pool), dice.randrange(1, 12 * GWEI)
                share = drained.share_we_compute(recipient)
                assert share == drained.share(recipient), drained.said
                deposit, reserve, _ = drained.funds()
                if deposit or reserve:
                    expected = min(face_value_wei, deposit + share)
                    claims += expected > deposit
                    assert drained.redeem(face_value_wei, recipient) == expected, drained.said
        drained.said.append(f"{drained.funds()}")
    assert claims > 3, "a history without claims shows nothing: choose another seed"
