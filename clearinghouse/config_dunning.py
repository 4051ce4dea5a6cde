"""Settings of dunning: when a gateway is reminded of an unpaid invoice, and what follows if it is not paid."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from clearinghouse.config_section import Section
from clearinghouse.config_values import COMMA_LIST, Whole

Day = Annotated[int, Field(ge=-90, le=365)]


class DunningSettings(Section):
    """What follows from an invoice that is not paid, in days after it was due. Payment ends all of it at once."""

    reminder_days: Annotated[tuple[Day, ...], COMMA_LIST] = Field(
        default=(-3, 1, 7, 21),
        description="When a gateway is reminded, in days after an invoice is due; before it with a minus.",
    )
    new_sessions_days: Annotated[Whole, Field(ge=0, le=365)] = Field(
        default=14, description="From then on no new session is signed for; those that are open go on."
    )
    signing_days: Annotated[Whole, Field(ge=0, le=365)] = Field(
        default=30, description="From then on nothing is signed."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.signing_days < self.new_sessions_days:
            raise ValueError("signing_days must not be below new_sessions_days: open sessions end last")
        if len(set(self.reminder_days)) != len(self.reminder_days):
            raise ValueError("reminder_days names a day twice")
        return self
