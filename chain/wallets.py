"""Who signs the transactions that cost money: a key of our own, or a signer that keeps it and shows it to nobody."""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

from chain import shallow_json
from chain.http_client import ExchangeError
from chain.http_target import parse_target
from chain.signatures import SigningKey, checksum_address
from chain.transactions import RAW_BYTES_MAX, SignedTransaction, Transaction, TransactionError, read_signed, sign

_ANSWER_BYTES_MAX: Final = 64 * 1024


class WalletFailed(Exception):
    """Nothing was signed. The text says why, and has neither a URL nor what the signer said in words."""


class Wallet(Protocol):
    """Signs in the name of one address (20 bytes)."""

    @property
    def address(self) -> bytes: ...

    async def sign(self, transaction: Transaction) -> SignedTransaction:
        """Signed by `address`, and no other transaction than the one given. Raises WalletFailed."""
        ...


class KeyWallet:
    """A key in memory, such as chain.keystore opens."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @property
    def address(self) -> bytes:
        return self._key.address

    async def sign(self, transaction: Transaction) -> SignedTransaction:
        return sign(transaction, self._key)


class ExternalWallet:
    """A signer that is asked over JSON-RPC, as Clef, Web3signer and nodes with an account of their own are.

    `method` is what it calls signing: eth_signTransaction or account_signTransaction. What it answers is not trusted:
    it must be the very transaction that was asked for, signed by `address`. A connection lasts for one signature.
    """

    def __init__(self, address: bytes, url: str, *, method: str, timeout_s: float) -> None:
        """Raises ValueError, without quoting it, for a URL that cannot be used."""
        self._target = parse_target(url, name="the wallet's signer")
        self._address, self._method, self._timeout_s = address, method, timeout_s

    @property
    def address(self) -> bytes:
        return self._address

    async def sign(self, transaction: Transaction) -> SignedTransaction:
        question = {"jsonrpc": "2.0", "id": 1, "method": self._method, "params": [_shown(transaction, self._address)]}
        body = json.dumps(question).encode()
        head = self._target.head("POST")
        request = b"%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
        client = self._target.client(body_max_bytes=_ANSWER_BYTES_MAX)
        try:
            answer = await client.exchange(request, timeout_s=self._timeout_s)
        except ExchangeError:  # not chained: its cause may quote an address
            raise WalletFailed(f"the wallet's signer gave no answer within {self._timeout_s:g} s") from None
        finally:
            await client.close()
        if answer.status != 200:
            raise WalletFailed(f"the wallet's signer answered with the status {answer.status}")
        return self._checked(_raw(answer.body), transaction)

    def __repr__(self) -> str:
        return f"ExternalWallet({checksum_address(self._address)})"

    def _checked(self, raw: bytes, wanted: Transaction) -> SignedTransaction:
        try:
            signed = read_signed(raw)
        except TransactionError as error:
            raise WalletFailed(f"what the wallet's signer answered is {error}") from error
        if signed.transaction != wanted:
            raise WalletFailed("the wallet's signer signed another transaction than it was asked to")
        if signed.sender != self._address:
            raise WalletFailed(
                f"the wallet's signer signed as {checksum_address(signed.sender)}, "
                f"and the wallet is {checksum_address(self._address)}"
            )
        return signed


def _shown(transaction: Transaction, address: bytes) -> dict[str, Any]:
    """As the JSON-RPC of nodes has transactions. Chain and type are said, so that none is guessed."""
    return {
        "type": "0x2",
        "chainId": hex(transaction.chain_id),
        "from": f"0x{address.hex()}",
        "to": f"0x{transaction.to.hex()}",
        "nonce": hex(transaction.nonce),
        "value": hex(transaction.value_wei),
        "data": f"0x{transaction.data.hex()}",
        "gas": hex(transaction.gas_limit_count),
        "maxFeePerGas": hex(transaction.fees.max_per_gas_wei),
        "maxPriorityFeePerGas": hex(transaction.fees.priority_per_gas_wei),
        "accessList": [],
    }


def _raw(body: bytes) -> bytes:
    """The signed bytes: the result itself, or what it has as `raw`. Raises WalletFailed."""
    try:
        answer = shallow_json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise WalletFailed("the wallet's signer does not speak JSON-RPC")
    if answer.get("error") is not None:
        code = answer["error"].get("code") if isinstance(answer["error"], dict) else None
        said = f" (code {code})" if type(code) is int else ""
        raise WalletFailed(f"the wallet's signer refuses to sign{said}: see what it asks for on its own side")
    result = answer.get("result")
    raw = result.get("raw") if isinstance(result, dict) else result
    if not isinstance(raw, str) or not raw.startswith("0x") or len(raw) > 2 + 2 * RAW_BYTES_MAX:
        raise WalletFailed("the wallet's signer answered with no signed transaction")
    try:
        return bytes.fromhex(raw[2:])
    except ValueError:
        raise WalletFailed("the wallet's signer answered with no signed transaction") from None
