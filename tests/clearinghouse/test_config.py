"""Settings: which source wins, and what is said about a wrong one."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clearinghouse.config import Settings, missing_for_serving
from clearinghouse.config_sources import ConfigError, all_settings, load_settings, warnings_about

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
DATABASE_URL = f"postgresql://clearinghouse:{SECRET}@db/clearinghouse"


def write(path: Path, text: str, *, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def error_of(environment: dict[str, str] | None = None, file: Path | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags=flags, environment=environment or {}, config_file=file)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", "[listen]\nhttp_port = 1\ngrpc_port = 1\nread_timeout_s = 1.5\n")
    environment = {"CLEARINGHOUSE_LISTEN__HTTP_PORT": "2", "CLEARINGHOUSE_LISTEN__GRPC_PORT": "3"}
    listen = load_settings(flags={"listen.http_port": 4}, environment=environment, config_file=file).listen
    assert (listen.http_port, listen.grpc_port, listen.read_timeout_s, listen.idle_timeout_s) == (4, 3, 1.5, 75)


def test_a_flag_that_was_not_given_decides_nothing() -> None:
    environment = {"CLEARINGHOUSE_LISTEN__HTTP_PORT": "2"}
    assert load_settings(flags={"listen.http_port": None}, environment=environment).listen.http_port == 2


def test_the_file_can_be_named_in_the_environment_and_a_flag_names_another(tmp_path: Path) -> None:
    named = write(tmp_path / "named.toml", "[log]\nlevel = 'debug'\n")
    other = write(tmp_path / "other.toml", "[log]\nlevel = 'error'\n")
    environment = {"CLEARINGHOUSE_CONFIG": str(named)}
    assert load_settings(environment=environment).log.level == "debug"
    assert load_settings(environment=environment, config_file=other).log.level == "error"


def test_settings_cannot_be_changed_after_the_start() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(environment={}).listen.http_port = 1


def test_variables_for_clients_of_a_service_are_no_settings() -> None:
    environment = {"CLEARINGHOUSE_URL": "http://127.0.0.1:8080", "CLEARINGHOUSE_API_KEY": SECRET}
    assert load_settings(environment=environment) == load_settings(environment={})


def test_an_unknown_environment_variable_is_an_error_that_names_the_nearest() -> None:
    message = error_of({"CLEARINGHOUSE_LISTEN__HTPP_PORT": SECRET})
    assert "environment variable CLEARINGHOUSE_LISTEN__HTPP_PORT" in message
    assert "Did you mean CLEARINGHOUSE_LISTEN__HTTP_PORT?" in message


def test_a_setting_without_its_section_is_found_again() -> None:
    assert "Did you mean CLEARINGHOUSE_LISTEN__HTTP_PORT?" in error_of({"CLEARINGHOUSE_HTTP_PORT": "1"})


def test_an_unknown_key_of_the_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", "[signer.go_livepeer]\ntimeout = 3\n[lissten]\nhost = 'x'\n")
    message = error_of(file=file)
    assert f"signer.go_livepeer.timeout (file {file})" in message
    assert "Did you mean signer.go_livepeer.timeout_s?" in message
    assert "Did you mean listen.host?" in message


def test_variables_of_other_programs_are_left_alone() -> None:
    assert load_settings(environment={"PATH": "/bin", "CLEARING": "1", "LISTEN__HTTP_PORT": "1"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("LISTEN__HTTP_PORT", "70000", "less than or equal to 65535"),
        ("LISTEN__HTTP_PORT", "1e3", "whole number"),
        ("LISTEN__READ_TIMEOUT_S", "0", "greater than 0"),
        ("LISTEN__READ_TIMEOUT_S", "nan", "number of seconds"),
        ("SIGNER__KIND", "hsm", "'native' or 'go_livepeer'"),
        ("SIGNER__NATIVE__MAX_TICKET_EV_WEI", "-1", "greater than or equal to 0"),
        ("SIGNER__NATIVE__MAX_PRICE_WEI_PER_UNIT", "1e9", "decimal"),
        ("SIGNER__NATIVE__WEBHOOK_URL", "billing.example/authorize", "http://host/path"),
        ("SIGNER__NATIVE__WEBHOOK_URL", "ftp://billing.example", "http://host/path"),
        ("SIGNER__NATIVE__WEBHOOK_URL", "https://billing.example/a b", "ASCII"),
        ("SIGNER__NATIVE__WEBHOOK_URL", "https://bücher.example", "ASCII"),
        ("SIGNER__NATIVE__WEBHOOK_URL", f"https://billing.example/?token={SECRET}#top", "fragment"),
        ("SIGNER__NATIVE__WEBHOOK_URL", f"https://u:{SECRET}@billing.example", "webhook_headers_file"),
        ("SIGNER__GO_LIVEPEER__URLS", "http://a:1,ftp://b", "http://host:port"),
        ("SIGNER__GO_LIVEPEER__URLS", "http://a:1/path", "path"),
        ("SIGNER__GO_LIVEPEER__URLS", "http://a:1,http://a:1/", "twice"),
        ("SIGNER__GO_LIVEPEER__URLS", f"http://u:{SECRET}@a:1", "credentials"),
        ("SIGNER__GO_LIVEPEER__EXPECTED_ADDRESS", "0x12", "address"),
        ("PRICE__DECLARED__USD", "-1", "decimal"),
        ("PRICE__DECLARED__USD", "0", "above 0"),
        ("PRICE__DECLARED__USD", "1.0000000000001", "12 digits"),
        ("PRICE__DECLARED__USD", "10000000000000", "12 digits"),
        ("PRICE__DECLARED__ETH", "2", "ETH in ETH"),
        ("ESCROW__LAST_INITIALIZED_ROUND_BLOCK_HASH", "0x12", "64 hexadecimal"),
        ("LIMITS__REQUEST_DEADLINE_S", "2.5", "signer.go_livepeer.timeout_s (3.0) must be below"),
        ("LISTEN__TLS_CERT_FILE", "cert.pem", "tls_cert_file and tls_key_file need each other"),
        ("LISTEN__TLS_CLIENT_CA_FILE", "ca.pem", "tls_client_ca_file needs"),
        ("LISTEN__GRPC_PORT", "8080", "both 8080"),
        ("LOG__LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_and_what_is_allowed(variable: str, value: str, reason: str) -> None:
    message = error_of({f"CLEARINGHOUSE_{variable}": value})
    assert variable.rpartition("__")[2].lower() in message.lower()
    assert reason in message


def test_a_value_that_is_no_secret_is_shown() -> None:
    assert "listen.http_port = '70000' (environment variable CLEARINGHOUSE_LISTEN__HTTP_PORT)" in error_of(
        {"CLEARINGHOUSE_LISTEN__HTTP_PORT": "70000"}
    )


@pytest.mark.parametrize("value", ["true", "3000.5", "8080.0"])
def test_a_number_of_the_wrong_kind_in_the_file_is_refused(tmp_path: Path, value: str) -> None:
    assert "whole number" in error_of(file=write(tmp_path / "c.toml", f"[listen]\nhttp_port = {value}\n"))


def test_a_price_written_as_a_float_is_refused(tmp_path: Path) -> None:
    assert "decimal in quotes" in error_of(file=write(tmp_path / "c.toml", "[price.declared]\nUSD = 3000.1\n"))


def test_every_wrong_setting_is_named_at_once() -> None:
    message = error_of(
        {"CLEARINGHOUSE_LISTEN__HTTP_PORT": "x", "CLEARINGHOUSE_LOG__LEVEL": "x", "CLEARINGHOUSE_X": "x"}
    )
    assert len(message.splitlines()) == 4


def test_an_empty_variable_is_an_error_and_not_the_default() -> None:
    assert "CLEARINGHOUSE_DATABASE_URL is empty" in error_of({"CLEARINGHOUSE_DATABASE_URL": ""})


def test_a_section_given_as_a_value_is_told(tmp_path: Path) -> None:
    assert "signer" in error_of({"CLEARINGHOUSE_SIGNER": "native", "CLEARINGHOUSE_SIGNER__KIND": "native"})
    assert "log" in error_of(file=write(tmp_path / "c.toml", "log = 'json'\n"))


@pytest.mark.parametrize("content", ["listen = [", "\xff"])
def test_a_file_that_is_not_toml_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content.encode("latin-1"))
    assert f"{file} is not valid TOML" in error_of(file=file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "No such file" in error_of(file=tmp_path / "missing.toml")


# --- secrets --------------------------------------------------------------------------------------------------------


def all_secrets_given() -> dict[str, str]:
    return {
        "CLEARINGHOUSE_DATABASE_URL": DATABASE_URL,
        "CLEARINGHOUSE_ADMIN_DATABASE_URL": f"host=db password={SECRET}",
        "CLEARINGHOUSE_API_KEY_PEPPER": SECRET,
        "CLEARINGHOUSE_API__ADMIN_TOKEN": SECRET,
        "CLEARINGHOUSE_API__METRICS_TOKEN": SECRET,
        "CLEARINGHOUSE_SIGNER__NATIVE__KEYSTORE_PASSWORD": SECRET,
        "CLEARINGHOUSE_SIGNER_EVENTS__KAFKA_PASSWORD": SECRET,
        "CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_HEADERS": f"Authorization: Bearer {SECRET}",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__HEADERS": f"Authorization: Bearer {SECRET}\nX-Tenant: a",
        "CLEARINGHOUSE_PRICE__SECOND_OPINIONS": f"USD: https://user:{SECRET}@a.example/{SECRET}?key={SECRET}#/price",
        "CLEARINGHOUSE_CHAIN__RPC_URLS": f"https://a.example/v2/{SECRET}\nhttps://b.example/?key={SECRET}",
        "CLEARINGHOUSE_ALERTS__CHANNELS": f"ops: slack://{SECRET}/b/c\npager: pagerduty://{SECRET}",
        "CLEARINGHOUSE_ALERTS__WEBHOOK_SECRET": SECRET,
        "CLEARINGHOUSE_NOTICES__MAIL_URL": f"mailtos://user:{SECRET}@mail.example?from=billing@mail.example",
        "CLEARINGHOUSE_TOPUPS__WALLET_PASSWORD": SECRET,
        "CLEARINGHOUSE_TOPUPS__WALLET_SIGNER_URL": f"https://clef.example/{SECRET}",
        "CLEARINGHOUSE_STRIPE__API_KEY": f"rk_test_{SECRET}",
        "CLEARINGHOUSE_STRIPE__WEBHOOK_SECRETS": f"whsec_{SECRET}\nwhsec_{SECRET}2",
        "CLEARINGHOUSE_CHAIN__WS_URLS": f"wss://a.example/v2/{SECRET}\nwss://user:{SECRET}@b.example",
    }


def test_no_secret_shows_in_the_settings() -> None:
    given = all_secrets_given()
    assert {info.variable for info in all_settings() if info.is_secret} == set(given), "all secrets are tried here"
    settings = load_settings(environment=given)
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in text
    headers = settings.signer.go_livepeer.headers
    assert headers is not None
    assert headers["Authorization"].get_secret_value() == f"Bearer {SECRET}"


@pytest.mark.parametrize("name", [info.name for info in all_settings() if info.is_secret])
def test_no_secret_shows_in_an_error_about_it(name: str, tmp_path: Path) -> None:
    info = next(info for info in all_settings() if info.name == name)
    section = f"[{'.'.join(info.path[:-1])}]\n" if info.path[:-1] else ""
    for value in (f"['{SECRET}']", f"{{ a = ['{SECRET}'] }}", "''"):
        file = write(tmp_path / "c.toml", f"{section}{info.path[-1]} = {value}\n")
        message = error_of(file=file)
        assert name in message
        assert SECRET[:7] not in message
    with pytest.raises(ValidationError) as caught:  # also where the models are used directly
        Settings.model_validate({"api_key_pepper": SECRET[:7]})
    assert SECRET[:7] not in str(caught.value)


@pytest.mark.parametrize("name", [info.name for info in all_settings() if info.is_secret])
def test_every_secret_can_come_from_a_file(name: str, tmp_path: Path) -> None:
    info = next(info for info in all_settings() if info.name == name)
    text = all_secrets_given()[info.variable]
    file = write(tmp_path / "secret", text + "\n")
    assert load_settings(environment={f"{info.variable}_FILE": str(file)}).model_dump() != Settings().model_dump()
    from_file = load_settings(environment={f"{info.variable}_FILE": str(file)})
    direct = load_settings(environment={info.variable: text})
    value_of_file, value_direct = from_file, direct
    for part in info.path:
        value_of_file, value_direct = getattr(value_of_file, part), getattr(value_direct, part)
    assert value_of_file == value_direct


def test_a_secret_and_its_file_together_are_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "pepper", SECRET)
    message = error_of({"CLEARINGHOUSE_API_KEY_PEPPER": SECRET, "CLEARINGHOUSE_API_KEY_PEPPER_FILE": str(file)})
    assert "CLEARINGHOUSE_API_KEY_PEPPER_FILE" in message
    assert "keep one" in message


def test_a_secret_of_a_higher_source_replaces_the_file_of_a_lower_one(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", "api_key_pepper_file = '/nowhere'\n")
    settings = load_settings(environment={"CLEARINGHOUSE_API_KEY_PEPPER": SECRET}, config_file=file)
    assert settings.api_key_pepper is not None
    assert settings.api_key_pepper.get_secret_value() == SECRET
    assert settings.api_key_pepper_file is None


def test_a_secret_file_that_cannot_be_used_is_told_with_its_path(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "missing", "No such file"),
        (write(tmp_path / "empty", "\n"), "is empty"),
        (write(tmp_path / "large", "x" * 70_000), "more than 65536 bytes"),
    ):
        message = error_of({"CLEARINGHOUSE_API_KEY_PEPPER_FILE": str(path)})
        assert "api_key_pepper_file" in message
        assert str(path) in message
        assert reason in message


def test_secrets_cannot_be_flags() -> None:
    with pytest.raises(ValueError, match="secrets cannot be flags"):
        load_settings(flags={"api_key_pepper": SECRET}, environment={})


def test_a_secret_open_to_others_is_warned_about(tmp_path: Path) -> None:
    pepper = write(tmp_path / "pepper", SECRET, mode=0o644)
    closed = write(tmp_path / "token", SECRET, mode=0o640)
    file = write(
        tmp_path / "c.toml", f"api_key_pepper_file = '{pepper}'\napi.admin_token_file = '{closed}'\n", mode=0o644
    )
    settings = load_settings(environment={}, config_file=file)
    assert [text.split()[0] for text in warnings_about(settings, config_file=file)] == [str(pepper)]

    inline = write(tmp_path / "inline.toml", f"api_key_pepper = '{SECRET}'\n", mode=0o644)
    settings = load_settings(environment={}, config_file=inline)
    assert [text.split()[0] for text in warnings_about(settings, config_file=inline)] == [str(inline)]


# --- particular settings --------------------------------------------------------------------------------------------


def test_prices_are_exact_and_currencies_may_be_named_in_any_case() -> None:
    settings = load_settings(environment={"CLEARINGHOUSE_PRICE__DECLARED__USD": "3000.123456789012"})
    assert settings.price.declared == {"USD": Decimal("3000.123456789012")}


def test_a_table_given_by_a_higher_source_replaces_the_lower_one_as_a_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", "[price.declared]\nUSD = '1'\nEUR = '2'\n")
    settings = load_settings(environment={"CLEARINGHOUSE_PRICE__DECLARED__EUR": "3"}, config_file=file)
    assert settings.price.declared == {"EUR": Decimal(3)}


def test_signer_urls_are_a_list_in_the_file_and_separated_by_commas_in_the_environment(tmp_path: Path) -> None:
    wanted = ("http://a:1", "https://b")
    file = write(tmp_path / "c.toml", "[signer.go_livepeer]\nurls = ['http://a:1/', 'https://b']\n")
    assert load_settings(environment={}, config_file=file).signer.go_livepeer.urls == wanted
    environment = {"CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": "http://a:1, https://b/"}
    assert load_settings(environment=environment).signer.go_livepeer.urls == wanted


@pytest.mark.parametrize("header", ["Signer-Auth-Id: x", "signer_auth_id: x", "A B: x", "A", "A: x\x01"])
def test_headers_that_would_confuse_a_signer_are_refused(header: str) -> None:
    assert "signer.go_livepeer.headers" in error_of({"CLEARINGHOUSE_SIGNER__GO_LIVEPEER__HEADERS": header})


@pytest.mark.parametrize(
    "headers", ["Host: x", "content-length: 1", "Transfer-Encoding: x", "A: x\na: y", "A: é", "A B: x", "A", "A: x\x01"]
)
def test_headers_that_would_confuse_a_webhook_are_refused(headers: str) -> None:
    assert "signer.native.webhook_headers" in error_of({"CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_HEADERS": headers})


def test_a_webhook_may_get_any_other_header() -> None:
    given = {"CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_HEADERS": "Content-Type: a/b\nSigner-Tenant: a, b: c"}
    headers = load_settings(environment=given).signer.native.webhook_headers
    assert headers is not None
    assert {name: value.get_secret_value() for name, value in headers.items()} == {
        "Content-Type": "a/b",
        "Signer-Tenant": "a, b: c",
    }


def test_the_signer_in_process_refuses_a_webhook_that_it_would_never_ask() -> None:
    given = {"CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_URL": "https://billing.example/authorize"}
    assert [text.split()[0] for text in missing_for_serving(load_settings(environment=given))] == [
        "signer.native.webhook_url"
    ]
    pool = {
        "CLEARINGHOUSE_SIGNER__KIND": "go_livepeer",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": "http://a:1",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__EXPECTED_ADDRESS": "0x" + "11" * 20,
    }
    assert missing_for_serving(load_settings(environment=given | pool)) == []


@pytest.mark.parametrize(
    ("url", "is_overheard"),
    [
        ("http://billing.example/", True),
        ("HTTP://10.0.0.1/", True),
        ("http://127.0.0.1:8000/", False),
        ("http://[::1]/", False),
        ("http://localhost/", False),
        ("https://billing.example/", False),
    ],
)
def test_a_webhook_that_hears_credentials_in_the_clear_is_warned_about(url: str, is_overheard: bool) -> None:
    settings = load_settings(environment={"CLEARINGHOUSE_SIGNER__NATIVE__WEBHOOK_URL": url})
    assert [text.split()[0] for text in warnings_about(settings)] == ["signer.native.webhook_url"] * is_overheard


@pytest.mark.parametrize(
    ("listen", "is_overheard"),
    [
        ({"HOST": "127.0.0.1"}, False),
        ({"HOST": "::1"}, False),
        ({"HOST": "localhost"}, False),
        ({"HOST": "0.0.0.0"}, True),
        ({"HOST": "signing.internal"}, True),
        ({"HOST": "0.0.0.0", "TLS_CERT_FILE": "cert.pem", "TLS_KEY_FILE": "key.pem"}, False),
    ],
)
def test_questions_of_signers_that_cross_the_network_in_the_clear_are_warned_about(
    listen: dict[str, str], is_overheard: bool
) -> None:
    given = {f"CLEARINGHOUSE_LISTEN__{name}": value for name, value in listen.items()}
    assert warnings_about(load_settings(environment=given)) == []
    settings = load_settings(environment={**given, "CLEARINGHOUSE_WEBHOOK__ENABLED": "true"})
    assert [text.split()[0] for text in warnings_about(settings)] == ["webhook.enabled"] * is_overheard


@pytest.mark.parametrize(("mode", "warns"), [("off", False), ("warn", True), ("refuse", True)])
def test_callers_who_may_name_hosts_of_our_own_network_are_warned_about(mode: str, warns: bool) -> None:
    environment = {
        "CLEARINGHOUSE_POLICY__CROSSCHECK": mode,
        "CLEARINGHOUSE_POLICY__CROSSCHECK_PRIVATE_HOSTS_ALLOWED": "true",
    }
    warnings = warnings_about(load_settings(environment=environment))
    assert ["policy.crosscheck_private_hosts_allowed" in text for text in warnings] == [True] * warns


def test_a_crosscheck_that_leaves_no_time_to_sign_is_refused() -> None:
    slow = {"CLEARINGHOUSE_POLICY__CROSSCHECK_TIMEOUT_S": "5"}
    load_settings(environment=slow)
    assert "policy.crosscheck_timeout_s" in error_of({**slow, "CLEARINGHOUSE_POLICY__CROSSCHECK": "warn"})


def test_what_serving_needs_is_told_for_each_way_of_running() -> None:
    assert missing_for_serving(Settings()) == []
    own_database = load_settings(environment={"CLEARINGHOUSE_DATABASE_URL": DATABASE_URL})
    assert [text.split()[0] for text in missing_for_serving(own_database)] == ["api_key_pepper"]
    pool = load_settings(environment={"CLEARINGHOUSE_SIGNER__KIND": "go_livepeer"})
    assert [text.split()[0] for text in missing_for_serving(pool)] == [
        "signer.go_livepeer.urls",
        "signer.go_livepeer.expected_address",
    ]
    own_key = load_settings(environment={"CLEARINGHOUSE_SIGNER__NATIVE__KEYSTORE_FILE": "key.json"})
    assert [text.split()[0] for text in missing_for_serving(own_key)] == ["signer.native.keystore_password_file"]


def test_a_pool_of_one_signer_is_warned_about() -> None:
    environment = {
        "CLEARINGHOUSE_SIGNER__KIND": "go_livepeer",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": "http://a:1",
    }
    assert "two or more" in warnings_about(load_settings(environment=environment))[0]
    environment["CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS"] += ",http://b:1"
    assert not any("two or more" in text for text in warnings_about(load_settings(environment=environment)))


def test_a_pool_without_recipients_or_largest_face_value_is_warned_about() -> None:
    environment = {
        "CLEARINGHOUSE_SIGNER__KIND": "go_livepeer",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": "http://a:1,http://b:1",
    }
    warnings = warnings_about(load_settings(environment=environment))
    assert [text.split()[0] for text in warnings] == ["policy.recipients", "policy.face_value_max_wei"]
    environment["CLEARINGHOUSE_POLICY__RECIPIENTS"] = f"0x{'0a' * 20}, 0x{'0b' * 20}"
    environment["CLEARINGHOUSE_POLICY__FACE_VALUE_MAX_WEI"] = "200000000000000000"
    settings = load_settings(environment=environment)
    assert settings.policy.recipients == (f"0x{'0a' * 20}", f"0x{'0b' * 20}")
    assert warnings_about(settings) == []


def test_a_previous_round_needs_its_block_hash() -> None:
    assert "need each other" in error_of({"CLEARINGHOUSE_ESCROW__PREVIOUS_INITIALIZED_ROUND": "3499"})
    block_hash = {"CLEARINGHOUSE_ESCROW__PREVIOUS_INITIALIZED_ROUND_BLOCK_HASH": "0x" + "49" * 32}
    assert "need each other" in error_of(block_hash)


# --- the chain ------------------------------------------------------------------------------------------------------

RPC_URLS, WS_URLS = "CLEARINGHOUSE_CHAIN__RPC_URLS", "CLEARINGHOUSE_CHAIN__WS_URLS"


def test_endpoints_are_a_list_in_the_file_and_separated_by_commas_or_lines_elsewhere(tmp_path: Path) -> None:
    wanted = ["https://a.example/v2/key", "https://user:word@b.example"]
    file = write(tmp_path / "c.toml", f"[chain]\nrpc_urls = {wanted}\n")
    given = [load_settings(environment={}, config_file=file)]
    given += [load_settings(environment={RPC_URLS: between.join(wanted)}) for between in (",", ", ", "\n")]
    for settings in given:
        assert settings.chain.rpc_urls is not None
        assert [url.get_secret_value() for url in settings.chain.rpc_urls] == wanted
        assert warnings_about(settings) == []


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (f"https://a.example/{SECRET}", "quorum_count is 2 and rpc_urls names 1"),
        (f"https://a.example/{SECRET},https://a.example/{SECRET}", "names one endpoint twice"),
        (f"wss://a.example/{SECRET},https://b.example", "https://host/path is needed"),
        (f"https://{SECRET}:port/,https://b.example", "https://host/path is needed"),
        (" , ", "it is empty"),
    ],
)
def test_endpoints_that_cannot_make_a_quorum_are_refused_and_not_repeated(urls: str, said: str) -> None:
    message = error_of({RPC_URLS: urls})
    assert said in message
    assert SECRET not in message


@pytest.mark.parametrize("url", [f"https://a.example/{SECRET}", f"wss:///{SECRET}", f"wss://{SECRET}:port/", "wss://é"])
def test_what_cannot_be_listened_to_is_refused_and_not_repeated(url: str) -> None:
    message = error_of({WS_URLS: url})
    assert "wss://host/path is needed" in message
    assert SECRET not in message


def test_one_endpoint_alone_and_plain_http_are_warned_about() -> None:
    alone = load_settings(environment={RPC_URLS: "http://rpc.example", "CLEARINGHOUSE_CHAIN__QUORUM_COUNT": "1"})
    assert [text.split()[0] for text in warnings_about(alone)] == ["chain.quorum_count", "chain.rpc_urls"]
    heard = load_settings(environment={RPC_URLS: "https://a.example,https://b.example", WS_URLS: "ws://rpc.example"})
    assert [text.split()[0] for text in warnings_about(heard)] == ["chain.ws_urls"]
    idle = load_settings(environment={WS_URLS: "wss://a.example"})
    assert [text.split()[0] for text in warnings_about(idle)] == ["chain.ws_urls"]
    here = load_settings(environment={RPC_URLS: "http://127.0.0.1:8545,http://localhost:8546"})
    assert warnings_about(here) == []


def test_a_pool_beside_a_chain_needs_neither_recipients_nor_a_largest_face_value() -> None:
    environment = {
        "CLEARINGHOUSE_SIGNER__KIND": "go_livepeer",
        "CLEARINGHOUSE_SIGNER__GO_LIVEPEER__URLS": "http://a:1,http://b:1",
        RPC_URLS: "https://a.example,https://b.example",
    }
    assert warnings_about(load_settings(environment=environment)) == []


def test_readings_may_not_grow_old_between_two_polls() -> None:
    message = error_of({"CLEARINGHOUSE_CHAIN__POLL_S": "21", "CLEARINGHOUSE_CHAIN__STALE_MAX_S": "60"})
    assert "at least three times poll_s" in message


# --- prices from feeds ------------------------------------------------------------------------------------------------

FEED = "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612"
SECRET_URL = "https://a.example/k3y?token=k3y#/data/amount"


def feeds(**more: Any) -> dict[str, Any]:
    return {"source": "chainlink", **more}


def test_prices_from_feeds_need_a_chain_and_on_a_chain_of_ones_own_the_feed() -> None:
    alone = Settings.model_validate({"price": feeds()})
    assert [text.split()[0] for text in missing_for_serving(alone)] == ["chain.rpc_urls"]
    chain = {"rpc_urls": ["http://a.example", "http://b.example"], "network": "dev"}
    on_dev = Settings.model_validate({"price": feeds(), "chain": chain})
    assert [text.split()[0] for text in missing_for_serving(on_dev)] == ["price.eth_usd_feed"]
    assert missing_for_serving(Settings.model_validate({"price": feeds(eth_usd_feed=FEED), "chain": chain})) == []
    on_arbitrum = {**chain, "network": "arbitrum-one"}
    assert missing_for_serving(Settings.model_validate({"price": feeds(), "chain": on_arbitrum})) == []


def test_second_opinions_come_from_a_file_with_one_a_line_and_are_never_shown(tmp_path: Path) -> None:
    file = write(tmp_path / "opinions", f"usd: {SECRET_URL}\nEUR: https://b.example/#/0\n")
    environment = {
        "CLEARINGHOUSE_PRICE__SECOND_OPINIONS_FILE": str(file),
        "CLEARINGHOUSE_PRICE__SOURCE": "chainlink",
    }
    config = write(tmp_path / "c.toml", f'[price.currency_feeds]\neur = "{FEED}"\n')
    settings = load_settings(environment=environment, config_file=config)
    assert settings.price.currencies == ("USD", "EUR")
    assert settings.price.second_opinions is not None
    assert settings.price.second_opinions["USD"].get_secret_value() == SECRET_URL
    assert "k3y" not in repr(settings)


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        ({"second_opinions": {"USD": "http://a.example/k3y#/a"}}, "https://host/path#/pointer"),
        ({"second_opinions": {"USD": "https://a.example/k3y#a"}}, "https://host/path#/pointer"),
        ({"second_opinions": {"USD": "k3y"}}, "https://host/path#/pointer"),
        ({"second_opinions": {"CHF": SECRET_URL}}, "CHF, of which there is no feed"),
        ({"second_opinions": {"ETH": SECRET_URL}}, "three to eight letters"),
        ({"currency_feeds": {"USD": FEED}}, "USD is read from the feed of ETH"),
        ({"currency_feeds": {"EUR": "0x12"}}, "address"),
        ({"max_age_s": 30}, "at least three times poll_s"),
    ],
)
def test_feeds_and_opinions_that_cannot_work_are_refused_without_showing_secrets(
    price: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason) as refused:
        Settings.model_validate({"price": feeds(**price)})
    assert "k3y" not in str(refused.value)


def test_a_second_opinion_that_nobody_asks_is_warned_about() -> None:
    settings = Settings.model_validate({"price": {"second_opinions": {"USD": SECRET_URL}}})
    assert any(text.startswith("price.second_opinions is not asked") for text in warnings_about(settings))


@pytest.mark.parametrize(
    ("topups", "said"),
    [
        ({"WALLET": "keystore"}, "wallet_keystore_file and wallet_password_file"),
        ({"WALLET": "keystore", "WALLET_KEYSTORE_FILE": "/a"}, "wallet_keystore_file and wallet_password_file"),
        ({"WALLET": "signer", "WALLET_SIGNER_URL": f"https://clef.example/{SECRET}"}, "wallet_signer_address"),
        ({"MODE": "on"}, "mode needs a wallet"),
        ({"TRANSACTION_MAX_WEI": str(2 * 10**18)}, "transaction_max_wei and day_max_wei"),
        ({"AMOUNT_MIN_WEI": str(10**18)}, "amount_min_wei"),
        ({"PRIORITY_FEE_WEI": str(10**10)}, "priority_fee_wei"),
        ({"PRIORITY_FEE_MAX_WEI": str(10**11)}, "fee_max_wei"),
    ],
)
def test_top_ups_that_could_not_be_sent_or_have_caps_that_mean_nothing_are_refused(
    topups: dict[str, str], said: str
) -> None:
    message = error_of(environment={f"CLEARINGHOUSE_TOPUPS__{name}": value for name, value in topups.items()})
    assert said in message
    assert SECRET not in message
