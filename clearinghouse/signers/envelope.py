"""go-livepeer's error answers, to the byte (remote-signer protocol, section 1)."""

from __future__ import annotations

import json
from typing import Final

from clearinghouse.errors import RefreshSession, Refusal
from clearinghouse.signers.base import SignerAnswer

#: What these statuses tell a stranger, whatever happened inside.
_MASKED: Final = {500: "Internal Server Error", 503: "Service Unavailable Error"}

#: Go's encoder escapes these so that JSON can stand inside HTML.
_GO_ESCAPES: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def error_envelope(status: int, message: str) -> bytes:
    """`{"error":{"message":"…"}}` and a newline; what a 500 or 503 says is masked."""
    text = json.dumps(_MASKED.get(status, message), ensure_ascii=False).translate(_GO_ESCAPES)
    return f'{{"error":{{"message":{text}}}}}\n'.encode()


def refusal_answer(refusal: Refusal) -> SignerAnswer:
    """A refusal as the reference signer would word it on the wire."""
    url = header_text(refusal.orchestrator_url) if isinstance(refusal, RefreshSession) else None
    return SignerAnswer(
        status=refusal.http_status,
        body=error_envelope(refusal.http_status, refusal.message),
        orchestrator_url=url,
    )


def header_text(text: str) -> str:
    """Text from a stranger, fit for a header: a line break in it would begin a header of the stranger's choice."""
    return "".join(character if " " <= character <= "~" else " " for character in text).strip()
