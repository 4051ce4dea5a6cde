"""What is compared of Stripe's side and ours, as questions to the database: how much there is, and what differs.

Differences have `subject`, `amount` (in the unit's own measure), `unit`, `detail`, and `link`: a command of ours, or
what Stripe calls the object, as a path. Signs: above 0, there is more money at Stripe than in the books, or more is
asked for; so refunds, disputes and credit notes that the books do not have are below 0. Where a status differs, the
amount is what the object is of, and has no sign.
"""

# ruff: noqa: S608 - the parts of the queries are constants

from __future__ import annotations

from typing import Final

#: An invoice's minor units as an amount.
_MAJOR: Final = "(({minor}) / power(10::numeric, invoice.decimals))"
_SHOWN: Final = "'inv_' || replace(invoice.id::text, '-', '')"
_SHOW: Final = f"'clearinghouse invoices show ' || {_SHOWN}"
_ISSUED: Final = "invoice.state IN ('finalized', 'open', 'paid', 'uncollectible')"
_INVOICES: Final = "stripe_invoice AS there JOIN invoice ON invoice.stripe_invoice_id = there.id"
#: An invoice that was edited at Stripe and paid is void here, and what was paid is booked beside it.
_EDITED: Final = """invoice.state = 'void' AND EXISTS (SELECT FROM transfer
                     WHERE transfer.key = 'payment:invoice:' || invoice.id || '\\:edited')"""
_EXPECTED_STATUS: Final = """CASE WHEN invoice.state IN ('drafted', 'itemized', 'agreed') THEN 'draft'
                                  WHEN invoice.state = 'finalized' THEN 'open' ELSE invoice.state END"""
#: What Stripe confirms of the invoice's own total: taxes come last (settlement.invoices.seen.settled_minor).
_SETTLED: Final = """CASE there.status WHEN 'paid' THEN invoice.total_minor - invoice.credited_minor
                          ELSE greatest(0, least(there.paid_minor, invoice.total_minor - invoice.credited_minor)) END"""
#: What the books have as paid of an invoice, without what became tax of it.
_ENTRIES: Final = """(
    SELECT coalesce(sum(CASE transfer.kind WHEN 'payment' THEN amount ELSE -amount END), 0)
      FROM invoice_entry JOIN transfer ON transfer.id = transfer_id
     WHERE invoice_entry.invoice_id = invoice.id
       AND (transfer.key LIKE 'payment:invoice:%' AND transfer.key NOT LIKE '%\\:void'
            OR transfer.key SIMILAR TO '(refund|payment)\\:credit\\_note:%\\:tax(\\:void)?'))"""


def _booked(*keys: str) -> str:
    """What the entry of the first key has, less that of the second: 0 where there is none."""
    first, *less = [f"coalesce((SELECT amount FROM transfer WHERE key = {key}), 0)" for key in keys]
    return f"({' - '.join([first, *less])})"


# Top-ups. One is known by its intent: a second one that was paid for it is not.
_CHARGES: Final = """
    stripe_charge AS there LEFT JOIN payment ON payment.stripe_intent_id = there.intent_id
"""
_PAYS_INVOICE: Final = """
    EXISTS (SELECT FROM stripe_invoice_paid AS paid JOIN invoice ON invoice.stripe_invoice_id = paid.invoice_id
             WHERE paid.intent_id = there.intent_id)
"""
_PAYMENT_BOOKED: Final = _booked("'payment:' || there.intent_id")
_UNKNOWN_CHARGE: Final = f"there.status = 'succeeded' AND payment.id IS NULL AND NOT {_PAYS_INVOICE}"
_REFUND_BOOKED: Final = _booked("'refund:' || there.id", "'payment:' || there.id")
_DISPUTE_BOOKED: Final = _booked("'dispute:' || there.id", "'dispute_won:' || there.id")
_REFUND_STATE: Final = "CASE there.status WHEN 'requires_action' THEN 'pending' ELSE there.status END"
_NOTE_BOOKED: Final = _booked(
    "'adjustment:credit_note:' || there.id", "'adjustment:credit_note:' || there.id || '\\:void'"
)
_REFUND: Final = "'clearinghouse payments show pay_' || replace(ours.payment_id::text, '-', '')"
_SHOW_REFUND: Final = f"coalesce({_REFUND}, 'refunds/' || there.id)"
_SHOW_DISPUTE: Final = f"coalesce({_REFUND}, 'disputes/' || there.id)"
_SHOW_PAYMENT: Final = "'clearinghouse payments show pay_' || replace(payment.id::text, '-', '')"

_UNKNOWN_OF_UNKNOWN: Final = f"""
    EXISTS (SELECT FROM (SELECT there.id FROM {_CHARGES} WHERE {_UNKNOWN_CHARGE}) AS unknown
             WHERE unknown.id = back.charge_id)
"""


def _unknown_back(table: str, ours: str, path: str, is_gone: str) -> str:
    """Money that went back of a charge that the books know, and of which they have nothing."""
    return f"""
        SELECT back.id AS subject, -back.amount AS amount, back.currency AS unit, '{path}/' || back.id AS link,
               format('%s %s, of charge %s', '{path}', back.status, back.charge_id) AS detail
          FROM {table} AS back
         WHERE {is_gone} AND back.charge_id IS NOT NULL AND NOT {_UNKNOWN_OF_UNKNOWN}
           AND NOT EXISTS (SELECT FROM {ours})"""


def _amount_differs(there: str, ours: str, show: str) -> str:
    """Of what went back. `there` and `ours`: how the rows of Stripe and of the books are joined."""
    return f"""
        SELECT there.id AS subject, ours.amount - there.amount AS amount, there.currency AS unit, {show} AS link,
               format('it is of %s at Stripe and of %s here', trim_scale(there.amount), trim_scale(ours.amount))
                   AS detail
          FROM {there} AS there JOIN {ours}
         WHERE (there.amount, there.currency) <> (ours.amount, ours.currency)"""


def _entries_differ(there: str, ours: str, show: str, booked: str) -> str:
    """Of what went back: `booked` is what its entries sum to."""
    return f"""
        SELECT there.id AS subject, {booked} - ours.booked AS amount, there.currency AS unit, {show} AS link,
               format('%s is noted as booked, the entries sum to %s', trim_scale(ours.booked), trim_scale({booked}))
                   AS detail
          FROM {there} AS there JOIN {ours}
         WHERE ours.booked <> {booked}
            OR ours.invoice_id IS NULL AND ours.booked <> CASE WHEN ours.is_gone THEN ours.amount ELSE 0 END"""


def _missing(row: str, id_: str, amount: str, unit: str, link: str, *, where: str = "true") -> str:
    return f"""
        SELECT {id_} AS subject, {amount} AS amount, {unit} AS unit, {link} AS link,
               format('the books have it as %s, and Stripe does not know it', {id_}) AS detail
          FROM stripe_missing AS gone JOIN {row} ON {id_} = gone.id WHERE {where}"""


_REFUNDS: Final = ("stripe_refund", "refund AS ours ON ours.stripe_refund_id = there.id", _SHOW_REFUND)
_DISPUTES: Final = ("stripe_dispute", "dispute AS ours ON ours.id = there.id", _SHOW_DISPUTE)

#: What may stand behind an entry: an entry of its invoice or note, or the row that has exactly this key. What was paid
#: of an edited invoice must be paid at Stripe; what was kept of a note is no more than the note takes back.
_RECORDS: Final = (
    "invoice_entry WHERE transfer_id = transfer.id",
    """invoice JOIN stripe_invoice AS there ON there.id = invoice.stripe_invoice_id
        WHERE key = 'payment:invoice:' || invoice.id || '\\:edited' AND invoice.state = 'void'
          AND there.status = 'paid' AND there.total >= transfer.amount""",
    """transfer AS noted WHERE transfer.key LIKE 'refund:credit\\_note:%' AND noted.amount >= transfer.amount
          AND noted.key = 'adjustment:credit_note:' || split_part(transfer.key, ':', 3)""",
    "payment WHERE stripe_intent_id = tail AND state = 'succeeded' AND key = 'payment:' || tail",
    """payment WHERE id::text = tail AND method IN ('wire', 'stablecoin') AND state = 'succeeded'
          AND key = 'payment:' || tail""",
    "refund WHERE stripe_refund_id = tail AND key IN ('refund:' || tail, 'payment:' || tail)",
    "dispute WHERE dispute.id = tail AND key IN ('dispute:' || tail, 'dispute_won:' || tail)",
)

DIFFERENCES: Final = {
    "invoice_unknown_to_books": """
        SELECT there.id AS subject, there.total AS amount, there.currency AS unit, 'invoices/' || there.id AS link,
               format('it is %s at Stripe', there.status) AS detail
          FROM stripe_invoice AS there LEFT JOIN invoice ON invoice.stripe_invoice_id = there.id
         WHERE there.in_period AND there.status NOT IN ('draft', 'void') AND invoice.id IS NULL""",
    "invoice_unknown_to_stripe": _missing(
        "invoice", "invoice.stripe_invoice_id", "-" + _MAJOR.format(minor="invoice.total_minor + invoice.tax_minor"),
        "invoice.currency", _SHOW, where="invoice.state <> 'void'",
    ),
    "invoice_status_differs": f"""
        SELECT {_SHOWN} AS subject, there.total AS amount, there.currency AS unit, {_SHOW} AS link,
               format('%s is %s at Stripe and %s here', there.id, there.status, invoice.state) AS detail
          FROM {_INVOICES} WHERE there.status <> {_EXPECTED_STATUS} AND NOT (there.status = 'paid' AND {_EDITED})""",
    "invoice_total_differs": f"""
        SELECT {_SHOWN} AS subject, there.currency AS unit, {_SHOW} AS link,
               {_MAJOR.format(minor="there.total_minor - invoice.total_minor - invoice.tax_minor")} AS amount,
               format('%s is of %s minor units of %s at Stripe and of %s of %s here', there.id, there.total_minor,
                      there.currency, invoice.total_minor + invoice.tax_minor, invoice.currency) AS detail
          FROM {_INVOICES}
         WHERE {_ISSUED} AND (there.total_minor, there.currency)
                             IS DISTINCT FROM (invoice.total_minor + invoice.tax_minor, invoice.currency)""",
    "invoice_paid_differs": f"""
        SELECT {_SHOWN} AS subject, {_MAJOR.format(minor=f"{_SETTLED} - invoice.booked_minor")} AS amount,
               there.currency AS unit, {_SHOW} AS link,
               format('of %s Stripe has %s minor units as paid without tax, and the books %s', there.id, {_SETTLED},
                      invoice.booked_minor) AS detail
          FROM {_INVOICES}
         WHERE {_ISSUED} AND there.status IN ('open', 'paid', 'uncollectible')
           AND {_SETTLED} <> invoice.booked_minor""",
    "invoice_entries_differ": f"""
        SELECT {_SHOWN} AS subject, {_MAJOR.format(minor="invoice.booked_minor")} - {_ENTRIES} AS amount,
               invoice.currency AS unit, {_SHOW} AS link,
               format('%s minor units are noted as booked, the entries sum to %s %s', invoice.booked_minor,
                      trim_scale({_ENTRIES}), invoice.currency) AS detail
          FROM {_INVOICES}
         WHERE {_ISSUED} AND {_MAJOR.format(minor="invoice.booked_minor")} <> {_ENTRIES}""",
    "credit_note_unknown_to_books": """
        SELECT there.id AS subject, -there.net AS amount, there.currency AS unit, 'credit_notes/' || there.id AS link,
               format('it is of invoice %s, which the books do not know', there.invoice_id) AS detail
          FROM stripe_note AS there
         WHERE there.in_period AND NOT there.is_void
           AND NOT EXISTS (SELECT FROM invoice WHERE invoice.stripe_invoice_id = there.invoice_id)""",
    "credit_note_unknown_to_stripe": _missing(
        "transfer", "split_part(transfer.key, ':', 3)", "transfer.amount", "transfer.currency",
        "'credit_notes/' || gone.id",
        where="transfer.key = 'adjustment:credit_note:' || gone.id",
    ),
    "credit_note_amount_differs": f"""
        SELECT there.id AS subject, {_NOTE_BOOKED} - CASE WHEN there.is_void THEN 0 ELSE there.net END AS amount,
               there.currency AS unit, {_SHOW} AS link,
               format('it is of %s %s without tax%s, and %s is booked of it', trim_scale(there.net), there.currency,
                      CASE WHEN there.is_void THEN ', and void' ELSE '' END, trim_scale({_NOTE_BOOKED})) AS detail
          FROM stripe_note AS there JOIN invoice ON invoice.stripe_invoice_id = there.invoice_id
         WHERE {_NOTE_BOOKED} <> CASE WHEN there.is_void THEN 0 ELSE there.net END
           AND NOT (invoice.state = 'void' AND there.kind = 'less_due')""",
    "charge_unknown_to_books": f"""
        SELECT there.id AS subject, there.amount - there.refunded AS amount, there.currency AS unit,
               'charges/' || there.id AS link,
               format('%s %s were charged at Stripe, %s of it given back, for no payment and no invoice of the books',
                      trim_scale(there.amount), there.currency, trim_scale(there.refunded)) AS detail
          FROM {_CHARGES} WHERE {_UNKNOWN_CHARGE} AND there.amount <> there.refunded""",
    "payment_unknown_to_stripe": _missing(
        "payment", "payment.stripe_intent_id", "-payment.amount", "payment.currency", _SHOW_PAYMENT,
        where="payment.state = 'succeeded'",
    ),
    "payment_amount_differs": f"""
        SELECT {_SHOW_PAYMENT} AS link, 'pay_' || replace(payment.id::text, '-', '') AS subject,
               there.amount - {_PAYMENT_BOOKED} AS amount, there.currency AS unit,
               format('%s is of %s %s at Stripe, and %s %s is booked of it', there.id, trim_scale(there.amount),
                      there.currency, trim_scale({_PAYMENT_BOOKED}), payment.currency) AS detail
          FROM {_CHARGES}
         WHERE payment.id IS NOT NULL AND there.status = 'succeeded'
           AND (there.amount <> {_PAYMENT_BOOKED} OR there.currency <> payment.currency)""",
    "refund_unknown_to_books": _unknown_back(
        "stripe_refund", "refund WHERE refund.stripe_refund_id = back.id", "refunds",
        "back.status NOT IN ('failed', 'canceled')",
    ),
    "refund_unknown_to_stripe": _missing(
        "refund AS ours", "ours.stripe_refund_id", "ours.amount", "ours.currency",
        f"coalesce({_REFUND}, 'refunds/' || gone.id)",
    ),
    "refund_amount_differs": _amount_differs(*_REFUNDS),
    "refund_status_differs": f"""
        SELECT there.id AS subject, there.amount, there.currency AS unit, {_SHOW_REFUND} AS link,
               format('it is %s at Stripe and %s here', there.status, ours.state) AS detail
          FROM stripe_refund AS there JOIN refund AS ours ON ours.stripe_refund_id = there.id
         WHERE {_REFUND_STATE} <> ours.state""",
    "refund_entries_differ": _entries_differ(*_REFUNDS, _REFUND_BOOKED),
    "dispute_unknown_to_books": _unknown_back(
        "stripe_dispute", "dispute WHERE dispute.id = back.id", "disputes",
        "back.status NOT LIKE 'warning%' AND back.status NOT IN ('won', 'prevented')",
    ),
    "dispute_unknown_to_stripe": _missing(
        "dispute AS ours", "ours.id", "ours.amount", "ours.currency", f"coalesce({_REFUND}, 'disputes/' || gone.id)"
    ),
    "dispute_status_differs": f"""
        SELECT there.id AS subject, there.amount, there.currency AS unit, {_SHOW_DISPUTE} AS link,
               format('it is %s at Stripe and %s here', there.status, ours.status) AS detail
          FROM stripe_dispute AS there JOIN dispute AS ours ON ours.id = there.id
         WHERE there.status <> ours.status""",
    "dispute_amount_differs": _amount_differs(*_DISPUTES),
    "dispute_entries_differ": _entries_differ(*_DISPUTES, _DISPUTE_BOOKED),
    # Entries that say of themselves that Stripe, or somebody's receipt, stands behind them, and of which nothing does.
    "entry_without_record": f"""
        SELECT 'tr_' || replace(transfer.id::text, '-', '') AS subject,
               CASE WHEN transfer.kind IN ('payment', 'dispute_won') THEN -amount ELSE amount END AS amount,
               transfer.currency AS unit, 'clearinghouse statements show ' || gateway.name AS link,
               format('a %s with the key %s: no payment, invoice, refund or dispute has it', transfer.kind,
                      transfer.key)
                   AS detail
          FROM transfer JOIN gateway ON gateway.id IN (source, destination)
         CROSS JOIN LATERAL (SELECT coalesce(split_part(key, ':', 2), '') AS tail) AS named
         WHERE transfer.kind IN ('payment', 'refund', 'dispute', 'dispute_won')
           AND transfer.created_at >= :begins_at AND transfer.created_at < :ends_at
           {" ".join(f"AND NOT EXISTS (SELECT FROM {record})" for record in _RECORDS)}""",
}  # fmt: skip

COMPARED: Final = {
    "invoices at Stripe, but for drafts": """
        SELECT currency AS unit, count(*) AS found_count, sum(total) AS amount FROM stripe_invoice
         WHERE in_period AND status <> 'draft' GROUP BY 1 ORDER BY 1""",
    "invoices of the books among them, with tax": f"""
        SELECT invoice.currency AS unit, count(*) AS found_count,
               sum({_MAJOR.format(minor="invoice.total_minor + invoice.tax_minor")}) AS amount
          FROM {_INVOICES} WHERE there.in_period AND there.status <> 'draft' GROUP BY 1 ORDER BY 1""",
    "paid of them in the books, without tax": f"""
        SELECT invoice.currency AS unit, count(*) AS found_count,
               sum({_MAJOR.format(minor="invoice.booked_minor")}) AS amount
          FROM {_INVOICES} WHERE there.in_period AND invoice.booked_minor > 0 GROUP BY 1 ORDER BY 1""",
    "invoices of before that are open or changed, with tax": f"""
        SELECT there.currency AS unit, count(*) AS found_count, sum(there.total) AS amount
          FROM {_INVOICES} WHERE NOT there.in_period GROUP BY 1 ORDER BY 1""",
    "credit notes at Stripe that are not void, without tax": """
        SELECT currency AS unit, count(*) AS found_count, sum(net) AS amount FROM stripe_note
         WHERE in_period AND NOT is_void GROUP BY 1 ORDER BY 1""",
    "charges at Stripe": """
        SELECT currency AS unit, count(*) AS found_count, sum(amount) AS amount FROM stripe_charge
         WHERE in_period AND status = 'succeeded' GROUP BY 1 ORDER BY 1""",
    "top-ups in the books among them": f"""
        SELECT payment.currency AS unit, count(*) AS found_count, sum(payment.amount) AS amount
          FROM {_CHARGES} WHERE there.in_period AND there.status = 'succeeded' AND payment.state = 'succeeded'
         GROUP BY 1 ORDER BY 1""",
    "refunds at Stripe": """
        SELECT currency AS unit, count(*) AS found_count, sum(amount) AS amount FROM stripe_refund
         WHERE in_period AND status NOT IN ('failed', 'canceled') GROUP BY 1 ORDER BY 1""",
    "refunds in the books among them": """
        SELECT ours.currency AS unit, count(*) AS found_count, sum(ours.amount) AS amount
          FROM stripe_refund AS there JOIN refund AS ours ON ours.stripe_refund_id = there.id
         WHERE there.in_period AND there.status NOT IN ('failed', 'canceled') GROUP BY 1 ORDER BY 1""",
    "disputes at Stripe": """
        SELECT currency AS unit, count(*) AS found_count, sum(amount) AS amount FROM stripe_dispute
         WHERE in_period GROUP BY 1 ORDER BY 1""",
    "disputes in the books among them": """
        SELECT ours.currency AS unit, count(*) AS found_count, sum(ours.amount) AS amount
          FROM stripe_dispute AS there JOIN dispute AS ours ON ours.id = there.id
         WHERE there.in_period GROUP BY 1 ORDER BY 1""",
    "payments that came another way, approved by two people": """
        SELECT currency AS unit, count(*) AS found_count, sum(amount) AS amount FROM payment
         WHERE method IN ('wire', 'stablecoin') AND state = 'succeeded'
           AND ended_at >= :begins_at AND ended_at < :ends_at GROUP BY 1 ORDER BY 1""",
}
