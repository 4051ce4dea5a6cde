"""What is asked for a period: lines that are the total, a total that is the books', nothing that is lost."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.ledger.money import EXACT, exact_sum
from clearinghouse.rates.units import Per
from settlement.currencies import currency
from settlement.invoices.owed import Books, Owed, owed_for, owed_in_advance
from settlement.invoices.usage_lines import LINES_MAX_COUNT, Usage, described, facts_of
from settlement.rounding import DoesNotAddUp, from_minor
from settlement.units import UNITS

USD, JPY, KWD = currency("USD"), currency("JPY"), currency("KWD")
KINDS = (
    "fee", "grant", "included", "payment", "dispute_won", "write_off", "expiry", "withdrawal", "refund", "dispute",
    "adjustment",
)  # fmt: skip


def used(charge: str | Decimal, app: str = "app", **more: object) -> Usage:
    usual = Usage(app, "live-video-to-video", "streamdiffusion", 500, 12, 60, 5 * 10**17, Decimal(charge))
    return replace(usual, **more)  # type: ignore[arg-type]


def books(*charges: str, before: str = "0", **entered: str) -> Books:
    """That balance."""
    moved = {kind: Decimal(amount) for kind, amount in entered.items()}
    owed = Decimal(before) + sum(map(Decimal, charges)) - sum(moved.values())
    return Books(Decimal(before), [used(charge) for charge in charges], moved, owed)


def shown(owed: Owed) -> list[tuple[str, int]]:
    return [(line.kind, line.amount_minor) for line in owed.lines]


amounts = st.decimals(min_value=-(10**9), max_value=10**9, places=34)
charges = st.lists(st.decimals(min_value=0, max_value=10**7, places=34).filter(bool), max_size=8)
histories = st.builds(
    lambda charges, before, entered: Books(
        before,
        [used(charge, app=str(n)) for n, charge in enumerate(charges)],
        entered,
        EXACT.subtract(EXACT.add(before, exact_sum(charges)), exact_sum(entered.values())),
    ),
    charges, amounts, st.dictionaries(st.sampled_from(KINDS), amounts, max_size=6),
)  # fmt: skip


@given(histories, st.sampled_from(["USD", "EUR", "JPY", "KWD", "ISK", "UGX", "HUF"]))
def test_lines_are_the_total_and_the_total_is_what_the_books_say(found: Books, code: str) -> None:
    money = currency(code)
    owed = owed_for(found, money)
    assert owed.exact == found.owed
    assert sum(line.amount_minor for line in owed.lines) == owed.total_minor
    assert owed.total_minor % money.unit_minor == 0
    if owed.state == "planned":
        assert exact_sum(line.exact for line in owed.lines) == owed.exact
        assert owed.total_minor >= max(1, money.minimum_minor or 0)
        remainder = EXACT.subtract(owed.exact, from_minor(owed.total_minor, money))
        assert EXACT.multiply(remainder.copy_abs(), 2) <= money.unit, (
            "what is posted as rounding is half a unit at most"
        )
    else:
        assert (owed.total_minor, owed.lines) == (0, ())
        assert owed.state == ("carried" if owed.exact > 0 else "nothing_due")
        assert owed.exact < from_minor(max(money.unit_minor, money.minimum_minor or 0), money)


def test_a_period_is_shown_line_by_line_and_rounded_visibly() -> None:
    owed = owed_for(books("3.3349", "3.3349", "3.3349"), USD)
    assert shown(owed) == [("usage", 333), ("usage", 333), ("usage", 333), ("rounding", 1)]
    assert (owed.state, owed.total_minor, owed.exact) == ("planned", 1000, Decimal("10.0047"))


def test_credit_of_whatever_kind_is_one_line_and_what_was_returned_another() -> None:
    found = books("100", before="-5", grant="20", included="10", payment="7", expiry="-2", refund="-4", dispute="-1")
    assert shown(owed_for(found, USD)) == [("usage", 10_000), ("credit", -4000), ("returned", 500)]


def test_what_was_carried_is_a_line_of_its_own_and_too_little_is_carried_on() -> None:
    assert shown(owed_for(books("0.40", before="0.30"), USD)) == [("usage", 40), ("carried", 30)]
    small = owed_for(books("0.15", before="0.3333"), USD)
    assert (small.state, small.exact, small.total_minor) == ("carried", Decimal("0.4833"), 0)


def test_credit_that_covers_everything_leaves_nothing_due_and_stays() -> None:
    owed = owed_for(books("30", grant="50"), USD)
    assert (owed.state, owed.exact) == ("nothing_due", Decimal(-20))
    assert owed_for(books(), USD).state == "nothing_due"


def test_corrections_and_fees_that_no_invoice_asked_for_are_asked_for() -> None:
    assert shown(owed_for(books("10", adjustment="-2.5", fee="-20"), USD)) == [
        ("usage", 1000), ("fee", 2000), ("correction", 250),
    ]  # fmt: skip


def test_currencies_without_and_with_three_decimals_are_asked_for_in_what_can_be_paid() -> None:
    assert shown(owed_for(books("100.4", "100.4"), JPY)) == [("usage", 100), ("usage", 100), ("rounding", 1)]
    assert shown(owed_for(books("1.2345"), KWD)) == [("usage", 1230)]


def test_books_that_do_not_add_up_are_refused_also_where_nothing_would_be_asked_for() -> None:
    for wrong in ("10.01", "-3"):
        with pytest.raises(DoesNotAddUp):
            owed_for(replace(books("10"), owed=Decimal(wrong)), USD)


def test_a_subscription_is_asked_for_in_advance() -> None:
    owed = owed_in_advance(Decimal("49.99"), Decimal(100), USD)
    assert (owed.state, shown(owed), owed.lines[0].facts) == (
        "planned", [("fee", 4999)], {"charge": "49.99", "included": "100"},
    )  # fmt: skip


def test_an_entry_of_a_kind_that_nobody_knows_is_not_passed_over() -> None:
    with pytest.raises(KeyError):
        owed_for(books("10", donation="3"), USD)


def test_a_line_says_what_was_used_and_what_it_cost_on_average() -> None:
    assert described(used("1050"), USD) == (
        "live-video-to-video, streamdiffusion (app): 12 calls, 60 tickets, EV 0.5 ETH at 2100 USD per ETH on average"
    )
    assert {"average_rate": "2100", "average_rate_per": "ETH"}.items() <= facts_of(used("1050")).items()
    line = used("1050", quantity=Decimal("3600.50"), unit="second", rate_rule="live")
    assert described(line, USD) == (
        "live-video-to-video, streamdiffusion (app): 3600.5 seconds at 0.291626 USD per second on average, 12 calls, "
        "60 tickets, EV 0.5 ETH"
    )
    assert facts_of(line) == {
        "app": "app", "pipeline": "live-video-to-video", "model": "streamdiffusion", "markup_bps": "500", "calls": "12",
        "tickets": "60", "ev_wei": "500000000000000000", "charge": "1050", "rate_rule": "live", "unit": "second",
        "quantity": "3600.5", "average_rate": "0.291626", "average_rate_per": "second",
    }  # fmt: skip
    assert described(used("1", app="", pipeline="", model="", ev_wei=0), USD).startswith("usage: 12 calls")


@pytest.mark.parametrize(
    ("unit", "quantity", "said"),
    [
        ("request", "1", "1 request at 3 USD per request on average, 1 call, 1 ticket, EV 0.5 ETH"),
        ("request", "12", "12 requests at 0.25 USD per request on average, 1 call, 1 ticket, EV 0.5 ETH"),
        ("minute", "0.5", "0.5 minutes at 6 USD per minute on average, 1 call, 1 ticket, EV 0.5 ETH"),
        ("720p-pixel-second", "30000000", "30000000 pixels at 0.0000001 USD per pixel on average, 1 call, 1 ticket, "
                                          "EV 0.5 ETH"),
        ("second", "0", "0 seconds, 1 call, 1 ticket, EV 0.5 ETH"),
    ],
)  # fmt: skip
def test_what_is_counted_is_in_words_of_one_or_of_many(unit: str, quantity: str, said: str) -> None:
    line = used("3", quantity=Decimal(quantity), unit=unit, calls_count=1, tickets_count=1)
    assert described(line, USD) == f"live-video-to-video, streamdiffusion (app): {said}"


def test_every_unit_that_a_rate_may_be_per_has_words() -> None:
    assert set(UNITS) == set(Per) - {Per.COST}


def test_names_of_any_length_of_any_signs_and_amounts_of_any_size_fit() -> None:
    line = used(
        Decimal(10**40 - 1).scaleb(-34), app="x" * 10_000, pipeline="new\nline", model="é" * 100, rate_rule="r" * 1000,
        quantity=Decimal(10**60 - 1).scaleb(-9), unit="720p-pixel-second", ev_wei=10**78 - 1, calls_count=2**63 - 1,
        tickets_count=2**63 - 1, others_count=2**31,
    )  # fmt: skip
    assert len(described(replace(line, others_count=0), USD)) < 500
    assert "\n" not in described(line, USD)
    facts = facts_of(line)
    assert len(facts) <= 40, "Stripe takes 50, and every line has some of ours besides"
    assert all(len(name) <= 40 and len(value) <= 500 for name, value in facts.items())


def test_more_lines_than_stripe_takes_are_put_together_to_the_last_digit() -> None:
    many = [used(Decimal(n + 1).scaleb(-20), app=str(n)) for n in range(LINES_MAX_COUNT + 50)]
    total = exact_sum(each.charge for each in many)
    owed = owed_for(Books(Decimal(100), many, {}, Decimal(100) + total), USD)
    usage = [line for line in owed.lines if line.kind == "usage"]
    assert len(usage) == LINES_MAX_COUNT
    assert exact_sum(line.exact for line in usage) == total
    assert (usage[-1].facts["others"], usage[-1].facts["calls"]) == ("51", str(51 * 12))
    assert "51 other applications" in usage[-1].description
