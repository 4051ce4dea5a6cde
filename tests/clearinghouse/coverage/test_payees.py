"""What each orchestrator can still quote: by our arithmetic, by the contract, and beside what it asks."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from eth_abi.abi import decode

from chain.escrow_reader import CLAIMANTS_MAX_COUNT
from chain.signatures import checksum_address, keccak
from chain.tickets import WIN_PROB_CERTAIN, Ticket, ticket_hash
from clearinghouse.coverage import snapshots
from clearinghouse.coverage.payees import Payee, Quote
from clearinghouse.database.connect import SERVE_ROLE, in_role
from tests.abuses.attack import metrics_page
from tests.parts import client
from tests.parts.chained import PATIENCE_S, Chained, chained
from tests.parts.covered import ETHER, ROUND, SENDER, Books, Escrows, Watching, escrow_of, watching
from tests.parts.devnet import Devnet, round_hash
from tests.parts.stack import SIGNER_KEY

FINNEY = ETHER // 1000
FIRST, SECOND, THIRD = (bytes([number]) * 20 for number in (0x0A, 0x0B, 0x0C))
#: Of a reserve of 5 ETH, divided among 100.
SHARE_WEI = ETHER // 20
RAND = 77
ADMIN_TOKEN = "admin-token-of-a-test"


@pytest.fixture
def books(owner: psycopg.Connection[tuple[Any, ...]]) -> Books:
    return Books(owner)


def quotes_of(over: Watching) -> dict[bytes, Quote]:
    return {quote.recipient: quote for quote in over.heard.evaluations[-1].quotes}


# --- whom it is asked of ----------------------------------------------------------------------------------------------


async def test_claims_are_wanted_of_whom_most_is_open_with_and_first_of_those_who_claimed(
    database: str, books: Books, owner: psycopg.Connection[tuple[Any, ...]]
) -> None:
    gateway = books.new_gateway()
    many = [bytes([1, number]) * 10 for number in range(CLAIMANTS_MAX_COUNT + 5)]
    for at, recipient in enumerate(many, 1):
        books.issue(gateway, recipient=recipient, num_tickets=at)
    books.issue(gateway, recipient=SECOND, num_tickets=10**6, round_=ROUND - 2)  # expired
    claimed(owner, THIRD, block=7, round_=ROUND, began_at_block=5)
    claimed(owner, FIRST, block=3, round_=ROUND - 1, began_at_block=2)
    async with watching(database) as over:
        await over.turn()
    assert over.escrows.wanted == {SENDER: [THIRD, *reversed(many)][:CLAIMANTS_MAX_COUNT]}


def claimed(
    owner: psycopg.Connection[tuple[Any, ...]], claimant: bytes, *, block: int, round_: int, began_at_block: int
) -> None:
    """As the indexer records it."""
    hashes = [b"\x01" * 32, b"\x02" * 32]
    owner.execute(
        "INSERT INTO escrow_event (block_number, log_index, block_hash, transaction_hash, kind, sender, party, "
        "amount_wei) VALUES (%s, 0, %s, %s, 'reserve_claimed', %s, %s, 1)", [block, *hashes, SENDER, claimant],
    )  # fmt: skip
    owner.execute("INSERT INTO protocol_round VALUES (%s, 0, %s, %s, %s, %s)",
                  [began_at_block, *hashes, round_, b"\x03" * 32])  # fmt: skip


async def test_while_nobody_has_claimed_the_book_is_looked_through_once_a_snapshot_and_else_at_every_turn(
    database: str, books: Books
) -> None:
    gateway = books.new_gateway()
    books.issue(gateway, recipient=FIRST)
    async with watching(database) as over:
        await over.turn()
        books.issue(gateway, recipient=SECOND)
        await over.turn()
        assert over.escrows.wanted == {SENDER: [FIRST]}
        over.escrows.change(claimed_in_round_wei=1)
        await over.turn()
        assert over.escrows.wanted == {SENDER: [FIRST, SECOND]}


# --- what it can quote, and what it asks ------------------------------------------------------------------------------


async def test_each_orchestrator_quotes_its_share_less_what_it_has_claimed(database: str, books: Books) -> None:
    gateway, asked_wei = books.new_gateway(), 20 * FINNEY
    for recipient in (FIRST, SECOND, THIRD):
        books.issue(gateway, recipient=recipient, face_value_wei=asked_wei)
    claims: dict[str, Any] = {"reserve_wei": 5 * ETHER - 60 * FINNEY, "claimed_in_round_wei": 60 * FINNEY}
    async with watching(database, Escrows({SENDER: escrow_of(**claims)})) as over:
        over.escrows.change(**claims, claimed_by_wei={FIRST: 45 * FINNEY, SECOND: 0})
        await over.turn()
    assert over.heard.evaluations[-1].standing.issuable_face_value_wei == SHARE_WEI
    assert quotes_of(over) == {
        FIRST: Quote(FIRST, 45 * FINNEY, True, 5 * FINNEY, 5 * FINNEY, asked_wei),
        SECOND: Quote(SECOND, 0, True, SHARE_WEI, SHARE_WEI, asked_wei),
        # Whoever was not asked about may have claimed all of it: more than its share, of which nothing is left then.
        THIRD: Quote(THIRD, 60 * FINNEY, False, 0, 0, asked_wei),
    }
    assert [quote.asks_too_much for quote in quotes_of(over).values()] == [True, False, True]


async def test_what_it_asks_is_the_largest_of_its_newest_tickets_and_a_wei_more_than_its_share_is_too_much(
    database: str, books: Books
) -> None:
    gateway = books.new_gateway()
    books.issue(gateway, recipient=FIRST, face_value_wei=SHARE_WEI * 3, age=timedelta(hours=3))
    books.issue(gateway, recipient=FIRST, face_value_wei=SHARE_WEI)
    books.issue(gateway, recipient=FIRST, face_value_wei=1)
    books.issue(gateway, recipient=SECOND, face_value_wei=SHARE_WEI + 1)
    async with watching(database) as over:
        await over.turn()
        assert {each.recipient: (each.asked_wei, each.asks_too_much) for each in quotes_of(over).values()} == {
            FIRST: (SHARE_WEI, False), SECOND: (SHARE_WEI + 1, True),
        }  # fmt: skip
        over.escrows.change(reserve_wei=4 * ETHER)
        await over.turn()
        assert all(quote.asks_too_much for quote in quotes_of(over).values()), "a reserve that shrinks, shrinks quotes"


async def test_a_ticket_within_the_deposits_share_is_compared_and_not_refused(database: str, books: Books) -> None:
    """The deposit covers it: what goes beyond the reserve is the orchestrator's risk, and its own choice."""
    books.issue(books.new_gateway(), recipient=FIRST, face_value_wei=2 * SHARE_WEI)
    async with watching(database) as over:
        await over.turn()
        assert quotes_of(over)[FIRST].asks_too_much
    assert books.gates() == [(SENDER, "ok", True)]
    cap_wei = over.heard.evaluations[-1].standing.face_value_max_wei
    assert cap_wei is not None
    assert cap_wei > 2 * SHARE_WEI


async def test_a_snapshot_keeps_of_whom_there_is_something_to_say(database: str, books: Books) -> None:
    gateway = books.new_gateway()
    for recipient in (FIRST, SECOND):
        books.issue(gateway, recipient=recipient)
    claims: dict[str, Any] = {"claimed_in_round_wei": 60 * FINNEY, "claimed_by_wei": {FIRST: 60 * FINNEY, SECOND: 0}}
    async with watching(database, Escrows({SENDER: escrow_of(**claims)}), snapshot_s=0.1) as over:
        async with asyncio.timeout(PATIENCE_S):
            while not over.heard.snapshots:
                await over.turn()
                await asyncio.sleep(0.05)
    (special,) = over.heard.snapshots[-1].quotes
    assert (special.recipient, special.claimed_wei) == (FIRST, 60 * FINNEY)
    async with await psycopg.AsyncConnection.connect(in_role(database, SERVE_ROLE)) as connection:
        read = await snapshots.newest(connection, SENDER)
    assert read is not None
    assert read.quotes == over.heard.snapshots[-1].quotes


def test_of_an_orchestrator_whose_tickets_nobody_sees_nothing_is_said_to_be_too_much() -> None:
    assert Payee(FIRST, None).asked_wei is None
    assert not Quote(FIRST, 1, True, 0, 0, None).asks_too_much


# --- on a chain -------------------------------------------------------------------------------------------------------


def redeem(over: Chained, recipient: bytes, face_value_wei: int, *, nonce: int) -> None:
    """A winner that the service knows nothing of."""
    devnet = over.devnet
    ticket = Ticket(
        recipient=recipient, sender=SIGNER_KEY.address, face_value_wei=face_value_wei, win_prob=WIN_PROB_CERTAIN,
        sender_nonce=nonce, recipient_rand_hash=keccak(RAND.to_bytes(32, "big")), creation_round=devnet.round,
        creation_round_block_hash=round_hash(devnet.round),
    )  # fmt: skip
    devnet.redeem(ticket, SIGNER_KEY.eth_sign(ticket_hash(ticket)), RAND)


def claimable_wei(devnet: Devnet, recipient: bytes) -> int:
    """By the contract."""
    answer = devnet.call("TicketBroker", "claimableReserve(address,address)", SIGNER_KEY.address, recipient)
    return int(decode(["uint256"], answer)[0])


async def orchestrators(over: Chained, wanted: dict[str, tuple[str, bool]]) -> dict[str, Any]:
    """Of GET /v1/coverage, once those have claimed so much, exactly or not."""
    authorization = [("Authorization", f"Bearer {ADMIN_TOKEN}")]
    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await client.call(over.service.port, "GET", "/v1/coverage", headers=authorization)
                (sender,) = json.loads(answer.body)["items"]
                shown = {each["recipient"]: each for each in (sender["snapshot"] or {}).get("orchestrators", [])}
                if {who: (of["claimed_in_round_wei"], of["is_claim_exact"]) for who, of in shown.items()} == wanted:
                    return shown
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"it shows {shown}") from None


async def test_what_is_shown_of_each_orchestrator_is_what_the_contract_would_pay_it(
    database: str, devnet: Devnet
) -> None:
    """Two claim of a reserve of 1 ETH that three share, and a third has claimed nothing; then a round ends."""
    devnet.join(SECOND, THIRD)
    settings: dict[str, Any] = {"coverage": {"snapshot_s": 0.2}, "chain": {"timeout_s": 3}, "admin_token": ADMIN_TOKEN}
    async with chained(database, devnet, deposit_wei=ETHER // 2, **settings) as over:
        gateway = await over.service.house.new_gateway()
        for recipient in (SECOND, THIRD):
            await over.service.pay(gateway, over.new_stream(recipient=recipient))
        redeem(over, FIRST, ETHER, nonce=1)  # all of the deposit, and all that it may have of the reserve
        redeem(over, SECOND, ETHER // 5, nonce=2)
        third_wei = ETHER // 3
        shown = await orchestrators(over, {
            checksum_address(FIRST): (str(third_wei), True), checksum_address(SECOND): (str(ETHER // 5), True),
        })  # fmt: skip
        for recipient in (FIRST, SECOND):
            share_wei = int(shown[checksum_address(recipient)]["reserve_share_wei"])
            assert share_wei == claimable_wei(devnet, recipient), "to the wei"
        assert claimable_wei(devnet, FIRST) == 0 < claimable_wei(devnet, SECOND) < claimable_wei(devnet, THIRD)
        page = (await metrics_page(over.service)).decode()
        assert f'orchestrators_asking_too_much{{sender="{checksum_address(SIGNER_KEY.address)}"}} 0.0' in page
        devnet.next_round()
        assert await orchestrators(over, {}) == {}, "every round divides anew"
