"""What an invoice has by default, whoever it is for: the footer, and by what it can be paid. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clearinghouse.config import Settings
from clearinghouse.config_invoices import InvoiceSettings
from clearinghouse.config_payments import PaymentSettings
from settlement.payments.bank_transfers import CASH_BALANCE, transfer_options
from settlement.payments.page_methods import fitting


@dataclass(frozen=True, slots=True)
class InvoiceDefaults:
    """As the settings are by now; of an invoice that is planned nothing of it changes any more."""

    invoices: InvoiceSettings = field(default_factory=InvoiceSettings)
    payments: PaymentSettings = field(default_factory=PaymentSettings)

    @classmethod
    def by(cls, settings: Settings) -> InvoiceDefaults:
        return cls(settings.invoices, settings.payments)

    @property
    def footer(self) -> str:
        return self.invoices.footer

    def payment_settings(self, collection: str, currency: str) -> dict[str, Any] | None:
        """As Stripe takes them. None leaves it to Stripe: where that is wished, where nothing fits the currency, and of
        an invoice that is charged by itself, whose card is named then; Stripe takes no transfer for such a one."""
        if collection != "send_invoice" or "automatic" in self.invoices.payment_methods:
            return None
        methods = fitting(self.invoices.payment_methods, currency)
        transfers = transfer_options(currency, self.payments) if "bank_transfer" in methods else None
        if transfers is None:
            others = [method for method in methods if method != "bank_transfer"]
            return {"payment_method_types": others} if others else None
        types = [CASH_BALANCE if method == "bank_transfer" else method for method in methods]
        return {"payment_method_types": types, "payment_method_options": {CASH_BALANCE: transfers}}
