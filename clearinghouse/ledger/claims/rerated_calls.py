"""What must be true of every call that was rated anew: by which rule, and where its month was.

All of it is summed up from issuances and rules; nothing of what was kept with the re-rating has a part in it.
"""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import Claim, amount, shown

# Every call from the beginning of the month on that the period begins in, and the rule that it comes to.
_WANTED: Final = """
    SELECT rerating.id AS rerating_id, issuance.id, issuance.created_at, issuance.balance_after,
           issuance.volume_before AS counted_at, issuance.at_least_cost AS was_at_least_cost, was.floor AS was_floor,
           was.card, was.version, issuance.rate_rule > rerating.as_of AS is_newer,
           month_of((issuance.created_at AT TIME ZONE 'UTC')::date) AS month,
           wanted.id AS rule, wanted.meter, wanted.counts, wanted.floor, wanted.minimum_charge, sold.quantity,
           rate_cost(issuance.ev_wei, issuance.price) AS cost,
           rate_volume(sold.quantity, issuance.ev_wei, issuance.price) AS volume
      FROM rerating JOIN billing_period AS period USING (gateway_id, begins_at)
      JOIN issuance ON issuance.gateway_id = rerating.gateway_id AND issuance.created_at < period.ends_at
                   AND issuance.created_at >= date_trunc('month', period.begins_at, 'UTC')
      JOIN rate_rule AS was ON was.id = issuance.rate_rule
      LEFT JOIN session ON session.id = issuance.session_id
      LEFT JOIN LATERAL (
          SELECT version FROM rate_card WHERE rate_card.card = was.card AND effective_from <= issuance.created_at
             AND EXISTS (SELECT FROM rate_rule AS known WHERE known.card = rate_card.card
                            AND known.version = rate_card.version AND known.id <= rerating.as_of)
           ORDER BY effective_from DESC, version DESC LIMIT 1) AS held ON true
      LEFT JOIN LATERAL (
          SELECT * FROM rate_rule AS rule WHERE rule.card = was.card AND rule.version = held.version
             AND coalesce(rule.application, session.app, '') = coalesce(session.app, '')
             AND coalesce(rule.pipeline, session.pipeline, '') = coalesce(session.pipeline, '')
             AND coalesce(rule.model, session.model, '') = coalesce(session.model, '')
           ORDER BY rule.application IS NULL, rule.pipeline IS NULL, rule.model IS NULL LIMIT 1) AS wanted ON true
      CROSS JOIN LATERAL (
          SELECT CASE WHEN replace(wanted.per, 'minute', 'second') = replace(was.per, 'minute', 'second')
                      THEN issuance.quantity END AS quantity) AS sold
"""
_EARLIER: Final = """
    (PARTITION BY rerating_id, month, meter ORDER BY created_at, balance_after DESC, counted_at, id
     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
"""
_PLACED: Final = f"""
    SELECT *, coalesce(sum(rated - cost) OVER {_EARLIER}, 0) AS lead
      FROM (SELECT *, greatest(minimum_charge, rate_total(rule, CASE WHEN counts THEN reached ELSE 0 END + volume)
                                               - rate_total(rule, CASE WHEN counts THEN reached ELSE 0 END)) AS rated
              FROM (SELECT *, coalesce(sum(volume) OVER {_EARLIER}, 0) AS reached FROM ({_WANTED}) AS wanted) AS counted
           ) AS ruled
"""  # noqa: S608
#: By its rule and by what was recorded with it; NULL where it goes by what the plan allowed then.
_AT_LEAST_COST: Final = """
    CASE WHEN placed.was_floor = 'none' OR placed.floor <> 'none' OR NOT placed.was_at_least_cost
         THEN placed.floor <> 'none' OR placed.was_at_least_cost END
"""
_VIOLATIONS: Final = f"""
    SELECT {shown("iss", "id")} AS subject, detail
      FROM (SELECT placed.id, CASE
            WHEN is_newer
            THEN format('version %s of the rate card %s charged it, which is newer than what it is rated anew by',
                        version, card)
            WHEN call.rate_rule IS DISTINCT FROM rule
            THEN format('it is rated anew by the rule %s, when that for it was the rule %s', call.rate_rule, rule)
            WHEN call.quantity IS DISTINCT FROM placed.quantity
            THEN format('a quantity of %s is rated anew, when %s was sold', {amount("call.quantity")},
                        {amount("placed.quantity")})
            WHEN call.at_least_cost <> {_AT_LEAST_COST}
            THEN format('whether it is held at its cost anew is %s', call.at_least_cost)
            WHEN (call.volume_before, call.lead_before) IS DISTINCT FROM
                 (CASE WHEN counts THEN reached END, CASE WHEN counts THEN lead END)
            THEN format('anew its month had come to volume %s and a lead of %s; the calls before it come to %s and %s',
                        {amount("call.volume_before")}, {amount("call.lead_before")}, {amount("reached")},
                        {amount("lead")}) END AS detail
              FROM ({_PLACED}) AS placed
              JOIN rerated_call AS call ON call.rerating_id = placed.rerating_id AND call.issuance_id = placed.id
           ) AS told
     WHERE detail IS NOT NULL
"""  # noqa: S608

RERATED_CALLS: Final = Claim(
    "rerated_calls", "What is rated anew is rated by its own card's rule of then, where its month was.", _VIOLATIONS
)
