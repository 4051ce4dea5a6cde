"""A statement on paper: what it says, that nobody's name can change it, and that it is the same every time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from pypdf import PdfReader

from settlement.currencies import Currency, account_currency
from settlement.statements.long_words import in_parts
from settlement.statements.page import page_of, plain
from settlement.statements.pdf import Typesetter
from settlement.statements.statement import Party, Statement
from tests.settlement.statements.examples import LINES, MOVEMENTS, example, invoice, statements

ROOT = Path(__file__).parents[3]
NASTY = (
    '#panic("x") *b* $x$ \\ @ref <label> `raw` [c] // no /* no */ #read("/etc/passwd") = h "q" \'q\' ~ --- &amp; {{x}}'
)


@pytest.fixture(scope="module")
def typesetter() -> Typesetter:
    return Typesetter()


def text_of(content: bytes) -> str:
    """All pages' text, with single spaces. Whatever a column broke is not put together again."""
    pages = (page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    return " ".join("\n".join(pages).split())


def test_the_page_says_what_the_statement_has(typesetter: Typesetter) -> None:
    said = text_of(typesetter.pdf(example()).content)
    for expected in (
        "Statement Acme Streaming GmbH Große Straße 1, 10115 Berlin",
        "Period 2026-10-01 00:00 to 2026-11-01 00:00",
        "2026-10-01 00:00 Opening balance 20.13",
        "2026-10-02 10:30 Top up: card ending in 4242 pi_3Q 100.00",
        "2026-10-20 02:00 Expiry: granted credit expired unused tr_018f -4.50",
        "Usage -73.25 Rounding -0.01 2026-11-01 00:00 Closing balance 42.37",
        "no application text-to-image · flux 3 requests 3 0.000014966666666667 0.0149667 0.04",
        "transcode 55,296,000,000 pixels 88 0.004001666666666667 0.000000000217104 12.01",
        "Usage of the period 73.25",
        "Times are in Europe/Berlin.",
    ):
        assert expected in said


def test_an_invoice_says_what_is_due_when_and_how(typesetter: Typesetter) -> None:
    said = text_of(typesetter.pdf(invoice()).content)
    assert "VAT 19 % 13.92 From September 0.30 Amount due EUR 87.47 IBAN DE02 1203 0000 0000 2020 51" in said
    assert "Due 2026-11-15 Your order PO-7731" in said


def test_numbers_are_written_as_the_reader_writes_them(typesetter: Typesetter) -> None:
    assert "55.296.000.000 pixels 88 0,004001666666666667" in text_of(typesetter.pdf(example(locale="de-DE")).content)


def test_a_currency_without_decimals_is_shown_without(typesetter: Typesetter) -> None:
    said = text_of(typesetter.pdf(example(currency=account_currency("JPY"))).content)
    assert "JPY 2026-10-01 00:00 Opening balance 20 " in said
    assert "Usage -73 2026-11-01 00:00 Closing balance 42" in said


def test_names_are_printed_and_never_run(typesetter: Typesetter) -> None:
    nasty = example(
        number=NASTY, customer=Party(NASTY, (NASTY,)), notes=(NASTY,), currency=Currency("#x", 2, 2, None),
        movements=(replace(MOVEMENTS[0], description=NASTY, reference=NASTY),),
        lines=(replace(LINES[0], app=NASTY, pipeline=NASTY, model=NASTY, unit=NASTY),),
    )  # fmt: skip
    said = text_of(typesetter.pdf(nasty).content).replace(" ", "")
    assert said.count(NASTY.replace(" ", "")) >= 6
    assert "root:" not in said


def test_a_long_name_stays_in_its_column_and_can_be_copied_whole(typesetter: Typesetter) -> None:
    name, reference = "w" * 128, "pi_" + "3" * 60
    long = example(
        customer=Party(name), movements=(replace(MOVEMENTS[0], reference=reference),),
        lines=(replace(LINES[0], app=name, model=name),),
    )  # fmt: skip
    said = PdfReader(io.BytesIO(typesetter.pdf(long).content)).pages[0].extract_text()
    assert max(map(len, re.findall("w+", said))) < 80, "a line has room for fewer"
    assert max(map(len, re.findall("3+", said))) < 30
    whole = "".join(said.split())
    assert whole.count(name) == 3
    assert reference in whole


@pytest.mark.parametrize(
    ("text", "long"),
    [
        ("https://example.org/of-32-letters", ["https://example.org/of-32-letters"]),
        (f"a {'w' * 21} and {'ж' * 21}, {'1' * 20}", ["w" * 21, "ж" * 21 + ","]),
        (f"ein Wort von zwanzig: {'ö' * 20} ", []),
        ("ب" * 29, []),  # letters join, and a break would part them
        ("ب" * 30, ["ب" * 30]),
    ],
)
def test_a_word_that_has_no_room_may_break(text: str, long: list[str]) -> None:
    said = in_parts(text)
    parts = [{"text": said, "is_long": False}] if isinstance(said, str) else said["parts"]
    assert [part["text"] for part in parts if part["is_long"]] == long
    assert "".join(part["text"] for part in parts) == text


def test_one_long_number_does_not_squeeze_the_names(typesetter: Typesetter) -> None:
    names = "organisation/" + "model-with-a-long-name" * 2
    lines = tuple(replace(line, model=names, ev_wei=2**256 - 1, amount=Decimal(10) ** 14) for line in LINES)
    assert len(PdfReader(io.BytesIO(typesetter.pdf(example(lines=lines)).content)).pages) == 1


def test_other_scripts_are_printed_and_what_no_font_has_is_printed_by_number(typesetter: Typesetter) -> None:
    said = typesetter.pdf(example(customer=Party("Łódź Ωμέγα Київ 株式会社 ₿")))
    assert said.missing == ("会", "式", "株", "社")
    assert "ŁódźΩμέγαКиїв[U+682A][U+5F0F][U+4F1A][U+793E]₿" in text_of(said.content).replace(" ", "")
    assert typesetter.pdf(example(customer=Party("株"))).missing == ("株",)
    assert typesetter.pdf(example()).missing == ()
    assert Typesetter().pdf(example(customer=Party("株"))) == typesetter.pdf(example(customer=Party("株")))


def test_what_characters_make_together_may_have_no_glyph_either(typesetter: Typesetter) -> None:
    said = typesetter.pdf(example(customer=Party("B\ufffd\u20e3"), notes=("a \u20e3",)))
    assert said.missing == ("\u20e3", "\ufffd")
    assert "B[U+FFFD][U+20E3]" in text_of(said.content)


def test_no_name_can_turn_round_what_stands_beside_it() -> None:
    page = page_of(example(customer=Party("acme\u202e00.001\u2066\nx\x1b[2J")))
    assert page["customer"]["name"] == "acme00.001 x [2J"
    assert plain("\ud800") == "\ufffd"


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(statements())
def test_every_statement_can_be_set(typesetter: Typesetter, statement: Statement) -> None:
    said = typesetter.pdf(statement)
    assert said.content.startswith(b"%PDF-1.")
    assert said.content.rstrip().endswith(b"%%EOF")


def test_many_lines_go_over_many_pages_with_their_heads(typesetter: Typesetter) -> None:
    lines = tuple(replace(LINES[1], app=f"app-{number % 5}", model=f"model-{number}") for number in range(150))
    reader = PdfReader(io.BytesIO(typesetter.pdf(example(lines=lines)).content))
    pages = [page.extract_text() for page in reader.pages]
    assert len(pages) > 2
    for number, page in enumerate(pages, start=1):
        assert f"{number} / {len(pages)}" in page
    assert all("Average rate" in page for page in pages[:-1])


def test_the_file_is_for_archives_and_readable_aloud(typesetter: Typesetter) -> None:
    reader = PdfReader(io.BytesIO(typesetter.pdf(example()).content))
    assert reader.metadata is not None
    assert reader.metadata.title == "Statement ST-acme-2026-10"
    assert reader.metadata.author == "Example Clearinghouse Ltd"
    assert str(reader.metadata.creation_date) == "2026-11-01 06:00:00+00:00", "the statement's, not today's"
    catalogue = reader.trailer["/Root"]
    assert catalogue["/MarkInfo"]["/Marked"]
    assert catalogue["/Lang"] == "en"
    assert (
        b"<pdfaid:part>2</pdfaid:part><pdfaid:conformance>A</pdfaid:conformance>" in catalogue["/Metadata"].get_data()
    )


PRINT_HASHES = """
import hashlib, json
from settlement.statements.pdf import Typesetter
from settlement.statements.table import statement_csv
from tests.settlement.statements.examples import example, invoice
setter = Typesetter()
made = [form for s in (example(), invoice()) for form in (setter.pdf(s).content, statement_csv(s))]
print(json.dumps([hashlib.sha256(content).hexdigest() for content in made]))
"""


def hashes(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRINT_HASHES],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_same_statement_gives_the_same_bytes_in_every_process_and_place(typesetter: Typesetter) -> None:
    here = hashes(TZ="UTC", PYTHONHASHSEED="1")
    there = hashes(
        TZ="Pacific/Auckland", PYTHONHASHSEED="2", LC_ALL="C", SOURCE_DATE_EPOCH="1",
        TYPST_FONT_PATHS="/usr/share/fonts", XDG_CACHE_HOME="/nonexistent", HOME="/nonexistent",
    )  # fmt: skip
    assert here == there
    typesetter.pdf(invoice())
    assert hashlib.sha256(typesetter.pdf(example()).content).hexdigest() == here[0], "whatever was set before"


def test_the_order_in_which_lines_were_read_does_not_show(typesetter: Typesetter) -> None:
    lines = (*LINES, replace(LINES[0], amount=Decimal(1)))
    movements = (*MOVEMENTS, replace(MOVEMENTS[0], amount=Decimal(1)))
    mixed = example(lines=lines[::-1], movements=movements[::-1])
    assert typesetter.pdf(mixed) == typesetter.pdf(example(lines=lines, movements=movements))


def test_another_amount_gives_another_page(typesetter: Typesetter) -> None:
    assert typesetter.pdf(example(opening=Decimal("20.13"))) != typesetter.pdf(example(opening=Decimal("20.14")))


def test_threads_share_a_typesetter(typesetter: Typesetter) -> None:
    wanted = {number: typesetter.pdf(example(number=f"ST-{number}")) for number in range(4)}
    found: dict[int, list[object]] = {number: [] for number in wanted}

    def work(number: int) -> None:
        found[number] += [typesetter.pdf(example(number=f"ST-{number}")) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [pdf] * 5 for number, pdf in wanted.items()}
