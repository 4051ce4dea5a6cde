from __future__ import annotations

import pytest
from pydantic import ValidationError

from clearinghouse.config_payments import PaymentSettings


def test_methods_of_a_page_are_named_in_a_list_or_with_commas_and_a_card_is_what_they_are_unless_said() -> None:
    assert PaymentSettings().checkout_methods == ("card",)
    assert PaymentSettings(checkout_methods="card, sepa_debit").checkout_methods == ("card", "sepa_debit")  # type: ignore[arg-type]


@pytest.mark.parametrize("methods", [(), ("automatic", "card"), ("card", "card"), ("customer_balance",), ("gold",)])
def test_methods_that_make_no_page_are_refused(methods: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        PaymentSettings(checkout_methods=methods)  # type: ignore[arg-type]
