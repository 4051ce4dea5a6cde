"""What operators do over HTTP about rate cards: check, store, look at, assign, and try them out. As admin.py does.

A card is read by what reads it from a file, so that the command line and this say the same of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse import rate_store
from clearinghouse.api.admin import ACTOR, GatewayRef
from clearinghouse.api.admin_plans import PlanRef
from clearinghouse.api.bodies import PATH_PATTERN, json_body
from clearinghouse.api.described import described
from clearinghouse.api.queries import only_query
from clearinghouse.api.rate_shapes import (
    RATE_BODIES,
    ChosenCard,
    ChosenPlanCard,
    GatewayCardAnswer,
    NewQuote,
    PlanCardAnswer,
    QuoteAnswer,
    RateCardDocument,
    RateCardPreview,
    RateCardVersionAnswer,
    RateCardVersionList,
    WholeRateCardVersionAnswer,
    preview_answer,
    version_answer,
    whole_version_answer,
)
from clearinghouse.api.wiring import Books, Routes, Wired, require_admin
from clearinghouse.asgi import read_body
from clearinghouse.errors import InvalidRequest
from clearinghouse.identity import gateways, plans
from clearinghouse.ids import show
from clearinghouse.ledger.money import parse_amount
from clearinghouse.rate_quotes import cost_of, nanoseconds, quoted, standing_of
from clearinghouse.rates.card import CardVersion, RateUnknown
from clearinghouse.rates.document import CardInvalid, read_json
from clearinghouse.rates.rules import StoredVersion
from clearinghouse.rates.usage import Usage
from clearinghouse.strict_json import parse_object

#: Far more than any card needs. It is read beside the payments of this process.
CARD_BYTES_MAX: Final = 256 * 1024
#: Of pixels, requests and wei in a quote: far more than there are, and small enough for exact sums.
_COUNT_MAX: Final = 10**24

router = APIRouter(prefix="/v1/admin", tags=["Administration"], dependencies=[Depends(require_admin)])

CardRef = Annotated[str, Path(description="Name of the rate card.", pattern=PATH_PATTERN)]
VersionRef = Annotated[int, Path(description="Number of the version.", ge=1, le=2**31 - 1)]
Correction = Annotated[
    bool, Query(description="It holds for a time that is past: calls charged then stay as they are.")
]


async def _card(request: Request, wired: Wired) -> CardVersion:
    """The body as a card. InvalidRequest with every mistake."""
    raw = await read_body(request.receive, bytes_max=CARD_BYTES_MAX, timeout_s=wired.read_timeout_s)
    parse_object(raw, bytes_max=CARD_BYTES_MAX, what="a rate card")
    try:
        return await asyncio.to_thread(read_json, raw.decode())
    except CardInvalid as invalid:
        raise InvalidRequest("; ".join(map(str, invalid.problems))) from None


Card = Annotated[CardVersion, Depends(_card)]
_NO_QUERY: Final = [Depends(only_query())]


@router.get("/rate-cards", dependencies=_NO_QUERY, **described(None, 400))
async def list_rate_cards(books: Books) -> RateCardVersionList:
    """All versions of all cards."""
    async with books.connect() as connection:
        return _versions((await rate_store.read_rules(connection)).stored)


@router.get("/rate-cards/{card}", dependencies=_NO_QUERY, **described(None, 400, 404))
async def show_rate_card(card: CardRef, books: Books) -> RateCardVersionList:
    """All versions of one card."""
    async with books.connect() as connection:
        return _versions(await rate_store.versions_of(connection, card))


@router.get("/rate-cards/{card}/versions/{version}", dependencies=_NO_QUERY, **described(None, 400, 404))
async def show_rate_card_version(card: CardRef, version: VersionRef, books: Books) -> WholeRateCardVersionAnswer:
    """A version with its rates, as a document that can be stored again."""
    async with books.connect() as connection:
        return whole_version_answer(await rate_store.version_of(connection, card, version))


@router.post(
    "/rate-cards/check", dependencies=[Depends(only_query("correction"))], **described(RateCardDocument, 400, 409)
)
async def check_rate_card(wanted: Card, books: Books, *, correction: Correction = False) -> RateCardPreview:
    """Judge a card as if it were stored: every mistake, and whether it goes with the versions there are."""
    async with books.connect() as connection:
        is_stored = await rate_store.judge(connection, wanted, is_correction=correction)
        return preview_answer(wanted, is_stored=is_stored)


@router.put(
    "/rate-cards/{card}/versions/{version}",
    dependencies=[Depends(only_query("correction"))],
    **described(RateCardDocument, 400, 409),
)
async def store_rate_card_version(
    card: CardRef, version: VersionRef, wanted: Card, books: Books, *, correction: Correction = False
) -> RateCardVersionAnswer:
    """Store a version, for ever. It holds from its effective_from on; stored again, it is found as it is."""
    if (wanted.card, wanted.version) != (card, version):
        raise InvalidRequest(f"the document is of {wanted.card}, version {wanted.version}: the path names another")
    async with books.begin() as connection:
        return version_answer(await rate_store.apply(connection, wanted, is_correction=correction, actor=ACTOR))


@router.put("/gateways/{gateway}/rate-card", **described(ChosenCard, 400, 404, 409))
async def assign_rate_card(
    gateway: GatewayRef, wanted: Annotated[ChosenCard, json_body(ChosenCard)], books: Books
) -> GatewayCardAnswer:
    """Put a gateway on a card: it charges the very next call."""
    async with books.begin() as connection:
        found = await gateways.find(connection, gateway)
        await rate_store.assign_to_gateway(connection, found, wanted.card, actor=ACTOR)
        name, below_cost = await rate_store.card_of(connection, found.id)
    return GatewayCardAnswer(
        gateway_id=show("gw", found.id), rate_card=name or rate_store.NONE, below_cost=below_cost
    )  # fmt: skip


@router.put("/plans/{plan}/rate-card", **described(ChosenPlanCard, 400, 404, 409))
async def assign_plan_rate_card(
    plan: PlanRef, wanted: Annotated[ChosenPlanCard, json_body(ChosenPlanCard)], books: Books
) -> PlanCardAnswer:
    """Put the gateways of a plan on a card. Its gateways have it for their next call when this is answered."""
    async with books.begin() as connection:
        changed = await rate_store.assign_to_plan(
            connection, plan, wanted.card, may_be_below_cost=wanted.below_cost, actor=ACTOR
        )
    await plans.apply(books, changed)
    return PlanCardAnswer(
        plan=plan, rate_card=wanted.card, below_cost=wanted.below_cost, gateways_count=changed.gateways_count
    )  # fmt: skip


@router.post("/gateways/{gateway}/quote", **described(NewQuote, 400, 404))
async def quote_call_of_gateway(
    gateway: GatewayRef, wanted: Annotated[NewQuote, json_body(NewQuote)], books: Books
) -> QuoteAnswer:
    """What a call of the gateway would be charged, and why; nothing is. By its own card, or by one that is named."""
    with _refused_for(ValueError):
        usage = _usage(wanted)
    async with books.connect() as connection:
        found = await gateways.find(connection, gateway)
        named = await _named(connection, wanted)
        at = wanted.at or datetime.now(UTC)
        with _refused_for(RateUnknown):
            card, standing = await standing_of(connection, found, named, usage, at)
    with _refused_for(RateUnknown, ValueError):
        quote = quoted(card, standing, usage, cost_of(card, _ev_wei(wanted), wanted.eth_price))
    return QuoteAnswer.model_validate(quote.explanation())


@contextmanager
def _refused_for(*mistakes: type[Exception]) -> Iterator[None]:
    """What the caller asked cannot be. Not around the answer: one that is not as described is a mistake of ours."""
    try:
        yield
    except mistakes as mistake:
        raise InvalidRequest(str(mistake)) from None


def _usage(wanted: NewQuote) -> Usage:
    seconds = None if wanted.seconds is None else Fraction(parse_amount(wanted.seconds, currency="s", may_be_zero=True))
    if not all(0 <= count <= _COUNT_MAX for count in (wanted.pixels or 0, wanted.requests)):
        raise InvalidRequest(f"pixels and requests are counted from 0 to {_COUNT_MAX}")
    return Usage(
        wanted.application, wanted.pipeline, wanted.model, duration_ns=nanoseconds(seconds), pixels=wanted.pixels,
        requests=wanted.requests,
    )  # fmt: skip


def _ev_wei(wanted: NewQuote) -> int:
    if not (wanted.ev_wei.isascii() and wanted.ev_wei.isdigit() and len(wanted.ev_wei) < len(str(_COUNT_MAX))):
        raise InvalidRequest(f"ev_wei is a whole number below {_COUNT_MAX}, as a string")
    return int(wanted.ev_wei)


async def _named(connection: AsyncConnection, wanted: NewQuote) -> CardVersion | None:
    """The version that the quote is asked by, if any."""
    if wanted.card is not None:
        return (await rate_store.version_of(connection, wanted.card, wanted.version)).version
    if wanted.version is not None:
        raise InvalidRequest("a version is one of a card: name it, too")
    return None


def _versions(stored: Iterable[StoredVersion]) -> RateCardVersionList:
    return RateCardVersionList(items=[version_answer(each) for each in stored])


ROUTES: Final = Routes(router, RATE_BODIES)
