"""Settings of statements: who issues them, and what they are printed with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clearinghouse.config_section import Section
from clearinghouse.config_values import COMMA_LIST, File


class StatementSettings(Section):
    """What `clearinghouse statements` prints: docs/statements.md."""

    issuer_name: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        default="Livepeer Clearinghouse", description="Who issues statements, as it stands on them."
    )
    issuer_address: Annotated[str, Field(max_length=1024)] = Field(
        default="", description="What stands below the name: address, tax id. Line by line."
    )
    pay_to: Annotated[str, Field(max_length=1024)] = Field(
        default="",
        description="How it is paid what `clearinghouse statements pdf --due` asks for: bank, IBAN, reference. Line by "
        "line.",
    )
    font_folders: Annotated[tuple[File, ...], COMMA_LIST] = Field(
        default=(),
        description="Folders with further fonts, for names in scripts other than Latin, Greek, Cyrillic and Hebrew.",
    )
