"""The exposure mathematics against the lottery itself: tickets of our signer, drawn with the orchestrators' numbers.

Nothing is mocked and nothing is random twice: keys and numbers follow from the seed, signatures are deterministic, and
whether a ticket wins is the hash of both. So a run always has the same winners; the bounds say how improbable it is
that mathematics which is right would be called wrong by the seed that was chosen.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from math import isqrt, sqrt

import pytest

from chain.exposure import Exposure, OpenTickets, exposure
from chain.messages import Payment, decode_payment
from chain.payouts import Payouts
from chain.pb import lp_rpc_pb2 as pb
from chain.tickets import WIN_PROB_CERTAIN, is_winning, recipient_rand_hash
from clearinghouse.requests import decode_payment_request
from clearinghouse.signers.native import NativeSigner, SignerLimits
from tests.clearinghouse.signers.calls import ESCROW, KEY, Clock, Escrow, body, info, minimal
from tests.parts.devnet import Devnet
from tests.parts.devnet.network import ChainRefused
from tests.parts.orchestrator import lottery
from tests.parts.winners import ticket_of

GWEI = 10**9
#: (face value, win probability, tickets): frequent and small, rare and large, and a few that nearly always win.
KINDS = (
    (10_000 * GWEI, WIN_PROB_CERTAIN // 10, 100),
    (50_000 * GWEI, WIN_PROB_CERTAIN // 40, 100),
    (1_000 * GWEI, WIN_PROB_CERTAIN * 9 // 10, 50),
)
BOOKS = 40
#: Σ z² of 40 independent deviations is chi-squared with 40 degrees of freedom: in here but for two in a thousand.
CHI_SQUARED_40 = (Fraction("17.92"), Fraction("73.40"))
KOLMOGOROV_40 = 0.27


@dataclass(frozen=True)
class Drawn:
    """One kind of tickets of one session, with the number that they were made against."""

    payment: Payment
    rand: int

    def winners(self) -> list[tuple[int, bytes]]:
        """(nonce, signature), as the test orchestrator draws them, which was written from the protocol alone."""
        signed = zip(self.payment.nonces, self.payment.signatures, strict=True)
        return [each for each in signed if lottery.wins(each[1], self.rand, self.payment.win_prob)]

    @property
    def open_tickets(self) -> OpenTickets:
        return OpenTickets(self.payment.face_value_wei, self.payment.win_prob, len(self.payment.nonces))


def drawn(seed: int, *, recipient: bytes = b"\x0a" * 20) -> Iterator[list[Drawn]]:
    """BOOKS books of KINDS each, signed by the native signer."""
    dice = random.Random(seed)
    limits = SignerLimits(max_ticket_ev_wei=10**18, max_total_ev_wei=10**18)
    signer = NativeSigner(key=KEY, escrow=Escrow(ESCROW), limits=limits, now_unix_ns=Clock())

    async def sign(request: bytes) -> Payment:
        answer = await signer.generate_payment(decode_payment_request(request), auth_id="")
        assert answer.status == 200, answer.body
        return decode_payment(json.loads(answer.body)["payment"])

    def signed(face_value_wei: int, win_prob: int, count: int) -> Drawn:
        rand = dice.getrandbits(256)
        offer = offered(face_value_wei, win_prob, count, rand, recipient)
        payment = asyncio.run(sign(body(offer, type="fixed", ManifestID="m")))
        assert len(payment.nonces) == count
        return Drawn(payment, rand)

    for _ in range(BOOKS):
        yield [signed(*kind) for kind in KINDS]


def offered(face_value_wei: int, win_prob: int, count: int, rand: int, recipient: bytes) -> pb.OrchestratorInfo:
    """Terms of which one call takes `count` tickets."""
    offer = info(price=(face_value_wei * win_prob * count // WIN_PROB_CERTAIN, 1))
    params = offer.ticket_params
    params.recipient, params.recipient_rand_hash = recipient, recipient_rand_hash(rand)
    params.face_value, params.win_prob = minimal(face_value_wei), minimal(win_prob)
    return offer


@pytest.fixture(scope="module")
def books() -> list[list[Drawn]]:
    """10,000 tickets."""
    return list(drawn(seed=1))


def paid_by(book: list[Drawn]) -> int:
    return sum(len(kind.winners()) * kind.payment.face_value_wei for kind in book)


def standard_score_squared(said: Exposure, happened_wei: int) -> Fraction:
    """z² of what was paid: its squared distance from μ over the variance, exactly."""
    mean = Fraction(said.ev_numerator, WIN_PROB_CERTAIN)
    variance = Fraction(said.variance_numerator, WIN_PROB_CERTAIN**2)
    return (happened_wei - mean) ** 2 / variance


def test_payouts_are_as_far_from_the_expected_liability_as_its_deviation_says(books: list[list[Drawn]]) -> None:
    scores = []
    for book in books:
        scores.append(standard_score_squared(exposure(kind.open_tickets for kind in book), paid_by(book)))
    low, high = CHI_SQUARED_40
    assert low < sum(scores) < high, float(sum(scores))
    assert max(scores) < 4**2, "4 σ: a chance of 1 in 400 for any of 40"


def test_all_books_together_pay_what_their_sum_expects(books: list[list[Drawn]]) -> None:
    """10,000 tickets: the deviation of the mean is small enough to see an error of a few percent."""
    said = exposure(kind.open_tickets for book in books for kind in book)
    assert standard_score_squared(said, sum(map(paid_by, books))) < 3**2, "3 σ: 1 in 370"
    assert isqrt(said.variance_numerator) * 20 < said.ev_numerator, "σ is below a twentieth of μ: it can fail"


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_as_many_win_as_the_probability_says(books: list[list[Drawn]], kind: int) -> None:
    """A face value of one wei makes wei of winners."""
    tickets = [book[kind] for book in books]
    said = exposure(each.open_tickets._replace(face_value_wei=1) for each in tickets)
    scores = [standard_score_squared(exposure([each.open_tickets._replace(face_value_wei=1)]), len(each.winners()))
              for each in tickets]  # fmt: skip
    low, high = CHI_SQUARED_40
    assert low < sum(scores) < high, float(sum(scores))
    assert standard_score_squared(said, sum(len(each.winners()) for each in tickets)) < 3**2


def place(said: Payouts, happened_wei: int) -> float:
    """Where in its distribution it lies: of many, these are spread evenly between 0 and 1."""
    return 1 - (said.exceed(happened_wei - 1) + said.exceed(happened_wei)) / 2


def distance(said: Payouts, books: list[list[Drawn]]) -> float:
    """Kolmogorov's, of what the books paid from what is said of each of them."""
    places = enumerate(sorted(place(said, paid_by(book)) for book in books))
    return max(max(abs(at / BOOKS - each), abs((at + 1) / BOOKS - each)) for at, each in places)


def test_what_books_pay_is_spread_as_the_computed_distribution_says(books: list[list[Drawn]]) -> None:
    """Kolmogorov and Smirnov: 40 draws are within 0.27 of their distribution everywhere, but for five in a thousand."""
    tickets = [kind.open_tickets for kind in books[0]]
    assert distance(Payouts(tickets), books) < KOLMOGOROV_40
    larger = [each._replace(face_value_wei=each.face_value_wei * 5 // 4) for each in tickets]
    assert distance(Payouts(larger), books) > KOLMOGOROV_40, "it can fail: a quarter too much is seen"


def test_all_books_together_pay_within_what_their_distribution_calls_likely(books: list[list[Drawn]]) -> None:
    said = Payouts([kind.open_tickets for book in books for kind in book])
    assert 0.001 < place(said, sum(map(paid_by, books))) < 0.999


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_as_many_books_pay_more_than_a_quantile_as_it_says(books: list[list[Drawn]], confidence: float) -> None:
    said = Payouts([kind.open_tickets for kind in books[0]])
    quantile_wei = said.quantile_wei(confidence)
    chance = said.exceed(quantile_wei)
    assert chance <= 1 - confidence
    beyond = sum(paid_by(book) > quantile_wei for book in books)
    assert abs(beyond - BOOKS * chance) < 3 * sqrt(BOOKS * chance * (1 - chance)), "3 σ: 1 in 370"


def test_the_contract_pays_the_winners_that_we_and_the_orchestrator_draw_and_no_other(devnet: Devnet) -> None:
    """Three books of them on the chain: 750 tickets, of which every winner is paid, and no loser that tries."""
    devnet.join(recipient := b"\x0a" * 20)
    devnet.next_round()
    devnet.fund(KEY.address, deposit_wei=10**18, reserve_wei=10**18)
    paid_wei = 0
    for kind in chain.from_iterable(islice(drawn(seed=2, recipient=recipient), 3)):
        signed = dict(zip(kind.payment.nonces, kind.payment.signatures, strict=True))
        winning = dict(kind.winners())
        assert winning.keys() == {n for n, sig in signed.items() if is_winning(sig, kind.rand, kind.payment.win_prob)}
        for nonce, signature in winning.items():
            devnet.redeem(ticket_of(kind.payment, nonce), signature, kind.rand)
        paid_wei += len(winning) * kind.payment.face_value_wei
        for nonce in sorted(signed.keys() - winning.keys())[:5]:
            with pytest.raises(ChainRefused, match="did not win"):
                devnet.redeem(ticket_of(kind.payment, nonce), signed[nonce], kind.rand)
    assert int.from_bytes(devnet.call("BondingManager", "fees(address)", recipient), "big") == paid_wei
