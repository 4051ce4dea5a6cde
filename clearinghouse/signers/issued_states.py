"""The states this process signed lately, so that the next call of a session need not prove them again.

Recovering the signer of a state costs more than signing one. For a pair of bytes and signature that this key made
itself the outcome is known: recovery is a function of exactly those bytes, and `SigningKey.eth_sign` writes the one
form that recovers to its own address. So only a pair that is equal in every byte is found here; every other one, even
with the same signature, takes the long way and is judged as ever. `decode_state` reads back what `encode_state` wrote,
so the parsed state is kept beside it.

Nothing depends on what is in here but time: a signer that forgot, or another one with the same key, answers alike.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from chain.payment_state import REMEMBERED_STATE_BYTES_MAX, PaymentState, SignedState

#: One for every session that goes on, about 1.5 kB each. Beyond that the oldest go, and cost a recovery when they come.
STATES_MAX_COUNT: Final = 20_000


class IssuedStates:
    """Pairs of state and signature that were made here. Safe in threads: each change is one step of the interpreter."""

    def __init__(self, *, states_max_count: int = STATES_MAX_COUNT) -> None:
        self._states_max_count = states_max_count
        #: By signature, oldest first: it is short, and no two states share one.
        self._issued: OrderedDict[bytes, tuple[bytes, PaymentState]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issued)

    def remember(self, signed: SignedState, state: PaymentState) -> None:
        """Only what was just signed with the key that `find`'s caller would compare with. Large ones are not kept."""
        if len(signed.state) > REMEMBERED_STATE_BYTES_MAX:
            return
        self._issued[signed.sig] = (signed.state, state)
        if len(self._issued) > self._states_max_count:
            self._issued.popitem(last=False)

    def find(self, signed: SignedState) -> PaymentState | None:
        """The state, where these very bytes and this very signature were made here; None: not known."""
        issued = self._issued.get(signed.sig)
        return issued[1] if issued is not None and issued[0] == signed.state else None
