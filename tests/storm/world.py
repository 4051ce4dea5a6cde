"""The gateways of a storm and their orchestrators: many streams, and what each was quoted, holds and has sent.

Turns an event's numbers into calls, by what is held at the moment. Whether an answer is right is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from chain.pb import lp_rpc_pb2 as net
from tests.parts.orchestrator import Orchestrator
from tests.parts.orchestrator.settings import Settings
from tests.storm import schedule
from tests.storm.facts import Answer, Call, Offer, Refused, Released, State, Way, read_state
from tests.storm.operators import Tenant
from tests.storm.schedule import ORCHESTRATORS
from tests.storm.twin import Payment

#: Prices by job type, and what a ticket is worth: whole tickets, fractions of one, and odd numbers. What is billed by
#: the clock has whole prices, so that the units can be told from a fee that was rounded.
QUOTES = (
    ({"fixed": (20 * 10**9, 1), "": (300, 1), "live": (8 * 10**9, 1), "lv2v": (100, 1)}, 8 * 10**9),
    ({"fixed": (23 * 10**9 + 1, 3), "": (77, 1), "live": (8 * 10**9 + 7, 1), "lv2v": (30, 1)}, 7 * 10**9 + 3),
    ({"fixed": (9 * 10**9 + 1, 1), "": (1000, 1), "live": (13 * 10**9, 1), "lv2v": (250, 1)}, 10**10 + 19),
)
assert len(QUOTES) == ORCHESTRATORS
IN_PIXELS = 10**8
REMEMBERED_MAX = 8
#: What an orchestrator names after the first payment, where the gateway had no name for the stream.
NAMED_LATER = "named-later"


@dataclass
class Slot:
    """One stream of payments, as its gateway sees it."""

    tenant: Tenant
    key: str
    orchestrator: int
    job_type: str
    manifest: str
    offer: Offer
    #: States received, the newest last.
    held: list[State] = field(default_factory=list)
    sent: list[Call] = field(default_factory=list)

    def call(self, service: int = 0, way: Way = Way.GO, *, depth: int = 0) -> Call:
        """The next payment: from the newest state, or from one so many before it."""
        state = self.held[-1 - min(depth, len(self.held) - 1)] if self.held else None
        return Call(
            gateway=self.tenant.id,
            key=self.key,
            offer=self.offer,
            state=state,
            job_type=self.job_type,
            manifest=self.manifest or (NAMED_LATER if state is not None else ""),
            in_pixels=0 if self.job_type else IN_PIXELS,
            service=service,
            way=way,
        )

    def remember(self, call: Call) -> Call:
        self.sent = [*self.sent[-REMEMBERED_MAX:], call]
        return call


class World:
    """`sender`: the address that signs."""

    def __init__(self, sender: bytes) -> None:
        self._sender = sender
        self.tenants: Sequence[Tenant] = ()
        self.slots: dict[int, Slot] = {}
        self.orchestrators = [
            Orchestrator(f"https://orchestrator-{number}.example:8935", Settings(prices=dict(prices), ticket_ev_wei=ev))
            for number, (prices, ev) in enumerate(QUOTES)
        ]

    def quote(self, orchestrator: int, job_type: str) -> Offer:
        """Fresh ticket parameters at the orchestrator's present price."""
        node = self.orchestrators[orchestrator]
        return offer_of(node.quote(self._sender, job_type=job_type, session_id="storm", route="storm"))

    def move_price(self, event: schedule.MovePrice) -> None:
        prices, _ = QUOTES[event.orchestrator]
        self.orchestrators[event.orchestrator].settings.prices = {
            job_type: (max(1, wei * event.percent // 100), units) for job_type, (wei, units) in prices.items()
        }

    def begin(self, event: schedule.Begin) -> None:
        tenant = self.tenants[event.gateway]
        self.slots[event.slot] = Slot(
            tenant=tenant,
            key=tenant.newest_key,
            orchestrator=event.orchestrator,
            job_type=event.job_type,
            manifest=f"stream-{event.slot}" if event.names_manifest else "",
            offer=self.quote(event.orchestrator, event.job_type),
        )

    def call_of(self, event: schedule.CallEvent, number: int) -> Call:
        """What the event means now. `number` is the event's own; keys that come again are made of it."""
        slot = self.slots[event.slot]
        match event:
            case schedule.Pay():
                if event.refreshes:
                    self._refresh(slot)
                call = slot.call(event.service, event.way, depth=event.depth)
                return slot.remember(_keyed(call, event, number))
            case schedule.Lose():
                return slot.remember(_keyed(slot.call(event.service), event, number))
            case schedule.Repeat():
                before = slot.sent[-1 - min(event.back, len(slot.sent) - 1)] if slot.sent else slot.call()
                return _keyed(replace(before, service=event.service, way=event.way), event, number)
            case schedule.Steal():
                thief = self.tenants[event.gateway]
                offer = self.quote(slot.orchestrator, slot.job_type) if event.refreshes else slot.offer
                return replace(slot.call(event.service), gateway=thief.id, key=thief.newest_key, offer=offer)
            case schedule.ShareRand():
                return replace(slot.call(event.service), offer=self.slots[event.other].offer)
            case schedule.Tamper():
                return self._tampered(slot, event)

    def learn(self, event: schedule.CallEvent, call: Call, answer: Answer) -> None:
        """What the slot's gateway makes of an answer, as the field's clients do."""
        slot = self.slots[event.slot]
        if isinstance(answer, Released):
            state = read_state(answer.state, answer.sig, answer.receipt)
            newest = slot.held[-1] if slot.held else None
            is_own = state.gateway == slot.tenant.id and call.offer.orchestrator == slot.offer.orchestrator
            if is_own and (newest is None or (state.session == newest.session and state.sequence > newest.sequence)):
                slot.held = [*slot.held[-REMEMBERED_MAX:], state]
            return
        if isinstance(event, schedule.Tamper | schedule.Steal | schedule.ShareRand):
            return
        match answer:
            case Refused(480):
                self._refresh(slot)
            case Refused(401):
                slot.key = slot.tenant.newest_key
            case Refused(400 | 481) | Refused(403, "session_mismatch"):  # the next payment begins a new stream
                slot.held = []
                self._refresh(slot)

    def deliver(self, payment: Payment, answer: Released) -> None:
        """To the orchestrator that quoted it, which checks every ticket and draws the lottery, or PaymentRefused."""
        recipient = payment.call.offer.recipient
        node = next(node for node in self.orchestrators if node.address == recipient)
        node.receive(answer.payment, answer.seg_creds)

    def _refresh(self, slot: Slot) -> None:
        slot.offer = self.quote(slot.orchestrator, slot.job_type)

    def _tampered(self, slot: Slot, event: schedule.Tamper) -> Call:
        """A session's next call with one thing changed; an ordinary one where there is no session yet."""
        call = slot.call(event.service)
        state = call.state
        if state is None:
            return slot.remember(call)
        if event.refreshes:
            call = replace(call, offer=self.quote(slot.orchestrator, slot.job_type))
        match event.what:
            case "recipient" | "orchestrator" | "url":
                return replace(call, offer=_changed(call.offer, event.what))
            case "manifest":
                return replace(call, manifest="another")
            case "no_manifest":
                return replace(call, manifest="")
            case "app":
                return replace(call, app="another")
            case "type":
                return replace(call, job_type="live" if call.job_type != "live" else "fixed")
            case "forged":
                sig = bytes([state.sig[0] ^ 1, *state.sig[1:]])
                return replace(call, state=replace(state, sig=sig, is_forged=True))
            case what:
                raise AssertionError(what)


def offer_of(info: net.OrchestratorInfo) -> Offer:
    params, price = info.ticket_params, info.price_info
    return Offer(
        raw=info.SerializeToString(),
        url=info.transcoder,
        orchestrator=info.address,
        recipient=params.recipient,
        rand=params.recipient_rand_hash,
        face_value_wei=int.from_bytes(params.face_value, "big"),
        win_prob=int.from_bytes(params.win_prob, "big"),
        price_wei=Fraction(price.pricePerUnit, price.pixelsPerUnit),
    )


def _changed(offer: Offer, what: str) -> Offer:
    info = net.OrchestratorInfo.FromString(offer.raw)
    match what:
        case "recipient":
            info.ticket_params.recipient = b"\x0c" * 20
        case "orchestrator":
            info.address = b"\x0d" * 20
        case "url":
            info.transcoder = "https://elsewhere.example:8935"
    return offer_of(info)


def _keyed(call: Call, event: schedule.Pay | schedule.Lose | schedule.Repeat, number: int) -> Call:
    """With an idempotency key that other events of the slot use too."""
    return replace(call, idempotency_key=f"{event.slot}-{number % 5}") if event.is_keyed else call
