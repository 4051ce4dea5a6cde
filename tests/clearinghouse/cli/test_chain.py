"""`clearinghouse chain`, as an operator runs it."""

from __future__ import annotations

from chain.tickets import ticket_hash
from tests.clearinghouse.cli.test_commands import Cli, cli, running
from tests.parts.devnet import Devnet
from tests.parts.indexed import ETHER, RAND, SENDER, prepared, ticket

__all__ = ["cli", "running"]  # fixtures


def test_a_foreign_redemption_is_found_listed_and_read_again(cli: Cli, devnet: Devnet) -> None:
    prepared(devnet)
    devnet.redeem(ticket(1), SENDER.eth_sign(ticket_hash(ticket(1))), RAND)
    environment = {
        "CLEARINGHOUSE_CHAIN__NETWORK": "dev",
        "CLEARINGHOUSE_CHAIN__RPC_URLS": f"{devnet.url},{devnet.url}/?second",
        "CLEARINGHOUSE_CHAIN__POLL_S": "0.1",
        "CLEARINGHOUSE_CHAIN__CONFIRMATIONS_COUNT": "1000",
    }
    sender = "0x" + SENDER.address.hex()
    for again in ((), ("--from-block", "1")):
        done = cli("chain", "index", "--once", "--json", "--sender", sender, *again, **environment)
        assert done.exit_code == 0, done.err
        assert done.json() == {"standing_by": False, "blocks_behind": 0}
        (found,) = cli("chain", "events", "--foreign", "--json").json()["items"]
        assert (found["kind"], found["status"], found["confirmed"]) == ("ticket_redeemed", "foreign", False)
        assert (found["amount_wei"], found["issuance_id"]) == (str(ETHER // 1000), None)
    assert "deposit_funded" in cli("chain", "events").out
    assert [item["kind"] for item in cli("chain", "events", "--kind", "new_round", "--json").json()["items"]]


def test_without_a_chain_there_is_nothing_to_read(cli: Cli) -> None:
    said = cli("chain", "index", "--once")
    assert said.exit_code == 1
    assert "chain.rpc_urls" in said.err
