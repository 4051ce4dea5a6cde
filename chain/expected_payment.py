"""A payment that is what was asked for, known by its bytes.

Payments by one offer differ in their tickets alone, and those stand between two pieces of bytes that stay the same
(remote-signer protocol, section 4.6). The tickets differ in nothing but nonce and signature, and which nonces they have
is known beforehand:

    ┌ before: parameters, sender, round ┬ ticket head, signature ┬ … ┬ after: price ┐
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from chain.messages import OrchestratorInfo, Payment, PaymentFrame, decode_payment, encode_payment, payment_frame
from chain.pb import lp_rpc_pb2 as pb
from chain.signatures import SIGNATURE_BYTES

_NONCE_MAX: Final = 2**32 - 1


class ExpectedPayment(NamedTuple):
    """What all payments by an offer are but for their tickets: encoded, and as it is read, with a ticket of no use."""

    frame: PaymentFrame
    sample: Payment

    def read(self, data: bytes, first_nonce: int) -> Payment | None:
        """What `decode_payment` makes of the same bytes, where they are just as a correct signer writes them, with
        tickets from `first_nonce` on. None: they may still be a payment, and are to be read as any other is.
        """
        before, after = self.frame.before, self.frame.after
        if not (data.startswith(before) and data.endswith(after)):
            return None
        at, end, nonce = len(before), len(data) - len(after), first_nonce
        signatures: list[bytes] = []
        while at < end:
            if not 1 <= nonce <= _NONCE_MAX or not data.startswith(head := _ticket_head(nonce), at):
                return None
            signed_at = at + len(head)
            at = signed_at + SIGNATURE_BYTES
            signatures.append(data[signed_at:at])
            nonce += 1
        if at != end or not signatures:
            return None
        return Payment(*self.sample[:-2], tuple(range(first_nonce, nonce)), tuple(signatures))


def expected_payment(
    info: OrchestratorInfo, *, sender: bytes, creation_round: int, creation_round_block_hash: bytes
) -> ExpectedPayment:
    """By this offer, with tickets of this round. Raises what `payment_frame` and `decode_payment` do."""
    frame = payment_frame(
        info, sender=sender, creation_round=creation_round, creation_round_block_hash=creation_round_block_hash
    )
    header = encode_payment(frame, nonces=[1], signatures=[bytes(SIGNATURE_BYTES)])
    return ExpectedPayment(frame, decode_payment(header))


@lru_cache(1024)  # an orchestrator takes 600 nonces of one recipientRandHash
def _ticket_head(nonce: int) -> bytes:
    """What stands before the signature of a ticket, encoded within a payment."""
    signature = bytes(SIGNATURE_BYTES)
    tickets = pb.Payment(ticket_sender_params=[pb.TicketSenderParams(sender_nonce=nonce, sig=signature)])
    return tickets.SerializeToString(deterministic=True).removesuffix(signature)
