"""go-livepeer's error answers, to the byte (remote-signer protocol, section 1)."""

from __future__ import annotations

import json
from typing import Final

from clearinghouse.errors import RefreshSession, Refusal
from clearinghouse.signers.base import SignerAnswer

#: What these statuses tell a stranger, whatever happened inside.
_MASKED: Final = {500: "Internal Server Error", 503: "Service Unavailable Error"}

#: Go's encoder escapes these so that JSON can stand inside HTML, and writes so what is not Unicode.
_GO_ESCAPES: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    | dict.fromkeys(map(chr, range(0xD800, 0xE000)), "\\ufffd")
)


def go_string(text: str) -> str:
    """A JSON string as Go's encoder writes it. Surrogates stand for bytes that are not UTF-8."""
    return json.dumps(text, ensure_ascii=False).translate(_GO_ESCAPES)


def error_envelope(status: int, message: str) -> bytes:
    """`{"error":{"message":"…"}}` and a newline; what a 500 or 503 says is masked."""
    return f'{{"error":{{"message":{go_string(_MASKED.get(status, message))}}}}}\n'.encode()


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
