"""Takes notices to gateways: to the webhook that each has named, and to its address.

The URL is the gateway's, and we lend it our place in the network: it is resolved once, every address it has must be
public, and the connection goes to such an address and never to the name (clearinghouse/public_hosts.py). Redirects are
not followed. What the receiver answers is not kept.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.public_hosts import HostRefused, Resolver, https_endpoint, resolve, system_resolver
from clearinghouse.secrets import SecretMissing
from settlement.delivery.apprise_channel import AppriseChannel
from settlement.delivery.courier import Courier, Observer, nobody
from settlement.delivery.http_post import Target as HttpTarget
from settlement.delivery.http_post import require_accepted
from settlement.delivery.message import Delivery, NotAccepted
from settlement.delivery.outbox import Backoff
from settlement.delivery.signatures import signed_event
from settlement.notices.targets import Target, target_of
from settlement.schedule import Tick

#: A receiver that is well answers in a fraction of it; one that is not must not hold up many.
TIMEOUT_S: Final = 10
_FIRST_PAUSE_S: Final = 10
_LONGEST_PAUSE_S: Final = 3600
_THREADS: Final = 8


class NoticeCarrier:
    """A delivery.courier.Carrier. `pepper` is asked when something is to be signed, and may raise SecretMissing.

    `tls` are the authorities to trust in place of the system's.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: NoticeSettings,
        pepper: Callable[[], bytes],
        *,
        resolver: Resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._engine = engine
        self._mail_url = settings.mail_url.get_secret_value() if settings.mail_url is not None else None
        self._private_allowed = settings.private_hosts_allowed
        self._pepper = pepper
        self._tls = tls or ssl.create_default_context()
        self._resolver = resolver

    def bundles(self, deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
        """Each alone: a gateway tells by its id whether it has it."""
        return [[delivery] for delivery in deliveries]

    async def send(self, bundle: Sequence[Delivery]) -> None:
        (delivery,) = bundle
        target = await self._target(delivery.subject)
        if delivery.channel == "webhook" and target.webhook_url is not None:
            await self._post(target, target.webhook_url, delivery)
        elif delivery.channel == "email" and target.email is not None:
            await self._mail(target.email, delivery)
        else:
            raise NotAccepted("the gateway wants to hear nothing by this way any more", is_final=True)

    async def _target(self, gateway_id: UUID) -> Target:
        async with self._engine.connect() as connection:
            return await target_of(connection, gateway_id)

    async def _post(self, target: Target, url: str, delivery: Delivery) -> None:
        address = await self._address(url)
        receiver = HttpTarget(url, tls=self._tls)
        try:
            secrets = target.secrets(self._pepper(), datetime.now(UTC))
        except SecretMissing:
            raise NotAccepted("the worker has no api_key_pepper, which the secrets of webhooks come from") from None
        body, headers = signed_event(delivery, secrets)
        require_accepted(
            await receiver.post(body, headers, timeout_s=TIMEOUT_S, address=address), receiver.authority,
            refusing=frozenset({410}),
        )  # fmt: skip

    async def _address(self, url: str) -> str:
        """A public one of the host's. Raises NotAccepted."""
        try:
            found = await resolve(https_endpoint(url).host, self._resolver, private_allowed=self._private_allowed)
        except HostRefused as refused:
            raise NotAccepted(str(refused)) from None
        except OSError:
            raise NotAccepted("the name of its host cannot be resolved") from None
        return str(found[0])

    async def _mail(self, address: str, delivery: Delivery) -> None:
        if self._mail_url is None:
            raise NotAccepted("notices.mail_url is not set: no mail is sent", is_final=True)
        separator = "&" if "?" in self._mail_url else "?"
        # The address is plain (targets.py): nothing in it is read as anything else.
        url = f"{self._mail_url}{separator}to={address.replace('+', '%2B')}"
        channel = await asyncio.to_thread(AppriseChannel, url)  # the first one imports apprise, which takes long
        await channel.notify(delivery.message.title, delivery.message.body)


class NoticeCourier:
    """A job's tick."""

    def __init__(self, settings: NoticeSettings, pepper: Callable[[], bytes], *, observer: Observer = nobody) -> None:
        self._settings, self._pepper, self._observer = settings, pepper, observer
        # Threads of its own, which begin when they are needed: a name server that hangs must hold nobody else.
        self._resolver = system_resolver(ThreadPoolExecutor(_THREADS, thread_name_prefix="resolver"))
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, settings.attempts_max_count)

    async def tick(self, tick: Tick) -> str:
        carrier = NoticeCarrier(tick.engine, self._settings, self._pepper, resolver=self._resolver)
        courier = Courier("notice", carrier, backoff=self._backoff, timeout_s=TIMEOUT_S + 5, observer=self._observer)
        return await courier.tick(tick)
