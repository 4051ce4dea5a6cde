"""`clearinghouse dev` and the commands beside it, as a newcomer and an operator use them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import grpc
import psycopg
import pytest
import typer
from typer.testing import CliRunner

from clearinghouse.api.pb import clearinghouse_pb2 as pb
from clearinghouse.api.pb import clearinghouse_pb2_grpc as pb_grpc
from settlement.cli import app
from tests.parts import client, processes
from tests.parts.client import Answer
from tests.parts.program import ONLY_LINUX, PATIENCE_S, Home, Serving, new_home, run
from tests.parts.stack import TICKET_CHARGE_USD, Clock, Stream, offer

SIGN = "/generate-live-payment"


@pytest.fixture
def home() -> Iterator[Home]:
    """A data directory of its own, for tests about starting and stopping."""
    with new_home() as home:
        yield home


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Home, Serving]]:
    """One running `dev` for tests that only call it."""
    with new_home() as home:
        yield home, home.dev()


def new_stream(*, tickets: int = 1) -> Stream:
    return Stream(offer(Clock(), tickets=tickets))


async def sign(serving: Serving, api_key: str, stream: Stream) -> Answer:
    headers = ("Authorization", f"Bearer {api_key}")
    return await client.post(serving.http_port, SIGN, stream.body(), headers, timeout_s=PATIENCE_S)


async def pay(serving: Serving, api_key: str, stream: Stream) -> Answer:
    answer = await sign(serving, api_key, stream)
    assert answer.status == 200, (answer.status, answer.body)
    stream.learn(answer.body)
    return answer


async def read(serving: Serving, api_key: str, path: str) -> Any:
    answer = await client.call(
        serving.http_port, "GET", path, headers=[("Authorization", f"Bearer {api_key}")], timeout_s=PATIENCE_S
    )
    assert answer.status == 200, (answer.status, answer.body)
    return answer.json


def new_gateway(home: Home, name: str, *, tickets: int = 0) -> str:
    """A gateway with credit for so many tickets, made by commands; its API key."""
    home.json("gateway", "create", name)
    if tickets:
        home.json("credit", "grant", name, str(tickets * TICKET_CHARGE_USD), "--reason", "for a test")
    return str(home.json("key", "create", name)["api_key"])


# --- starting and stopping --------------------------------------------------------------------------------------------


async def test_ctrl_c_stops_everything_and_the_next_start_finds_the_same_data(home: Home) -> None:
    first = home.dev()
    api_key, stream = first.facts["api_key"], new_stream(tickets=2)
    assert (first.facts["available"], first.facts["currency"]) == ("10", "USD")
    lost = await pay(first, api_key, stream)
    issued = await read(first, api_key, "/v1/issuances")
    first.program.interrupt()
    assert first.program.wait() == 0, first.program.story
    assert home.postmaster_pid is None
    assert processes.left_in(home.folder) == []

    second = home.dev()
    assert second.facts["api_key"] == api_key
    for name in ("gateway_id", "sender", "currency", "data_dir"):
        assert second.facts[name] == first.facts[name]
    assert Decimal(second.facts["available"]) == 10 - 2 * TICKET_CHARGE_USD
    assert await read(second, api_key, "/v1/issuances") == issued
    await pay(second, api_key, stream)  # the session of before goes on
    second.program.interrupt()
    assert second.program.wait() == 0
    assert "Traceback" not in first.program.log + second.program.log
    assert lost.status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_stopping_service_answers_the_calls_it_has_accepted(home: Home, number: signal.Signals) -> None:
    """The commit waits for an account that the test has locked, so the calls are surely in flight when it must stop."""
    serving = home.dev(environment={"CLEARINGHOUSE_LIMITS__REQUEST_DEADLINE_S": "30"})
    api_key = serving.facts["api_key"]
    _reader, idle = await asyncio.open_connection("127.0.0.1", serving.http_port)  # must not keep it from stopping
    async with commits_held(home) as until_calls_wait:
        calls = [asyncio.create_task(sign(serving, api_key, new_stream())) for _ in range(5)]
        calls_by_grpc = [asyncio.create_task(sign_by_grpc(serving, api_key, new_stream())) for _ in range(3)]
        await until_calls_wait()
        os.killpg(serving.program.pid, number)
        await asyncio.to_thread(serving.program.wait_for, "stopping")
    answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * 5, answers
    assert all(answer.num_tickets == 1 for answer in await asyncio.gather(*calls_by_grpc))
    assert await asyncio.to_thread(serving.program.wait) == 0, serving.program.story
    idle.close()
    assert home.postmaster_pid is None
    assert home.json("issuances", "demo")["items"][7]["num_tickets"] == 1  # the database started for this command alone
    assert home.postmaster_pid is None


async def test_ctrl_c_twice_does_not_wait_for_a_call_that_hangs_and_stops_the_database_too(home: Home) -> None:
    serving = home.dev(environment={"CLEARINGHOUSE_LIMITS__REQUEST_DEADLINE_S": "30"})
    stream = new_stream()
    async with commits_held(home) as until_calls_wait:
        call = asyncio.create_task(sign(serving, serving.facts["api_key"], stream))
        await until_calls_wait()
        serving.program.interrupt()
        await asyncio.to_thread(serving.program.wait_for, "stopping")
        serving.program.interrupt()
        assert await asyncio.to_thread(serving.program.wait) != 0
        assert home.postmaster_pid is None
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    assert not isinstance(outcome, Answer) or outcome.status >= 500, outcome  # or the connection was lost
    again = home.dev()
    await pay(again, again.facts["api_key"], stream)
    assert home.json("balance", "demo")["usage_total"] == str(TICKET_CHARGE_USD)
    assert home.json("ledger", "verify")["is_clean"] is True


@pytest.mark.parametrize("moment", ["creating the database", "database server started", "keystore_created"])
def test_ctrl_c_in_the_middle_of_the_first_start_leaves_nothing_running_and_nothing_broken(
    home: Home, moment: str
) -> None:
    program = home.start_dev()
    program.wait_for(moment)
    program.interrupt()
    assert program.wait() == 0, program.story
    assert processes.left_in(home.folder) == []
    assert "Traceback" not in program.log
    assert home.dev().facts["available"] == "10"


def test_a_port_in_use_gives_one_clear_line_and_exit_status_1(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option, what in (("--http-port", "HTTP"), ("--grpc-port", "gRPC")):
            program = home.start_dev(option, port)
            assert program.wait() == 1, program.story
            (line,) = [line for line in program.log.splitlines() if line.startswith("bad_configuration: ")]
            assert f"Cannot listen for {what} on 127.0.0.1:{port}" in line
            assert "another instance" in line
            assert f"({option})" in line
            assert "Traceback" not in program.log
            assert program.out == ""
            assert home.postmaster_pid is None


async def test_two_services_on_one_data_directory_share_one_balance_and_never_overspend(home: Home) -> None:
    first = home.dev()
    second = home.dev()
    assert second.facts["api_key"] == first.facts["api_key"]
    api_key = new_gateway(home, "contested", tickets=20)
    answers = await asyncio.gather(
        *(sign(serving, api_key, new_stream()) for _ in range(24) for serving in (first, second))
    )
    assert sorted(answer.status for answer in answers) == [200] * 20 + [402] * 28
    for serving in (first, second):
        balance = await read(serving, api_key, "/v1/balance")
        assert (balance["available"], balance["usage_total"]) == ("0", "0.00048")
    assert home.json("ledger", "verify")["is_clean"] is True

    first.program.interrupt()
    assert first.program.wait() == 0
    await pay(second, second.facts["api_key"], new_stream())  # the database stays as long as somebody uses it
    second.program.interrupt()
    assert second.program.wait() == 0
    assert home.postmaster_pid is None


async def test_a_session_moves_between_two_services_in_mid_stream(home: Home) -> None:
    services, stream = (home.dev(), home.dev()), new_stream()
    api_key = services[0].facts["api_key"]
    for number in range(6):
        request = stream.body()
        answer = await pay(services[number % 2], api_key, stream)
        repeated = await client.post(
            services[(number + 1) % 2].http_port, SIGN, request, ("Authorization", f"Bearer {api_key}")
        )
        assert (repeated.status, repeated.body) == (200, answer.body)
        assert repeated.header("clearinghouse-replayed") == "true"
    assert len((await read(services[0], api_key, "/v1/issuances"))["items"]) == 6


# --- secrets ----------------------------------------------------------------------------------------------------------


@ONLY_LINUX
async def test_no_secret_is_readable_by_others_or_shows_in_arguments_or_logs(home: Home) -> None:
    with processes.watched_arguments() as seen:
        serving = home.dev()
        api_key = serving.facts["api_key"]
        await pay(serving, api_key, new_stream())
        other_key = new_gateway(home, "acme", tickets=1)
        await pay(serving, other_key, new_stream())
        await sign(serving, other_key, new_stream())  # 402
        await sign(serving, other_key[:-1] + "x", new_stream())  # 401
        await client.call(serving.http_port, "GET", f"/v1/balance?api_key={api_key}")  # 401, and not repeated
        await client.call(serving.http_port, "GET", f"/nothing/{api_key}")
        await client.post(serving.http_port, SIGN, b"{", ("Authorization", f"Bearer {api_key}"))
        signed = run(
            "sign-demo", "--url", serving.http_url, "--json", folder=home.folder,
            environment={"CLEARINGHOUSE_API_KEY": api_key},
        )  # fmt: skip
        assert signed.json["payments"]
        serving.program.interrupt()
        assert serving.program.wait() == 0

    assert mode(home.data_dir) == 0o700
    folder = home.data_dir / "secrets"
    assert mode(folder) == 0o700
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.name: mode(path) for path in files} == {path.name: 0o600 for path in files}
    kept = {path.name: path.read_text(encoding="utf-8").strip() for path in files if path.suffix != ".json"}
    assert len(kept) == 4, f"looked for the pepper, the keystore's password, the admin token and the key in {kept}"

    secrets_ = {name: text.rpartition("_")[2] if name == "demo_api_key" else text for name, text in kept.items()}
    secrets_["another API key"] = other_key.rpartition("_")[2]
    assert all(len(secret) >= 32 for secret in secrets_.values())
    logs = serving.program.log + signed.err + (home.data_dir / "postgres.log").read_text(encoding="utf-8")
    shown = "\n".join(seen)
    assert f"-D\0{home.data_dir / 'postgres'}" in shown, "the arguments of the children were seen"
    for name, secret in secrets_.items():
        assert secret not in shown, f"{name} shows in the arguments of a process"
        assert secret not in logs, f"{name} shows in a log"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- commands beside a running service --------------------------------------------------------------------------------


async def test_credit_granted_by_a_command_is_spendable_at_once(shared: tuple[Home, Serving]) -> None:
    home, serving = shared
    api_key, stream = new_gateway(home, "newcomer"), new_stream()
    refused = await sign(serving, api_key, stream)
    assert (refused.status, refused.code) == (402, "out_of_credit")
    granted = home.json("credit", "grant", "newcomer", "0.000024", "--reason", "first top-up", "--key", "top-up-1")
    assert (granted["available"], granted["was_repeated"]) == ("0.000024", False)
    paid = await pay(serving, api_key, stream)
    assert paid.header("clearinghouse-charge") == "0.000024 USD"
    assert paid.header("clearinghouse-balance") == "0 USD"
    assert home.json("credit", "grant", "newcomer", "0.000024", "--reason", "again", "--key", "top-up-1")[
        "was_repeated"
    ]
    assert (await sign(serving, api_key, stream)).status == 402


async def test_commands_and_the_service_see_the_same_books(shared: tuple[Home, Serving]) -> None:
    home, serving = shared
    api_key, stream = new_gateway(home, "acme", tickets=100), new_stream(tickets=3)
    for _ in range(3):
        await pay(serving, api_key, stream)
    seen_by_gateway = await read(serving, api_key, "/v1/balance") | await read(serving, api_key, "/v1/limits")
    assert home.json("balance", "acme") == seen_by_gateway
    assert home.json("balance", "acme")["available"] == str(91 * TICKET_CHARGE_USD)
    assert home.json("issuances", "acme")["items"] == (await read(serving, api_key, "/v1/issuances"))["items"]
    report = home.json("ledger", "verify")
    assert (report["is_clean"], report["findings"]) == (True, [])
    assert report["counts"]["issuances"] >= 3


async def test_a_key_works_as_soon_as_it_is_made_and_not_much_longer_than_it_is_revoked(
    shared: tuple[Home, Serving],
) -> None:
    home, serving = shared
    api_key = new_gateway(home, "careful", tickets=10)
    await pay(serving, api_key, new_stream())
    home.json("key", "revoke", api_key.split("_")[1])
    refused = await sign(serving, api_key, new_stream())  # remembered as valid, but the commit asks the database
    assert (refused.status, refused.code) == (401, "unauthenticated")
    await pay(serving, home.json("key", "create", "careful")["api_key"], new_stream())


@pytest.mark.parametrize("way_in", ["HTTP", "gRPC"])
def test_sign_demo_shows_the_receipt_and_the_new_balance(shared: tuple[Home, Serving], way_in: str) -> None:
    home, serving = shared
    grpc_option = ("--grpc-target", serving.facts["grpc_target"]) if way_in == "gRPC" else ()
    signed = home.json("sign-demo", "--url", serving.http_url, *grpc_option, "--count", 2)
    charges = [Decimal(payment["receipt"]["charge"]) for payment in signed["payments"]]
    assert len(charges) == 2
    assert Decimal(signed["balance"]["available"]) == Decimal(signed["payments"][-1]["receipt"]["balance"])
    for_people = home.run("sign-demo", "--url", serving.http_url, *grpc_option)
    assert for_people.code == 0, for_people
    assert "charge" in for_people.out
    assert "balance now" in for_people.out


def test_the_command_that_dev_prints_works_as_pasted(home: Home) -> None:
    ports = ("--http-port", 0, "--grpc-port", 0)
    program = home.start("dev", "--data-dir", home.data_dir, *ports)
    pasted = program.wait_for(r"CLEARINGHOUSE_API_KEY=(\S+) \S+clearinghouse sign-demo --url (\S+)", source="out")
    done = run("sign-demo", "--url", pasted[2], folder=home.folder, environment={"CLEARINGHOUSE_API_KEY": pasted[1]})
    assert done.code == 0, done
    assert "balance now 9.99" in done.out


def test_doctor_finds_a_running_service_in_good_health(shared: tuple[Home, Serving]) -> None:
    home, _serving = shared
    done = home.run("doctor", "--json")
    assert done.code == 0, done
    assert [check for check in done.json if check["status"] == "error"] == []


def test_commands_find_the_data_directory_in_the_environment(shared: tuple[Home, Serving]) -> None:
    home, serving = shared
    environment = {"CLEARINGHOUSE_DATA_DIR": str(home.data_dir)}
    shown = run("gateway", "show", "demo", "--json", folder=home.folder, environment=environment)
    assert shown.json["gateway_id"] == serving.facts["gateway_id"]


def test_a_refused_command_says_why_and_what_next_with_exit_status_1(shared: tuple[Home, Serving]) -> None:
    home, _serving = shared
    done = home.run("balance", "nobody")
    assert (done.code, done.out) == (1, "")
    first, second = done.err.splitlines()
    assert first.startswith("not_found: ")
    assert "nobody" in first
    assert second


# --- help -------------------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if command.hidden:  # another spelling of one that is shown
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))  # type: ignore[arg-type]
        else:
            yield (*path, name)


COMMANDS = sorted(commands(typer.main.get_command(app)))  # type: ignore[arg-type]


def test_every_command_that_people_script_against_is_there() -> None:
    expected = """dev|serve|work|signer|migrate|doctor|jobs run|sign-demo|balance|issuances|ledger verify
        gateway create|gateway list|gateway show|gateway suspend|gateway resume|gateway set-limit
        credit grant|credit withdraw|key create|key list|key rotate|key revoke"""
    wanted = {tuple(words.split()) for line in expected.splitlines() for words in line.split("|")}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_explains_a_command_with_an_example(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], prog_name="clearinghouse")
    assert shown.exit_code == 0, shown.output
    usage, _, explained = shown.output.partition("\n")
    assert usage.startswith(f"Usage: clearinghouse {' '.join(path)}")
    assert f"clearinghouse {' '.join(path)}" in explained, "there is no example"


def test_the_program_alone_and_a_group_alone_teach(tmp_path: Path) -> None:
    alone = run(folder=tmp_path)
    for word in ("gateway create", "credit grant", "key create", "balance", "dev", "sign-demo", "--help"):
        assert word in alone.out + alone.err, word
    assert "Traceback" not in alone.err
    group = run("gateway", folder=tmp_path)
    assert "clearinghouse gateway create" in group.out + group.err
    assert list(tmp_path.iterdir()) == [], "asking for help makes nothing"


# --- parts ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def commits_held(home: Home) -> AsyncIterator[Any]:
    """Nothing can be committed while the block runs. Gives a way to wait until a commit waits."""
    holder = psycopg.AsyncConnection.connect(home.conninfo, autocommit=True, application_name="holder")
    async with await holder as connection:
        # Not by a lock, of which a commit soon has enough. It ends with this connection, whichever way that ends.
        await connection.execute(_HOLD)

        async def until_calls_wait() -> None:
            async with (
                asyncio.timeout(PATIENCE_S),
                await psycopg.AsyncConnection.connect(home.conninfo, autocommit=True) as watcher,
            ):
                waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
                while await (await watcher.execute(waits)).fetchone() is None:
                    await asyncio.sleep(0.02)

        yield until_calls_wait


_HOLD = """
    CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        WHILE EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'holder') LOOP
            PERFORM pg_sleep(0.02);
            PERFORM pg_stat_clear_snapshot();
        END LOOP;
        RETURN NEW;
    END $$;
    CREATE OR REPLACE TRIGGER hold BEFORE INSERT ON issuance FOR EACH ROW EXECUTE FUNCTION hold()
"""


async def sign_by_grpc(serving: Serving, api_key: str, stream: Stream) -> Any:
    """A payment's receipt."""
    request = pb.SignTicketRequest(
        orchestrator=stream.offer.SerializeToString(), manifest_id=stream.manifest_id, type=stream.job_type
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{serving.grpc_port}") as channel:
        answer = await pb_grpc.ClearinghouseStub(channel).SignTicket(
            request, metadata=[("authorization", f"Bearer {api_key}")], timeout=PATIENCE_S
        )
    return answer.receipt
