"""Jobs that tell people something: operators' alerts and gateways' notices, found out and sent."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter

from clearinghouse.config import Settings
from clearinghouse.hot_metrics import NAMESPACE
from clearinghouse.secrets import api_key_pepper
from settlement.alerts.carrier import alert_courier
from settlement.alerts.evaluate import evaluation_of
from settlement.alerts.observe import observe
from settlement.delivery.outbox import Kind
from settlement.notices.carrier import NoticeCourier
from settlement.notices.evaluate import NoticeEvaluation
from settlement.schedule import Job

#: An alert is told within a minute: one evaluation, one delivery, and what a bad moment costs.
EVALUATE_EVERY_S = 10
DELIVER_EVERY_S = 5


def telling_jobs(settings: Settings, registry: CollectorRegistry) -> tuple[Job, ...]:
    """Raises ChannelError where a channel of the settings cannot be used."""
    sent = _MessageMetrics(registry)
    evaluation = evaluation_of(settings.alerts, observe)
    notices = NoticeCourier(settings.notices, partial(api_key_pepper, settings), observer=sent)
    return (
        Job("alerts-evaluate", EVALUATE_EVERY_S, evaluation.tick),
        Job("alerts-deliver", DELIVER_EVERY_S, alert_courier(settings.alerts, sent).tick),
        Job("notices", EVALUATE_EVERY_S, NoticeEvaluation(settings.notices, settings.dunning).tick),
        Job("notices-deliver", DELIVER_EVERY_S, notices.tick),
    )


class _MessageMetrics:
    """A courier.Observer. The labels are all there from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        messages = Counter(
            "messages", "Attempts to send, and messages given up.", ["kind", "outcome"],
            namespace=NAMESPACE, registry=registry,
        )  # fmt: skip
        outcomes = ("delivered", "failed", "refused", "given_up")
        self._counters = {
            (kind, outcome): messages.labels(kind, outcome) for kind in ("alert", "notice") for outcome in outcomes
        }

    def __call__(self, kind: Kind, outcome: str, count: int) -> None:
        self._counters[kind, outcome].inc(count)
