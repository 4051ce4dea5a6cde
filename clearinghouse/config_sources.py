"""Fills the settings: a flag beats the environment, which beats the file, which beats the default.

Names are the same everywhere: `signer.go_livepeer.timeout_s` is a key of the TOML file, and the environment variable
CLEARINGHOUSE_SIGNER__GO_LIVEPEER__TIMEOUT_S. Whatever is not a setting is an error, because a mistyped name would
otherwise leave a default in force without a word.
"""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from clearinghouse.config import Settings

ENVIRONMENT_PREFIX: Final = "CLEARINGHOUSE_"
CONFIG_VARIABLE: Final = "CLEARINGHOUSE_CONFIG"
#: For clients of a running service, such as `clearinghouse sign-demo`. They share the prefix and are no settings.
URL_VARIABLE: Final = "CLEARINGHOUSE_URL"
API_KEY_VARIABLE: Final = "CLEARINGHOUSE_API_KEY"
_NOT_SETTINGS: Final = frozenset({CONFIG_VARIABLE, URL_VARIABLE, API_KEY_VARIABLE})
SECRET_FILE_BYTES_MAX: Final = 64 * 1024
#: Where container runtimes and systemd put secrets, with modes of their own choosing.
_MANAGED_SECRETS_DIRS: Final = (Path("/run/secrets"), Path("/run/credentials"))
_SHOWN_CHARS_MAX: Final = 80

SettingPath = tuple[str, ...]


class ConfigError(Exception):
    """The settings cannot be used. The message has a line for each wrong one and never a secret."""


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting, for the reference and for suggestions."""

    path: SettingPath
    field: FieldInfo
    is_secret: bool

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        return environment_variable(self.path)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one source says, by setting, and how to call a setting of this source."""

    values: dict[SettingPath, Any]
    source: str

    def origin(self, path: SettingPath) -> str:
        if self.source == "environment":
            return f"environment variable {environment_variable(path)}"
        if self.source == "flag":
            return f"flag --{path[-1].replace('_', '-')}"
        return f"file {self.source}"


def load_settings(
    *,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str],
    config_file: Path | None = None,
) -> Settings:
    """All settings, checked; reads `config_file` (or the one CLEARINGHOUSE_CONFIG names) and the `…_file` of secrets.

    `flags` are by dotted name, such as `listen.http_port`; None means that the flag was not given. Secrets cannot be
    flags: other users see the arguments of a process. Raises ConfigError naming every wrong setting.
    """
    if config_file is None and environment.get(CONFIG_VARIABLE):
        config_file = Path(environment[CONFIG_VARIABLE])
    layers = [_flag_layer(flags or {}), _environment_layer(environment)]
    if config_file is not None:
        layers.append(_file_layer(config_file.expanduser()))

    values, origins = _merged(layers)
    _read_secret_files(values, origins)
    try:
        return Settings.model_validate(_nested(values))
    except ValidationError as error:
        raise ConfigError(_report(error, values, origins)) from None


def environment_variable(path: SettingPath) -> str:
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


@cache
def all_settings() -> tuple[SettingInfo, ...]:
    """Every setting, in the order of the models."""
    return tuple(_walk(Settings, ()))


def warnings_about(settings: Settings, *, config_file: Path | None = None) -> list[str]:
    """What works and still deserves a look: secrets that others may read or hear, a signer pool of one."""
    secret_files = [
        path
        for info in all_settings()
        if info.is_secret and (path := _value_at(settings, _twin(info.path))) is not None
    ]
    if config_file is not None and _has_inline_secrets(config_file):
        secret_files.append(config_file)
    found = [
        f"{path} holds a secret and is open to other users: chmod 600 {path}"
        for path in secret_files
        if _is_open_to_others(path)
    ]
    if settings.signer.kind == "go_livepeer" and len(settings.signer.go_livepeer.urls) == 1:
        found.append("signer.go_livepeer.urls names one signer: when it stops, nothing is signed; name two or more")
    if _is_overheard(settings.signer.native.webhook_url):
        found.append("signer.native.webhook_url is plain http: callers' credentials cross the network; use https")
    if settings.webhook.enabled and settings.listen.tls_cert_file is None and not _is_loopback(settings.listen.host):
        found.append(
            f"webhook.enabled on {settings.listen.host} without TLS: every question has a gateway's API key and a "
            "signer's secret in it; set listen.tls_cert_file, or listen on loopback behind a proxy that ends TLS"
        )
    found += _warnings_about_chain(settings)
    if settings.price.second_opinions is not None and settings.price.source == "declared":
        found.append("price.second_opinions is not asked with price.source = declared: there is no feed")
    is_blind = settings.signer.kind == "go_livepeer" and not settings.chain.is_configured
    if is_blind and not settings.policy.recipients:
        found.append("policy.recipients is empty: tickets may be paid to anybody; name the recipients you mean to pay")
    if is_blind and settings.policy.face_value_max_wei is None:
        found.append(
            "policy.face_value_max_wei is not set, and the deposit of a go-livepeer signer is not known here: one "
            "winning ticket may take all of it; set it to a fiftieth of the deposit"
        )
    if settings.policy.crosscheck != "off" and settings.policy.crosscheck_private_hosts_allowed:
        found.append(
            "policy.crosscheck_private_hosts_allowed: callers choose which hosts of your own network are connected to; "
            "leave it out unless your orchestrators are there and all gateways are yours"
        )
    return found


def _warnings_about_chain(settings: Settings) -> list[str]:
    if settings.chain.rpc_urls is None:
        is_idle = settings.chain.ws_urls is not None
        return ["chain.ws_urls does nothing without chain.rpc_urls: what is heard is not believed"] if is_idle else []
    found = []
    if settings.chain.quorum_count == 1:
        found.append(
            "chain.quorum_count is 1: one provider's word decides who is paid and how much; name endpoints of two or "
            "more, and let them agree"
        )
    if any(_is_overheard(url.get_secret_value()) for url in settings.chain.rpc_urls):
        found.append("chain.rpc_urls has plain http: whoever is on the way can change what is read; use https")
    if any(_is_overheard(url.get_secret_value()) for url in settings.chain.ws_urls or ()):
        found.append("chain.ws_urls has plain ws: whoever is on the way can read the key in it; use wss")
    return found


# --- the sources ----------------------------------------------------------------------------------------------------


def _flag_layer(flags: Mapping[str, Any]) -> _Layer:
    values = {tuple(name.split(".")): value for name, value in flags.items() if value is not None}
    secret = [".".join(path) for path in values if path in _secret_paths()]
    if secret:
        raise ValueError(f"secrets cannot be flags: {secret}")
    return _Layer(values, "flag")


def _environment_layer(environment: Mapping[str, str]) -> _Layer:
    values: dict[SettingPath, Any] = {}
    empty: list[str] = []
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        if value == "":
            empty.append(variable)
        values[tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))] = value
    if empty:
        # An empty CLEARINGHOUSE_DATABASE_URL taken as "not set" would quietly start on another database.
        raise ConfigError(
            _lines([f"environment variable {name} is empty: unset it to use the default" for name in sorted(empty)])
        )
    return _Layer(values, "environment")


def _file_layer(path: Path) -> _Layer:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from None
    return _Layer(dict(_leaves(document, ())), str(path))


def _leaves(table: Mapping[str, Any], above: SettingPath) -> Iterator[tuple[SettingPath, Any]]:
    """A setting per leaf. A table that is the value of one setting (headers, prices) is a leaf."""
    for key, value in table.items():
        path = (*above, key)
        if isinstance(value, dict) and path not in _known():
            yield from _leaves(value, path)
        else:
            yield path, value


# --- merging --------------------------------------------------------------------------------------------------------


def _merged(layers: list[_Layer]) -> tuple[dict[SettingPath, Any], dict[SettingPath, str]]:
    """The highest layer's word for each setting, and where it was said. A secret and its twin are one setting."""
    values: dict[SettingPath, Any] = {}
    origins: dict[SettingPath, str] = {}
    for layer in layers:
        taken = set(values)
        for path, value in layer.values.items():
            rival = _rival(path)
            if _is_taken(path, taken) or rival in taken:
                continue
            if rival in layer.values:
                raise ConfigError(f"{layer.origin(path)} and {layer.origin(rival)} are both given: keep one of them.")
            values[path] = value
            origins[path] = layer.origin(path)
    return values, origins


def _is_taken(path: SettingPath, taken: set[SettingPath]) -> bool:
    """Also where a higher layer gave the whole table of which this is an entry, or one of its entries."""
    table = next((path[:length] for length in range(1, len(path) + 1) if path[:length] in _known()), path)
    return any(other[: len(table)] == table for other in taken)


def _rival(path: SettingPath) -> SettingPath:
    """The twin of a secret, or the secret of a twin; the path of nothing for any other setting."""
    if path in _secret_paths():
        return _twin(path)
    secret = (*path[:-1], path[-1].removesuffix("_file"))
    return secret if secret != path and secret in _secret_paths() else ()


def _twin(secret: SettingPath) -> SettingPath:
    return (*secret[:-1], f"{secret[-1]}_file")


def _read_secret_files(values: dict[SettingPath, Any], origins: dict[SettingPath, str]) -> None:
    for secret in _secret_paths():
        twin = _twin(secret)
        if twin in values:
            values[secret] = _secret_text(Path(str(values[twin])).expanduser(), origins[twin], ".".join(twin))
            origins[secret] = origins[twin]


def _secret_text(path: Path, origin: str, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{name} = {str(path)!r} ({origin}): the file cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name} = {str(path)!r} ({origin}): the file is not UTF-8 text.") from None
    if not text or len(content) > SECRET_FILE_BYTES_MAX:
        what = "is empty" if not text else f"has more than {SECRET_FILE_BYTES_MAX} bytes"
        raise ConfigError(f"{name} = {str(path)!r} ({origin}): the file {what}.")
    return text


def _nested(values: Mapping[SettingPath, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        node = tree
        for index, key in enumerate(path[:-1]):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{'.'.join(path[: index + 1])} is given both as a value and as a section.")
        if isinstance(node.get(path[-1]), dict):
            raise ConfigError(f"{'.'.join(path)} is given both as a value and as a section.")
        node[path[-1]] = value
    return tree


# --- what is wrong --------------------------------------------------------------------------------------------------


def _report(error: ValidationError, values: Mapping[SettingPath, Any], origins: Mapping[SettingPath, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        path = _given_path(tuple(str(part) for part in problem["loc"]), values)
        reason = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            lines.append(_unknown(path, origins))
        elif path in values:
            lines.append(f"{'.'.join(path)}{_shown(path, values[path])} ({origins[path]}): {reason}")
        else:
            lines.append(f"{'.'.join(path)}: {reason}" if path else reason)
    return _lines(sorted(set(lines)))


def _given_path(loc: SettingPath, values: Mapping[SettingPath, Any]) -> SettingPath:
    """The setting that was given: pydantic's location goes on below it, into list items and union members."""
    given = {tuple(part.lower() for part in path): path for path in values}  # currencies are named in any case
    for length in range(len(loc), 0, -1):
        if path := given.get(tuple(part.lower() for part in loc[:length])):
            return path
    return loc


def _unknown(path: SettingPath, origins: Mapping[SettingPath, str]) -> str:
    """Never shows the value: it may be a secret under a mistyped name."""
    below = next((given for given in origins if given[: len(path)] == path), path)
    origin = origins.get(below, "")
    known = {info.name: info for info in all_settings()}
    nearest = get_close_matches(".".join(below), known, n=1) or [
        name for name, info in known.items() if info.path[-1] == below[-1]
    ]
    hint = ""
    if nearest:
        in_environment = origin.startswith("environment")
        hint = f" Did you mean {known[nearest[0]].variable if in_environment else nearest[0]}?"
    return f"{'.'.join(below)} ({origin}): there is no such setting.{hint}"


def _shown(path: SettingPath, value: Any) -> str:
    if any(path[: len(secret)] == secret for secret in _secret_paths()):
        return ""
    text = re.sub(r"//[^/@\s]*@", "//…@", repr(value))  # a URL may carry a password where none is wanted
    text = re.sub(r"(//[^'\"?]*\?)[^'\"]*", r"\1…", text)  # and a token in its query
    return f" = {text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + '…'}"


def _lines(lines: list[str]) -> str:
    return "\n".join(["The configuration cannot be used:", *(f"  {line}" for line in lines)])


# --- the models, walked ---------------------------------------------------------------------------------------------


def _walk(model: type[BaseModel], above: SettingPath) -> Iterator[SettingInfo]:
    for name, field in model.model_fields.items():
        path = (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, path)
        else:
            yield SettingInfo(path, field, SecretStr in _types_in(field.annotation))


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _types_in(argument)


@cache
def _known() -> frozenset[SettingPath]:
    return frozenset(info.path for info in all_settings())


@cache
def _secret_paths() -> frozenset[SettingPath]:
    return frozenset(info.path for info in all_settings() if info.is_secret)


def _value_at(settings: Settings, path: SettingPath) -> Any:
    value: Any = settings
    for name in path:
        value = getattr(value, name)
    return value


def _has_inline_secrets(config_file: Path) -> bool:
    return any(path in _secret_paths() for path in _file_layer(config_file).values)


def _is_overheard(url: str | None) -> bool:
    """Plain HTTP or WebSocket to a host that is not this one. A name other than localhost may be any host."""
    parts = urlsplit(url or "")
    return parts.scheme in {"http", "ws"} and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_open_to_others(path: Path) -> bool:
    """Others may read it, or the group may change it. A group may read: service managers hand secrets over that way."""
    if any(path.is_relative_to(managed) for managed in _MANAGED_SECRETS_DIRS):
        return False
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP))
