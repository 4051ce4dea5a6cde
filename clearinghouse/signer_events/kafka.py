"""Events from Kafka into the database, for as long as it runs, whatever brokers and database do meanwhile.

Offsets are committed after the events are durable: whoever is interrupted reads on from there, and what is read twice
is recorded once. Needs the extra `kafka` (aiokafka).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.signer_events.store import Intake

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

log = structlog.get_logger(__name__)

#: Few enough that reading them holds up no payment: a few milliseconds.
RECORDS_AT_ONCE: Final = 200
WAIT_MS: Final = 1000
RECONNECT_PAUSE_MIN_S: Final = 1.0
RECONNECT_PAUSE_MAX_S: Final = 30.0
STOP_TIMEOUT_S: Final = 5


class KafkaNotInstalled(Exception):
    """The extra is missing; the text says how to install it."""


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """Where the signers' events are. With a username: SASL/PLAIN, as go-livepeer speaks it, over TLS."""

    bootstrap_servers: tuple[str, ...]
    topic: str
    group: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca_file: Path | None = None


def require_kafka() -> None:
    """Raises KafkaNotInstalled."""
    try:
        import aiokafka  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise KafkaNotInstalled(
            "signer_events.kafka_bootstrap_servers needs aiokafka: pip install 'livepeer-clearinghouse[kafka]'"
        ) from error


class KafkaIntake:
    """Reads one topic as a member of a consumer group. `on_lag` hears how many records are still to be read."""

    def __init__(self, source: KafkaSource, intake: Intake, *, on_lag: Callable[[int], None] = lambda _: None) -> None:
        require_kafka()
        self._source = source
        self._intake = intake
        self._on_lag = on_lag
        self._running = Repeated("signer-events", self.run, every_s=RECONNECT_PAUSE_MAX_S)

    def start(self) -> None:
        self._running.start()

    async def stop(self) -> None:
        await self._running.stop()

    async def run(self) -> None:
        """Until cancelled. Trouble is logged, and everything that was not safe yet is read again after a pause."""
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        pause_s = RECONNECT_PAUSE_MIN_S
        while True:
            consumer = _consumer(self._source)
            try:
                await consumer.start()
                log.info("signer_events_connected", topic=self._source.topic, group=self._source.group)
                while True:
                    await self._read(consumer)
                    pause_s = RECONNECT_PAUSE_MIN_S
            except (KafkaError, *DATABASE_FAILED, OSError) as error:
                # Not its text: a driver's may quote what it was configured with.
                log.warning("signer_events_interrupted", reason=type(error).__name__, retry_in_s=pause_s)
            finally:
                await _stop(consumer)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RECONNECT_PAUSE_MAX_S)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """The next records, as far as there are some: recorded, then committed."""
        fetched = await consumer.getmany(timeout_ms=WAIT_MS, max_records=RECORDS_AT_ONCE)
        for partition, records in fetched.items():
            for record in records:
                self._intake.add(f"{partition.topic}/{partition.partition}@{record.offset}", record.value)
        if fetched:
            await self._intake.flush()
            await consumer.commit()
        self._on_lag(await _lag(consumer))


def _consumer(source: KafkaSource) -> AIOKafkaConsumer:
    from aiokafka import AIOKafkaConsumer  # noqa: PLC0415

    security: dict[str, Any] = {"security_protocol": "PLAINTEXT"}
    if source.tls:
        context = ssl.create_default_context(cafile=source.tls_ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        security = {"security_protocol": "SSL", "ssl_context": context}
    if source.username is not None:
        security |= {
            "security_protocol": "SASL_SSL" if source.tls else "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": source.username,
            "sasl_plain_password": source.password,
        }
    return AIOKafkaConsumer(
        source.topic,
        bootstrap_servers=list(source.bootstrap_servers),
        group_id=source.group,
        client_id="clearinghouse",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **security,
    )


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """A group learns of it at once; a broker that does not answer is not waited for."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await consumer.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        log.info("signer_events_left_without_word", reason=type(error).__name__)


async def _lag(consumer: AIOKafkaConsumer) -> int:
    """Records in our partitions behind the next one to read; a partition that was not asked for yet counts nothing."""
    lag = 0
    for partition in consumer.assignment():
        if (end := consumer.highwater(partition)) is not None:
            lag += max(end - await consumer.position(partition), 0)
    return lag
