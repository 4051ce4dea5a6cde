"""Gateways with a subscription, whose periods begin and end when a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tests.parts.invoiced import Debtor, Owner
from tests.settlement.invoices.test_subscriptions import begin_period
from tests.settlement.rerating.sold import Sold


@contextmanager
def past_all_triggers(sold: Sold) -> Iterator[Owner]:
    """As nobody else can."""
    owner = sold.house.owner
    owner.execute("SET session_replication_role = replica")
    try:
        yield owner
    finally:
        owner.execute("RESET session_replication_role")


async def subscribed(sold: Sold, included: str, **gateway: Any) -> Debtor:
    """From now on, for nothing."""
    acme = await sold.gateway("standard", **gateway)
    begin_subscription(sold, acme, included)
    return acme


def begin_subscription(sold: Sold, acme: Debtor, included: str) -> None:
    with past_all_triggers(sold) as owner:  # nobody may say now what holds from now on
        owner.execute(
            "INSERT INTO billing_terms (gateway_id, begins_at, way, fee, included, credit_limit) "
            "VALUES (%s, clock_timestamp(), 'subscription', 0, %s, 1000000)", [acme.id, included],
        )  # fmt: skip
    begin_period(sold.house, acme)


def close_subscription(sold: Sold, acme: Debtor) -> None:
    """Lets the time come at which the period ends, and closes it."""
    ends_at: datetime = sold.house.value("SELECT clock_timestamp()")
    values = {"id": acme.id, "at": ends_at}  # the period that is open alone: those before it have ended
    with past_all_triggers(sold) as owner:
        owner.execute(
            "UPDATE subscription_period SET ends_at = %(at)s WHERE gateway_id = %(id)s AND ends_at > %(at)s", values
        )
        owner.execute(
            "UPDATE credit_lot SET expires_at = %(at)s WHERE account_id = %(id)s AND rank = 1 AND expires_at > %(at)s",
            values,
        )
        owner.execute("UPDATE account SET next_expiry_at = %(at)s WHERE id = %(id)s", values)
    sold.house.close(acme, way="subscription", until=ends_at)
