"""Signers of transactions: a key of our own, a node that keeps one, and signers that must not be trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from chain.signatures import SigningKey, keccak, parse_address
from chain.transactions import Fees, Transaction, read_signed, sign
from chain.wallets import ExternalWallet, KeyWallet, WalletFailed
from tests.parts.devnet import DEV_CHAIN_ID, Devnet
from tests.parts.listening import listening

KEY = SigningKey(keccak(b"a wallet"))
WANTED = Transaction(DEV_CHAIN_ID, 3, b"\x0a" * 20, 10**18, b"\x01\x02", 100_000, Fees(2 * 10**9, 10**9))
SECRET = "k3y-in-the-url"

Answer = Callable[[dict[str, Any]], bytes]


@asynccontextmanager
async def signer(answer: Answer, *, status: int = 200) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A JSON-RPC signer: its URL, and the questions that came."""
    questions: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(next(line for line in head.split("\r\n") if line.startswith("Content-Length")).split()[1])
        questions.append(json.loads(await reader.readexactly(length)))
        body = answer(questions[-1])
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}/{SECRET}", questions


def result(value: Any) -> Answer:
    return lambda _question: json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()


def external(url: str, **how: Any) -> ExternalWallet:
    return ExternalWallet(KEY.address, url, **{"method": "eth_signTransaction", "timeout_s": 2, **how})


async def test_a_key_of_our_own_signs_what_it_is_given() -> None:
    assert await KeyWallet(KEY).sign(WANTED) == sign(WANTED, KEY)


async def test_a_node_that_keeps_the_key_signs_the_same_transaction(devnet: Devnet) -> None:
    address = parse_address(devnet.rpc("eth_accounts")[1])
    wallet = ExternalWallet(address, devnet.url, method="eth_signTransaction", timeout_s=5)
    signed = await wallet.sign(WANTED)
    assert (signed.transaction, signed.sender) == (WANTED, address)
    assert read_signed(signed.raw) == signed


@pytest.mark.parametrize("shape", [lambda raw: raw, lambda raw: {"raw": raw, "tx": {}}], ids=["web3signer", "clef"])
async def test_both_shapes_of_an_answer_are_understood(shape: Callable[[str], Any]) -> None:
    raw = f"0x{sign(WANTED, KEY).raw.hex()}"
    async with signer(result(shape(raw))) as (url, questions):
        assert (await external(url, method="account_signTransaction").sign(WANTED)).raw.hex() == raw[2:]
    assert questions[0]["method"] == "account_signTransaction"
    (asked,) = questions[0]["params"]
    assert (asked["chainId"], asked["nonce"], asked["value"]) == ("0x7a69", "0x3", hex(10**18))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"value_wei": 10**19}, KEY),
        ({"to": b"\x0b" * 20}, KEY),
        ({"nonce": 4}, KEY),
        ({"data": b""}, KEY),
        ({"chain_id": 1}, KEY),
        ({"fees": Fees(10**12, 10**9)}, KEY),
        ({"gas_limit_count": 10**7}, KEY),
        ({}, SigningKey(keccak(b"somebody else"))),
    ],
)
async def test_another_transaction_or_another_key_is_not_taken(changes: dict[str, Any], key: SigningKey) -> None:
    raw = sign(replace(WANTED, **changes), key).raw
    async with signer(result(f"0x{raw.hex()}")) as (url, _):
        with pytest.raises(WalletFailed, match=r"another transaction|signed as"):
            await external(url).sign(WANTED)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"nonsense",
        lambda _: b"[]",
        lambda _: json.dumps({"id": 1, "error": {"code": -32000, "message": f"denied {SECRET}"}}).encode(),
        result(None),
        result("0x02zz"),
        result("0x02c0"),
        result({"raw": 7}),
        result("0x" + "00" * 5000),
    ],
)
async def test_a_signer_that_refuses_or_talks_nonsense_signs_nothing_and_is_not_quoted(answer: Answer) -> None:
    async with signer(answer) as (url, _):
        with pytest.raises(WalletFailed) as caught:
            await external(url).sign(WANTED)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(external(url))


async def test_a_signer_that_is_away_or_fails_is_named_and_its_url_is_not() -> None:
    async with signer(result("0x"), status=503) as (url, _):
        with pytest.raises(WalletFailed, match="status 503"):
            await external(url).sign(WANTED)
    with pytest.raises(WalletFailed, match="no answer") as caught:
        await external(url).sign(WANTED)
    assert SECRET not in str(caught.value)
