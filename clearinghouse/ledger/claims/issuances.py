"""What must be true of issuances, their sessions and nonces, and the book of released tickets."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import ISSUANCE, SESSION, Claim, amount, shown, shown_or_none

WIN_PROB_CERTAIN: Final = 2**256 - 1  # the denominator of win_prob

_EV_NUMERATOR: Final = (
    "coalesce(issuance.ev_numerator, issuance.num_tickets::numeric * issuance.face_value_wei * issuance.win_prob)"
)
_EV: Final = f"div({_EV_NUMERATOR} + {WIN_PROB_CERTAIN - 1}, {WIN_PROB_CERTAIN})"
_EXPECTED_VALUES = f"""
    SELECT {ISSUANCE} AS subject,
           format('ev_wei is %s, its %s tickets are worth %s', issuance.ev_wei, issuance.num_tickets, {_EV}) AS detail,
           issuance.ev_wei - {_EV} AS amount, 'wei' AS unit
      FROM issuance WHERE issuance.ev_wei <> {_EV}
    UNION ALL
    SELECT {ISSUANCE},
           CASE WHEN issuance.ev_numerator IS NULL THEN 'neither its tickets nor what they are worth are recorded'
                ELSE 'tickets are recorded that the webhook is not shown' END, issuance.ev_wei, 'wei'
      FROM issuance
     WHERE num_nonnulls(issuance.face_value_wei, issuance.win_prob, issuance.creation_round)
           <> CASE WHEN issuance.ev_numerator IS NULL THEN 3 ELSE 0 END
    UNION ALL
    SELECT {ISSUANCE}, format('win_prob %s is above certainty', issuance.win_prob), issuance.ev_wei, 'wei'
      FROM issuance WHERE issuance.win_prob > {WIN_PROB_CERTAIN}
"""  # noqa: S608

# wei x price x basis points: exact, since multiplying by a power of ten loses nothing.
COST: Final = "issuance.ev_wei * issuance.price * (10000 + issuance.markup_bps) * 1e-22"
_CHARGES = f"""
    SELECT {ISSUANCE} AS subject,
           format('the charge is %s, but ev_wei x price x markup is %s', {amount("issuance.charge")},
                  {amount(COST)}) AS detail,
           issuance.charge - {COST} AS amount, issuance.currency AS unit
      FROM issuance WHERE issuance.rate_rule IS NULL AND issuance.charge < {COST}
"""  # noqa: S608

# What every charge by a rate card follows from, computed again from the rows of its rule.

_PARENTS = f"""
    SELECT {ISSUANCE} AS subject,
           concat_ws('; ',
               CASE WHEN session.id IS NULL
                    THEN format('its session %s does not exist', {shown("ses", "issuance.session_id")})
                    WHEN session.gateway_id <> issuance.gateway_id THEN 'its session belongs to another gateway' END,
               CASE WHEN api_key.id IS NULL THEN format('its key %s does not exist', {shown("key", "issuance.key_id")})
                    WHEN api_key.gateway_id <> issuance.gateway_id THEN 'its key belongs to another gateway' END
           ) AS detail,
           issuance.charge AS amount, issuance.currency AS unit
      FROM issuance LEFT JOIN session ON session.id = issuance.session_id
                    LEFT JOIN api_key ON api_key.id = issuance.key_id
     WHERE session.id IS NULL OR session.gateway_id <> issuance.gateway_id
        OR api_key.id IS NULL OR api_key.gateway_id <> issuance.gateway_id
"""  # noqa: S608

_EXPOSURE_BOOK = f"""
    SELECT {shown("gw", "gateway_id")} AS subject,
           format('of sender 0x%s, round %s, recipient %s, face value %s, issued from %s: the book lacks %s tickets, '
                  'and %s of face value times win probability', encode(sender, 'hex'),
                  coalesce(creation_round::text, 'unknown'), coalesce('0x' || encode(recipient, 'hex'), 'unknown'),
                  coalesce(face_value_wei::text, 'unknown'), issued_hour, num_tickets, ev_numerator) AS detail
      FROM exposure_difference()
"""  # noqa: S608

_NONCES = f"""
    SELECT {ISSUANCE} AS subject,
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

# A redemption is matched with the issuances between them alone. There is no min(uuid) before PostgreSQL 18.
_RAND_IDS = f"""
    SELECT 'recipientRandHash ' || encode(rand.hash, 'hex') AS subject,
           format('its issuances are said to be from %s to %s, they are from %s to %s',
                  {shown_or_none("rand.first_issuance_id")}, {shown_or_none("rand.last_issuance_id")},
                  {shown_or_none("issued.first")}, {shown_or_none("issued.last")}) AS detail
      FROM recipient_rand AS rand
      LEFT JOIN (SELECT recipient_rand_hash AS hash, min(id::text COLLATE "C")::uuid AS first,
                        max(id::text COLLATE "C")::uuid AS last
                   FROM issuance GROUP BY recipient_rand_hash) AS issued ON issued.hash = rand.hash
     WHERE (rand.first_issuance_id, rand.last_issuance_id) IS DISTINCT FROM (issued.first, issued.last)
"""  # noqa: S608

_RANDS_HAVE_ONE_OWNER = f"""
    SELECT {ISSUANCE} AS subject,
           format('recipientRandHash %s belongs to session %s of gateway %s, the issuance to %s of %s',
                  encode(rand.hash, 'hex'), {shown("ses", "rand.session_id")}, {shown("gw", "rand.gateway_id")},
                  {shown("ses", "issuance.session_id")}, {shown("gw", "issuance.gateway_id")}) AS detail
      FROM issuance JOIN recipient_rand AS rand ON rand.hash = issuance.recipient_rand_hash
     WHERE (rand.session_id, rand.gateway_id) <> (issuance.session_id, issuance.gateway_id)
"""  # noqa: S608

_SESSIONS_END = f"""
    SELECT {SESSION} AS subject,
           CASE WHEN issuance.id IS NULL
                THEN format('its newest issuance %s does not exist for its gateway',
                            {shown("iss", "session.issuance_id")})
                WHEN issuance.session_id <> session.id
                THEN format('its newest issuance %s belongs to session %s', {ISSUANCE},
                            {shown("ses", "issuance.session_id")})
                ELSE format('its newest issuance %s came in another way than the session', {ISSUANCE}) END AS detail
      FROM session LEFT JOIN issuance ON issuance.id = session.issuance_id
                                     AND issuance.gateway_id = session.gateway_id
     WHERE issuance.id IS NULL OR issuance.session_id <> session.id
        OR (session.approved IS NULL) <> (issuance.ev_numerator IS NULL)
"""  # noqa: S608

_KEYED_ANSWERS = f"""
    SELECT {shown("gw", "keyed.gateway_id")} AS subject,
           format('the answer kept for idempotency key %s names %s, which does not exist for this gateway', keyed.key,
                  {shown("iss", "keyed.issuance_id")}) AS detail
      FROM keyed_answer AS keyed LEFT JOIN issuance ON issuance.id = keyed.issuance_id
                                                   AND issuance.gateway_id = keyed.gateway_id
     WHERE issuance.id IS NULL
"""  # noqa: S608

ISSUANCES: Final = (
    Claim(
        "issuance_ev",
        "The expected value of every issuance follows from its tickets.",
        _EXPECTED_VALUES,
        is_of_amounts=True,
    ),
    Claim(
        "issuance_charge",
        "No charge by a markup is below expected value x price x markup.",
        _CHARGES,
        is_of_amounts=True,
    ),
    Claim(
        "issuance_parents",
        "The session and the key of an issuance exist and are its gateway's.",
        _PARENTS,
        is_of_amounts=True,
    ),
    Claim(
        "exposure_book",
        "The book has every released ticket that was not redeemed, in the hours that are kept.",
        _EXPOSURE_BOOK,
    ),
    Claim("nonces", "The nonces of a recipientRandHash run from 1 without gap or overlap.", _NONCES),
    Claim("last_nonce", "The last nonce of a recipientRandHash is that of its issuances.", _LAST_NONCES),
    Claim("rand_ids", "Of a recipientRandHash the first and the last issuance are noted.", _RAND_IDS),
    Claim("rand_owner", "All issuances of a recipientRandHash are of one session.", _RANDS_HAVE_ONE_OWNER),
    Claim("session_head", "The newest issuance of a session exists and is its own.", _SESSIONS_END),
    Claim("keyed_answer", "Every answer kept for an idempotency key belongs to an issuance.", _KEYED_ANSWERS),
)
