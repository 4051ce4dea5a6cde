"""Two of Stripe's pages for one payment, as when Stripe had forgotten the key of the first. Whatever becomes of each,
in any order, and whatever is told of it: what is paid is credited once, and nothing ends that may still be paid.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any, Literal
from uuid import UUID

import pytest

from clearinghouse.ids import show
from tests.parts.paying import Till
from tests.settlement.payments.test_late_payments import BANK_ANSWERS_S, late

__all__ = ["late"]

Fate = Literal["paid", "refused", "expired"]
ACCOUNTS = {"paid": "pm_usBankAccount_success", "refused": "pm_usBankAccount_noAccount"}
FATES: tuple[Fate, ...] = ("paid", "refused", "expired")
#: What is done first is answered by its bank first.
BETWEEN_S = 60


@dataclass(frozen=True)
class Twice:
    """A payment with two pages. `acts`: which page's fate comes first, and which then."""

    gateway: UUID
    payment: UUID
    pages: tuple[str, str]
    fates: tuple[Fate, Fate]
    acts: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.fates}, page {self.acts[0] + 1} first"

    @property
    def paid_count(self) -> int:
        return self.fates.count("paid")


async def twice(till: Till, fates: tuple[Fate, Fate], acts: tuple[int, int]) -> Twice:
    """The first page is the one that the gateway has the link of."""
    gateway = await till.new_gateway()
    payment = await till.asked_at_stripe(gateway, "checkout", "25")
    pages = till.sdk.v1.checkout.sessions
    first = await pages.retrieve_async(till.payment(payment)["stripe_session_id"])
    assert first.metadata is not None
    shown = first.metadata.to_dict()
    price = {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "Credit"}}
    page: Any = {
        "customer": first.customer, "mode": "payment", "line_items": [{"price_data": price, "quantity": 1}],
        "allowed_payment_method_types": ["card", "us_bank_account"], "success_url": "https://gateway.example",
        "metadata": shown, "payment_intent_data": {"metadata": shown},
    }  # fmt: skip
    return Twice(gateway, payment, (first.id, (await pages.create_async(page)).id), fates, acts)


async def act(till: Till, each: Twice, number: int) -> None:
    page = each.acts[number]
    if (fate := each.fates[page]) == "expired":
        await till.sdk.v1.checkout.sessions.expire_async(each.pages[page])
    else:
        await till.stripe.control(f"checkout/{each.pages[page]}/pay", card=ACCOUNTS[fate])


async def hear_some(till: Till, chance: random.Random, lose_percent: int) -> None:
    """In any order; then everything that is not final is looked at."""
    await till.hear(shuffle=chance, lose_percent=lose_percent)
    await till.sweep()


def require_nothing_lost(till: Till, all_of_them: Sequence[Twice]) -> None:
    for each in all_of_them:
        assert till.entries(each.gateway) == [("payment", Decimal(25))] * min(1, each.paid_count), each.name
        kinds = [row["kind"] for row in till.rows(
            "SELECT kind FROM payment_event WHERE payment_id = %s ORDER BY id", each.payment
        )]  # fmt: skip
        ends = [kind for kind in kinds if kind in {"succeeded", "failed", "expired", "canceled"}]
        first = each.fates[0]
        by_its_link = {"paid": "succeeded", "refused": "failed", "expired": "expired"}[first]
        assert ends == ["succeeded" if each.paid_count else by_its_link], each.name
        told = till.rows("SELECT type FROM notice WHERE gateway_id = %s", each.gateway)
        assert len(told) == (1 if ends == ["failed"] else 0), each.name


async def run_through(till: Till, all_of_them: Sequence[Twice], *, lose_percent: int) -> None:
    chance = random.Random(lose_percent)
    for number in range(2):
        for each in all_of_them:
            await act(till, each, number)
        await hear_some(till, chance, lose_percent)
        await till.stripe.control("clock", advance_s=BETWEEN_S)
    for _ in range(2):
        await till.stripe.control("clock", advance_s=BANK_ANSWERS_S - 2 * BETWEEN_S)
        await hear_some(till, chance, lose_percent)
    require_nothing_lost(till, all_of_them)
    for event in await till.events():  # as they are found in Stripe's list in the end
        await till.handled(event)
    require_nothing_lost(till, all_of_them)
    twice_paid = {reason.split()[0] for reason in till.parked if "was paid twice" in reason}
    assert twice_paid == {show("pay", each.payment) for each in all_of_them if each.paid_count == 2}


FIRST, SECOND = (0, 1), (1, 0)


@pytest.mark.parametrize(
    ("lose_percent", "cases"),
    [
        (0, [("paid", "refused", SECOND), ("expired", "paid", FIRST)]),
        (100, [("refused", "paid", FIRST), ("refused", "expired", FIRST), ("paid", "paid", SECOND)]),
    ],
)
async def test_what_may_be_paid_at_one_page_is_not_ended_by_the_other(
    late: Till, lose_percent: int, cases: list[tuple[Fate, Fate, tuple[int, int]]]
) -> None:
    all_of_them = [await twice(late, (one, two), acts) for one, two, acts in cases]
    await run_through(late, all_of_them, lose_percent=lose_percent)


@pytest.mark.slow
@pytest.mark.parametrize("lose_percent", [0, 50, 100])
async def test_what_is_paid_at_either_of_two_pages_is_credited_once(late: Till, lose_percent: int) -> None:
    everything = product(FATES, FATES, (FIRST, SECOND))
    await run_through(late, [await twice(late, (one, two), acts) for one, two, acts in everything],
                      lose_percent=lose_percent)  # fmt: skip
