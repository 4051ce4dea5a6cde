"""Secrets that a holder sends as one word: how they are made, read, and kept. API keys and webhook secrets are such.

    lpch_4f0c9a1be2d37705_<72 hex digits>6b1f02ce
    |    |                |               |
    |    |                |               CRC-32 of all before it: a mistyped one is told from a wrong one, offline
    |    |                the secret: 256 random bits, and a seal that takes the pepper to set
    |    public id, 64 random bits: may be shown, names it in lists and logs
    prefix, for people and secret scanners: what it is for

Of the secret only an HMAC-SHA256 under the pepper is kept. The pepper never enters the database, so a stolen copy of
the database cannot even check guesses. The whole word is shown once, when it is made.

The seal, 32 bits of an HMAC over prefix and public id, tells what was made here from what somebody made up, without
asking the database: however many are made up, nobody's look-up waits for them. It proves no more than that, and whoever
guesses one has won one look-up.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from clearinghouse.errors import InvalidRequest, Unauthenticated

PEPPER_BYTES_MIN: Final = 32
#: How long the old secret still works after a rotation, where nobody says otherwise.
DEFAULT_GRACE: Final = timedelta(hours=24)

_PUBLIC_ID_CHARS: Final = 16
_RANDOM_BYTES: Final = 32
_SEAL_BYTES: Final = 4
_SECRET_CHARS: Final = 2 * (_RANDOM_BYTES + _SEAL_BYTES)
_CHECKSUM_CHARS: Final = 8
_LIFE_MAX: Final = timedelta(days=36_525)


@dataclass(frozen=True, slots=True)
class SecretText:
    """A secret as its holder sends it, taken apart. Proves nothing yet: it must match the stored HMAC."""

    public_id: str
    secret: bytes = field(repr=False)


class SecretForm:
    """A kind of secret. `prefix` ends in an underscore; `name` and `a_name` go into sentences: API key, an API key."""

    def __init__(self, prefix: str, name: str, a_name: str) -> None:
        self.prefix = prefix
        self._name = name
        self._a_name = a_name
        self._public_id_end = len(prefix) + _PUBLIC_ID_CHARS
        self._checksum_start = self._public_id_end + 1 + _SECRET_CHARS
        self._chars = self._checksum_start + _CHECKSUM_CHARS
        digits = _SECRET_CHARS + _CHECKSUM_CHARS
        self._whole = re.compile(rf"{prefix}[0-9a-f]{{{_PUBLIC_ID_CHARS}}}_[0-9a-f]{{{digits}}}", re.ASCII)

    def new(self, pepper: bytes) -> tuple[str, str, bytes]:
        """The full text, its public id, its 36 secret bytes."""
        public_id = secrets.token_hex(_PUBLIC_ID_CHARS // 2)
        secret = secrets.token_bytes(_RANDOM_BYTES) + self._seal(pepper, public_id)
        body = f"{self.prefix}{public_id}_{secret.hex()}"
        return body + _checksum(body), public_id, secret

    def read(self, text: str) -> SecretText:
        """Take a text apart and check its form and checksum, without a database.

        Unauthenticated says what is wrong with the form and never quotes the text: refusals reach logs.
        """
        if self._whole.fullmatch(text) is None:
            raise Unauthenticated(self._what_is_wrong(text))
        body, checksum = text[: self._checksum_start], text[self._checksum_start :]
        if checksum != _checksum(body):  # it is public: nothing to hide in the time it takes
            raise Unauthenticated(f"The {self._name} is mistyped: its checksum does not match.")
        return SecretText(body[len(self.prefix) : self._public_id_end], bytes.fromhex(body[self._public_id_end + 1 :]))

    def was_made_here(self, pepper: bytes, given: SecretText) -> bool:
        """By its seal. The database may still not have it: it was restored, or another one shares the pepper."""
        return hmac.compare_digest(given.secret[-_SEAL_BYTES:], self._seal(pepper, given.public_id))

    def refuse_whole(self, text: str) -> None:
        """InvalidRequest for a secret where its name was asked for: others may have seen it there."""
        if len(text) >= self._chars and text.startswith(self.prefix):
            raise InvalidRequest(
                f"this is a whole {self._name}, and a secret: name it by its public id, the {_PUBLIC_ID_CHARS} digits "
                f"after {self.prefix}, and treat it as seen by others (argument lists are visible to every user of a "
                "machine)"
            )

    def _seal(self, pepper: bytes, public_id: str) -> bytes:
        return hmac.digest(pepper, f"seal of {self.prefix}{public_id}".encode("ascii"), "sha256")[:_SEAL_BYTES]

    def _what_is_wrong(self, text: str) -> str:
        if not text:
            return f"There is no {self._name}."
        if not text.startswith(self.prefix):
            return f"This is not {self._a_name} of the clearinghouse: those begin with {self.prefix}."
        if len(text) != self._chars:
            return f"The {self._name} is incomplete or too long: {len(text)} characters instead of {self._chars}."
        return f"The {self._name} is malformed: after the prefix come only digits and the letters a to f, in two parts."


class SecretDigests:
    """What stands in memory for a secret that proved right, so that it is recognised when it is sent again.

    BLAKE2b under a key that is made here and never leaves: as hard to guess from as an HMAC, in a fraction of the time.
    Only what is stored needs the pepper.
    """

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key = secrets.token_bytes(blake2b.MAX_KEY_SIZE)

    def digest(self, text: str) -> bytes:
        """32 bytes."""
        return blake2b(text.encode(errors="replace"), key=self._key, digest_size=32).digest()


def secret_hmac(pepper: bytes, secret: bytes) -> bytes:
    """What is stored of a secret: HMAC-SHA256 under the pepper, 32 bytes. Compare with `hmac.compare_digest`."""
    if len(pepper) < PEPPER_BYTES_MIN:
        raise ValueError(f"the pepper has {len(pepper)} bytes; it needs at least {PEPPER_BYTES_MIN}")
    return hmac.digest(pepper, secret, "sha256")


def check_grace(grace: timedelta) -> None:
    """InvalidRequest for a grace period that no rotation can have."""
    if not timedelta(0) <= grace <= _LIFE_MAX:
        raise InvalidRequest("the grace period must be between nothing and 100 years")


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"
