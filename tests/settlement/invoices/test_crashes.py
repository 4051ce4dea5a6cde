"""A worker ends at every point of the way, and another goes on: one invoice, one charge, one entry of each kind."""

from __future__ import annotations

import pytest

from tests.parts.crashing import CrashingDesk, it_may_crash
from tests.parts.invoiced import DAY_S, Invoiced
from tests.settlement.invoices.owing import owing, require_one_of_each


@pytest.mark.slow
@pytest.mark.parametrize(("card", "key_is_forgotten"), [(None, False), ("pm_card_visa", True)])
async def test_whoever_goes_on_after_a_crash_at_any_point_asks_once_and_charges_once(
    house: Invoiced, card: str | None, key_is_forgotten: bool
) -> None:
    passed: list[str] = []
    for dies_at in range(1, 200):
        debtor = await owing(house, f"gateway-{dies_at}", card)
        assert (await house.plan()).problems == []
        desk = CrashingDesk(house.desk, dies_at)
        with it_may_crash():
            await house.walk(desk, in_flight_count=1)
        passed = desk.fuse.steps
        if key_is_forgotten:
            await house.stripe.control("clock", advance_s=DAY_S + 3600)
        walked = await house.walk()
        assert (walked.held, walked.away, walked.elsewhere_count) == ([], None, 0), passed[-1]
        await require_one_of_each(house, debtor, card)
        assert (await house.walk()).invoices == [], "there is nothing left to do"
        if len(passed) < dies_at:
            break
    assert {"before InvoiceService.finalize_invoice_async", "after InvoiceItemService.create_async"} <= set(passed)
    assert ("after InvoiceService.pay_async" in passed) == (card is not None)
    assert len(passed) > 20, "every call and every commit is a point"
