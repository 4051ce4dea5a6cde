"""`clearinghouse coverage verify` and `rebuild`, as an operator runs them."""

from __future__ import annotations

import psycopg

from clearinghouse.ids import parse
from tests.clearinghouse.cli.test_commands import Cli, cli, conninfo, running
from tests.parts.books import commit, usage

__all__ = ["cli", "conninfo", "running"]  # fixtures


def test_a_book_that_is_wrong_is_found_shown_and_mended(cli: Cli, conninfo: str) -> None:
    assert cli("coverage", "verify").out == "The book of open tickets is right.\n"
    gateway = cli("gateway", "create", "acme", "--json").json()["gateway_id"]
    cli("credit", "grant", "acme", "100", "--reason", "a test").out  # noqa: B018
    cli("key", "create", "acme")
    with psycopg.connect(conninfo, autocommit=True) as owner:
        ((key_id,),) = owner.execute("SELECT id FROM api_key")
        seen = usage(parse("gw", gateway), key_id, ev_wei=3 * 10**15, num_tickets=3)
        for call in (seen, usage(parse("gw", gateway), key_id, approved=b"states")):
            assert commit(owner, call)[0] is None
        assert cli("coverage", "verify", "--json").json() == {"is_right": True, "lacking": []}
        assert cli("coverage", "rebuild").out == "The book was right.\n"
        owner.execute("SELECT roll_up_exposure(10)")
        owner.execute("UPDATE exposure_counter SET num_tickets = num_tickets + 1 WHERE creation_round IS NULL")
        owner.execute("DELETE FROM exposure_counter WHERE creation_round IS NOT NULL")

    found = cli("coverage", "verify")
    assert found.exit_code == 1
    assert "THE BOOK IS NOT RIGHT" in found.out
    assert f"0x{seen.sender.hex()}" in found.out
    as_json = cli("coverage", "verify", "--json")
    assert as_json.exit_code == 1
    assert '"num_tickets": 3' in as_json.out
    assert '"num_tickets": -1' in as_json.out
    assert '"recipient": null' in as_json.out
    ledger = cli("ledger", "verify")
    assert ledger.exit_code == 1
    assert "exposure_book" in ledger.out

    assert cli("coverage", "rebuild", "--json").json() == {"mended": 2}
    assert cli("coverage", "verify").exit_code == 0
    assert cli("ledger", "verify").exit_code == 0
