"""One that owes, and what there must be of its period in the end."""

from __future__ import annotations

from decimal import Decimal

from tests.parts.invoiced import Debtor, Invoiced

CHARGES = ("3.3349", "100.2549")
TOTAL_MINOR = 10_359
ROUNDING = Decimal("-0.0002")


async def owing(house: Invoiced, name: str, card: str | None) -> Debtor:
    debtor = await house.gateway(name, card=card)
    for number, charge in enumerate(CHARGES):
        house.use(debtor, charge, app=f"app {number}")
    house.close(debtor)
    return debtor


async def require_one_of_each(
    house: Invoiced, debtor: Debtor, card: str | None, *, topup: Decimal = Decimal(0)
) -> None:
    """Of its one period; and of a top-up, where it had one."""
    (ours,) = [one for one in await house.invoices() if one.gateway_id == debtor.id]
    theirs = await house.at_stripe(customer=ours.stripe_customer_id)
    assert [(one.id, one.status, one.subtotal) for one in theirs] == [
        (ours.stripe_invoice_id, "paid" if card else "open", TOTAL_MINOR)
    ]
    assert len(theirs[0].lines.data) == len(CHARGES) + 1
    assert ours.state == ("paid" if card else "open")
    charged = [one.amount for one in await house.charges(customer=ours.stripe_customer_id)]
    due = [Decimal("103.59")] if card else []
    due += [topup] if topup else []
    assert sorted(charged) == sorted(int(amount * 100) for amount in due)
    assert house.entries(debtor, "rounding") == [ROUNDING]
    assert sorted(house.entries(debtor, "payment")) == sorted(due)
    assert house.unbilled(debtor) == -topup
    house.require_balanced(debtor)


def pays_in_advance(house: Invoiced, debtor: Debtor) -> None:
    """By now: what Stripe keeps for it would pay nothing."""
    with house.owner.transaction():
        house.owner.execute("SET LOCAL session_replication_role = replica")  # as if it had been agreed on before
        house.owner.execute(
            "INSERT INTO billing_terms (gateway_id, begins_at, way) SELECT %s, clock_timestamp(), 'prepaid'",
            [debtor.id],
        )


def is_asked_without_stripe(house: Invoiced, debtor: Debtor) -> None:
    """By now: no invoice of Stripe follows."""
    house.owner.execute("UPDATE customer SET collection = 'manual' WHERE gateway_id = %s", [debtor.id])
