"""What must be true of what is counted, added up and limited of usage."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import ACCOUNT, ISSUANCE, Claim, amount, shown

_ISSUANCE_ACCOUNTS = f"""
    SELECT {ISSUANCE} AS subject,
           CASE WHEN account.id IS NULL
                THEN format('the account %s does not exist', {shown("gw", "issuance.gateway_id")})
                ELSE format('%s was charged to an account in %s', issuance.currency, account.currency) END AS detail,
           issuance.charge AS amount, issuance.currency AS unit
      FROM issuance LEFT JOIN account ON account.id = issuance.gateway_id AND account.gateway_id = account.id
     WHERE account.id IS NULL OR account.currency <> issuance.currency
"""  # noqa: S608

_ISSUED_ONCE = f"""
    SELECT {ISSUANCE} AS subject, format('%s issuances of different gateways share this id', count(*)) AS detail
      FROM issuance GROUP BY issuance.id HAVING count(*) > 1
"""  # noqa: S608

_USAGE_TOTALS = f"""
    SELECT {ACCOUNT} AS subject,
           format('usage_total is %s, the charges sum to %s', {amount("account.usage_total")},
                  {amount("coalesce(used.amount, 0)")}) AS detail,
           account.usage_total - coalesce(used.amount, 0) AS amount, account.currency AS unit
      FROM account LEFT JOIN (SELECT gateway_id, sum(charge) AS amount FROM issuance GROUP BY gateway_id)
                          AS used ON used.gateway_id = account.id
     WHERE account.usage_total <> coalesce(used.amount, 0)
"""  # noqa: S608

# What was used on the days that the counters are of. An entry's time is taken under the account's lock.
_BEGINS_AT: Final = "(account.usage_day - {days})::timestamp AT TIME ZONE 'UTC'"
_DAYS_USED: Final = f"""
    SELECT account.id, account.usage_day,
           count(*) FILTER (WHERE issuance.created_at >= {_BEGINS_AT.format(days=0)}) AS calls_day,
           coalesce(sum(charge) FILTER (WHERE issuance.created_at >= {_BEGINS_AT.format(days=0)}), 0) AS spent_day,
           coalesce(sum(charge), 0) AS spent_month
      FROM account JOIN issuance ON issuance.gateway_id = account.id
                                AND issuance.created_at >= month_of(account.usage_day)::timestamp AT TIME ZONE 'UTC'
"""  # noqa: S608
_COUNTED: Final = "(counted.calls_day, counted.spent_day, counted.spent_month)"
_USED: Final = "(coalesce(used.calls_day, 0), coalesce(used.spent_day, 0), coalesce(used.spent_month, 0))"
_COUNTED_AND_USED: Final = f"""
    format('%s calls and %s on the day, %s in the month are counted, the issuances make it %s, %s and %s',
           counted.calls_day, {amount("counted.spent_day")}, {amount("counted.spent_month")},
           coalesce(used.calls_day, 0), {amount("coalesce(used.spent_day, 0)")},
           {amount("coalesce(used.spent_month, 0)")})
"""


def _of_keys(used: str) -> str:
    """The same sums, of each key."""
    return (
        used.replace("SELECT account.id", "SELECT issuance.key_id, account.id") + "GROUP BY account.id, issuance.key_id"
    )


_USAGE_IS_COUNTED = f"""
    SELECT {shown("gw", "counted.id")} AS subject, {_COUNTED_AND_USED} AS detail
      FROM account AS counted LEFT JOIN ({_DAYS_USED} GROUP BY account.id) AS used ON used.id = counted.id
     WHERE {_COUNTED} <> {_USED}
    UNION ALL
    SELECT {shown("key", "counted.key_id")}, {_COUNTED_AND_USED}
      FROM key_limit AS counted
      LEFT JOIN ({_of_keys(_DAYS_USED)}) AS used ON used.id = counted.gateway_id AND used.key_id = counted.key_id
     WHERE {_COUNTED} <> {_USED}
"""  # noqa: S608

_DAYS_EV: Final = f"""
    SELECT account.id,
           coalesce(sum(ev_wei) FILTER (WHERE issuance.created_at >= {_BEGINS_AT.format(days=0)}), 0) AS ev_day0_wei,
           coalesce(sum(ev_wei) FILTER (WHERE issuance.created_at >= {_BEGINS_AT.format(days=1)}
                                          AND issuance.created_at < {_BEGINS_AT.format(days=0)}), 0) AS ev_day1_wei,
           coalesce(sum(ev_wei) FILTER (WHERE issuance.created_at < {_BEGINS_AT.format(days=1)}), 0) AS ev_day2_wei
      FROM account JOIN issuance ON issuance.gateway_id = account.id
                                AND issuance.created_at >= {_BEGINS_AT.format(days=2)}
"""  # noqa: S608
_EV_COUNTED: Final = "counted.ev_day0_wei, counted.ev_day1_wei, counted.ev_day2_wei"
_EV_USED: Final = ", ".join(f"coalesce(used.ev_day{day}_wei, 0)" for day in range(3))
_EV_COUNTED_AND_USED: Final = f"""
    format('%s, %s and %s wei are counted as released on the last three days, the issuances make it %s, %s and %s',
           {_EV_COUNTED}, {_EV_USED})
"""
_EV_IS_COUNTED = f"""
    SELECT {shown("gw", "counted.id")} AS subject, {_EV_COUNTED_AND_USED} AS detail
      FROM account AS counted LEFT JOIN ({_DAYS_EV} GROUP BY account.id) AS used ON used.id = counted.id
     WHERE ({_EV_COUNTED}) <> ({_EV_USED})
    UNION ALL
    SELECT {shown("key", "counted.key_id")}, {_EV_COUNTED_AND_USED}
      FROM key_limit AS counted
      LEFT JOIN ({_of_keys(_DAYS_EV)}) AS used ON used.id = counted.gateway_id AND used.key_id = counted.key_id
     WHERE ({_EV_COUNTED}) <> ({_EV_USED})
"""  # noqa: S608

_EV_TOTALS = f"""
    SELECT {ACCOUNT} AS subject,
           format('%s wei of expected value were ever released, it says; the issuances make it %s',
                  account.ev_total_wei, coalesce(issued.ev_wei, 0)) AS detail,
           account.ev_total_wei - coalesce(issued.ev_wei, 0) AS amount, 'wei' AS unit
      FROM account LEFT JOIN (SELECT gateway_id, sum(ev_wei) AS ev_wei FROM issuance GROUP BY gateway_id) AS issued
                          ON issued.gateway_id = account.id
     WHERE account.ev_total_wei <> coalesce(issued.ev_wei, 0)
"""  # noqa: S608

_FEES_ARE_COUNTED = f"""
    SELECT {ACCOUNT} AS subject,
           format('fees of %s wei are counted on the day, the issuances make it %s', account.fee_day_wei,
                  coalesce(issued.fee_wei, 0)) AS detail
      FROM account LEFT JOIN (
           SELECT account.id, sum(fee_wei) AS fee_wei
             FROM account JOIN issuance ON issuance.gateway_id = account.id
                                       AND issuance.created_at >= {_BEGINS_AT.format(days=0)}
            GROUP BY account.id) AS issued ON issued.id = account.id
     WHERE account.fee_day_wei <> coalesce(issued.fee_wei, 0)
"""  # noqa: S608

_OPEN_SESSIONS_ARE_COUNTED = f"""
    SELECT {ACCOUNT} AS subject,
           format('%s sessions are counted as open, %s are', account.sessions_open, coalesce(opened.sessions, 0))
           AS detail
      FROM account LEFT JOIN (SELECT gateway_id, count(*) AS sessions FROM session WHERE NOT closed
                               GROUP BY gateway_id) AS opened ON opened.gateway_id = account.id
     WHERE account.sessions_open <> coalesce(opened.sessions, 0)
    UNION ALL
    SELECT {shown("gw", "coalesce(counted.gateway_id, opened.gateway_id)")},
           format('%s sessions with orchestrator 0x%s are counted as open, %s are', coalesce(counted.sessions, 0),
                  encode(coalesce(counted.orchestrator, opened.orchestrator)::bytea, 'hex'),
                  coalesce(opened.sessions, 0))
      FROM open_sessions AS counted
      FULL JOIN (SELECT gateway_id, orchestrator, count(*) AS sessions FROM session WHERE NOT closed
                  GROUP BY gateway_id, orchestrator) AS opened
             ON opened.gateway_id = counted.gateway_id AND opened.orchestrator = counted.orchestrator
     WHERE coalesce(counted.sessions, 0) <> coalesce(opened.sessions, 0)
    UNION ALL
    SELECT {shown("key", "counted.key_id")},
           format('%s sessions that it opened are counted as open, %s are', counted.sessions_open,
                  coalesce(opened.sessions, 0))
      FROM key_limit AS counted
      LEFT JOIN (SELECT gateway_id, opened_by, count(*) AS sessions FROM session WHERE NOT closed
                  GROUP BY gateway_id, opened_by) AS opened
             ON opened.gateway_id = counted.gateway_id AND opened.opened_by = counted.key_id
     WHERE counted.sessions_open <> coalesce(opened.sessions, 0)
"""  # noqa: S608

_KEYS_ARE_LIMITED = f"""
    SELECT {shown("key", "api_key.id")} AS subject,
           CASE WHEN api_key.has_limits THEN 'the key is said to have limits, and has none'
                ELSE 'the limits of the key are not looked at' END AS detail
      FROM api_key LEFT JOIN key_limit ON key_limit.key_id = api_key.id AND key_limit.gateway_id = api_key.gateway_id
     WHERE api_key.has_limits <> (key_limit.key_id IS NOT NULL)
"""  # noqa: S608

# A change that is on its way to the gateways of a plan has ten minutes, and is then an error like any other.
_LIMITS_ARE_DUE = f"""
    SELECT {shown("gw", "gateway.id")} AS subject,
           format('%s is %s, the plan %s and the gateway''s own limits make it %s', compared.name,
                  coalesce(compared.found, 'none'), gateway.plan, coalesce(compared.due, 'none')) AS detail
      FROM gateway JOIN account ON account.id = gateway.id JOIN due_limits AS due ON due.gateway_id = gateway.id
      JOIN plan ON plan.name = gateway.plan
     CROSS JOIN LATERAL (VALUES
           ('requests_per_s', gateway.requests_per_s::text, due.requests_per_s::text),
           ('burst_count', gateway.burst_count::text, due.burst_count::text),
           ('calls_per_day', account.calls_day_max::text, due.calls_day_max::text),
           ('spend_per_day', {amount("account.spend_day_max")}::text, {amount("due.spend_day_max")}::text),
           ('spend_per_month', {amount("account.spend_month_max")}::text, {amount("due.spend_month_max")}::text),
           ('ev_open', account.ev_open_max_wei::text, due.ev_open_max_wei::text),
           ('sessions_open', account.sessions_open_max::text, due.sessions_open_max::text),
           ('sessions_open_per_orchestrator', account.sessions_open_per_orchestrator_max::text,
            due.sessions_open_per_orchestrator_max::text),
           ('price_live', {amount("gateway.price_live_max")}::text, {amount("due.price_live_max")}::text),
           ('price_lv2v', {amount("gateway.price_lv2v_max")}::text, {amount("due.price_lv2v_max")}::text),
           ('price_fixed', {amount("gateway.price_fixed_max")}::text, {amount("due.price_fixed_max")}::text),
           ('price_untyped', {amount("gateway.price_untyped_max")}::text, {amount("due.price_untyped_max")}::text),
           ('the list of its own ceilings', gateway.own_ceilings::text, due.own_ceilings::text)
           ) AS compared (name, found, due)
     WHERE compared.found IS DISTINCT FROM compared.due
       AND NOT (plan.applied_version < plan.version AND plan.changed_at > now() - interval '10 minutes')
    UNION ALL
    SELECT {shown("gw", "gateway.id")},
           format('the plan %s limits spend in %s, the account is in %s', plan.name, plan.currency, account.currency)
      FROM gateway JOIN account ON account.id = gateway.id JOIN plan ON plan.name = gateway.plan
     WHERE plan.currency <> account.currency
"""  # noqa: S608

# Added up by quarters of an hour from the issuances, and from those by hours, days and in all. Less what is stored.
_USAGE_KEY: Final = "gateway_id, span, begins_at, app, pipeline, model, job_type, currency"
_USAGE_SUMS: Final = ("issuances", "tickets", "ev_wei", "fee_wei", "charge")
_USAGE_SUMS_FIT = f"""
    WITH stored AS (
        SELECT gateway_id, span, begins_at, app, pipeline, model, job_type, currency, {", ".join(_USAGE_SUMS)}
          FROM usage_bucket LEFT JOIN usage_kind ON usage_kind.id = usage_bucket.kind_id),
    part AS (
        SELECT issuance.gateway_id, 'quarter' AS span, usage_begin('quarter', issuance.created_at) AS begins_at,
               coalesce(app, '') AS app, coalesce(pipeline, '') AS pipeline, coalesce(model, '') AS model,
               coalesce(job_type, '') AS job_type, currency::text, count(*) AS issuances, sum(num_tickets) AS tickets,
               sum(ev_wei) AS ev_wei, sum(fee_wei) AS fee_wei, sum(charge) AS charge
          FROM issuance LEFT JOIN session ON session.id = issuance.session_id
         WHERE issuance.created_at < (SELECT rolled_up_until FROM usage_progress)
         GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
        UNION ALL
        SELECT gateway_id, coarse, usage_begin(coarse, begins_at), app, pipeline, model, job_type, currency,
               {", ".join(_USAGE_SUMS)}
          FROM stored CROSS JOIN (VALUES ('hour'), ('day'), ('ever')) AS spans (coarse) WHERE span = 'quarter'
        UNION ALL
        SELECT {_USAGE_KEY}, {", ".join(f"-{name}" for name in _USAGE_SUMS)} FROM stored)
    SELECT {shown("gw", "gateway_id")} AS subject,
           format('the sums of %s %s, %s/%s/%s/%s, lack %s issuances, %s tickets, %s and %s wei, %s %s',
                  CASE span WHEN 'ever' THEN 'all' ELSE 'the ' || span END,
                  CASE span WHEN 'ever' THEN 'time' ELSE begins_at::text END, app, pipeline, model, job_type,
                  sum(issuances), sum(tickets), sum(ev_wei), sum(fee_wei), {amount("sum(charge)")}, currency) AS detail
      FROM part GROUP BY {_USAGE_KEY}
    HAVING ({", ".join(f"sum({name})" for name in _USAGE_SUMS)}) <> (0, 0, 0, 0, 0)
"""  # noqa: S608

USAGE: Final = (
    Claim(
        "issuance_account",
        "The account of an issuance exists and is in its currency.",
        _ISSUANCE_ACCOUNTS,
        is_of_amounts=True,
    ),
    Claim("issuance_id", "No two issuances share an id.", _ISSUED_ONCE),
    Claim(
        "usage_total", "The usage total of every account is the sum of its charges.", _USAGE_TOTALS, is_of_amounts=True
    ),
    Claim(
        "usage_counted",
        "Calls and spend are counted as what the issuances of the day and the month sum to.",
        _USAGE_IS_COUNTED,
    ),
    Claim("usage_sums", "What is added up for dashboards is what the issuances sum to.", _USAGE_SUMS_FIT),
    Claim("ev_counted", "Open expected value is counted as what the issuances of three days sum to.", _EV_IS_COUNTED),
    Claim(
        "ev_total",
        "Of each account all expected value that was ever released is counted.",
        _EV_TOTALS,
        is_of_amounts=True,
    ),
    Claim("fees_counted", "Fees are counted as what the issuances of the day sum to.", _FEES_ARE_COUNTED),
    Claim("sessions_counted", "As many sessions are counted as open as there are.", _OPEN_SESSIONS_ARE_COUNTED),
    Claim("plan_limits", "The limits of every gateway are what its plan and its own limits come to.", _LIMITS_ARE_DUE),
    Claim("key_limits", "A key is known to have limits where it has.", _KEYS_ARE_LIMITED),
)
