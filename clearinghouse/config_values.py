"""Kinds of values that settings have: how each is written, what is allowed, and what is said of one that is not.

No sentence repeats what was given: it may be a secret. TOML has types of its own and the environment has only text; a
value means the same in both.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from chain.rpc import RpcEndpoint
from chain.signatures import parse_address

PEPPER_CHARS_MIN: Final = 32
TOKEN_CHARS_MIN: Final = 16
ETH_WEI: Final = 10**18
GWEI: Final = 10**9


def _whole_number(value: Any) -> Any:
    """Only integers and their digits: `true`, 8080.0 and "1e3" are slips of the pen, not numbers."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,80}", value):
        return int(value)
    if type(value) is int:
        return value
    raise ValueError("a whole number is needed, in digits alone")


def _seconds(value: Any) -> Any:
    if type(value) is int or type(value) is float:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value):
        return value
    raise ValueError("a number of seconds is needed, such as 3 or 0.5")


def _exact_decimal(value: Any) -> Any:
    """Decimal text or an integer. A TOML float is refused: it has been rounded before we see it."""
    if isinstance(value, Decimal):
        return value
    if type(value) is int:
        return Decimal(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,30}(\.[0-9]{1,18})?", value):
        return Decimal(value)
    raise ValueError('a decimal in quotes is needed, such as "3000.5"')


def _expanded(path: Path) -> Path:
    return path.expanduser()


def _conninfo(secret: SecretStr) -> SecretStr:
    try:
        parameters = conninfo_to_dict(secret.get_secret_value())
    except ProgrammingError:  # its text repeats parts of the value, so it is not passed on
        raise ValueError(
            "a PostgreSQL URL (postgresql://user@host/database) or conninfo (host=… dbname=…) is needed"
        ) from None
    if not parameters:  # libpq takes nothing at all for "whatever runs on this machine"
        raise ValueError("it is empty: leave it out to use the embedded PostgreSQL")
    return secret


def _address(text: str) -> str:
    parse_address(text)  # ValueError with the reason
    return text


def _block_hash(text: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", text):
        raise ValueError("0x and 64 hexadecimal digits are needed")
    return text.lower()


def _comma_list(value: Any) -> Any:
    """In the environment: separated by commas."""
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _host_and_port(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", text):
        raise ValueError("host:port is needed")
    return text


def http_url(text: str) -> SplitResult | None:
    """Its parts; None for what is not the http or https URL of a host."""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_one else None


def _signer_url(text: str) -> str:
    if (parts := http_url(text)) is None:
        raise ValueError("http://host:port or https://host:port is needed")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("go-livepeer answers at the root of its host: leave path, query and fragment out")
    _require_no_credentials(parts, "signer.go_livepeer.headers_file")
    return text.rstrip("/")


def _webhook_url(text: str) -> str:
    parts = http_url(text)
    if parts is None or parts.fragment or not re.fullmatch("[!-~]+", text):
        raise ValueError("http://host/path or https://host/path is needed, in ASCII and without a fragment")
    _require_no_credentials(parts, "signer.native.webhook_headers_file")
    return text


def _require_no_credentials(parts: SplitResult, instead: str) -> None:
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"credentials do not belong into a URL: use {instead}")


def _rpc_url_list(value: Any) -> Any:
    """In the environment separated by commas, in a file one a line. An empty list would quietly turn the chain off."""
    items = [item for item in re.split(r"[,\s]+", value) if item] if isinstance(value, str) else value
    if items is not None and not items:
        raise ValueError("it is empty: leave it out, or name one")
    return items


def _rpc_url(secret: SecretStr) -> SecretStr:
    try:
        RpcEndpoint(secret.get_secret_value(), name="an endpoint")  # connects to nothing
    except ValueError:
        raise ValueError("https://host/path is needed for each endpoint") from None
    return secret


def _ws_url(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in {"ws", "wss"} and bool(parts.hostname) and parts.port != 0 and not parts.fragment
    except ValueError:
        is_one = False
    if not is_one or not re.fullmatch("[!-~]+", text):
        raise ValueError("wss://host/path is needed for each endpoint")
    return secret


def name_value_lines(value: Any) -> Any:
    """In the environment and in a headers_file: one `Name: value` a line."""
    if not isinstance(value, str):
        return value
    headers: dict[str, str] = {}
    for line in filter(None, (line.strip() for line in value.splitlines())):
        name, colon, content = line.partition(":")
        if not colon:
            raise ValueError("one `Name: value` a line is needed")
        headers[name.strip()] = content.strip()
    if not headers:
        raise ValueError("one `Name: value` a line is needed, and there is none")
    return headers


def _header_names(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        _require_header_name(name)
        if name.lower().replace("_", "-").startswith("signer-"):
            raise ValueError("Signer-* headers are the clearinghouse's own and cannot be configured")
        if re.search(r"[\x00-\x1f\x7f]", value.get_secret_value()):
            raise ValueError("a header value may not have control characters")
    return headers


def _require_header_name(name: str) -> None:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("a header name may have letters, digits and hyphens")


#: Set for each request: a second one could change where a body ends, or whom it is for.
_RESERVED_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _webhook_header_names(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        _require_header_name(name)
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError("Host, Content-Length and the headers of a connection cannot be configured")
        if not re.fullmatch("[ -~]*", value.get_secret_value()):
            raise ValueError("a header value must be printable ASCII")
    if len({name.lower() for name in headers}) != len(headers):
        raise ValueError("a header is given twice, in different spelling")
    return headers


def _secret_of(chars_min: int) -> AfterValidator:
    def long_enough(secret: SecretStr) -> SecretStr:
        if len(secret.get_secret_value()) < chars_min:
            raise ValueError(f"at least {chars_min} characters are needed, such as `openssl rand -hex 32` prints")
        return secret

    return AfterValidator(long_enough)


Whole = Annotated[int, BeforeValidator(_whole_number)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=86_400)]
ExactDecimal = Annotated[Decimal, BeforeValidator(_exact_decimal)]
PriceCeiling = Annotated[ExactDecimal, Field(gt=0)]
Port = Annotated[Whole, Field(ge=0, le=65_535)]
Wei = Annotated[Whole, Field(ge=0, lt=2**256)]
#: Of a round or a block, counted by the chain.
Ordinal = Annotated[Whole, Field(ge=0, lt=2**63)]
File = Annotated[Path, AfterValidator(_expanded)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_conninfo)]
Pepper = Annotated[SecretStr, _secret_of(PEPPER_CHARS_MIN)]
Token = Annotated[SecretStr, _secret_of(TOKEN_CHARS_MIN)]
Password = Annotated[SecretStr, _secret_of(1)]
SignerUrl = Annotated[str, AfterValidator(_signer_url)]
Address = Annotated[str, AfterValidator(_address)]
BlockHash = Annotated[str, AfterValidator(_block_hash)]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
WebhookUrl = Annotated[str, AfterValidator(_webhook_url)]
#: Validator for a tuple: in the environment its items are separated by commas.
COMMA_LIST: Final = BeforeValidator(_comma_list)
RpcUrl = Annotated[SecretStr, AfterValidator(_rpc_url)]
RpcUrls = Annotated[tuple[RpcUrl, ...], BeforeValidator(_rpc_url_list)]
WsUrls = Annotated[tuple[Annotated[SecretStr, AfterValidator(_ws_url)], ...], BeforeValidator(_rpc_url_list)]
SignerHeaders = Annotated[dict[str, SecretStr], BeforeValidator(name_value_lines), AfterValidator(_header_names)]
WebhookHeaders = Annotated[
    dict[str, SecretStr], BeforeValidator(name_value_lines), AfterValidator(_webhook_header_names)
]
