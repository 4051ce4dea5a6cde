"""Writes docs/configuration.md from the settings themselves: `python docs/generate_configuration.py`, from the root."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from inspect import getdoc
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from clearinghouse.config import Settings
from clearinghouse.config_sources import SettingInfo, all_settings

PAGE = Path(__file__).with_name("configuration.md")

HEAD = """\
# Configuration

<!-- Made by docs/generate_configuration.py from clearinghouse/config.py. Change that file, then run it. -->

A flag beats the environment, the environment beats the file, the file beats the default. The file is TOML; name it with
`--config FILE` or `CLEARINGHOUSE_CONFIG`. [clearinghouse.example.toml](../deploy/clearinghouse.example.toml) has every
setting with its default.

* In the environment a name is `CLEARINGHOUSE_`, then the name in capitals with `__` for each dot:
  `signer.kind` is `CLEARINGHOUSE_SIGNER__KIND`.
* Whatever is not a setting is an error that names the nearest one, in the file and in the environment. An empty
  variable is an error too: unset it to use the default.
* A **secret** `x` can be given as `x_file`, the name of a file that holds it (line ends at its end are dropped). Give
  one of the two. Secrets are never flags, because other users see the arguments of a process, and never appear in
  errors or logs. A secret file that other users may read is warned about.
* Numbers have their unit at the end of the name: seconds (`_s`), bytes, wei, hours, rows.
* Lists are separated by commas in the environment. A table such as `price.declared` replaces the one below it as a
  whole.

Settings are read once, at the start. `clearinghouse doctor` checks them against the database and the signers.
"""


def page() -> str:
    """The whole page."""
    sections: dict[str, list[SettingInfo]] = {}
    for info in all_settings():
        sections.setdefault(".".join(info.path[:-1]), []).append(info)
    return "\n".join([HEAD, *(_section(name, infos) for name, infos in sections.items())])


def _section(name: str, infos: list[SettingInfo]) -> str:
    title = f"## [{name}]" if name else "## Top level"
    model: type[BaseModel] = Settings
    for part in name.split(".") if name else []:
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    about = f"{getdoc(model) or ''}\n\n" if name else ""
    rows = "\n".join(f"| `{info.path[-1]}` | {_kind(info)} | {_default(info)} | {_about(info)} |" for info in infos)
    return f"{title}\n\n{about}| setting | value | default | what it is for |\n|---|---|---|---|\n{rows}\n"


def _kind(info: SettingInfo) -> str:
    if info.is_secret:
        return "**secret**"
    return _kind_of(info.field.annotation) + _bounds(info)


def _kind_of(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return " or ".join(_kind_of(argument) for argument in arguments if argument is not type(None))
    if origin is Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin is tuple:
        return f"list of {_kind_of(arguments[0])}"
    if origin is dict:
        return f"table of {_kind_of(arguments[1])}"
    if origin is not None:  # Annotated
        return _kind_of(arguments[0])
    names = {
        str: "text", int: "whole number", float: "number", Decimal: "decimal", bool: "`true` or `false`", Path: "path",
        SecretStr: "secret",
    }  # fmt: skip
    return names[annotation]


def _bounds(info: SettingInfo) -> str:
    """What pydantic knows of the least and the most, where it is not astronomical."""
    limits: dict[str, list[float]] = {"ge": [], "gt": [], "le": [], "lt": []}
    for constraint in info.field.metadata:
        for bound, values in limits.items():
            value = getattr(constraint, bound, None)
            if value is not None and value < 2**53:
                values.append(value)
    parts = []
    if limits["ge"]:
        parts.append(f"≥ {max(limits['ge']):g}")
    elif limits["gt"]:
        parts.append(f"> {max(limits['gt']):g}")
    if limits["le"]:
        parts.append(f"≤ {int(min(limits['le']))}")
    return "".join(f", {part}" for part in parts)


def _default(info: SettingInfo) -> str:
    value = info.field.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "`{" + ", ".join(f'{key} = "{item}"' for key, item in value.items()) + "}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' if isinstance(item, str) else f"{item}" for item in value) + "]`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def _about(info: SettingInfo) -> str:
    return re.sub(r"\s+", " ", info.field.description or "").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} written\n")
