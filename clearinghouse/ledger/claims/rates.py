"""What must be true of charges by rate cards."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import ISSUANCE, Claim, amount, shown

_RATED_FROM: Final = """
    SELECT issuance.id, issuance.gateway_id, issuance.charge, issuance.created_at, issuance.at_least_cost,
           issuance.volume_before, issuance.lead_before, rule.card, rule.version, rule.floor, rule.counts, rule.meter,
           rate_cost(ev_wei, price) AS cost, rate_volume(quantity, ev_wei, price) AS volume,
           greatest(rule.minimum_charge,
                    rate_total(rule.id, coalesce(volume_before, 0) + rate_volume(quantity, ev_wei, price))
                    - rate_total(rule.id, coalesce(volume_before, 0))) AS rated
      FROM %s JOIN rate_rule AS rule ON rule.id = issuance.rate_rule
"""
RATED_CHARGE: Final = """
    rate_charge(CASE WHEN issuance.counts THEN issuance.floor ELSE 'call' END, issuance.at_least_cost, issuance.rated,
                issuance.cost, coalesce(issuance.lead_before, 0))
"""


def rated(calls: str) -> str:
    """SQL: what the rule of each of them comes to. `calls` names them `issuance`."""
    return _RATED_FROM % calls


_RATED: Final = rated("issuance")
_UNIT: Final = "(SELECT currency FROM account WHERE account.id = issuance.gateway_id)"
_RATE_CHARGES = f"""
    SELECT {ISSUANCE} AS subject,
           format('the charge is %s, but by version %s of the rate card %s it comes to %s',
                  {amount("issuance.charge")}, issuance.version, issuance.card, {amount(RATED_CHARGE)}) AS detail,
           issuance.charge - {RATED_CHARGE} AS amount, {_UNIT} AS unit
      FROM ({_RATED}) AS issuance WHERE issuance.charge <> {RATED_CHARGE}
    UNION ALL
    SELECT {ISSUANCE}, format('version %s of the rate card %s charged below cost, which it does not allow',
                               issuance.version, issuance.card), issuance.charge, {_UNIT}
      FROM ({_RATED}) AS issuance WHERE NOT issuance.at_least_cost AND issuance.floor <> 'none'
    UNION ALL
    SELECT {ISSUANCE}, format('its rule %s does not exist', issuance.rate_rule), issuance.charge, issuance.currency
      FROM issuance LEFT JOIN rate_rule ON rate_rule.id = issuance.rate_rule
     WHERE issuance.rate_rule IS NOT NULL AND rate_rule.id IS NULL
    UNION ALL
    SELECT {ISSUANCE}, 'what a rule would need is recorded for some of it only', issuance.charge, issuance.currency
      FROM issuance LEFT JOIN rate_rule AS rule ON rule.id = issuance.rate_rule
     WHERE (issuance.rate_rule IS NULL) <> (issuance.at_least_cost IS NULL)
        OR coalesce(rule.per <> 'cost', false) <> (issuance.quantity IS NOT NULL)
        OR coalesce(rule.counts, false) <> (issuance.volume_before IS NOT NULL)
        OR coalesce(rule.counts, false) <> (issuance.lead_before IS NOT NULL)
"""  # noqa: S608

# A version that was added later says nothing of what was charged before.
_RATE_VERSIONS = f"""
    SELECT {ISSUANCE} AS subject,
           format('it was charged by version %s of the rate card %s at %s, when version %s held', rule.version,
                  rule.card, issuance.created_at, held.version) AS detail
      FROM issuance JOIN rate_rule AS rule ON rule.id = issuance.rate_rule
      LEFT JOIN LATERAL (
          SELECT version FROM rate_card WHERE rate_card.card = rule.card AND effective_from <= issuance.created_at
             AND applied_at <= issuance.created_at ORDER BY effective_from DESC, version DESC LIMIT 1) AS held ON true
     WHERE held.version IS DISTINCT FROM rule.version
"""  # noqa: S608

_RATE_POSITIONS = f"""
    SELECT {shown("gw", "coalesce(position.gateway_id, issued.gateway_id)")} AS subject,
           format('in %s %s has come to volume %s, %s by the rate and a cost of %s; its issuances sum to %s, %s and %s',
                  coalesce(position.month, issued.month), coalesce(position.meter, issued.meter),
                  {amount("position.volume")}, {amount("position.rated")}, {amount("position.cost")},
                  {amount("issued.volume")}, {amount("issued.rated")}, {amount("issued.cost")}) AS detail
      FROM rate_position AS position
      FULL JOIN (SELECT gateway_id, month_of((created_at AT TIME ZONE 'UTC')::date) AS month, meter,
                        sum(volume) AS volume, sum(rated) AS rated, sum(cost) AS cost
                   FROM ({_RATED}) AS issuance GROUP BY 1, 2, 3) AS issued
             USING (gateway_id, month, meter)
     WHERE (position.volume, position.rated, position.cost) IS DISTINCT FROM (issued.volume, issued.rated, issued.cost)
"""  # noqa: S608

_RATE_CARDS_ARE_DUE = f"""
    SELECT {shown("gw", "gateway.id")} AS subject,
           format('it is charged by the rate card %s, below cost: %s; by its plan %s it should be %s, below cost: %s',
                  coalesce(gateway.rate_card, 'none'), gateway.below_cost, plan.name, coalesce(due.rate_card, 'none'),
                  due.below_cost) AS detail
      FROM gateway JOIN due_rate_card AS due ON due.gateway_id = gateway.id JOIN plan ON plan.name = gateway.plan
     WHERE (gateway.rate_card, gateway.below_cost) IS DISTINCT FROM (due.rate_card, due.below_cost)
       AND NOT (plan.applied_version < plan.version AND plan.changed_at > now() - interval '10 minutes')
    UNION ALL
    SELECT {shown("gw", "gateway.id")},
           format('the rate card %s is in %s, the account in %s', card.card, card.currency, account.currency)
      FROM gateway JOIN account ON account.id = gateway.id JOIN rate_card AS card ON card.card = gateway.rate_card
     WHERE card.currency <> account.currency
"""  # noqa: S608

RATES: Final = (
    Claim(
        "rate_charge",
        "Every charge by a rate card is what the rule it names comes to.",
        _RATE_CHARGES,
        is_of_amounts=True,
    ),
    Claim("rate_version", "What is charged by a rate card is by the version that held then.", _RATE_VERSIONS),
    Claim("rate_position", "What a rate has come to in a month is what its issuances sum to.", _RATE_POSITIONS),
    Claim(
        "rate_cards",
        "Every gateway is charged by the rate card that its plan or itself was put on.",
        _RATE_CARDS_ARE_DUE,
    ),
)
