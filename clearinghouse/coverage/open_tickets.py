"""Which rows of the book are open tickets of a sender: the condition that everybody who reads them shares.

Of its own, because whoever needs only this should not have to load a library for databases.
"""

from __future__ import annotations

from typing import Final, LiteralString

#: Tickets whose round is not known (the webhook shows none) count as open for so long: two rounds are 38 hours.
UNSEEN_OPEN_HOURS: Final = 48
#: Of any sender. Parameters: round, validity_rounds, unseen_open_hours. The last ticket of an hour may be an hour
#: younger than its beginning.
STILL_VALID: Final[LiteralString] = """
    (creation_round > %(round)s - %(validity_rounds)s
     OR creation_round IS NULL AND issued_hour > now() - make_interval(hours => %(unseen_open_hours)s + 1))
"""
#: With the parameter sender.
OPEN: Final[LiteralString] = f"sender = %(sender)s AND {STILL_VALID}"
#: The largest face value of a sender's webhook signers as operators told it; NULL where they have not.
UNSEEN_FACE_VALUE_MAX: Final[LiteralString] = """
    SELECT CASE WHEN every(face_value_max_wei IS NOT NULL) THEN max(face_value_max_wei)::text END
      FROM webhook_signer WHERE sender = %(sender)s
"""
#: The largest face value that those of them can have released from now on which may still ask; 0 where there is none.
#: What an operator has not told is taken to be the parameter unseen_face_value_wei.
UNSEEN_TO_COME_MAX: Final[LiteralString] = """
    SELECT coalesce(greatest(
               max(face_value_max_wei)::numeric,
               CASE WHEN NOT every(face_value_max_wei IS NOT NULL) THEN %(unseen_face_value_wei)s::numeric END
           ), 0)::text
      FROM webhook_signer WHERE sender = %(sender)s AND revoked_at IS NULL
"""
