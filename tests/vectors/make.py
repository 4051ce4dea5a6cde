"""Writes payments.json: `python -m tests.vectors.make` from the project's root. Same input, same bytes, every time.

The numbers do not come from the code they test. Hashes are pycryptodome's, signatures eth-account's, protobufs are
put together by hand below, JSON and time texts are written out: what this script and `chain` agree on, two separate
implementations agree on. The keys are hashes of a phrase, and guard nothing.
"""

from __future__ import annotations

import base64
import json
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

from Crypto.Hash import keccak as _keccak
from eth_account import Account
from eth_account.messages import encode_defunct

FILE = Path(__file__).with_name("payments.json")

SECRET = sha256(b"livepeer clearinghouse test vectors: sender").digest()
RECIPIENT = sha256(b"livepeer clearinghouse test vectors: recipient").digest()[:20]
BLOCK_HASH = sha256(b"livepeer clearinghouse test vectors: block").digest()
RECIPIENT_RAND = int.from_bytes(sha256(b"livepeer clearinghouse test vectors: rand").digest(), "big")
ZERO_32 = bytes(32)
CERTAIN = 2**256 - 1


def keccak(data: bytes) -> bytes:
    return _keccak.new(digest_bits=256, data=data).digest()


def sign(message: bytes) -> bytes:
    return bytes(Account.sign_message(encode_defunct(message), SECRET).signature)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def bytes_field(number: int, content: bytes) -> bytes:
    """Left out where empty, like every field of proto3."""
    return varint(number << 3 | 2) + varint(len(content)) + content if content else b""


def int_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value) if value else b""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def aux(creation_round: int, block_hash: bytes) -> bytes:
    return word(creation_round) + block_hash if creation_round or block_hash != ZERO_32 else b""


def ticket(**changes: Any) -> dict[str, Any]:
    """One ticket hash; what is not given is zero."""
    fields: dict[str, Any] = {
        "recipient": bytes(20),
        "sender": bytes(20),
        "faceValue": 0,
        "winProb": 0,
        "senderNonce": 0,
        "recipientRandHash": ZERO_32,
        "creationRound": 0,
        "creationRoundBlockHash": ZERO_32,
    } | changes
    preimage = (
        fields["recipient"]
        + fields["sender"]
        + word(fields["faceValue"])
        + word(fields["winProb"])
        + word(fields["senderNonce"])
        + fields["recipientRandHash"]
        + aux(fields["creationRound"], fields["creationRoundBlockHash"])
    )
    shown = {name: value.hex() if isinstance(value, bytes) else str(value) for name, value in fields.items()}
    return shown | {"senderNonce": fields["senderNonce"], "hash": keccak(preimage).hex()}


def staged(min_credit: int, ev: Fraction, existing: Fraction) -> dict[str, Any]:
    """Tickets counted one by one, as a child would."""
    tickets, credit = 0, existing
    while credit < min_credit:
        credit, tickets = credit + ev, tickets + 1
    return {
        "minCredit": str(min_credit),
        "ev": str(ev),
        "existing": str(existing),
        "tickets": tickets,
        "newCredit": str(tickets * ev),
    }


def expected_value(face_value: int, win_prob: int) -> dict[str, str]:
    """Rounded to whole wei, half away from zero."""
    ev = int(Fraction(face_value * win_prob, CERTAIN) + Fraction(1, 2))
    return {"faceValue": str(face_value), "winProb": str(win_prob), "ev": str(ev)}


def payment(sender: bytes) -> dict[str, Any]:
    """A batch of three tickets with its payment, segment credentials and state."""
    face_value, win_prob, seed, expiration, creation_round = 8 * 10**14, CERTAIN // 10**5, 2**255 + 1, 21_000_000, 4100
    rand_hash = keccak(word(RECIPIENT_RAND))
    tickets: list[tuple[int, bytes, bytes]] = []
    for nonce in (599, 600, 601):
        digest = bytes.fromhex(
            ticket(
                recipient=RECIPIENT,
                sender=sender,
                faceValue=face_value,
                winProb=win_prob,
                senderNonce=nonce,
                recipientRandHash=rand_hash,
                creationRound=creation_round,
                creationRoundBlockHash=BLOCK_HASH,
            )["hash"]
        )
        tickets.append((nonce, digest, sign(digest)))
    params = (
        bytes_field(1, RECIPIENT)
        + bytes_field(2, minimal(face_value))
        + bytes_field(3, minimal(win_prob))
        + bytes_field(4, rand_hash)
        + bytes_field(5, minimal(seed))
        + bytes_field(6, minimal(expiration))
    )
    encoded = (
        bytes_field(1, params)
        + bytes_field(2, sender)
        + bytes_field(3, int_field(1, creation_round) + bytes_field(2, BLOCK_HASH))
        + b"".join(bytes_field(4, int_field(1, nonce) + bytes_field(2, signature)) for nonce, _, signature in tickets)
        + bytes_field(5, int_field(1, 1_000_003) + int_field(2, 3))
    )
    return {
        "privateKey": SECRET.hex(),
        "address": sender.hex(),
        "orchestratorInfoSignature": sign(keccak(Account.from_key(SECRET).address.encode())).hex(),
        "ticketParams": {
            "recipient": RECIPIENT.hex(),
            "faceValue": str(face_value),
            "winProb": str(win_prob),
            "recipientRand": str(RECIPIENT_RAND),
            "recipientRandHash": rand_hash.hex(),
            "seed": str(seed),
            "expirationBlock": str(expiration),
            "creationRound": str(creation_round),
            "creationRoundBlockHash": BLOCK_HASH.hex(),
        },
        "expectedPrice": {"pricePerUnit": "1000003", "pixelsPerUnit": "3"},
        "tickets": [{"senderNonce": nonce, "hash": h.hex(), "sig": sig.hex()} for nonce, h, sig in tickets],
        "livepeerPayment_base64": b64(encoded),
        "segment": segment(),
        "state": state(rand_hash),
    }


def segment() -> dict[str, Any]:
    """Credentials with capabilities: bit 35, whose capacity is missing, and one model that is in use.

    One entry to a map: the order of several is the encoder's own affair, in Go even a random one.
    """
    manifest, token, expiration = b"stream~01", b"\x00\xfftoken", 2_000_000_000
    bits, model = 1 << 35, b"acme/model-1"
    version = bytes_field(4, b"0.9.1")
    bitstring = bytes_field(1, varint(bits))
    warm_two = int_field(1, 1) + int_field(2, 2)

    def constraints(model_constraint: bytes) -> bytes:
        entry = bytes_field(1, bytes_field(1, model) + bytes_field(2, model_constraint))
        return bytes_field(5, bytes_field(1, b"0.8.0") + bytes_field(2, int_field(1, 35) + bytes_field(2, entry)))

    received = bitstring + version + constraints(warm_two + int_field(4, 1))
    capacities = bytes_field(3, int_field(1, 35) + int_field(2, 1))
    normalised = bitstring + capacities + version + constraints(warm_two)
    auth_token = bytes_field(1, token) + bytes_field(2, manifest) + int_field(3, expiration)
    flat = manifest + ZERO_32 + keccak(b"")
    encoded = (
        bytes_field(1, manifest)
        + bytes_field(3, keccak(b""))
        + bytes_field(4, b"invalid")
        + bytes_field(5, sign(keccak(flat)))
        + bytes_field(7, normalised)
        + bytes_field(8, auth_token)
    )
    return {
        "manifestId": manifest.decode(),
        "authToken": {
            "token": "",
            "tokenHex": token.hex(),
            "sessionId": manifest.decode(),
            "expiration": str(expiration),
        },
        "capabilities_base64": b64(received),
        "livepeerSegment_base64": b64(encoded),
    }


def state(rand_hash: bytes) -> dict[str, str]:
    """A state with everything that Go's JSON writes in its own way."""
    text = (
        '{"StateID":"00ff00ff00ff00ff00ff00ff00ff00ff",'
        f'"PMSessionID":"0x{rand_hash.hex()}",'
        '"LastUpdate":"2026-02-28T23:59:59.00000012Z",'
        f'"OrchestratorAddress":"0x{RECIPIENT.hex()}",'
        '"App":"a\\u003cb\\u003e \\u0026 \\"c\\" \\\\ \\n\\t\\u0001 \x7f é \\u2028 🎥",'
        '"AuthExpiry":1900000000,"SenderNonce":601,"Balance":"-125/7",'
        '"InitialPricePerUnit":1000003,"InitialPixelsPerUnit":3,"Type":"live","SequenceNumber":18446744073709551615,'
        '"AuthID":"tenant-1"}'
    )
    return {"json": text, "sig": sign(text.encode()).hex()}


def build() -> dict[str, Any]:
    """The whole file. The names are those of the protocol's published vectors, so the same tests read both."""
    account = Account.from_key(SECRET)
    sender = bytes.fromhex(account.address[2:])
    message = sha256(b"livepeer clearinghouse test vectors: message").digest()
    signature = sign(message)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high_s = order - int.from_bytes(signature[32:64], "big")
    names = ["P144p30fps16x9", "P240p30fps16x9", "P360p30fps16x9"]
    flat = b"stream~01" + word(77) + BLOCK_HASH + "".join(keccak(n.encode())[:4].hex() for n in names).encode()
    return {
        "ticketHashes": [
            ticket(),
            ticket(recipient=RECIPIENT, sender=sender, faceValue=CERTAIN, winProb=CERTAIN, senderNonce=2**32 - 1),
            ticket(recipient=RECIPIENT, faceValue=1, senderNonce=256, creationRound=2**63 - 1),
            ticket(sender=sender, winProb=2**255, recipientRandHash=BLOCK_HASH, creationRoundBlockHash=BLOCK_HASH),
        ],
        "auxData": [
            {"creationRound": str(number), "blockHash": block.hex(), "auxData": aux(number, block).hex()}
            for number in (0, 1, 2**63 - 1)
            for block in (ZERO_32, BLOCK_HASH)
        ],
        "expectedValueRoundedToWei": [
            expected_value(8 * 10**14, CERTAIN // 10**5),
            expected_value(10**18, 1),
            expected_value(1, CERTAIN),
            expected_value(3, CERTAIN // 2),
        ],
        "stagedTickets": [
            staged(36, Fraction(35), Fraction(5)),
            staged(36, Fraction(35), Fraction(0)),
            staged(100, Fraction(10, 3), Fraction(-1, 7)),
            staged(7, Fraction(1, 10), Fraction(69, 10)),
            staged(7, Fraction(1, 10), Fraction(7)),
        ],
        "recover": {
            "message": message.hex(),
            "signature": signature.hex(),
            "address": account.address[2:],
            "rejectHighS": (signature[:32] + word(high_s) + bytes([55 - signature[64]])).hex(),
        },
        "segmentFlatten": {
            "manifestId": "stream~01",
            "seq": "77",
            "hash": BLOCK_HASH.hex(),
            "profileNames": names,
            "keccak": keccak(flat).hex(),
        },
        "payment": payment(sender),
    }


def render() -> str:
    """The text of payments.json."""
    return json.dumps(build(), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="ascii")
    print(f"wrote {FILE.name}")
