"""`clearinghouse doctor`: every fault planted here is found, named, and explained; nothing is started or changed."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.keystore import create_keystore
from chain.signatures import SigningKey, checksum_address
from clearinghouse.checkup import database as database_check
from clearinghouse.checkup import service as service_check
from clearinghouse.checkup import transactions as transactions_check
from clearinghouse.checkup.certificates import CertificateError, validity_of
from clearinghouse.checkup.findings import Finding
from clearinghouse.checkup.run import CHECK_TIMEOUT_S, examine
from clearinghouse.config import ListenSettings, Settings
from clearinghouse.database.embedded import EmbeddedDatabase, EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from clearinghouse.identity import gateways, webhook_signers
from clearinghouse.price_store import set_override
from tests.clearinghouse.signers.receiver import http_answer, receiving
from tests.parts import faulty_signer as faulty
from tests.parts.devnet import Devnet, FaultProxy, fault_proxy
from tests.parts.devnet.fault_proxy import API_KEY, lying_l1_block, status, wrong_chain_id
from tests.parts.devnet.price_feeds import PriceFeeds
from tests.parts.faulty_signer import FaultySigner
from tests.parts.listening import listening
from tests.parts.program import Done, new_home, run
from tests.parts.service import running

KEY, OTHER_KEY = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
PEPPER = "pepper-" * 8
PASSWORD = "hunter2-hunter2"


async def findings(folder: Path, **settings: Any) -> dict[str, Finding]:
    """What is found with these settings, by name; of several with one name the worst."""
    settings = {"data_dir": folder / "data", **settings}
    settings.setdefault("listen", {"http_port": 0})
    found: dict[str, Finding] = {}
    for finding in await examine(Settings.model_validate(settings), config_file=None):
        if finding.name not in found or finding.status != "ok":
            found[finding.name] = finding
        assert (finding.status == "ok") == (finding.what_to_do == ""), finding
        assert PASSWORD not in finding.detail + finding.what_to_do
    return found


def served_by(conninfo: str, **more: Any) -> dict[str, Any]:
    return {"database_url": conninfo, "api_key_pepper": PEPPER, **more}


def pool_of(*urls: str, expected: SigningKey | None = KEY, **more: Any) -> dict[str, Any]:
    pool: dict[str, Any] = {"urls": urls, **more}
    if expected is not None:
        pool["expected_address"] = checksum_address(expected.address)
    return {"signer": {"kind": "go_livepeer", "go_livepeer": pool}}


def is_error(finding: Finding, *texts: str) -> None:
    assert finding.status == "error", finding
    assert all(text in f"{finding.detail}\n{finding.what_to_do}" for text in texts), finding


# --- the command ------------------------------------------------------------------------------------------------------


def doctor(folder: Path, *arguments: str | Path, **environment: str) -> Done:
    return run("doctor", *arguments, folder=folder, environment={"CLEARINGHOUSE_LISTEN__HTTP_PORT": "0", **environment})


def test_on_a_new_machine_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.code == 0, done
    assert "warning  database" in done.out
    assert "→ `clearinghouse dev` starts it" in done.out
    assert done.out.endswith("\n1 warning.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_setting_is_the_only_finding_and_an_error(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", CLEARINGHOUSE_LISTEN__HTPP_PORT="1")
    (finding,) = json.loads(done.out)
    assert (done.code, finding["name"], finding["status"]) == (1, "configuration", "error")
    assert "CLEARINGHOUSE_LISTEN__HTPP_PORT" in finding["detail"]
    assert finding["what_to_do"]


def test_json_is_a_list_and_errors_give_exit_status_1(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json", CLEARINGHOUSE_SIGNER__KIND="go_livepeer")
    found = json.loads(done.out)
    assert done.code == 1
    assert {tuple(finding) for finding in found} == {("name", "status", "detail", "what_to_do")}
    wrong = [finding["detail"] for finding in found if finding["status"] == "error"]
    assert len(wrong) == 2
    assert "signer.go_livepeer.urls is needed" in wrong[0]


def test_a_file_with_secrets_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "clearinghouse.toml"
    file.write_text(f'[api]\nadmin_token = "{PASSWORD}-{PASSWORD}"\n', encoding="utf-8")
    file.chmod(0o644)
    for done in (doctor(tmp_path, "--config", file), doctor(tmp_path, CLEARINGHOUSE_CONFIG=str(file))):
        assert done.code == 0
        assert f"→ chmod 600 {file}" in done.out
        assert PASSWORD not in done.out


def test_a_running_service_is_found_in_order_and_neither_disturbed_nor_kept_alive() -> None:
    with new_home() as home:
        serving = home.dev()
        started_as = home.postmaster_pid
        environment = {"CLEARINGHOUSE_LISTEN__HTTP_PORT": str(serving.http_port)}
        done = home.run("doctor", environment=environment)
        assert done.code == 0, done
        assert done.out.endswith("\nEverything is in order.\n")
        assert f"runs at 127.0.0.1:{serving.http_port} and is ready" in done.out
        assert str(serving.facts["sender"]) in done.out
        assert home.postmaster_pid == started_as

        serving.program.interrupt()
        assert serving.program.wait() == 0
        assert home.postmaster_pid is None
        done = home.run("doctor", environment=environment)
        assert "the embedded database (PostgreSQL 18) is not running" in done.out
        assert f"none runs at 127.0.0.1:{serving.http_port}" in done.out
        assert (done.code, home.postmaster_pid) == (0, None)


# --- the data directory -----------------------------------------------------------------------------------------------


async def test_a_data_directory_or_secret_open_to_others_is_an_error(tmp_path: Path) -> None:
    secret = tmp_path / "data" / "secrets" / "api_key_pepper"
    secret.parent.mkdir(parents=True)
    for folder in (tmp_path / "data", secret.parent):
        folder.chmod(0o700)
    secret.write_text("secret\n", encoding="utf-8")
    secret.chmod(0o600)
    assert (await findings(tmp_path))["data directory"].status == "ok"

    secret.chmod(0o640)
    is_error((await findings(tmp_path))["data directory"], "mode 0640", f"chmod 600 '{secret}'")
    secret.chmod(0o600)
    (tmp_path / "data").chmod(0o755)
    is_error((await findings(tmp_path))["data directory"], "mode 0755", f"chmod 700 '{tmp_path / 'data'}'")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o755, "it only looks"


async def test_a_file_where_the_data_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    is_error((await findings(tmp_path))["data directory"], "is not a directory")


# --- open files -------------------------------------------------------------------------------------------------------


async def test_a_file_limit_below_the_connections_is_a_warning_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await findings(tmp_path))["open files"].status == "ok"
    monkeypatch.setattr("clearinghouse.checkup.files.highest_limit", lambda: 1024)
    found = (await findings(tmp_path))["open files"]
    assert found.status == "warning"
    assert "at most 1024 are allowed, and 9728 are needed" in found.detail
    assert "455 and 56 connections" in found.detail
    assert "LimitNOFILE=" in found.what_to_do


# --- the database -----------------------------------------------------------------------------------------------------


async def test_a_database_that_is_as_it_should_be_has_no_fault(tmp_path: Path) -> None:
    """One that waits for its disk, which the one of all tests does not."""
    with EmbeddedPostgres(tmp_path / "elsewhere") as durable:
        migrate(durable.conninfo)
        found = await findings(tmp_path, **served_by(durable.conninfo), price={"declared": {"USD": "3123.45"}})
    no_worker = found.pop("worker")  # tests/settlement/test_doctor.py
    assert "none has ever run" in no_worker.detail
    assert {finding.status for finding in found.values()} == {"ok"}, found
    assert {
        "database", "database clock", "database durability", "database role clearinghouse_serve",
        "database role clearinghouse_admin", "database schema", "database transactions",
    } <= set(found)  # fmt: skip


async def test_a_server_that_is_not_there_is_an_error_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:9/books"
    found = await findings(tmp_path, **served_by(url, admin_database_url=url))
    is_error(found["database"], "cannot be used", "user and password of database_url")
    is_error(found["admin database"], "cannot be used", "user and password of admin_database_url")


async def test_an_admin_database_alone_would_give_two_books(tmp_path: Path, database: str) -> None:
    found = await findings(tmp_path, admin_database_url=database, api_key_pepper=PEPPER)
    is_error(found["database"], "admin_database_url is set, database_url is not")
    assert found["admin database schema"].status == "ok"


async def test_an_empty_database_and_an_old_schema_ask_for_migrate(
    tmp_path: Path, postgres: EmbeddedDatabase, database: str, owner: psycopg.Connection[Any]
) -> None:
    empty = make_conninfo(postgres.conninfo, dbname="postgres")
    is_error((await findings(tmp_path, **served_by(empty)))["database schema"], "none yet", "`clearinghouse migrate`")
    owner.execute("UPDATE alembic_version SET version_num = '0000'")
    is_error((await findings(tmp_path, **served_by(database)))["database schema"], "at 0000", "`clearinghouse migrate`")


@pytest.fixture
def poor_login(owner: psycopg.Connection[Any], database: str) -> Iterator[str]:
    """A login that has been granted nothing."""
    owner.execute("CREATE ROLE doctor_test LOGIN")
    yield make_conninfo(database, user="doctor_test")
    owner.execute("DROP ROLE doctor_test")


async def test_a_login_that_may_not_take_its_role_on_is_an_error_and_the_grant_is_named(
    tmp_path: Path, poor_login: str, owner: psycopg.Connection[Any], database: str
) -> None:
    found = await findings(tmp_path, **served_by(poor_login, admin_database_url=database))
    is_error(found["database role clearinghouse_serve"], "GRANT clearinghouse_serve TO doctor_test;")
    assert "database role clearinghouse_admin" not in found

    owner.execute("GRANT clearinghouse_serve TO doctor_test")
    found = await findings(tmp_path, **served_by(poor_login))
    assert found["database role clearinghouse_serve"].status == found["database schema"].status == "ok"
    admin = found["database role clearinghouse_admin"]
    assert admin.status == "warning"
    assert "admin_database_url" in admin.what_to_do


async def test_a_role_that_does_not_exist_asks_for_migrate(tmp_path: Path, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        login = database_check._Login("database", database, ("clearinghouse_other",))
        found = await database_check._role(connection, login, "clearinghouse_other")
    is_error(found, "does not exist", "`clearinghouse migrate`")


async def test_commits_that_do_not_wait_for_the_disk_are_an_error(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "data") as embedded:
        assert (await findings(tmp_path))["database durability"].status == "ok"
        with psycopg.connect(embedded.conninfo, autocommit=True) as connection:
            connection.execute("ALTER DATABASE clearinghouse SET synchronous_commit = off")
            found = (await findings(tmp_path))["database durability"]
            is_error(found, "synchronous_commit is off", "Set it to on")
            assert "fsync" not in found.detail
            connection.execute("ALTER DATABASE clearinghouse SET synchronous_commit = remote_apply")
            assert (await findings(tmp_path))["database durability"].status == "ok"
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        is_error((await findings(tmp_path))["database durability"], "fsync is off")


async def test_a_clock_that_differs_by_more_than_two_seconds_is_a_warning(
    tmp_path: Path, database: str, owner: psycopg.Connection[Any]
) -> None:
    owner.execute("CREATE SCHEMA fake")
    owner.execute(
        "CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
        "$$ SELECT pg_catalog.clock_timestamp() - interval '5 seconds' $$"
    )
    name = conninfo_to_dict(database)["dbname"]
    owner.execute(f"ALTER DATABASE {name} SET search_path = fake, pg_catalog, public".encode())
    clock = (await findings(tmp_path, **served_by(database)))["database clock"]
    assert clock.status == "warning"
    assert clock.detail in {"5.0 s behind this machine's", "5.1 s behind this machine's"}
    assert "NTP" in clock.what_to_do


async def test_a_webhook_is_held_against_the_signers_that_may_ask(
    tmp_path: Path, database: str, admin: AsyncEngine
) -> None:
    async def found(*, enabled: bool = True) -> Finding | None:
        return (await findings(tmp_path, **served_by(database), webhook={"enabled": enabled})).get("webhook")

    def is_warning(finding: Finding | None, *texts: str) -> None:
        assert finding is not None
        assert finding.status == "warning", finding
        assert all(text in f"{finding.detail}\n{finding.what_to_do}" for text in texts), finding

    assert await found(enabled=False) is None
    is_warning(await found(), "no signer is registered", "webhook-signer create")
    async with admin.begin() as connection:
        new = await webhook_signers.create(connection, "signer-1", sender=KEY.address, pepper=PEPPER.encode())
    in_order = await found()
    assert in_order is not None
    assert (in_order.status, in_order.detail) == ("ok", "1 signer may ask")
    is_warning(await found(enabled=False), "1 signer may ask, and webhook.enabled is off")
    public_id = new.registered.secrets[0].public_id
    async with admin.begin() as connection:
        await webhook_signers.revoke(connection, "signer-1", secret=public_id)
    is_warning(await found(), "signer-1 has no valid secret", "webhook-signer rotate signer-1")
    async with admin.begin() as connection:
        await webhook_signers.revoke(connection, "signer-1")
    is_warning(await found(), "no signer is registered")


async def test_accounts_in_a_currency_without_a_price_are_an_error(
    tmp_path: Path, database: str, admin: AsyncEngine
) -> None:
    async with admin.begin() as connection:
        for name, currency in (("a", "GBP"), ("b", "GBP"), ("c", "USD"), ("d", "ETH")):
            await gateways.create(connection, name, currency=currency)
    found = (await findings(tmp_path, **served_by(database), price={"declared": {"USD": "3123"}}))["price"]
    is_error(found, "2 gateways with an account in GBP", "price.declared.GBP")


async def test_the_database_is_looked_at_and_not_touched(
    tmp_path: Path, database: str, owner: psycopg.Connection[Any]
) -> None:
    query = b"SELECT xact_rollback, tup_inserted, tup_updated, tup_deleted FROM pg_stat_database WHERE datname = %s"
    name = conninfo_to_dict(database)["dbname"]
    owner.execute("SELECT pg_stat_force_next_flush()")
    before = owner.execute(query, (name,)).fetchall()
    await findings(tmp_path, **served_by(database))
    owner.execute("SELECT pg_stat_force_next_flush()")
    assert owner.execute(query, (name,)).fetchall() == before


# --- the signer -------------------------------------------------------------------------------------------------------


async def test_a_keystore_opens_or_the_reason_is_told(tmp_path: Path) -> None:
    keystore = tmp_path / "keystore.json"
    address = checksum_address(create_keystore(keystore, PASSWORD))

    async def with_password(password: str | None) -> Finding:
        native = {"keystore_file": keystore} | ({} if password is None else {"keystore_password": password})
        return (await findings(tmp_path, signer={"native": native}))["signer"]

    opened = await with_password(PASSWORD)
    assert opened.status == "ok"
    assert address in opened.detail
    is_error(await with_password("wrong"), str(keystore), "the password is wrong or the file is damaged")
    is_error(await with_password(None), "keystore_password_file")


async def test_a_key_in_the_data_directory_whose_password_is_gone_is_an_error(tmp_path: Path) -> None:
    secrets = tmp_path / "data" / "secrets"
    secrets.mkdir(parents=True)
    create_keystore(secrets / "keystore.json", PASSWORD)
    is_error((await findings(tmp_path))["signer"], "keystore_password cannot be read", "Restore the file")
    (secrets / "keystore_password").write_text(PASSWORD + "\n", encoding="utf-8")
    assert (await findings(tmp_path))["signer"].status == "ok"


async def test_every_signer_of_a_pool_must_prove_the_expected_key(tmp_path: Path) -> None:
    async with FaultySigner(KEY) as good, FaultySigner(OTHER_KEY) as foreign, FaultySigner(KEY) as liar:
        liar.on_identity = faulty.claims(checksum_address(KEY.address), "0x" + "11" * 65)
        found = await findings(tmp_path, **pool_of(good.url, foreign.url, liar.url, "http://127.0.0.1:9"))
    assert found[f"signer 127.0.0.1:{good.port}"].status == "ok"
    is_error(
        found[f"signer 127.0.0.1:{foreign.port}"],
        f"signs as {checksum_address(OTHER_KEY.address)}, expected is {checksum_address(KEY.address)}",
    )
    is_error(found[f"signer 127.0.0.1:{liar.port}"], "identity_invalid")
    is_error(found["signer 127.0.0.1:9"], "connection_failed", "-remoteSigner")
    assert good.payments == foreign.payments == []


async def test_signers_with_different_keys_are_an_error_also_where_none_is_expected(tmp_path: Path) -> None:
    async with FaultySigner(KEY) as one, FaultySigner(OTHER_KEY) as other:
        found = await findings(tmp_path, **pool_of(one.url, other.url, expected=None))
    is_error(found["signer"], checksum_address(KEY.address), checksum_address(OTHER_KEY.address))


async def test_a_signer_reached_over_plain_http_is_a_warning(tmp_path: Path) -> None:
    async with FaultySigner(KEY) as signer:
        found = await findings(tmp_path, **pool_of(f"http://0.0.0.0:{signer.port}", "http://127.0.0.1:9"))
    cleartext = found[f"signer 0.0.0.0:{signer.port}"]
    assert cleartext.status == "warning"
    assert "plain HTTP" in cleartext.detail


async def test_a_pool_whose_authority_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    found = await findings(tmp_path, **pool_of("https://127.0.0.1:9", tls_ca_file=tmp_path / "missing.pem"))
    is_error(found["signer"], "cannot be read")
    is_error(found["TLS signer.go_livepeer.tls_ca_file"], "missing.pem", "No such file")


# --- prices -----------------------------------------------------------------------------------------------------------


async def test_every_declared_price_is_told_and_having_none_is_a_warning(tmp_path: Path) -> None:
    assert (await findings(tmp_path, price={"declared": {"CHF": "2500.5"}}))["price"].detail.startswith("2500.5 CHF")
    assert (await findings(tmp_path, price={"declared": {}}))["price"].status == "warning"


async def test_the_built_in_prices_are_a_warning_in_production(tmp_path: Path, database: str) -> None:
    assert (await findings(tmp_path))["price"].status == "ok"
    found = (await findings(tmp_path, **served_by(database)))["price"]
    assert found.status == "warning"
    assert "price.declared" in found.what_to_do


async def test_prices_from_feeds_are_read_and_what_is_wrong_with_them_is_told(tmp_path: Path, devnet: Devnet) -> None:
    feeds = PriceFeeds.deployed_on(devnet)
    devnet.mine()
    async with ways_to(devnet) as proxies, receiving(http_answer(b'{"price": "3300"}')) as receiver:
        settings: dict[str, Any] = {
            "chain": {"network": "dev", "rpc_urls": [proxy.url for proxy in proxies]},
            "price": {
                "source": "chainlink", "eth_usd_feed": feeds.eth_usd.address,
                "sequencer_feed": feeds.sequencer.address, "on_disagreement": "feed",
            },
        }  # fmt: skip
        assert (await findings(tmp_path, **settings))["price"].detail == "3000 USD per ETH (chainlink)"
        settings["price"]["second_opinions"] = {"USD": f"{receiver.origin}/{API_KEY}#/price"}
        found = (await findings(tmp_path, **settings))["price"]
        assert found.status == "warning"
        assert "1000 basis points apart" in found.detail
        receiver.answers[:] = [http_answer(b'{"cost": "3000"}')]
        found = (await findings(tmp_path, **settings))["price"]
        assert found.status == "warning"
        assert "the second opinion is missing: the answer has nothing" in found.detail
        assert API_KEY not in found.detail
        settings["price"]["currency_feeds"] = {"GBP": feeds.eur_usd.address}
        found = (await findings(tmp_path, **settings))["price"]
        is_error(found, "the feed GBP / USD calls itself 'EUR / USD'", "clearinghouse price set")
    is_error((await findings(tmp_path, price={"source": "chainlink"}))["configuration"], "chain.rpc_urls is needed")


async def test_a_transaction_that_keeps_dead_rows_for_long_is_a_warning_and_one_that_keeps_none_is_not(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = transactions_check.NAME
    assert (await findings(tmp_path, **served_by(database)))[name].status == "ok"
    monkeypatch.setattr(transactions_check, "AGE_MAX_S", 2)  # longer than any that doctor has itself
    async with await psycopg.AsyncConnection.connect(database, application_name="pg_dump") as dump:
        await dump.execute("SELECT 1")  # idle, with no snapshot
        await asyncio.sleep(2.3)
        assert (await findings(tmp_path, **served_by(database)))[name].status == "ok"
        await dump.commit()
        await dump.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await dump.execute("SELECT 1")
        await asyncio.sleep(2.3)
        found = (await findings(tmp_path, **served_by(database)))[name]
        assert found.status == "warning"
        assert f"pg_dump of postgres (process {dump.info.backend_pid})" in found.detail
        assert "from a replica" in found.what_to_do
        await dump.rollback()
    assert (await findings(tmp_path, **served_by(database)))[name].status == "ok"


async def test_a_price_set_by_hand_is_a_warning(tmp_path: Path, database: str, admin: AsyncEngine) -> None:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    async with admin.begin() as connection:
        await gateways.create(connection, "a", currency="GBP")
        await set_override(connection, "GBP", "2345.5", until=until, reason="", actor="cli:alice")
    found = (await findings(tmp_path, **served_by(database), price={"declared": {"USD": "3123"}}))["price"]
    assert found.status == "warning"
    assert "2345.5 GBP by the word of cli:alice" in found.detail


# --- TLS --------------------------------------------------------------------------------------------------------------


def certificate_files(
    folder: Path, name: str, *, begins_in_days: int = -1, ends_in_days: int = 365, password: bytes | None = None
) -> tuple[Path, Path]:
    """A new key and its self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins_in_days))
        .not_valid_after(now + datetime.timedelta(days=ends_in_days))
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(pem, pkcs8, protection))
    return cert_file, key_file


async def tls_finding(folder: Path, cert_file: Path, key_file: Path) -> Finding:
    listen = {"http_port": 0, "tls_cert_file": cert_file, "tls_key_file": key_file}
    return (await findings(folder, listen=listen))["TLS listen.tls_cert_file"]


async def test_a_certificate_is_judged_by_its_dates(tmp_path: Path) -> None:
    good = await tls_finding(tmp_path, *certificate_files(tmp_path, "good"))
    assert good.status == "ok"
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)
    assert f"valid until {end:%Y-%m-%d}" in good.detail
    soon = await tls_finding(tmp_path, *certificate_files(tmp_path, "soon", ends_in_days=5))
    assert soon.status == "warning"
    old = certificate_files(tmp_path, "old", begins_in_days=-9, ends_in_days=-1)
    is_error(await tls_finding(tmp_path, *old), "expired at", "Renew")
    early = certificate_files(tmp_path, "early", begins_in_days=2)
    is_error(await tls_finding(tmp_path, *early), "not valid before")


async def test_a_chain_is_as_old_as_its_oldest_certificate(tmp_path: Path) -> None:
    cert_file, key_file = certificate_files(tmp_path, "good")
    old, _ = certificate_files(tmp_path, "old", begins_in_days=-9, ends_in_days=-1)
    cert_file.write_bytes(cert_file.read_bytes() + old.read_bytes())
    is_error(await tls_finding(tmp_path, cert_file, key_file), "expired at")


async def test_a_key_that_is_not_the_certificates_cannot_be_loaded(tmp_path: Path) -> None:
    cert_file, key_file = certificate_files(tmp_path, "one")
    _, other_key = certificate_files(tmp_path, "other")
    is_error(await tls_finding(tmp_path, cert_file, other_key), "the key is not that of the certificate")
    is_error(await tls_finding(tmp_path, key_file, key_file), "holds no certificate")
    is_error(await tls_finding(tmp_path, cert_file, tmp_path / "missing"), "cannot be read")
    _, encrypted = certificate_files(tmp_path, "encrypted", password=PASSWORD.encode())
    is_error(await tls_finding(tmp_path, cert_file, encrypted), "cannot be loaded")
    cert_file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", encoding="ascii")
    is_error(await tls_finding(tmp_path, cert_file, key_file), "is not a certificate")


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", b"\x04\x01\x00"])
def test_what_is_no_certificate_has_no_dates(der: bytes) -> None:
    with pytest.raises(CertificateError):
        validity_of(der)


def test_every_prefix_of_a_certificate_is_refused_and_the_whole_has_the_right_dates(tmp_path: Path) -> None:
    cert_file, _ = certificate_files(tmp_path, "beyond-2050", ends_in_days=20_000)
    certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
    der = certificate.public_bytes(serialization.Encoding.DER)
    found = validity_of(der)
    assert (found.not_before, found.not_after) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    for length in range(len(der)):
        with pytest.raises(CertificateError):
            validity_of(der[:length])


# --- the service ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(raw: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port where every connection gets these bytes once it has sent something; None: nothing, ever."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1024)
            if raw is None:
                await asyncio.Event().wait()
            else:
                writer.write(raw)
        finally:
            writer.close()

    async with listening(converse, tls=tls) as port:
        yield port


def http_json(status: int, document: object) -> bytes:
    return faulty.http_answer(status, json.dumps(document).encode())


async def service_finding(port: int, **listen: Any) -> Finding:
    settings = ListenSettings(http_port=port, **listen)
    (finding,) = await asyncio.to_thread(service_check.check, settings)
    return finding


async def test_a_service_that_is_ready_is_told_so(database: str) -> None:
    async with running(database) as service:
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            finding = await service_finding(service.port, host=host)
            assert (finding.status, finding.detail) == ("ok", f"runs at {host}:{service.port} and is ready")


async def test_a_service_that_is_not_ready_is_an_error_for_every_reason_it_gives() -> None:
    checks = [{"name": "database", "ok": False, "detail": "does not answer"}, {"name": "price", "ok": True}]
    async with answering(http_json(503, {"ready": False, "checks": checks})) as port:
        finding = await service_finding(port)
    is_error(finding, "does not answer")
    assert finding.name == "service database"


@pytest.mark.parametrize("raw", [b"220 mail\r\n", b"", http_json(200, {"ready": "yes"}), http_json(404, [])])
async def test_something_else_on_the_port_is_a_warning(raw: bytes) -> None:
    async with answering(raw) as port:
        finding = await service_finding(port)
    assert finding.status == "warning"
    assert "something else has the port" in finding.detail


async def test_a_service_with_tls_is_asked_in_tls(tmp_path: Path) -> None:
    cert_file, key_file = certificate_files(tmp_path, "service")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    async with answering(http_json(200, {"ready": True, "checks": []}), context) as port:
        files = {"tls_cert_file": cert_file, "tls_key_file": key_file}
        assert (await service_finding(port, **files)).status == "ok"
        assert (await service_finding(port)).status == "warning"


# --- all at once ------------------------------------------------------------------------------------------------------


@contextmanager
def taking_at_most(limit_s: float) -> Iterator[None]:
    begun_s = time.monotonic()
    yield
    assert time.monotonic() - begun_s < limit_s


async def test_where_everything_hangs_the_checks_wait_side_by_side_and_not_for_ever(tmp_path: Path) -> None:
    async with answering(None) as database, answering(None) as signer, answering(None) as service:
        with taking_at_most(CHECK_TIMEOUT_S):
            found = await findings(
                tmp_path,
                listen={"http_port": service},
                **served_by(f"postgresql://a@127.0.0.1:{database}/b?sslmode=disable"),
                **pool_of(f"http://127.0.0.1:{signer}", "http://127.0.0.1:9"),
            )
    is_error(found["database"], "cannot be used")
    is_error(found[f"signer 127.0.0.1:{signer}"], "timed_out")
    assert found["service"].status == "warning"


# --- the chain --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def ways_to(devnet: Devnet) -> AsyncIterator[list[FaultProxy]]:
    async with fault_proxy(devnet.url) as first, fault_proxy(devnet.url) as second:
        yield [first, second]


def on_chain(proxies: list[FaultProxy]) -> dict[str, Any]:
    """The sender is KEY's address; its signers are not looked for."""
    chain = {"network": "dev", "rpc_urls": [proxy.url for proxy in proxies], "timeout_s": 10}
    return {"chain": chain, **pool_of("http://127.0.0.1:1")}


async def test_endpoints_and_what_they_agree_on_are_shown(tmp_path: Path, devnet: Devnet) -> None:
    devnet.fund(KEY.address, deposit_wei=7, reserve_wei=5)
    async with ways_to(devnet) as proxies:
        found = await findings(tmp_path, **on_chain(proxies))
    assert found["chain rpc-1"].status == found["chain rpc-2"].status == "ok"
    assert found["chain"].status == "ok"
    assert "round 3500" in found["chain"].detail
    assert f"{checksum_address(KEY.address)} has a deposit of 7 wei" in found["chain"].detail


async def test_a_sender_with_nothing_on_the_chain_or_about_to_take_it_away_is_found(
    tmp_path: Path, devnet: Devnet
) -> None:
    async with ways_to(devnet) as proxies:
        found = (await findings(tmp_path, **on_chain(proxies)))["chain"]
        assert (found.status, "a deposit of 0 wei" in found.detail) == ("warning", True)
        devnet.fund(KEY.address, deposit_wei=7, reserve_wei=5)
        with devnet.acting_as(KEY.address):
            devnet.send("TicketBroker", "unlock()", sender=KEY.address)
        is_error((await findings(tmp_path, **on_chain(proxies)))["chain"], "is unlocking", "Cancel the unlock")


async def test_each_endpoint_that_is_of_no_use_is_named_by_its_place_and_its_key_is_not_shown(
    tmp_path: Path, devnet: Devnet
) -> None:
    async with ways_to(devnet) as proxies:
        proxies[0].fault, proxies[1].fault = wrong_chain_id(), status(401, body=API_KEY.encode())
        found = await findings(tmp_path, **on_chain(proxies))
    is_error(found["chain rpc-1"], "wrong_chain")
    is_error(found["chain rpc-2"], "http_status")
    is_error(found["chain"], "cannot be read", "every call is refused")
    assert API_KEY not in str(found)


async def test_endpoints_that_are_well_and_disagree_are_an_error(tmp_path: Path, devnet: Devnet) -> None:
    async with ways_to(devnet) as proxies:
        proxies[1].fault = lying_l1_block(1)
        found = await findings(tmp_path, **on_chain(proxies))
    assert found["chain rpc-2"].status == "ok"
    is_error(found["chain"], "rpc-1", "rpc-2", "disagree")


async def test_endpoints_that_are_listened_to_are_tried_and_are_never_an_error(tmp_path: Path, devnet: Devnet) -> None:
    async with ways_to(devnet) as proxies:
        settings = on_chain(proxies)
        settings["chain"]["ws_urls"] = [devnet.url.replace("http://", "ws://"), f"ws://127.0.0.1:1/{API_KEY}"]
        found = await findings(tmp_path, **settings)
    assert found["chain feed ws-1"].status == "ok"
    lost = found["chain feed ws-2"]
    assert (lost.status, lost.detail) == ("warning", "is of no use: connection_failed")
    assert API_KEY not in str(found)


async def test_without_a_chain_nothing_is_said_of_one(tmp_path: Path) -> None:
    assert not [name for name in await findings(tmp_path) if name.startswith("chain")]
