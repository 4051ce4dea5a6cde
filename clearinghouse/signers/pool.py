"""Several remote signers with one key, behind the `Signer` protocol.

A call is asked of the healthy member with the fewest calls in flight. When no complete answer arrives (no connection, a
time-out, half a body, too much of it, something that is not HTTP) nothing was released, and another member is asked
within the same budget. After a complete 5xx one other member is asked. Every other complete answer is final: it is
about the request.

The budget is split so that a hung member is abandoned in time to ask another, with the defaults and two members:

    0 s            1.2 s                              3.0 s
    ├─ member A ───┤ abandoned
                   ├─ member B: all that is left ─────┤ SignersUnavailable

All members must prove the same address before the first call and in every probe afterwards; one that proves another
key is kept out, loudly, until it proves the right one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final, Protocol

from chain.signatures import checksum_address
from clearinghouse.background import Repeated
from clearinghouse.errors import SignersUnavailable
from clearinghouse.requests import PaymentRequest
from clearinghouse.signers.base import SignerAnswer
from clearinghouse.signers.go_livepeer import Failure, GoLivepeerSigner, Identity, NoAnswerError, SignerEndpoint
from clearinghouse.signers.health import HealthPolicy, MemberHealth, Standing

logger = logging.getLogger(__name__)

#: With less left than this, an attempt would only be load: no signer answers so fast over a network.
_WORTH_TRYING_S: Final = 0.02
#: After a complete 5xx one more member is asked, however large the pool: the request itself may be the cause.
_COMPLETE_5XX_MAX: Final = 2
_RETRY_AFTER_S: Final = 1


class SignerPoolError(Exception):
    """The pool cannot start: a matter for the operator. Names members, addresses and failures, no secrets."""


class Route(StrEnum):
    """What was asked: a metric's label."""

    PAYMENT = "generate-live-payment"
    IDENTITY = "sign-orchestrator-info"
    DISCOVERY = "discover-orchestrators"


class PoolObserver(Protocol):
    """What metrics need to hear. Called from the event loop: it must not wait, and must not raise."""

    def attempt_ended(self, member: str, route: Route, outcome: str, elapsed_s: float) -> None:
        """`outcome` is a status class ("2xx", "4xx", "5xx"), a `Failure` value, or "cancelled"."""
        ...

    def standing_changed(self, member: str, standing: Standing) -> None: ...


class SilentObserver:
    """Hears nothing."""

    def attempt_ended(self, member: str, route: Route, outcome: str, elapsed_s: float) -> None: ...

    def standing_changed(self, member: str, standing: Standing) -> None: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds for a whole call, and for one attempt while another member could still be asked."""

    total_s: float
    attempt_s: float

    def __post_init__(self) -> None:
        if not 0 < self.attempt_s <= self.total_s:
            raise ValueError(f"an attempt of {self.attempt_s} s does not fit into a budget of {self.total_s} s")


#: Clients give up after 5 s (protocol, section 9.2); authentication, the commit and the way back need the rest.
PAYMENT_BUDGET: Final = Budget(total_s=3.0, attempt_s=1.2)
#: go-livepeer's gateway gives up after 3 s (section 9.1), while a signer may fetch a fresh list for 2 s (section 1.3).
DISCOVERY_BUDGET: Final = Budget(total_s=2.5, attempt_s=1.5)


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member as readiness and metrics show it. `last_seen_age_s` is None before its first answer."""

    name: str
    healthy: bool
    standing: Standing
    consecutive_failures: int
    last_error: Failure | None
    in_flight: int
    last_seen_age_s: float | None


class _Member:
    """One signer, the belief about it, and the calls it has in flight."""

    def __init__(self, signer: GoLivepeerSigner, policy: HealthPolicy) -> None:
        self.signer = signer
        self.name = signer.name
        self.health = MemberHealth(policy, now_s=time.monotonic())
        self.in_flight = 0
        self.rescheduled = asyncio.Event()

    async def wait_until_probe_is_due(self) -> None:
        """An ejection moves the next probe nearer; `rescheduled` wakes us to see it."""
        while (wait_s := self.health.next_probe_s - time.monotonic()) > 0:
            self.rescheduled.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self.rescheduled.wait()
            except TimeoutError:
                return


#: Asks one member, allowing it so many seconds.
_Ask = Callable[[GoLivepeerSigner, float], Awaitable[SignerAnswer]]


class SignerPool:
    """A `Signer` made of remote signers. `start` before use, `close` after; both belong to one event loop.

    `expected_address`: the only address allowed; without it the members reachable at start must agree on one.
    Raises ValueError when an endpoint cannot be used as configured, or two members have the same name.
    """

    def __init__(
        self,
        endpoints: Sequence[SignerEndpoint],
        *,
        expected_address: bytes | None = None,
        payment_budget: Budget = PAYMENT_BUDGET,
        discovery_budget: Budget = DISCOVERY_BUDGET,
        probe_timeout_s: float = 2.0,
        health_policy: HealthPolicy | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("a signer pool needs at least one signer URL, two to survive the loss of one")
        policy = health_policy or HealthPolicy()
        self._members = [_Member(GoLivepeerSigner(endpoint), policy) for endpoint in endpoints]
        names = [member.name for member in self._members]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"signers need different names; used twice: {', '.join(twice)}")
        self._expected_address = expected_address
        self._payment_budget = payment_budget
        self._discovery_budget = discovery_budget
        self._probe_timeout_s = probe_timeout_s
        self._observer = observer or SilentObserver()
        self._address: bytes | None = None
        self._identity_answer: SignerAnswer | None = None
        self._next_turn = 0
        self._is_open = False
        # Health says when a look is due: the pause before waiting for that is shorter than any that it asks for.
        pause_s = min(policy.probe_interval_s, policy.backoff_first_s) / 2
        self._watches = [
            Repeated(f"watch-signer-{member.name}", partial(self._look_when_due, member), every_s=pause_s)
            for member in self._members
        ]

    # --- life cycle ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Ask every member for its key, settle the pool's address, begin to watch. Closes on SignerPoolError."""
        try:
            shown = await asyncio.gather(*(self._look_at(member) for member in self._members))
            self._address = self._settle_address(shown)
            for member, identity in zip(self._members, shown, strict=True):
                self._judge(member, identity)
        except BaseException:
            await self.close()
            raise
        for member in self._members:
            if member.signer.is_cleartext:
                logger.warning(
                    "signer %s is reached over plain HTTP: keep that network private, or use TLS", member.name
                )
        self._is_open = True
        for watch in self._watches:
            watch.start()

    async def close(self) -> None:
        """Stop watching, close the clients; calls in flight end with SignersUnavailable. May be called twice."""
        self._is_open = False
        await asyncio.gather(*(watch.stop() for watch in self._watches))
        for member in self._members:
            await member.signer.close()

    # --- Signer -------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> bytes:
        """The sender, 20 bytes, settled by `start`."""
        if self._address is None:
            raise RuntimeError("the signer pool has not been started")
        return self._address

    def generate_payment(self, request: PaymentRequest, *, auth_id: str) -> Coroutine[Any, Any, SignerAnswer]:
        """POST /generate-live-payment. Raises SignersUnavailable when no member gave a complete answer in time.

        Not `async`, which would be one coroutine more for each call to pass through.
        """
        canonical = request.canonical

        def ask(signer: GoLivepeerSigner, timeout_s: float) -> Awaitable[SignerAnswer]:
            return signer.generate_payment(canonical, auth_id=auth_id, timeout_s=timeout_s)

        return self._ask_one_after_another(Route.PAYMENT, ask, self._payment_budget)

    async def sign_orchestrator_info(self) -> SignerAnswer:
        """The answer of /sign-orchestrator-info, from memory: it is constant, and was verified."""
        if self._identity_answer is None:
            raise RuntimeError("the signer pool has not been started")
        return self._identity_answer

    async def discover_orchestrators(self, query: str) -> SignerAnswer:
        """GET /discover-orchestrators?query. Raises SignersUnavailable."""

        def ask(signer: GoLivepeerSigner, timeout_s: float) -> Awaitable[SignerAnswer]:
            return signer.discover_orchestrators(query, timeout_s=timeout_s)

        return await self._ask_one_after_another(Route.DISCOVERY, ask, self._discovery_budget)

    # --- what readiness and metrics see -------------------------------------------------------------------------------

    def members(self) -> list[MemberStatus]:
        """In the configured order; names never hold credentials."""
        now_s = time.monotonic()
        return [_status(member, now_s) for member in self._members]

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _ask_one_after_another(self, route: Route, ask: _Ask, budget: Budget) -> SignerAnswer:
        deadline_s = time.monotonic() + budget.total_s
        asked: list[_Member] = []
        answers_5xx: list[SignerAnswer] = []
        while len(answers_5xx) < _COMPLETE_5XX_MAX and (candidates := self._candidates(asked)):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s < _WORTH_TRYING_S:
                break
            timeout_s = min(remaining_s, budget.attempt_s) if len(candidates) > 1 else remaining_s
            member = self._least_busy(candidates)
            asked.append(member)
            answer = await self._attempt(member, route, ask, timeout_s)
            if answer is None:
                continue
            if answer.status < 500:
                return answer if len(asked) == 1 else answer._replace(signers_asked=len(asked))
            answers_5xx.append(answer._replace(signers_asked=len(asked)))
        if answers_5xx:
            return answers_5xx[-1]
        raise SignersUnavailable(
            f"No signer gave a complete answer: {len(asked)} of {len(self._members)} could be asked in time.",
            retry_after_s=_RETRY_AFTER_S,
            signers_asked=len(asked),
            signers=len(self._members),
        )

    def _candidates(self, asked: list[_Member]) -> list[_Member]:
        """Members worth asking: healthy ones; when there are none at all, those that would at least say no at once."""
        if not self._is_open:
            return []
        usable = [m for m in self._members if m.health.is_healthy]
        usable = usable or [m for m in self._members if m.health.is_last_resort]
        return [member for member in usable if member not in asked] if asked else usable

    def _least_busy(self, candidates: list[_Member]) -> _Member:
        """Fewest in flight; among equals they take turns."""
        self._next_turn += 1
        if len(candidates) == 1:
            return candidates[0]
        fewest = min([member.in_flight for member in candidates])
        idle = [member for member in candidates if member.in_flight == fewest]
        return idle[self._next_turn % len(idle)]

    async def _attempt(self, member: _Member, route: Route, ask: _Ask, timeout_s: float) -> SignerAnswer | None:
        """The member's complete answer, or None.

        Only payments tell about health: for discovery a signer fetches a list from elsewhere.
        """
        began_s, epoch, outcome = time.monotonic(), member.health.epoch, "cancelled"
        member.in_flight += 1
        try:
            answer = await ask(member.signer, timeout_s)
        except NoAnswerError as error:
            outcome = error.failure.value
            if route is Route.PAYMENT:
                with self._telling(member):
                    member.health.call_failed(error.failure, epoch, now_s=time.monotonic())
            return None
        else:
            outcome = f"{answer.status // 100}xx"
            if route is Route.PAYMENT:
                member.health.answered(answer.status, epoch, now_s=time.monotonic())
            return answer
        finally:
            member.in_flight -= 1
            self._observer.attempt_ended(member.name, route, outcome, time.monotonic() - began_s)

    # --- probes -------------------------------------------------------------------------------------------------------

    async def _look_when_due(self, member: _Member) -> None:
        await member.wait_until_probe_is_due()
        self._judge(member, await self._look_at(member))

    async def _look_at(self, member: _Member) -> Identity | Failure:
        began_s, outcome = time.monotonic(), "cancelled"
        try:
            identity = await member.signer.prove_identity(timeout_s=self._probe_timeout_s)
        except NoAnswerError as error:
            outcome = error.failure.value
            return error.failure
        else:
            outcome = "2xx"
            return identity
        finally:
            self._observer.attempt_ended(member.name, Route.IDENTITY, outcome, time.monotonic() - began_s)

    def _judge(self, member: _Member, shown: Identity | Failure) -> None:
        """Draw the conclusion from one probe. The pool's address is settled by now."""
        if isinstance(shown, Failure):
            with self._telling(member):
                member.health.probe_failed(shown, now_s=time.monotonic())
        elif shown.address != self.address:
            if member.health.standing is not Standing.WRONG_KEY:
                logger.error(
                    "signer %s signs as %s, but the pool signs as %s: it gets no calls until it shows the pool's key",
                    member.name,
                    checksum_address(shown.address),
                    checksum_address(self.address),
                )
            with self._telling(member):
                member.health.probe_failed(Failure.WRONG_KEY, now_s=time.monotonic())
        else:
            self._identity_answer = self._identity_answer or shown.answer
            with self._telling(member):
                member.health.probe_passed(now_s=time.monotonic())

    @contextmanager
    def _telling(self, member: _Member) -> Iterator[None]:
        """Around a change of what is believed about a member: tells its watcher, the log and the metrics of it."""
        before, next_probe_before_s = member.health.standing, member.health.next_probe_s
        yield
        after = member.health.standing
        if member.health.next_probe_s < next_probe_before_s:
            member.rescheduled.set()
        if after is before:
            return
        self._observer.standing_changed(member.name, after)
        level = logging.INFO if after is Standing.HEALTHY else logging.WARNING
        because = "" if after is Standing.HEALTHY else f" ({member.health.last_failure})"
        logger.log(level, "signer %s is %s%s, was %s", member.name, after.value, because, before.value)

    # --- the address --------------------------------------------------------------------------------------------------

    def _settle_address(self, shown: Sequence[Identity | Failure]) -> bytes:
        """The pool's one address. Raises SignerPoolError: nothing is signed without knowing whose money is spent."""
        report = "; ".join(f"{m.name}: {_describe(s)}" for m, s in zip(self._members, shown, strict=True))
        addresses = {identity.address for identity in shown if isinstance(identity, Identity)}
        if not addresses:
            raise SignerPoolError(f"no signer proved its address, so no ticket could be signed ({report})")
        if self._expected_address is not None:
            if self._expected_address not in addresses:
                expected = checksum_address(self._expected_address)
                raise SignerPoolError(f"no signer proved the expected address {expected}: another pays ({report})")
            return self._expected_address
        if len(addresses) > 1:
            raise SignerPoolError(
                "the signers of the pool have different addresses, and none is configured as the expected one: "
                f"payment states of one would be refused by the other ({report})"
            )
        return addresses.pop()


def _describe(shown: Identity | Failure) -> str:
    return checksum_address(shown.address) if isinstance(shown, Identity) else shown.value


def _status(member: _Member, now_s: float) -> MemberStatus:
    health = member.health
    return MemberStatus(
        name=member.name,
        healthy=health.is_healthy,
        standing=health.standing,
        consecutive_failures=health.consecutive_failures,
        last_error=health.last_failure,
        in_flight=member.in_flight,
        last_seen_age_s=None if health.last_seen_s is None else now_s - health.last_seen_s,
    )
