"""What the signing flow needs of a signer, whichever kind it is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from clearinghouse.requests import PaymentRequest


class SignerAnswer(NamedTuple):
    """A complete HTTP answer of a signer, unjudged: any status, the body to the byte."""

    status: int
    body: bytes
    #: Value of `Livepeer-Orchestrator-URL`, which go-livepeer sends with 480.
    orchestrator_url: str | None = None
    content_type: str = "application/json"
    #: With the one that answered. Those before it gave no answer in time, but may have signed.
    signers_asked: int = 1


class Signer(Protocol):
    """Signs payments for one sender address.

    Every method returns a complete answer or raises `errors.SignersUnavailable`: nothing was released, so the caller
    may ask again. Signers keep no state between calls; what was signed but not released costs nothing.
    """

    @property
    def address(self) -> bytes:
        """The sender, 20 bytes: known, and the same for every member of a pool, from start-up on."""
        ...

    async def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> SignerAnswer:
        """POST /generate-live-payment. `auth_id` becomes the state's AuthID (header Signer-Auth-Id)."""
        ...

    async def sign_orchestrator_info(self) -> SignerAnswer:
        """POST /sign-orchestrator-info."""
        ...

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        """GET /discover-orchestrators?query; 404 where the signer offers none."""
        ...
