"""A26: X-Forwarded-For and its like are written by whoever calls."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.abuses.attack import metrics_page
from tests.parts import faulty_signer as faulty
from tests.parts.faulty_signer import FaultySigner
from tests.parts.service import running
from tests.parts.stack import SIGNER_KEY

MARK = "198.51.100.77"
FORGED = [
    ("X-Forwarded-For", f"{MARK}, 127.0.0.1"),
    ("X-Forwarded-Host", f"{MARK}.example"),
    ("X-Forwarded-Proto", f"https{MARK}"),
    ("X-Real-IP", MARK),
    ("Forwarded", f"for={MARK};host={MARK}.example;proto=https"),
    ("CF-Connecting-IP", MARK),
    ("Via", f"1.1 {MARK}"),
]


async def test_nothing_of_a_forged_origin_reaches_log_metrics_signer_or_answer(
    database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with FaultySigner(SIGNER_KEY) as signer, running(database, signer_urls=[signer.url]) as service:
        gateway = await service.house.new_gateway()
        signer.on_payment = faulty.answers(400, b'{"error":{"message":"a signer says no"}}\n')
        with capture_logs() as logs:
            answers = [
                await service.sign(gateway, service.new_stream().body(), *FORGED),  # refused by the signer
                await service.sign(gateway, b"{}", *FORGED),  # refused here
            ]
        assert [answer.status for answer in answers] == [400, 400]
        assert [entry["event"] for entry in logs] == ["refused", "refused"]
        assert len(signer.payments) == 1
        seen = [
            repr(logs),
            repr(signer.payments[0].headers),
            (await metrics_page(service)).decode(),
            *capfd.readouterr(),
        ]
        seen += [repr(answer.headers) + repr(answer.body) for answer in answers]
    assert [place for place in seen if MARK in place] == []
