"""deploy/: everything an operator runs is held against the settings, the commands and the database that exist."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from clearinghouse.config import ListenSettings, Settings, missing_for_serving
from clearinghouse.config_sources import all_settings, load_settings
from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, WORK_ROLE, in_role
from clearinghouse.database.embedded import EmbeddedDatabase
from clearinghouse.database.migrate import migrate, newest_revision
from clearinghouse.database.postgres_programs import find_programs
from clearinghouse.identity.webhook_signers import WEBHOOK_PATH
from settlement.cli import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
ADDRESS = "0x0161e041aad467a890839d5b08b138c1e6373072"
OPERATORS_VARIABLES = {
    "SENDER_ADDRESS": ADDRESS,
    "ETH_PRICE_USD": "3120.5",
    "GO_LIVEPEER_IMAGE": "signer@sha256:" + "0" * 64,
    "ARBITRUM_RPC_URL": "http://rpc.test",
    "STRIPE_LIVEMODE": "true",
    "BILLING_RETURN_URL": "https://console.test/billing",
}
#: What Stripe gives: an operator writes it beside the secrets that make-secrets.sh makes.
STRIPE_SECRETS = {"stripe_api_key": "rk_live_" + "a" * 24, "stripe_webhook_secrets": "whsec_" + "a" * 32}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make-secrets.sh makes, in a directory of this test."""
    directory = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run(["sh", DEPLOY / "make-secrets.sh", directory], check=True, capture_output=True, text=True)
    return directory


def commands() -> dict[str, set[str]]:
    """The commands of the CLI, each with its options."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()
    }


# --- the example ----------------------------------------------------------------------------------------------------

EXAMPLE = (DEPLOY / "clearinghouse.example.toml").read_text(encoding="utf-8")
#: With every setting that is commented out turned on.
EXAMPLE_IN_FULL = re.sub(r"^# (?=[a-z0-9_]+ = )", "", EXAMPLE, flags=re.MULTILINE)


def test_the_example_is_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(EXAMPLE, encoding="utf-8")
    assert load_settings(environment={}, config_file=file) == Settings()


def leaves(table: dict[str, Any], above: str = "") -> Iterator[str]:
    known = {info.name for info in all_settings()}
    for key, value in table.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and name not in known:
            yield from leaves(value, f"{name}.")
        else:
            yield name


def test_the_example_has_every_setting_and_secrets_as_files_only() -> None:
    wanted = {info.name for info in all_settings() if not info.is_secret}
    assert set(leaves(tomllib.loads(EXAMPLE_IN_FULL))) == wanted


def test_the_example_works_with_every_setting_turned_on(tmp_path: Path) -> None:
    contents = {
        "database_url": "host=db",
        "admin_database_url": "host=db",
        "rpc_urls": "https://a.example/v2/key\nhttps://b.example/key",
        "ws_urls": "wss://a.example/v2/key",
        "wallet_signer_url": "https://clef.example/key",
        "second_opinions": "USD: https://a.example/spot?key=k#/data/amount",
        "alert_channels": "team: webhook+https://hooks.example/team",
        "notice_mail": "mailtos://user:password@mail.example?from=billing@mail.example",
    } | dict.fromkeys(("signer_headers", "webhook_headers"), "X-Tenant: a")
    contents |= {"stripe_api_key": "rk_test_" + "a" * 24, "stripe_webhook_secrets": "whsec_" + "a" * 24}
    text = EXAMPLE_IN_FULL.replace('kind = "native"', 'kind = "go_livepeer"')  # in process there is no webhook
    for name in re.findall(r'"/etc/clearinghouse/secrets/(\w+)"', text):
        (tmp_path / name).write_text(contents.get(name, "s" * 64), encoding="utf-8")
    file = tmp_path / "example.toml"
    file.write_text(text.replace("/etc/clearinghouse/secrets", str(tmp_path)), encoding="utf-8")
    assert missing_for_serving(load_settings(environment={}, config_file=file)) == []


# --- docs -----------------------------------------------------------------------------------------------------------


def test_the_configuration_page_is_what_the_settings_say() -> None:
    generator = ROOT / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate_configuration", generator)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == module.page(), "run: python docs/generate_configuration.py"
    assert [info.name for info in all_settings() if f"| `{info.path[-1]}` |" not in page] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_names_only_settings_commands_and_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {info.variable for info in all_settings()} | {"CLEARINGHOUSE_CONFIG", "CLEARINGHOUSE_API_KEY"}
    named = set(re.findall(r"\bCLEARINGHOUSE_[A-Z_]+[A-Z]\b", text))
    assert named <= known
    in_code = re.findall(r"^ *(?:\$ )?clearinghouse ([a-z-]+)|`clearinghouse ([a-z-]+)", text, re.MULTILINE)
    assert {first or second for first, second in in_code} <= set(commands())
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`(deploy/[\w./-]+[\w])`", text):
        assert (ROOT / path).exists() or path.split("/")[1] in {"secrets", ".env"}, path


# --- Docker ---------------------------------------------------------------------------------------------------------

DOCKERFILE = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE_TEXT = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def interpolated(node: Any) -> Any:
    """Like Compose: variables are put into texts that YAML has read already, so that they stay texts."""
    if isinstance(node, dict):
        return {key: interpolated(value) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value) for value in node]
    return re.sub(r"\$\{([^}]+)\}", _value, node) if isinstance(node, str) else node


def _value(found: re.Match[str]) -> str:
    name, _, default = found[1].partition(":-")
    return OPERATORS_VARIABLES.get(name.partition(":?")[0], default)


COMPOSE = interpolated(yaml.safe_load(COMPOSE_TEXT))


def environment_of(service: str, secrets: Path) -> dict[str, str]:
    """What the service finds in its environment, the image's included, with its secrets where this test has them."""
    image = dict(entry.split("=", 1) for line in instructions("ENV") for entry in shlex.split(line))
    environment = {**image, **COMPOSE["services"][service].get("environment", {})}
    granted = set(COMPOSE["services"][service].get("secrets", []))
    for name, value in environment.items():
        if value.startswith("/run/secrets/"):
            secret = value.removeprefix("/run/secrets/")
            assert secret in granted, f"{service} is not given the secret {secret}"
            file = Path(COMPOSE["secrets"][secret]["file"])
            assert file.parent == Path("secrets")
            environment[name] = str(secrets / file.name)
    return environment


def test_everything_the_image_copies_exists_and_is_not_ignored() -> None:
    copied = {
        source for line in instructions("COPY") if not line.startswith("--from") for source in shlex.split(line)[:-1]
    }
    assert {"clearinghouse", "chain", "settlement", "migrations", "requirements.lock"} <= copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


def test_the_image_has_all_packages_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert packages <= {shlex.split(line)[0] for line in instructions("COPY")}
    assert project["project"]["scripts"][instructions("ENTRYPOINT")[0].strip('[]"')]


def test_the_image_runs_as_an_ordinary_user_on_the_default_ports() -> None:
    assert instructions("USER") == ["clearinghouse"]
    ports = [ListenSettings().http_port, ListenSettings().grpc_port]
    assert [int(port) for port in instructions("EXPOSE")[0].split()] == ports
    assert f"http://127.0.0.1:{ports[0]}/healthz" in instructions("HEALTHCHECK")[0]
    assert instructions("CMD")[0] == '["serve"]'


def test_the_service_can_serve_with_what_compose_gives_it(secrets: Path) -> None:
    settings = load_settings(environment=environment_of("clearinghouse", secrets))
    assert missing_for_serving(settings) == []
    assert settings.signer.kind == "go_livepeer"
    assert settings.signer.go_livepeer.expected_address == ADDRESS
    assert str(settings.price.declared["USD"]) == OPERATORS_VARIABLES["ETH_PRICE_USD"]
    assert settings.api.admin_token is not None
    assert settings.api.metrics_token is not None


def test_the_worker_has_its_own_login_and_no_secret_that_it_does_not_need(secrets: Path) -> None:
    settings = load_settings(environment=environment_of("worker", secrets))
    assert settings.database_url is not None
    assert conninfo_to_dict(settings.database_url.get_secret_value())["user"] == "clearinghouse_worker"
    assert settings.api.metrics_token is not None
    assert (settings.admin_database_url, settings.api_key_pepper) == (None, None)
    assert f"http://127.0.0.1:{settings.work.metrics_port}/healthz" in str(COMPOSE["services"]["worker"]["healthcheck"])
    holders = [name for name, each in COMPOSE["services"].items() if "worker_database_url" in each.get("secrets", [])]
    assert holders == ["worker"]


def test_the_signers_of_compose_are_the_ones_the_service_asks(secrets: Path) -> None:
    urls = load_settings(environment=environment_of("clearinghouse", secrets)).signer.go_livepeer.urls
    signers = {
        name: service
        for name, service in COMPOSE["services"].items()
        if "-remoteSigner" in (service.get("command") or [])
    }
    assert {f"http://{name}:8935" for name in signers} == set(urls)
    assert len(urls) >= 2
    for service in signers.values():
        flags = dict(flag.lstrip("-").partition("=")[::2] for flag in service["command"])
        assert flags["httpAddr"] == "0.0.0.0:8935"
        assert flags["ethAcctAddr"] == ADDRESS


def test_signers_and_database_are_reached_from_inside_only() -> None:
    services, networks = COMPOSE["services"], COMPOSE["networks"]
    assert [name for name, service in services.items() if "ports" in service] == ["clearinghouse"]
    for network in ("signing", "database"):
        assert networks[network]["internal"] is True
    assert {name for name, service in services.items() if "signing" in service["networks"]} == {
        "clearinghouse",
        "signer-1",
        "signer-2",
    }
    assert set(services["postgres"]["networks"]) == {"database"}
    assert not {"chain"} & set(services["clearinghouse"]["networks"])


def test_published_ports_are_the_ones_served_and_on_loopback() -> None:
    wanted = [f"127.0.0.1:{port}:{port}" for port in (ListenSettings().http_port, ListenSettings().grpc_port)]
    assert COMPOSE["services"]["clearinghouse"]["ports"] == wanted


def test_the_owners_login_is_for_migrating_alone(secrets: Path) -> None:
    holders = [
        name for name, service in COMPOSE["services"].items() if "owner_database_url" in service.get("secrets", [])
    ]
    assert holders == ["migrate"]
    settings = load_settings(environment=environment_of("migrate", secrets))
    assert settings.admin_database_url is not None
    assert conninfo_to_dict(settings.admin_database_url.get_secret_value())["user"] == "clearinghouse_owner"


def test_commands_of_compose_exist() -> None:
    named = {COMPOSE["services"][name]["command"][0] for name in ("clearinghouse", "worker", "migrate")}
    assert named <= set(commands())


def test_compose_holds_no_secret_and_uses_all_that_it_declares() -> None:
    used = {name for service in COMPOSE["services"].values() for name in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    assert not re.search(r"password: [^{/]", COMPOSE_TEXT, re.IGNORECASE)


def test_the_example_environment_has_every_variable_that_compose_asks_for() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in DEPLOY.glob("compose*.yaml"))
    asked = {re.split(r":[-?]", name)[0] for name in re.findall(r"\$\{([^}]+)\}", texts)}
    offered = re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(offered) == asked


# --- Docker, the webhook way in -------------------------------------------------------------------------------------

ASKING = interpolated(yaml.safe_load((DEPLOY / "compose.webhook.yaml").read_text(encoding="utf-8")))


def flags_of(compose: dict[str, Any], service: str) -> dict[str, str]:
    return dict(flag.lstrip("-").partition("=")[::2] for flag in compose["services"][service]["command"])


def test_with_the_webhook_file_the_service_answers_where_the_signers_ask(secrets: Path) -> None:
    assert set(ASKING["services"]) <= set(COMPOSE["services"])
    environment = environment_of("clearinghouse", secrets) | ASKING["services"]["clearinghouse"]["environment"]
    settings = load_settings(environment=environment)
    assert settings.webhook.enabled
    assert missing_for_serving(settings) == []
    wanted = f"http://clearinghouse:{ListenSettings().http_port}{WEBHOOK_PATH}"
    assert {flags_of(ASKING, name)["remoteSignerWebhookUrl"] for name in ("signer-1", "signer-2")} == {wanted}


@pytest.mark.parametrize("name", ["signer-1", "signer-2"])
def test_an_asking_signer_has_a_secret_of_its_own_and_is_otherwise_the_same(name: str) -> None:
    asking, plain = flags_of(ASKING, name), flags_of(COMPOSE, name)
    del asking["remoteSignerWebhookUrl"], plain["remoteSignerAllowNoAuth"]
    (secret,) = ASKING["services"][name]["secrets"]
    assert asking.pop("config") == f"/run/secrets/{secret['target']}"
    assert secret["source"] == f"{name.replace('-', '_')}_webhook"
    assert Path(ASKING["secrets"][secret["source"]]["file"]).parent == Path("secrets")
    assert asking == plain
    assert all(port.startswith("127.0.0.1:") for port in ASKING["services"][name]["ports"])


# --- Docker, with Stripe --------------------------------------------------------------------------------------------

BILLING = interpolated(yaml.safe_load((DEPLOY / "compose.stripe.yaml").read_text(encoding="utf-8")))


def with_stripe(service: str, secrets: Path) -> Settings:
    """The settings of a service of compose.yaml with compose.stripe.yaml over it."""
    added = dict(BILLING["services"][service]["environment"])
    for name, value in added.items():
        if value.startswith("/run/secrets/"):
            secret = value.removeprefix("/run/secrets/")
            assert secret in BILLING["services"][service]["secrets"]
            assert BILLING["secrets"][secret]["file"] == f"./secrets/{secret}"
            added[name] = str(stripe_secret(secrets, secret))
    return load_settings(environment=environment_of(service, secrets) | added)


def stripe_secret(secrets: Path, name: str) -> Path:
    """Beside the secrets that are made, and not among them."""
    path = secrets.with_name(name)
    path.write_text(STRIPE_SECRETS[name] + "\n", encoding="utf-8")
    return path


def test_the_worker_has_stripes_key_and_the_service_what_events_are_signed_with(secrets: Path) -> None:
    worker, service = with_stripe("worker", secrets), with_stripe("clearinghouse", secrets)
    assert worker.stripe.api_key is not None
    assert worker.stripe.api_key.get_secret_value() == STRIPE_SECRETS["stripe_api_key"]
    assert worker.payments.return_url == OPERATORS_VARIABLES["BILLING_RETURN_URL"]
    assert service.stripe.webhook_secrets is not None
    assert (worker.stripe.livemode, service.stripe.livemode) == (True, True)
    assert (worker.stripe.webhook_secrets, service.stripe.api_key) == (None, None)
    assert missing_for_serving(service) == []


def test_with_stripe_nobody_has_a_secret_that_is_not_theirs() -> None:
    granted = {name: each.get("secrets", []) for name, each in BILLING["services"].items()}
    assert granted == {"clearinghouse": ["stripe_webhook_secrets"], "worker": ["stripe_api_key"]}
    assert set(BILLING["secrets"]) == set(STRIPE_SECRETS)
    for name, each in BILLING["services"].items():
        assert set(each) == {"environment", "secrets"}, "all else is as without Stripe"
        assert name in COMPOSE["services"]
        values = str(each["environment"].values())
        assert not re.search(r"rk_|sk_|whsec_", values)
    assert COMPOSE["networks"]["edge"] == {}, "the worker reaches Stripe"
    assert "edge" in COMPOSE["services"]["worker"]["networks"]


def test_a_stopping_service_is_given_the_time_it_may_take() -> None:
    for service, name in (("clearinghouse", "clearinghouse"), ("worker", "clearinghouse-work")):
        grace_s = int(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s"))
        unit_s = int(unit(name)["TimeoutStopSec"][0])
        assert min(grace_s, unit_s) > Settings().limits.shutdown_timeout_s


# --- secrets --------------------------------------------------------------------------------------------------------


def test_secrets_are_made_once_random_and_closed_to_others(secrets: Path) -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in secrets.iterdir() if path.is_file()}
    assert set(files) | {"eth_password"} == set(COMPOSE["secrets"])
    assert len(set(files.values())) == len(files)
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    subprocess.run(["sh", DEPLOY / "make-secrets.sh", secrets], check=True, capture_output=True)
    assert {name: (secrets / name).read_text(encoding="utf-8") for name in files} == files


# --- systemd --------------------------------------------------------------------------------------------------------


def unit(name: str, *drop_ins: str) -> dict[str, list[str]]:
    """Every `Name=value` of the unit and of these drop-ins; systemd allows a name several times."""
    files = [DEPLOY / f"{name}.service", *(DEPLOY / f"{name}.service.d" / f"{each}.conf" for each in drop_ins)]
    entries: dict[str, list[str]] = {}
    for line in "".join(file.read_text(encoding="utf-8") for file in files).splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            entries.setdefault(key, []).append(value)
    return entries


def environment_of_unit(name: str, secrets: Path, *drop_ins: str) -> dict[str, str]:
    entries = unit(name, *drop_ins)
    credentials = dict(entry.split(":", 1) for entry in entries["LoadCredential"])
    environment = dict(entry.split("=", 1) for entry in entries["Environment"])
    for variable, value in environment.items():
        if value.startswith("%d/"):
            file = Path(credentials[value.removeprefix("%d/")]).name
            environment[variable] = str(stripe_secret(secrets, file) if file in STRIPE_SECRETS else secrets / file)
    return environment


@pytest.mark.parametrize("name", ["clearinghouse", "clearinghouse-work", "clearinghouse-migrate"])
def test_a_unit_runs_a_command_that_exists_with_settings_that_exist(name: str, secrets: Path) -> None:
    (command_line,) = unit(name)["ExecStart"]
    program, command, *options = shlex.split(command_line)
    assert Path(program).name == "clearinghouse"
    assert command in commands()
    assert {option for option in options if option.startswith("--")} <= commands()[command]
    load_settings(environment=environment_of_unit(name, secrets))


def test_the_unit_and_the_example_together_can_serve(secrets: Path) -> None:
    settings = load_settings(
        environment=environment_of_unit("clearinghouse", secrets), config_file=DEPLOY / "clearinghouse.example.toml"
    )
    assert missing_for_serving(settings) == []


def test_with_stripe_each_unit_is_handed_what_it_needs_and_not_what_the_other_does(
    secrets: Path, tmp_path: Path
) -> None:
    file = tmp_path / "clearinghouse.toml"
    file.write_text(EXAMPLE.replace("livemode = false", "livemode = true"), encoding="utf-8")
    service, worker = (
        load_settings(environment=environment_of_unit(name, secrets, "stripe"), config_file=file).stripe
        for name in ("clearinghouse", "clearinghouse-work")
    )
    assert (service.api_key, worker.webhook_secrets) == (None, None)
    assert service.webhook_secrets is not None
    assert worker.api_key is not None
    assert worker.api_key.get_secret_value() == STRIPE_SECRETS["stripe_api_key"]
    for name in ("clearinghouse", "clearinghouse-work"):
        (drop_in,) = (DEPLOY / f"{name}.service.d").iterdir()
        assert f"/etc/systemd/system/{name}.service.d/{drop_in.name}" in drop_in.read_text(encoding="utf-8")
        changed = {key for key, values in unit(name, "stripe").items() if values != unit(name).get(key)}
        assert changed == {"LoadCredential", "Environment"}, "a drop-in loosens nothing"


def test_units_run_without_rights() -> None:
    for name in ("clearinghouse", "clearinghouse-work", "clearinghouse-migrate"):
        entries = unit(name)
        assert entries["User"] == ["clearinghouse"]
        assert entries["NoNewPrivileges"] == ["true"]
        assert entries["ProtectSystem"] == ["strict"]
        assert entries["CapabilityBoundingSet"] == [""]


# --- roles ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(postgres: EmbeddedDatabase, secrets: Path) -> Iterator[str]:
    """A database set up by roles.sql and migrated by its owner; the conninfo of a superuser."""
    name = "test_deploy"
    superuser = make_conninfo(postgres.conninfo, dbname=name)
    with psycopg.connect(make_conninfo(postgres.conninfo, dbname="postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            for _ in range(2):  # to be run again whenever a password changes
                run_roles(superuser, secrets)
            assert migrate(as_login(superuser, "clearinghouse_owner")) == newest_revision()
            yield superuser
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run_roles(superuser: str, passwords: Path) -> None:
    psql = find_programs(None).bin_dir / "psql"
    done = subprocess.run(
        [psql, "--no-psqlrc", "-v", f"passwords={passwords}", "-d", superuser, "-f", DEPLOY / "roles.sql"],
        capture_output=True, text=True, check=False, env={"PATH": os.defpath},
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


def as_login(superuser: str, login: str) -> str:
    return make_conninfo(superuser, user=login)


def test_roles_are_refused_without_passwords(database: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="password"):
        run_roles(database, tmp_path)


def test_logins_take_on_their_role_and_no_other(deployed: str) -> None:
    allowed = {
        "clearinghouse_service": {SERVE_ROLE},
        "clearinghouse_manager": {ADMIN_ROLE, WORK_ROLE},
        "clearinghouse_worker": {WORK_ROLE},
    }
    for login, roles in allowed.items():
        for role in roles:
            with psycopg.connect(in_role(as_login(deployed, login), role)) as connection:
                row = connection.execute("SELECT current_user, session_user").fetchone()
                assert row == (role, login)
        for other in {SERVE_ROLE, ADMIN_ROLE, WORK_ROLE, "clearinghouse_owner"} - roles:
            with pytest.raises(psycopg.Error, match=r"permission denied to set role|role"):
                psycopg.connect(in_role(as_login(deployed, login), other))


def test_temporary_tables_are_for_commands_alone(deployed: str) -> None:
    """`clearinghouse reconcile report` needs them."""
    making = "CREATE TEMPORARY TABLE mine (x int)"
    with psycopg.connect(in_role(as_login(deployed, "clearinghouse_manager"), ADMIN_ROLE)) as connection:
        connection.execute(making)
    for login, role in (("clearinghouse_service", SERVE_ROLE), ("clearinghouse_worker", WORK_ROLE)):
        with (
            psycopg.connect(in_role(as_login(deployed, login), role)) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(making)


@pytest.mark.parametrize("login", ["clearinghouse_service", "clearinghouse_manager", "clearinghouse_worker"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM transfer",
        "UPDATE transfer SET amount = 1",
        "TRUNCATE transfer",
        "UPDATE account SET balance = 1",
        "DELETE FROM issuance",
        "DROP TABLE transfer",
        "ALTER TABLE transfer DISABLE TRIGGER ALL",
        "CREATE TABLE mine (x int)",
        "CREATE ROLE mine",
    ],
)
def test_no_login_of_the_service_can_change_the_books_or_the_schema(deployed: str, login: str, statement: str) -> None:
    with (
        psycopg.connect(as_login(deployed, login)) as connection,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException)),
    ):
        connection.execute(statement)


def test_strangers_cannot_connect(deployed: str) -> None:
    with psycopg.connect(deployed, autocommit=True) as connection:
        connection.execute("CREATE ROLE test_stranger LOGIN")
        try:
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(as_login(deployed, "test_stranger"))
        finally:
            connection.execute("DROP ROLE test_stranger")


def test_passwords_are_stored_as_verifiers(deployed: str, secrets: Path) -> None:
    password = (secrets / "db_service_password").read_text(encoding="utf-8").strip()
    with psycopg.connect(deployed) as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'clearinghouse_service'").fetchone()
    assert row is not None
    assert row[0].startswith("SCRAM-SHA-256$")
    assert password not in row[0]
