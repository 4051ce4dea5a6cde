"""The webhook for signers: whether anybody can use it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import psycopg

from clearinghouse.checkup.findings import Finding, ok, warning

NAME: Final = "webhook"

_SIGNERS: Final = """
    SELECT count(*) FILTER (WHERE valid > 0), coalesce(min(name) FILTER (WHERE valid = 0), '')
      FROM (SELECT signer.name, count(*) FILTER (WHERE secret.revoked_at IS NULL
                                                   AND coalesce(secret.expires_at > now(), true)) AS valid
              FROM webhook_signer AS signer LEFT JOIN webhook_secret AS secret ON secret.signer_id = signer.id
             WHERE signer.revoked_at IS NULL GROUP BY signer.id) AS signers
"""


class _Signers(NamedTuple):
    """How many could ask now, and the name of one that is not revoked and could not; empty where there is none."""

    able_count: int
    unable: str


async def signers(connection: psycopg.AsyncConnection[tuple[Any, ...]], *, is_enabled: bool) -> list[Finding]:
    """What the database knows of signers, held against whether they may ask. The connection must be able to read it."""
    row = await (await connection.execute(_SIGNERS)).fetchone()
    assert row is not None, "an aggregate has one row"
    found = _Signers(*row)
    if not is_enabled:
        return [_off(found.able_count)] if found.able_count else []
    if not found.able_count and not found.unable:
        return [
            warning(
                NAME,
                "webhook.enabled is on, and no signer is registered: nobody can ask",
                "clearinghouse webhook-signer create NAME --sender ADDRESS; or turn it off.",
            )
        ]
    if found.unable:
        return [
            warning(
                NAME,
                f"signer {found.unable} has no valid secret: what it asks is answered with 401, and it signs nothing",
                f"clearinghouse webhook-signer rotate {found.unable}; or revoke it.",
            )
        ]
    return [ok(NAME, f"{found.able_count} signer{'s' if found.able_count > 1 else ''} may ask")]


def _off(able_count: int) -> Finding:
    return warning(
        NAME,
        f"{able_count} signer{'s' if able_count > 1 else ''} may ask, and webhook.enabled is off: each gets a 404",
        "Turn it on, or revoke them: clearinghouse webhook-signer list.",
    )
