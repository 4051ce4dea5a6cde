"""What must be true of the books (design, promise 5), as questions to the database.

Each claim is a query for its violations, one row each: what is wrong (`subject`) and how (`detail`). All of them
aggregate and join in the database and none trusts a number that another place keeps, so that books of millions of rows
can be checked and no corruption of a stored total hides itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WIN_PROB_CERTAIN: Final = 2**256 - 1  # the denominator of win_prob


@dataclass(frozen=True, slots=True)
class Claim:
    """`sentence` is true where `violations` selects nothing. `name` is what scripts look for."""

    name: str
    sentence: str
    violations: str


def _shown(kind: str, column: str) -> str:
    """SQL for an id as clearinghouse.ids.show gives it."""
    return f"'{kind}_' || replace({column}::text, '-', '')"


def _amount(expression: str) -> str:
    return f"trim_scale({expression})"


_ACCOUNT: Final = f"CASE WHEN account.gateway_id IS NULL THEN account.name ELSE {_shown('gw', 'account.id')} END"
_TRANSFER: Final = _shown("tr", "transfer.id")
_ISSUANCE: Final = _shown("iss", "issuance.id")
_SESSION: Final = _shown("ses", "session.id")

# --- accounts and transfers -----------------------------------------------------------------------------------------

_ZERO_SUM = f"""
    SELECT currency AS subject, format('the postings sum to %s', {_amount("sum(amount)")}) AS detail
      FROM posting GROUP BY currency HAVING sum(amount) <> 0
    UNION ALL
    SELECT currency, format('customers'' balances and the postings of system accounts sum to %s',
                            {_amount("sum(amount)")})
      FROM (SELECT currency, balance AS amount FROM account WHERE gateway_id IS NOT NULL
             UNION ALL
            SELECT account.currency, posting.amount FROM posting JOIN account ON account.id = posting.account_id
             WHERE account.gateway_id IS NULL) AS entry
     GROUP BY currency HAVING sum(amount) <> 0
"""  # noqa: S608

_BALANCES = f"""
    SELECT {_ACCOUNT} AS subject,
           format('the balance is %s, the postings sum to %s', {_amount("account.balance")},
                  {_amount("coalesce(posted.amount, 0)")}) AS detail
      FROM account LEFT JOIN (SELECT account_id, sum(amount) AS amount FROM posting GROUP BY account_id) AS posted
                          ON posted.account_id = account.id
     WHERE account.gateway_id IS NOT NULL AND account.balance <> coalesce(posted.amount, 0)
    UNION ALL
    SELECT {_ACCOUNT}, format('a system account is summed from its postings, but holds a balance of %s',
                              {_amount("account.balance")})
      FROM account WHERE account.gateway_id IS NULL AND account.balance <> 0
"""  # noqa: S608

_LIMITS = f"""
    SELECT {_ACCOUNT} AS subject,
           format('the balance %s is below minus the credit limit %s', {_amount("account.balance")},
                  {_amount("account.credit_limit")}) AS detail
      FROM account WHERE account.gateway_id IS NOT NULL AND account.balance < -account.credit_limit
"""  # noqa: S608

_EVERY_GATEWAY_HAS_AN_ACCOUNT = f"""
    SELECT {_shown("gw", "gateway.id")} AS subject, 'the gateway has no account' AS detail
      FROM gateway LEFT JOIN account ON account.id = gateway.id AND account.gateway_id = gateway.id
     WHERE account.id IS NULL
"""  # noqa: S608

_TRANSFER_ACCOUNTS = f"""
    SELECT {_TRANSFER} AS subject,
           concat_ws('; ',
               CASE WHEN source.id IS NULL THEN format('the source account %s does not exist', transfer.source)
                    WHEN source.currency <> transfer.currency
                    THEN format('%s leaves an account in %s', transfer.currency, source.currency) END,
               CASE WHEN destination.id IS NULL
                    THEN format('the destination account %s does not exist', transfer.destination)
                    WHEN destination.currency <> transfer.currency
                    THEN format('%s enters an account in %s', transfer.currency, destination.currency) END,
               CASE WHEN transfer.amount <= 0
                    THEN format('the amount %s is not positive', {_amount("transfer.amount")}) END) AS detail
      FROM transfer LEFT JOIN account AS source ON source.id = transfer.source
                    LEFT JOIN account AS destination ON destination.id = transfer.destination
     WHERE source.id IS NULL OR destination.id IS NULL OR transfer.amount <= 0
        OR source.currency <> transfer.currency OR destination.currency <> transfer.currency
"""  # noqa: S608

_TRANSFER_KINDS = f"""
    SELECT {_TRANSFER} AS subject,
           format('a transfer of kind %s goes from %s to %s', transfer.kind,
                  CASE WHEN source.gateway_id IS NULL THEN source.name ELSE 'a gateway' END,
                  CASE WHEN destination.gateway_id IS NULL THEN destination.name ELSE 'a gateway' END) AS detail
      FROM transfer JOIN account AS source ON source.id = transfer.source
                    JOIN account AS destination ON destination.id = transfer.destination
     WHERE (transfer.kind, CASE WHEN source.gateway_id IS NULL THEN source.name ELSE 'gateway' END || '>' ||
                           CASE WHEN destination.gateway_id IS NULL THEN destination.name ELSE 'gateway' END)
           NOT IN (('grant', 'funding>gateway'), ('withdrawal', 'gateway>funding'),
                   ('expiry', 'gateway>expired'))
"""  # noqa: S608

# --- usage ----------------------------------------------------------------------------------------------------------

_ISSUANCE_ACCOUNTS = f"""
    SELECT {_ISSUANCE} AS subject,
           CASE WHEN account.id IS NULL
                THEN format('the account %s does not exist', {_shown("gw", "issuance.gateway_id")})
                ELSE format('%s was charged to an account in %s', issuance.currency, account.currency) END AS detail
      FROM issuance LEFT JOIN account ON account.id = issuance.gateway_id AND account.gateway_id = account.id
     WHERE account.id IS NULL OR account.currency <> issuance.currency
"""  # noqa: S608

_ISSUED_ONCE = f"""
    SELECT {_ISSUANCE} AS subject, format('%s issuances of different gateways share this id', count(*)) AS detail
      FROM issuance GROUP BY issuance.id HAVING count(*) > 1
"""  # noqa: S608

_USAGE_TOTALS = f"""
    SELECT {_ACCOUNT} AS subject,
           format('usage_total is %s, the charges sum to %s', {_amount("account.usage_total")},
                  {_amount("coalesce(used.amount, 0)")}) AS detail
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
           counted.calls_day, {_amount("counted.spent_day")}, {_amount("counted.spent_month")},
           coalesce(used.calls_day, 0), {_amount("coalesce(used.spent_day, 0)")},
           {_amount("coalesce(used.spent_month, 0)")})
"""
_USAGE_IS_COUNTED = f"""
    SELECT {_shown("gw", "counted.id")} AS subject, {_COUNTED_AND_USED} AS detail
      FROM account AS counted LEFT JOIN ({_DAYS_USED} GROUP BY account.id) AS used ON used.id = counted.id
     WHERE {_COUNTED} <> {_USED}
    UNION ALL
    SELECT {_shown("key", "counted.key_id")}, {_COUNTED_AND_USED}
      FROM key_limit AS counted
      LEFT JOIN ({_DAYS_USED.replace("SELECT account.id", "SELECT issuance.key_id, account.id")}
                 GROUP BY account.id, issuance.key_id) AS used
             ON used.id = counted.gateway_id AND used.key_id = counted.key_id
     WHERE {_COUNTED} <> {_USED}
"""  # noqa: S608

_DAY_EV: Final = "coalesce(used.ev_day{day}_wei, 0)"
_EV_DAYS: Final = ", ".join(_DAY_EV.format(day=day) for day in range(3))
_EV_IS_COUNTED = f"""
    SELECT {_ACCOUNT} AS subject,
           format('%s, %s and %s wei are counted as released on the last three days, the issuances make it %s, %s '
                  'and %s', account.ev_day0_wei, account.ev_day1_wei, account.ev_day2_wei, {_EV_DAYS}) AS detail
      FROM account LEFT JOIN (
           SELECT account.id,
                  coalesce(sum(ev_wei) FILTER (
                      WHERE issuance.created_at >= {_BEGINS_AT.format(days=0)}), 0) AS ev_day0_wei,
                  coalesce(sum(ev_wei) FILTER (
                      WHERE issuance.created_at >= {_BEGINS_AT.format(days=1)}
                        AND issuance.created_at < {_BEGINS_AT.format(days=0)}), 0) AS ev_day1_wei,
                  coalesce(sum(ev_wei) FILTER (
                      WHERE issuance.created_at < {_BEGINS_AT.format(days=1)}), 0) AS ev_day2_wei
             FROM account JOIN issuance ON issuance.gateway_id = account.id
                                       AND issuance.created_at >= {_BEGINS_AT.format(days=2)}
            GROUP BY account.id) AS used ON used.id = account.id
     WHERE (account.ev_day0_wei, account.ev_day1_wei, account.ev_day2_wei) <> ({_EV_DAYS})
"""  # noqa: S608

_FEES_ARE_COUNTED = f"""
    SELECT {_ACCOUNT} AS subject,
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
    SELECT {_ACCOUNT} AS subject,
           format('%s sessions are counted as open, %s are', account.sessions_open, coalesce(opened.sessions, 0))
           AS detail
      FROM account LEFT JOIN (SELECT gateway_id, count(*) AS sessions FROM session WHERE NOT closed
                               GROUP BY gateway_id) AS opened ON opened.gateway_id = account.id
     WHERE account.sessions_open <> coalesce(opened.sessions, 0)
    UNION ALL
    SELECT {_shown("gw", "coalesce(counted.gateway_id, opened.gateway_id)")},
           format('%s sessions with orchestrator 0x%s are counted as open, %s are', coalesce(counted.sessions, 0),
                  encode(coalesce(counted.orchestrator, opened.orchestrator)::bytea, 'hex'),
                  coalesce(opened.sessions, 0))
      FROM open_sessions AS counted
      FULL JOIN (SELECT gateway_id, orchestrator, count(*) AS sessions FROM session WHERE NOT closed
                  GROUP BY gateway_id, orchestrator) AS opened
             ON opened.gateway_id = counted.gateway_id AND opened.orchestrator = counted.orchestrator
     WHERE coalesce(counted.sessions, 0) <> coalesce(opened.sessions, 0)
"""  # noqa: S608

_KEYS_ARE_LIMITED = f"""
    SELECT {_shown("key", "api_key.id")} AS subject,
           CASE WHEN api_key.has_limits THEN 'the key is said to have limits, and has none'
                ELSE 'the limits of the key are not looked at' END AS detail
      FROM api_key LEFT JOIN key_limit ON key_limit.key_id = api_key.id AND key_limit.gateway_id = api_key.gateway_id
     WHERE api_key.has_limits <> (key_limit.key_id IS NOT NULL)
"""  # noqa: S608

# A change that is on its way to the gateways of a plan has ten minutes, and is then an error like any other.
_LIMITS_ARE_DUE = f"""
    SELECT {_shown("gw", "gateway.id")} AS subject,
           format('%s is %s, the plan %s and the gateway''s own limits make it %s', compared.name,
                  coalesce(compared.found, 'none'), gateway.plan, coalesce(compared.due, 'none')) AS detail
      FROM gateway JOIN account ON account.id = gateway.id JOIN due_limits AS due ON due.gateway_id = gateway.id
      JOIN plan ON plan.name = gateway.plan
     CROSS JOIN LATERAL (VALUES
           ('requests_per_s', gateway.requests_per_s::text, due.requests_per_s::text),
           ('burst_count', gateway.burst_count::text, due.burst_count::text),
           ('calls_per_day', account.calls_day_max::text, due.calls_day_max::text),
           ('spend_per_day', {_amount("account.spend_day_max")}::text, {_amount("due.spend_day_max")}::text),
           ('spend_per_month', {_amount("account.spend_month_max")}::text, {_amount("due.spend_month_max")}::text),
           ('ev_open', account.ev_open_max_wei::text, due.ev_open_max_wei::text),
           ('sessions_open', account.sessions_open_max::text, due.sessions_open_max::text),
           ('sessions_open_per_orchestrator', account.sessions_open_per_orchestrator_max::text,
            due.sessions_open_per_orchestrator_max::text),
           ('price_live', {_amount("gateway.price_live_max")}::text, {_amount("due.price_live_max")}::text),
           ('price_lv2v', {_amount("gateway.price_lv2v_max")}::text, {_amount("due.price_lv2v_max")}::text),
           ('price_fixed', {_amount("gateway.price_fixed_max")}::text, {_amount("due.price_fixed_max")}::text),
           ('price_untyped', {_amount("gateway.price_untyped_max")}::text, {_amount("due.price_untyped_max")}::text),
           ('the list of its own ceilings', gateway.own_ceilings::text, due.own_ceilings::text)
           ) AS compared (name, found, due)
     WHERE compared.found IS DISTINCT FROM compared.due
       AND NOT (plan.applied_version < plan.version AND plan.changed_at > now() - interval '10 minutes')
    UNION ALL
    SELECT {_shown("gw", "gateway.id")},
           format('the plan %s limits spend in %s, the account is in %s', plan.name, plan.currency, account.currency)
      FROM gateway JOIN account ON account.id = gateway.id JOIN plan ON plan.name = gateway.plan
     WHERE plan.currency <> account.currency
"""  # noqa: S608

# --- credit that expires --------------------------------------------------------------------------------------------

_LOTS_ARE_GRANTED = f"""
    SELECT {_shown("tr", "lot.id")} AS subject,
           CASE WHEN transfer.id IS NULL OR transfer.kind <> 'grant' THEN 'the credit lot was never granted'
                ELSE format('the credit lot has %s of %s, the grant %s of %s', {_amount("lot.amount")},
                            {_shown("gw", "lot.account_id")}, {_amount("transfer.amount")},
                            {_shown("gw", "transfer.destination")}) END AS detail
      FROM credit_lot AS lot LEFT JOIN transfer ON transfer.id = lot.id
     WHERE (transfer.kind, transfer.destination, transfer.amount)
           IS DISTINCT FROM ('grant', lot.account_id, lot.amount)
"""  # noqa: S608

_EXPIRIES_HAVE_LOTS = f"""
    SELECT {_TRANSFER} AS subject,
           CASE WHEN lot.id IS NULL THEN 'nothing was granted that could have expired'
                WHEN lot.remaining > 0
                THEN format('the lot expired, but has %s left', {_amount("lot.remaining")})
                ELSE format('%s expired of a lot of %s', {_amount("transfer.amount")}, {_amount("lot.amount")})
           END AS detail
      FROM transfer LEFT JOIN credit_lot AS lot ON transfer.key = 'expiry:' || lot.id
                                               AND lot.account_id = transfer.source
     WHERE transfer.kind = 'expiry' AND (lot.id IS NULL OR lot.remaining > 0 OR transfer.amount > lot.amount)
"""  # noqa: S608

_LOTS_FIT = f"""
    WITH open_lot AS (SELECT account_id, sum(remaining) AS remaining, min(expires_at) AS next_expiry_at
                        FROM credit_lot WHERE remaining > 0 GROUP BY account_id)
    SELECT {_ACCOUNT} AS subject,
           format('next_expiry_at is %s, the earliest open lot expires at %s', account.next_expiry_at,
                  open_lot.next_expiry_at) AS detail
      FROM account LEFT JOIN open_lot ON open_lot.account_id = account.id
     WHERE account.next_expiry_at IS DISTINCT FROM open_lot.next_expiry_at
    UNION ALL
    SELECT {_ACCOUNT}, format('lots_usage is %s, outside 0 and usage_total %s', {_amount("account.lots_usage")},
                              {_amount("account.usage_total")})
      FROM account WHERE account.lots_usage NOT BETWEEN 0 AND account.usage_total
    UNION ALL
    SELECT {_ACCOUNT}, format('lots hold %s, of which usage has taken %s, but the balance is only %s',
                              {_amount("open_lot.remaining")}, {_amount("account.usage_total - account.lots_usage")},
                              {_amount("account.balance")})
      FROM account JOIN open_lot ON open_lot.account_id = account.id
     WHERE open_lot.remaining - (account.usage_total - account.lots_usage) > greatest(account.balance, 0)
"""  # noqa: S608

# --- issuances ------------------------------------------------------------------------------------------------------

_EV_NUMERATOR: Final = (
    "coalesce(issuance.ev_numerator, issuance.num_tickets::numeric * issuance.face_value_wei * issuance.win_prob)"
)
_EV: Final = f"div({_EV_NUMERATOR} + {WIN_PROB_CERTAIN - 1}, {WIN_PROB_CERTAIN})"
_EXPECTED_VALUES = f"""
    SELECT {_ISSUANCE} AS subject,
           format('ev_wei is %s, its %s tickets are worth %s', issuance.ev_wei, issuance.num_tickets, {_EV}) AS detail
      FROM issuance WHERE issuance.ev_wei <> {_EV}
    UNION ALL
    SELECT {_ISSUANCE},
           CASE WHEN issuance.ev_numerator IS NULL THEN 'neither its tickets nor what they are worth are recorded'
                ELSE 'tickets are recorded that the webhook is not shown' END
      FROM issuance
     WHERE num_nonnulls(issuance.face_value_wei, issuance.win_prob, issuance.creation_round)
           <> CASE WHEN issuance.ev_numerator IS NULL THEN 3 ELSE 0 END
    UNION ALL
    SELECT {_ISSUANCE}, format('win_prob %s is above certainty', issuance.win_prob)
      FROM issuance WHERE issuance.win_prob > {WIN_PROB_CERTAIN}
"""  # noqa: S608

# wei x price x basis points: exact, since multiplying by a power of ten loses nothing.
COST: Final = "issuance.ev_wei * issuance.price * (10000 + issuance.markup_bps) * 1e-22"
_CHARGES = f"""
    SELECT {_ISSUANCE} AS subject,
           format('the charge is %s, but ev_wei x price x markup is %s', {_amount("issuance.charge")},
                  {_amount(COST)}) AS detail
      FROM issuance WHERE issuance.charge < {COST}
"""  # noqa: S608

_PARENTS = f"""
    SELECT {_ISSUANCE} AS subject,
           concat_ws('; ',
               CASE WHEN session.id IS NULL
                    THEN format('its session %s does not exist', {_shown("ses", "issuance.session_id")})
                    WHEN session.gateway_id <> issuance.gateway_id THEN 'its session belongs to another gateway' END,
               CASE WHEN api_key.id IS NULL THEN format('its key %s does not exist', {_shown("key", "issuance.key_id")})
                    WHEN api_key.gateway_id <> issuance.gateway_id THEN 'its key belongs to another gateway' END
           ) AS detail
      FROM issuance LEFT JOIN session ON session.id = issuance.session_id
                    LEFT JOIN api_key ON api_key.id = issuance.key_id
     WHERE session.id IS NULL OR session.gateway_id <> issuance.gateway_id
        OR api_key.id IS NULL OR api_key.gateway_id <> issuance.gateway_id
"""  # noqa: S608

# --- sessions, nonces, remembered answers ---------------------------------------------------------------------------

_NONCES = f"""
    SELECT {_ISSUANCE} AS subject,
           format('nonces of recipientRandHash %s begin at %s instead of %s: %s', encode(recipient_rand_hash, 'hex'),
                  first_nonce, expected_nonce,
                  CASE WHEN first_nonce < expected_nonce THEN 'some were used twice' ELSE 'some are missing' END)
           AS detail
      FROM (SELECT id, recipient_rand_hash, first_nonce,
                   coalesce(lag(first_nonce + num_tickets)
                            OVER (PARTITION BY recipient_rand_hash ORDER BY first_nonce, id), 1) AS expected_nonce
              FROM issuance) AS issuance
     WHERE first_nonce <> expected_nonce
"""  # noqa: S608

_LAST_NONCES = """
    SELECT 'recipientRandHash ' || encode(coalesce(rand.hash, issued.hash)::bytea, 'hex') AS subject,
           format('last_nonce is %s, the issuances end at %s', coalesce(rand.last_nonce, 0), coalesce(issued.last, 0))
           AS detail
      FROM recipient_rand AS rand
      FULL JOIN (SELECT recipient_rand_hash AS hash, max(first_nonce + num_tickets - 1) AS last
                   FROM issuance GROUP BY recipient_rand_hash) AS issued ON issued.hash = rand.hash
     WHERE coalesce(rand.last_nonce, 0) <> coalesce(issued.last, 0)
"""

_RANDS_HAVE_ONE_OWNER = f"""
    SELECT {_ISSUANCE} AS subject,
           format('recipientRandHash %s belongs to session %s of gateway %s, the issuance to %s of %s',
                  encode(rand.hash, 'hex'), {_shown("ses", "rand.session_id")}, {_shown("gw", "rand.gateway_id")},
                  {_shown("ses", "issuance.session_id")}, {_shown("gw", "issuance.gateway_id")}) AS detail
      FROM issuance JOIN recipient_rand AS rand ON rand.hash = issuance.recipient_rand_hash
     WHERE (rand.session_id, rand.gateway_id) <> (issuance.session_id, issuance.gateway_id)
"""  # noqa: S608

_SESSIONS_END = f"""
    SELECT {_SESSION} AS subject,
           CASE WHEN issuance.id IS NULL
                THEN format('its newest issuance %s does not exist for its gateway',
                            {_shown("iss", "session.issuance_id")})
                WHEN issuance.session_id <> session.id
                THEN format('its newest issuance %s belongs to session %s', {_ISSUANCE},
                            {_shown("ses", "issuance.session_id")})
                ELSE format('its newest issuance %s came in another way than the session', {_ISSUANCE}) END AS detail
      FROM session LEFT JOIN issuance ON issuance.id = session.issuance_id
                                     AND issuance.gateway_id = session.gateway_id
     WHERE issuance.id IS NULL OR issuance.session_id <> session.id
        OR (session.approved IS NULL) <> (issuance.ev_numerator IS NULL)
"""  # noqa: S608

_KEYED_ANSWERS = f"""
    SELECT {_shown("gw", "keyed.gateway_id")} AS subject,
           format('the answer kept for idempotency key %s names %s, which does not exist for this gateway', keyed.key,
                  {_shown("iss", "keyed.issuance_id")}) AS detail
      FROM keyed_answer AS keyed LEFT JOIN issuance ON issuance.id = keyed.issuance_id
                                                   AND issuance.gateway_id = keyed.gateway_id
     WHERE issuance.id IS NULL
"""  # noqa: S608

CLAIMS: Final = (
    Claim("zero_sum", "All postings of a currency sum to zero.", _ZERO_SUM),
    Claim("balance", "The balance of every account is the sum of its postings.", _BALANCES),
    Claim("credit_limit", "No balance is below minus its credit limit.", _LIMITS),
    Claim("gateway_account", "Every gateway has an account.", _EVERY_GATEWAY_HAS_AN_ACCOUNT),
    Claim("transfer_accounts", "Both accounts of a transfer exist and are in its currency.", _TRANSFER_ACCOUNTS),
    Claim("transfer_kind", "A transfer goes between accounts that suit its kind.", _TRANSFER_KINDS),
    Claim("issuance_account", "The account of an issuance exists and is in its currency.", _ISSUANCE_ACCOUNTS),
    Claim("issuance_id", "No two issuances share an id.", _ISSUED_ONCE),
    Claim("usage_total", "The usage total of every account is the sum of its charges.", _USAGE_TOTALS),
    Claim(
        "usage_counted",
        "Calls and spend are counted as what the issuances of the day and the month sum to.",
        _USAGE_IS_COUNTED,
    ),
    Claim("ev_counted", "Open expected value is counted as what the issuances of three days sum to.", _EV_IS_COUNTED),
    Claim("fees_counted", "Fees are counted as what the issuances of the day sum to.", _FEES_ARE_COUNTED),
    Claim("sessions_counted", "As many sessions are counted as open as there are.", _OPEN_SESSIONS_ARE_COUNTED),
    Claim("plan_limits", "The limits of every gateway are what its plan and its own limits come to.", _LIMITS_ARE_DUE),
    Claim("key_limits", "A key is known to have limits where it has.", _KEYS_ARE_LIMITED),
    Claim("lot_grant", "Every credit lot was granted, to its account, with its amount.", _LOTS_ARE_GRANTED),
    Claim("lot_expiry", "What expired had been granted to expire, and nothing is left of it.", _EXPIRIES_HAVE_LOTS),
    Claim("lot_balance", "What credit lots still hold is part of the balance, and their expiry is noted.", _LOTS_FIT),
    Claim("issuance_ev", "The expected value of every issuance follows from its tickets.", _EXPECTED_VALUES),
    Claim("issuance_charge", "No charge is below expected value x price x markup.", _CHARGES),
    Claim("issuance_parents", "The session and the key of an issuance exist and are its gateway's.", _PARENTS),
    Claim("nonces", "The nonces of a recipientRandHash run from 1 without gap or overlap.", _NONCES),
    Claim("last_nonce", "The last nonce of a recipientRandHash is that of its issuances.", _LAST_NONCES),
    Claim("rand_owner", "All issuances of a recipientRandHash are of one session.", _RANDS_HAVE_ONE_OWNER),
    Claim("session_head", "The newest issuance of a session exists and is its own.", _SESSIONS_END),
    Claim("keyed_answer", "Every answer kept for an idempotency key belongs to an issuance.", _KEYED_ANSWERS),
)
