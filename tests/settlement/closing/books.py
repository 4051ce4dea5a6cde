"""Books whose entries have the times that a test gives them. Past the ledger's functions, as only the owner can: they
give every entry the time it is written at."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from settlement.periods import Terms
from tests.settlement.conftest import Owner

#: Long ago: nothing is closed before the database's own clock has passed it.
OCTOBER = datetime(2025, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2025, 11, 1, tzinfo=UTC)
NOW = datetime(2025, 11, 21, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
_FAR = Decimal(10) ** 15


@dataclass
class Books:
    owner: Owner
    #: Sessions by gateway and what a line is named by.
    sessions: dict[tuple[UUID, str], UUID] = field(default_factory=dict, repr=False)

    def gateway(self, created_at: datetime = OCTOBER) -> UUID:
        """With an account in USD and a credit limit that nothing reaches."""
        id_ = uuid4()
        self.owner.execute("SELECT open_system_accounts('USD')")
        self.owner.execute(
            "INSERT INTO gateway (id, name, created_at) VALUES (%s, %s, %s)", [id_, str(id_), created_at]
        )
        self.owner.execute(
            "INSERT INTO account (id, gateway_id, name, currency, credit_limit) VALUES (%s, %s, %s, 'USD', %s)",
            [id_, id_, str(id_), _FAR],
        )
        return id_

    def agree(self, gateway_id: UUID, begins_at: datetime, terms: Terms) -> None:
        # Ways have columns of their own.
        extra = {"automatic": (5, 10, 60, 100, 100, None, None), "subscription": (*[None] * 5, 5, 5)}
        self.owner.execute(
            "INSERT INTO billing_terms (gateway_id, begins_at, way, cadence, anchor_day, time_zone, refill_below, "
            "refill_to, refill_cooldown_s, refill_day_max, refill_month_max, fee, included) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [gateway_id, begins_at, terms.way, terms.cadence.every, terms.cadence.anchor, terms.zone,
             *extra.get(terms.way, [None] * 7)],
        )  # fmt: skip

    def used(
        self,
        gateway_id: UUID,
        charge: Decimal | int,
        at: datetime,
        *,
        app: str = "app",
        markup_bps: int = 0,
        rule: int | None = None,
        quantity: int | None = None,
    ) -> None:
        """A call with two tickets; `quantity` is in the base of the rule's unit."""
        session_id = self._session(gateway_id, app)
        self.owner.execute(
            "INSERT INTO issuance (gateway_id, id, session_id, sequence, key_id, sender, recipient_rand_hash, "
            "first_nonce, num_tickets, ev_wei, fee_wei, charge, currency, price, price_source, price_observed_at, "
            "markup_bps, balance_after, created_at, rate_rule, quantity) "
            "SELECT %s, gen_random_uuid(), %s, 0, gen_random_uuid(), "
            "decode(repeat('33', 20), 'hex'), decode(repeat('33', 32), 'hex'), 1, 2, 1000, 900, %s, 'USD', 2000, "
            "'declared', %s, %s, 0, %s, %s, %s",
            [gateway_id, session_id, charge, at, markup_bps, at, rule, quantity],
        )
        self.owner.execute(
            "UPDATE account SET balance = balance - %s, usage_total = usage_total + %s WHERE id = %s",
            [charge, charge, gateway_id],
        )

    def moved(self, gateway_id: UUID, amount: Decimal | int, at: datetime, *, kind: str = "grant") -> None:
        """`amount` below 0 leaves the account."""
        ends = [gateway_id, "funding"] if amount < 0 else ["funding", gateway_id]
        source, destination = (
            f"system_account_id('{end}', 'USD')" if isinstance(end, str) else f"'{end}'::uuid" for end in ends
        )
        self.owner.execute(
            f"INSERT INTO transfer (id, kind, source, destination, amount, currency, created_at) "
            f"VALUES (gen_random_uuid(), %s, {source}, {destination}, %s, 'USD', %s)".encode(),
            [kind, abs(amount) if isinstance(amount, int) else amount.copy_abs(), at],
        )
        self.owner.execute("UPDATE account SET balance = balance + %s WHERE id = %s", [amount, gateway_id])

    def _session(self, gateway_id: UUID, app: str) -> UUID:
        if (gateway_id, app) not in self.sessions:
            id_ = self.sessions[gateway_id, app] = uuid4()
            self.owner.execute(
                "INSERT INTO session (id, gateway_id, orchestrator, job_type, app, transcoder, pipeline, model, "
                "head_state_hash, head_sequence, request_hash, issuance_id, answer, opened_by) SELECT %s, %s, "
                "decode(repeat('11', 20), 'hex'), 'lv2v', %s, '', 'pipeline', 'model', hash, 0, hash, "
                "gen_random_uuid(), '', gen_random_uuid() FROM decode(repeat('44', 32), 'hex') AS h (hash)",
                [id_, gateway_id, app],
            )
        return self.sessions[gateway_id, app]
