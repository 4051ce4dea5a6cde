"""What happens in a storm: frozen events, each drawn from the seed and its own number alone.

An event names slots, gateways and services by number; what that means at the moment (which state is the newest, what
was asked before) is for the world to say. So events depend neither on answers nor on clocks, and leaving one out
changes no other: a failing storm can be made shorter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.storm.facts import Way

GATEWAYS = 4
SLOTS = 12
ORCHESTRATORS = 3
SERVICES = 2
SIGNERS = 2
#: Steps at which each service and the signer is killed in any case, where things are killed.
FIRST_KILLS = (24, 32, 40)
assert len(FIRST_KILLS) == SERVICES + 1


class Profile(StrEnum):
    """How rough it gets. In the first two every answer is exact; in the others some may be 503 for a while."""

    CALM = "calm"  # gateways that pay, lose answers and fork
    MEAN = "mean"  # and operators who change everything under way, restarts, attacks
    BROKEN = "broken"  # and signers and databases that fail
    COVERED = "covered"  # and a deposit that covers now more, now less
    KILLED = "killed"  # processes of their own, which are killed, and a signer that asks the webhook


@dataclass(frozen=True)
class Pay:
    """The slot's next payment: the newest state it holds, or an older one (a fork), with what it was last quoted."""

    slot: int
    service: int
    way: Way
    refreshes: bool = False
    depth: int = 0
    is_keyed: bool = False


@dataclass(frozen=True)
class Begin:
    """The slot begins a new session, of this gateway with this orchestrator."""

    slot: int
    gateway: int
    orchestrator: int
    job_type: str
    names_manifest: bool


@dataclass(frozen=True)
class Repeat:
    """A request that the slot sent before, to the letter: the last one, or so many before it."""

    slot: int
    service: int
    way: Way
    back: int
    is_keyed: bool = False


@dataclass(frozen=True)
class Lose:
    """The next payment, and the caller hangs up after so many bytes of the answer."""

    slot: int
    service: int
    after_bytes: int
    is_keyed: bool = False


@dataclass(frozen=True)
class Steal:
    """The slot's newest state and offer, presented by another gateway."""

    slot: int
    service: int
    gateway: int
    refreshes: bool


@dataclass(frozen=True)
class ShareRand:
    """The slot pays with the ticket parameters of another slot."""

    slot: int
    other: int
    service: int


@dataclass(frozen=True)
class Tamper:
    """The next payment with something changed that the session began with, or with a forged state."""

    slot: int
    service: int
    what: str
    refreshes: bool


@dataclass(frozen=True)
class Burst:
    """All at once; an operator may be at work at the same time, or something be killed."""

    calls: tuple[Pay | Repeat | Lose | Steal | ShareRand, ...]
    meanwhile: Change | Kill | None = None


@dataclass(frozen=True)
class MovePrice:
    """What an orchestrator asks in its next quotes, in percent of what it asked at first."""

    orchestrator: int
    percent: int


@dataclass(frozen=True)
class Change:
    """An operator's act for a gateway; `amount` is in tickets, basis points or calls, by the kind."""

    gateway: int
    what: str
    amount: int = 0


@dataclass(frozen=True)
class Sweep:
    """Every session of the gateway is taken for idle and closed."""

    gateway: int


@dataclass(frozen=True)
class Restart:
    """A service is ended in order and started again, with another price of ETH."""

    service: int
    price_usd: int


@dataclass(frozen=True)
class SignerMood:
    """For so many steps a signer hangs, lies, refuses, or is gone."""

    signer: int
    mood: str
    steps: int


@dataclass(frozen=True)
class DatabaseMood:
    """For so many steps a service's way to the database is cut, or silent; then it is mended."""

    service: int
    mood: str
    steps: int


@dataclass(frozen=True)
class Kill:
    """kill -9 of a service, or of the signer that asks (the number after theirs), which is started again later."""

    process: int
    after_ms: float
    steps: int


CallEvent = Pay | Repeat | Lose | Steal | ShareRand | Tamper
Event = CallEvent | Begin | Burst | MovePrice | Change | Sweep | Restart | SignerMood | DatabaseMood | Kill

CHANGES = (
    "grant", "withdraw", "suspend", "resume", "credit_limit", "pricing", "rotate_key", "revoke_key", "limit",
    "no_limits", "key_limit",
)  # fmt: skip
TAMPERINGS = ("recipient", "url", "manifest", "no_manifest", "app", "type", "orchestrator", "forged")
LIES = ("another nonce", "a ticket more", "a balance one wei too high", "another AuthID", "another sender", "garbage")


def events(seed: int, steps: int, profile: Profile) -> Iterator[Event]:
    """The schedule. Event n is the same whatever `steps` is."""
    return (event(seed, step, profile) for step in range(steps))


def event(seed: int, step: int, profile: Profile) -> Event:
    """The first ones begin a session in every slot."""
    dice = random.Random(f"{seed}/{profile}/{step}")
    if step < SLOTS:
        return _begin(dice, slot=step, gateway=step % GATEWAYS)
    if profile is Profile.KILLED and step in FIRST_KILLS:
        return _deadly_burst(dice, FIRST_KILLS.index(step))
    weights = _WEIGHTS[profile]
    (make,) = dice.choices(list(weights), weights=list(weights.values()))
    return make(dice)


def _begin(dice: random.Random, *, slot: int | None = None, gateway: int | None = None) -> Begin:
    return Begin(
        slot=_slot(dice) if slot is None else slot,
        gateway=dice.randrange(GATEWAYS) if gateway is None else gateway,
        orchestrator=dice.randrange(ORCHESTRATORS),
        job_type=dice.choices(["fixed", "", "live", "lv2v"], weights=[6, 2, 2, 1])[0],
        names_manifest=dice.random() < 0.7,
    )


def _pay(dice: random.Random) -> Pay:
    return Pay(
        slot=_slot(dice),
        service=_service(dice),
        way=dice.choices(list(Way), weights=[4, 2, 1])[0],
        refreshes=dice.random() < 0.12,
        is_keyed=dice.random() < 0.15,
    )


def _fork(dice: random.Random) -> Pay:
    return Pay(_slot(dice), _service(dice), Way.GO, refreshes=dice.random() < 0.5, depth=dice.randint(1, 4))


def _repeat(dice: random.Random) -> Repeat:
    back = dice.choices([0, 1, 3], weights=[4, 2, 1])[0]
    return Repeat(_slot(dice), _service(dice), dice.choice(list(Way)), back, is_keyed=dice.random() < 0.3)


def _lose(dice: random.Random) -> Lose:
    return Lose(_slot(dice), _service(dice), dice.choice([0, 0, 1, 12, 300, 900, 2000]), is_keyed=dice.random() < 0.2)


def _steal(dice: random.Random) -> Steal:
    return Steal(_slot(dice), _service(dice), dice.randrange(GATEWAYS), refreshes=dice.random() < 0.3)


def _share_rand(dice: random.Random) -> ShareRand:
    return ShareRand(_slot(dice), _slot(dice), _service(dice))


def _tamper(dice: random.Random) -> Tamper:
    return Tamper(_slot(dice), _service(dice), dice.choice(TAMPERINGS), refreshes=dice.random() < 0.4)


def _burst(dice: random.Random) -> Burst:
    """Several callers, of the same slots or of slots that began with the same gateway."""
    first = _slot(dice)
    slots = [(first + GATEWAYS * number) % SLOTS for number in range(dice.choice([1, 2, 3]))]
    calls = [_one_of_burst(dice, dice.choice(slots)) for _ in range(dice.randint(2, 9))]
    return Burst(tuple(calls))


def _busy_burst(dice: random.Random) -> Burst:
    what = dice.choice(["grant", "withdraw", "suspend", "pricing", "rotate_key", "limit", "credit_limit"])
    burst = _burst(dice)
    return Burst(burst.calls, Change(dice.randrange(GATEWAYS), what, dice.randint(0, 40)))


def _one_of_burst(dice: random.Random, slot: int) -> Pay | Repeat | Lose | Steal | ShareRand:
    makes: list[Callable[[random.Random], Pay | Repeat | Lose | Steal | ShareRand]]
    makes = [_pay, _fork, _repeat, _lose, _steal, _share_rand]
    (make,) = dice.choices(makes, weights=[8, 2, 3, 2, 1, 1])
    return replace(make(dice), slot=slot)


def _move_price(dice: random.Random) -> MovePrice:
    return MovePrice(dice.randrange(ORCHESTRATORS), dice.choice([1, 50, 80, 99, 100, 100, 100, 120, 300, 5000]))


def _change(dice: random.Random) -> Change:
    weights = [6, 3, 1, 9, 1, 2, 2, 1, 5, 4, 6]
    return Change(dice.randrange(GATEWAYS), dice.choices(CHANGES, weights=weights)[0], dice.randint(0, 60))


def _cover(dice: random.Random) -> Change:
    """Of all gateways."""
    return Change(0, "cover", dice.getrandbits(32))


def _covered_burst(dice: random.Random) -> Burst:
    return Burst(_burst(dice).calls, _cover(dice))


def _sweep(dice: random.Random) -> Sweep:
    return Sweep(dice.randrange(GATEWAYS))


def _restart(dice: random.Random) -> Restart:
    return Restart(_service(dice), dice.choice([3000, 2917, 4001, 1]))


def _signer_mood(dice: random.Random) -> SignerMood:
    moods = ["hangs", "refuses", "gone", *LIES]
    weights = [1, 3, 3, *[1] * len(LIES)]
    return SignerMood(dice.randrange(SIGNERS), dice.choices(moods, weights=weights)[0], dice.choice([1, 3, 8]))


def _database_mood(dice: random.Random) -> DatabaseMood:
    mood = dice.choices(["cut", "silent"], weights=[8, 1])[0]
    return DatabaseMood(_service(dice), mood, dice.choice([1, 2, 4]))


def _kill(dice: random.Random, process: int | None = None) -> Kill:
    after_ms = dice.uniform(0, dice.choice([2, 8, 30]))
    return Kill(dice.randrange(SERVICES + 1) if process is None else process, after_ms, dice.choice([1, 3, 10]))


def _deadly_burst(dice: random.Random, process: int | None = None) -> Burst:
    """Most of the calls in flight are at what is killed."""
    kill, burst = _kill(dice, process), _burst(dice)
    is_at_it = [kill.process < SERVICES and dice.random() < 0.7 for _ in burst.calls]
    calls = [
        replace(call, service=kill.process if is_there else call.service)
        for call, is_there in zip(burst.calls, is_at_it, strict=True)
    ]
    return Burst(tuple(calls), kill)


def _slot(dice: random.Random) -> int:
    return dice.randrange(SLOTS)


def _service(dice: random.Random) -> int:
    return dice.randrange(SERVICES)


Make = Callable[[random.Random], Event]
_CALLS: dict[Make, float] = {_pay: 40, _begin: 3, _fork: 7, _repeat: 8, _lose: 9, _burst: 8, _move_price: 1}
_ATTACKS: dict[Make, float] = {_steal: 4, _share_rand: 4, _tamper: 5}
_WEIGHTS: dict[Profile, dict[Make, float]] = {
    Profile.CALM: _CALLS,
    Profile.MEAN: {**_CALLS, **_ATTACKS, _change: 18, _busy_burst: 8, _sweep: 1, _restart: 0.2},
    Profile.BROKEN: {**_CALLS, **_ATTACKS, _change: 6, _busy_burst: 2, _signer_mood: 5, _database_mood: 1.5},
    Profile.COVERED: {**_CALLS, **_ATTACKS, _begin: 9, _change: 2, _cover: 4, _covered_burst: 3, _sweep: 1},
    Profile.KILLED: {**_CALLS, _kill: 0.3, _deadly_burst: 1},
}
