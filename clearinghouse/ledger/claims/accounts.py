"""What must be true of accounts and of what goes between them."""

from __future__ import annotations

from typing import Final

from clearinghouse.ledger.claims.claim import ACCOUNT, TRANSFER, Claim, amount, shown

_ZERO_SUM = f"""
    SELECT currency AS subject, format('the postings sum to %s', {amount("sum(amount)")}) AS detail,
           sum(amount) AS amount, currency AS unit
      FROM posting GROUP BY currency HAVING sum(amount) <> 0
    UNION ALL
    SELECT currency, format('customers'' balances and the postings of system accounts sum to %s',
                            {amount("sum(amount)")}), sum(amount), currency
      FROM (SELECT currency, balance AS amount FROM account WHERE gateway_id IS NOT NULL
             UNION ALL
            SELECT account.currency, posting.amount FROM posting JOIN account ON account.id = posting.account_id
             WHERE account.gateway_id IS NULL) AS entry
     GROUP BY currency HAVING sum(amount) <> 0
"""  # noqa: S608

_BALANCES = f"""
    SELECT {ACCOUNT} AS subject,
           format('the balance is %s, the postings sum to %s', {amount("account.balance")},
                  {amount("coalesce(posted.amount, 0)")}) AS detail,
           account.balance - coalesce(posted.amount, 0) AS amount, account.currency AS unit
      FROM account LEFT JOIN (SELECT account_id, sum(amount) AS amount FROM posting GROUP BY account_id) AS posted
                          ON posted.account_id = account.id
     WHERE account.gateway_id IS NOT NULL AND account.balance <> coalesce(posted.amount, 0)
    UNION ALL
    SELECT {ACCOUNT}, format('a system account is summed from its postings, but holds a balance of %s',
                              {amount("account.balance")}), account.balance, account.currency
      FROM account WHERE account.gateway_id IS NULL AND account.balance <> 0
"""  # noqa: S608

_LIMITS = f"""
    SELECT {ACCOUNT} AS subject,
           format('the balance %s is below minus the credit limit %s, and %s of that is accounted for',
                  {amount("account.balance")}, {amount("account.credit_limit")}, {amount("account.overdrawn")})
           AS detail
      FROM account WHERE account.gateway_id IS NOT NULL
       AND account.overdrawn <> greatest(0, -account.balance - account.credit_limit)
"""  # noqa: S608

_EVERY_GATEWAY_HAS_AN_ACCOUNT = f"""
    SELECT {shown("gw", "gateway.id")} AS subject, 'the gateway has no account' AS detail
      FROM gateway LEFT JOIN account ON account.id = gateway.id AND account.gateway_id = gateway.id
     WHERE account.id IS NULL
"""  # noqa: S608

_TRANSFER_ACCOUNTS = f"""
    SELECT {TRANSFER} AS subject,
           concat_ws('; ',
               CASE WHEN source.id IS NULL THEN format('the source account %s does not exist', transfer.source)
                    WHEN source.currency <> transfer.currency
                    THEN format('%s leaves an account in %s', transfer.currency, source.currency) END,
               CASE WHEN destination.id IS NULL
                    THEN format('the destination account %s does not exist', transfer.destination)
                    WHEN destination.currency <> transfer.currency
                    THEN format('%s enters an account in %s', transfer.currency, destination.currency) END,
               CASE WHEN transfer.amount <= 0
                    THEN format('the amount %s is not positive', {amount("transfer.amount")}) END) AS detail
      FROM transfer LEFT JOIN account AS source ON source.id = transfer.source
                    LEFT JOIN account AS destination ON destination.id = transfer.destination
     WHERE source.id IS NULL OR destination.id IS NULL OR transfer.amount <= 0
        OR source.currency <> transfer.currency OR destination.currency <> transfer.currency
"""  # noqa: S608

_TRANSFER_KINDS = f"""
    SELECT {TRANSFER} AS subject,
           format('a transfer of kind %s goes from %s to %s', transfer.kind,
                  CASE WHEN source.gateway_id IS NULL THEN source.name ELSE 'a gateway' END,
                  CASE WHEN destination.gateway_id IS NULL THEN destination.name ELSE 'a gateway' END) AS detail
      FROM transfer JOIN account AS source ON source.id = transfer.source
                    JOIN account AS destination ON destination.id = transfer.destination
     WHERE (transfer.kind, CASE WHEN source.gateway_id IS NULL THEN source.name ELSE 'gateway' END || '>' ||
                           CASE WHEN destination.gateway_id IS NULL THEN destination.name ELSE 'gateway' END)
           NOT IN (('grant', 'funding>gateway'), ('withdrawal', 'gateway>funding'), ('expiry', 'gateway>expired'),
                   ('payment', 'funding>gateway'), ('refund', 'gateway>funding'), ('dispute', 'gateway>funding'),
                   ('dispute_won', 'funding>gateway'), ('write_off', 'written_off>gateway'),
                   ('rounding', 'rounding>gateway'), ('rounding', 'gateway>rounding'),
                   ('adjustment', 'revenue>gateway'), ('adjustment', 'gateway>revenue'), ('fee', 'gateway>revenue'),
                   ('included', 'included>gateway'), ('included', 'gateway>included'))
"""  # noqa: S608

ACCOUNTS: Final = (
    Claim("zero_sum", "All postings of a currency sum to zero.", _ZERO_SUM, is_of_amounts=True),
    Claim("balance", "The balance of every account is the sum of its postings.", _BALANCES, is_of_amounts=True),
    Claim("credit_limit", "No balance is below minus its credit limit.", _LIMITS),
    Claim("gateway_account", "Every gateway has an account.", _EVERY_GATEWAY_HAS_AN_ACCOUNT),
    Claim("transfer_accounts", "Both accounts of a transfer exist and are in its currency.", _TRANSFER_ACCOUNTS),
    Claim("transfer_kind", "A transfer goes between accounts that suit its kind.", _TRANSFER_KINDS),
)
