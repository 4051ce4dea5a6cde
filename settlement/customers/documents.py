"""How customers look in JSON. Amounts are decimal strings, times RFC 3339 in UTC, ids carry their prefix."""

from __future__ import annotations

from typing import Any

from clearinghouse.billing import terms_document
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from settlement.customers.changes import Schedule
from settlement.customers.details import Customer
from settlement.customers.terms import terms_row


def customer_document(customer: Customer) -> dict[str, Any]:
    """`stripe.is_in_step`: Stripe has been told all of it; `stripe.refusal`: why it does not take it."""
    return {
        "gateway_id": show("gw", customer.gateway_id),
        "name": customer.name,
        "email": customer.email,
        "address": {
            "line1": customer.line1,
            "line2": customer.line2,
            "city": customer.city,
            "postal_code": customer.postal_code,
            "state": customer.state,
            "country": customer.country,
        },
        "tax_id": f"{customer.tax_id_type}:{customer.tax_id}" if customer.tax_id is not None else None,
        "is_taxed": customer.is_taxed,
        "currency": customer.currency,
        "locale": customer.locale,
        "po_number": customer.po_number,
        "collection": customer.collection,
        "net_days": customer.net_days,
        "stripe": {
            "customer_id": customer.stripe_customer_id,
            "is_in_step": customer.is_in_step,
            "refusal": customer.stripe_refusal,
        },
        "changed_at": rfc3339(customer.changed_at),
        "changed_by": customer.changed_by,
    }


def schedule_document(schedule: Schedule) -> dict[str, Any]:
    """What holds, until when this period runs, and what is to come."""
    period = schedule.period
    return {
        "terms": terms_document(terms_row(schedule.now)),
        "period": {
            "first_day": period.first_day.isoformat(),
            "last_day": period.last_day.isoformat(),
            "begins_at": rfc3339(period.begin),
            "ends_at": rfc3339(period.end),
        },
        "to_come": [terms_document(terms_row(terms)) for terms in schedule.to_come],
    }
