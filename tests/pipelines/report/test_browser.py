"""The report in a real browser, opened from disk as a user does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from benchmarks.browser import Browser, find_browser
from lib.ledger.finalize import finalize
from pipelines.number_texts import signed, three
from pipelines.report.page import write_report

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="needs a Chromium or Chrome on the PATH"
)
EVIL = "<script>alert(1)</script>"
ORIGINAL, EDITED = (20, 30, 90), (60, 70, 130)
"""Colours of the first sample's left half, and of it at strength +0.2."""
CARD = "#sheet .card:first-child"
TABLE = "#explorer-edits"


@pytest.fixture(scope="module")
def report(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 96 edits in three shards, two of whose keys are markup."""
    run = make_run(tmp_path_factory.mktemp("run"))
    run.keys = {(0, 0): EVIL, (1, 1): "a\"b'c&amp;\u2028<img src=x onerror=alert(2)>"}
    run.roir = {(n, i, e): 0.01 * (1 + 32 * n + 4 * i + e)
                for n in range(3) for i in range(8) for e in range(4)}  # fmt: skip
    run.start(3)
    for number in range(3):
        run.add(number, samples=8)
    finalize(run.folder)
    return Path(write_report(run.folder.root))


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Browser]:
    """The report, freshly opened; afterwards it has complained of nothing and asked for nothing
    but files.
    """
    browser.requests.clear()
    browser.complaints.clear()
    browser.resize(1400, 1000)
    browser.prefer(prefers_color_scheme="light", prefers_reduced_motion="no-preference")
    browser.open(report.as_uri())
    browser.wait(f"document.querySelector('{CARD} canvas').morph.image?.complete")
    yield browser
    browser.value("new Promise((done) => setTimeout(done, 50))")
    assert browser.complaints == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data"}


def colour(page: Browser, x: float, y: float = 0.5, selector: str = f"{CARD} canvas") -> list[int]:
    """Of the drawn picture at fractions of its sides."""
    picture_HWC = page.picture(selector)
    height, width, _ = picture_HWC.shape
    return [int(value) for value in picture_HWC[int(y * height), int(x * width)]]


def near(found: list[int], expected: tuple[int, ...]) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= 3)


def click(page: Browser, script: str) -> None:
    page.value(f"{script}.click()")


def view(page: Browser, name: str) -> None:
    click(page, f"[...document.querySelectorAll('#sheet-tools .choice label')]"
          f".find((label) => label.textContent === '{name}')")  # fmt: skip


def explorer(page: Browser) -> None:
    """Come to the table, so that its first chunk is loaded."""
    page.value("document.getElementById('explorer').scrollIntoView()")
    page.wait(f"document.querySelectorAll('{TABLE} tbody tr').length === 50")


def found(page: Browser) -> str:
    return str(page.value(f"document.querySelector('{TABLE} .found').textContent"))


def column(page: Browser, label: str) -> list[str]:
    """Texts of a column of the page of the table that is shown."""
    return list(
        page.value(
            f"(() => {{ const heads = [...document.querySelectorAll('{TABLE} th')];"
            f" const n = heads.findIndex((th) => th.textContent.startsWith('{label}'));"
            f" return [...document.querySelectorAll('{TABLE} tbody tr')]"
            ".map((tr) => tr.children[n].textContent); })()"
        )
    )


def sort(page: Browser, label: str) -> None:
    click(page, f"[...document.querySelectorAll('{TABLE} th button')]"
          f".find((button) => button.textContent === '{label}')")  # fmt: skip


def test_the_slider_morphs_the_picture_through_its_strengths(page: Browser) -> None:
    assert near(colour(page, 0.2), EDITED)
    assert near(colour(page, 0.8), ORIGINAL)
    page.value(f"document.querySelector('{CARD} .strength').focus()")
    page.press("ArrowLeft")
    page.wait(f"document.querySelector('{CARD} .who b').textContent === 'original'")
    page.wait(f"document.querySelector('{CARD} canvas').morph.position === 1")
    assert near(colour(page, 0.2), ORIGINAL)
    # half way between the original and +0.2
    page.value(
        f"(() => {{ const slider = document.querySelector('{CARD} .strength'); slider.value = 1.5;"
        " slider.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert near(colour(page, 0.2), (40, 50, 110))
    page.press("ArrowRight")
    page.wait(f"document.querySelector('{CARD} .who b').textContent === '+0.2'")


def test_without_motion_the_slider_jumps_and_nothing_plays(page: Browser, report: Path) -> None:
    page.prefer(prefers_reduced_motion="reduce")
    page.open(report.as_uri())
    page.wait(f"document.querySelector('{CARD} canvas').morph.image?.complete")
    page.value(f"document.querySelector('{CARD} .strength').focus()")
    page.press("ArrowLeft")
    assert page.value(f"document.querySelector('{CARD} canvas').morph.position") == 1
    assert page.value("document.querySelector('#sheet-tools .all button').hidden")


def test_the_line_between_before_and_after_can_be_dragged(page: Browser) -> None:
    view(page, "Before / after")
    assert near(colour(page, 0.2), ORIGINAL)  # the line is in the middle, the edit is left of it
    box = page.value(
        f"(() => {{ const b = document.querySelector('{CARD} .wipe').getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height]; })()"
    )
    middle = box[1] + box[3] / 2
    page.drag((box[0] + box[2] / 2, middle), (box[0] + box[2] / 4, middle))
    assert near(colour(page, 0.1), ORIGINAL)
    assert near(colour(page, 0.4), EDITED)


def test_differences_and_the_region_can_be_shown(page: Browser) -> None:
    view(page, "Difference")
    assert max(colour(page, 0.8)) < 10  # nothing changed there
    assert sum(colour(page, 0.2)) > 100
    assert page.value("!document.querySelector('#sheet-tools .scale').hidden")
    view(page, "Morph")
    plain = colour(page, 0.2)
    click(page, "document.querySelector('#sheet-tools .check input')")
    tinted = colour(page, 0.2)
    assert tinted[1] > plain[1] + 20
    assert near(colour(page, 0.8), ORIGINAL)


def test_another_sheet_shows_other_pictures(page: Browser) -> None:
    view(page, "mouth")
    page.wait(f"document.querySelector('{CARD} canvas').morph.image?.complete")
    label = page.value(f"document.querySelector('{CARD} canvas').getAttribute('aria-label')")
    assert label.endswith("mouth 0")


def test_the_table_is_paged_and_loads_what_it_shows(page: Browser) -> None:
    explorer(page)
    assert found(page) == "96 edits"
    first = column(page, "ROIR")
    assert first[0] == "0.0100"
    click(page, f"document.querySelector('{TABLE} [aria-label=\"Next page\"]')")
    page.wait(f"document.querySelectorAll('{TABLE} tbody tr').length === 46")
    assert column(page, "ROIR")[0] == "0.510"  # the 51st edit
    assert page.value(f"document.querySelector('{TABLE} [aria-label=\"Next page\"]').disabled")


def test_a_heading_sorts_all_pages_both_ways(page: Browser) -> None:
    explorer(page)
    sort(page, "ROIR")
    page.wait(f"document.querySelector('{TABLE} th[aria-sort=ascending]')")
    up = [float(text) for text in column(page, "ROIR")]
    assert up == sorted(up)
    sort(page, "ROIR")
    page.wait(f"document.querySelector('{TABLE} th[aria-sort=descending]')")
    down = [float(text) for text in column(page, "ROIR")]
    assert down[0] == 0.96
    assert down == sorted(down, reverse=True)


def test_fields_reduce_the_rows_to_those_that_the_sql_finds(page: Browser, report: Path) -> None:
    explorer(page)
    page.value(
        f"(() => {{ const region = [...document.querySelectorAll('{TABLE} .field')]"
        ".find((field) => field.firstChild.textContent === 'region').querySelector('select');"
        " region.value = '1'; region.dispatchEvent(new Event('change')); })()"
    )
    page.wait(f"document.querySelector('{TABLE} .found').textContent === '48 of 96 edits'")
    page.value(
        f"(() => {{ const range = document.querySelector('{TABLE} .range');"
        " range.querySelector('select').value = 'ROIR';"
        " range.querySelectorAll('input')[1].value = '0.5'; range.requestSubmit(); })()"
    )
    page.wait(f"document.querySelector('{TABLE} .held button')")
    sql = page.value(f"document.querySelector('{TABLE} .sql pre').textContent")
    assert set(column(page, "region")) == {"mouth"}
    sql = sql.replace("'manifest", f"'{report.parents[1]}/manifest")
    rows = sql[sql.index("FROM") : sql.index("LIMIT")]
    ((count,),) = duckdb.sql(f"SELECT count(*) {rows}").fetchall()
    assert found(page) == f"{count} of 96 edits"
    assert count == sum(
        0.01 * (1 + 32 * n + 4 * i + e) <= 0.5
        for n in range(3) for i in range(8) for e in (2, 3)
    )  # fmt: skip
    assert len(duckdb.sql(sql).fetchall()) == count
    click(page, f"document.querySelector('{TABLE} .held button')")
    page.wait(f"document.querySelector('{TABLE} .found').textContent === '48 of 96 edits'")


def test_keys_that_are_markup_are_found_and_shown_as_text(page: Browser) -> None:
    explorer(page)
    assert page.value(f"document.querySelector('{CARD} .key').textContent") == EVIL
    page.value(
        f"(() => {{ const search = document.querySelector('{TABLE} input[type=search]');"
        " search.value = '<script>'; search.dispatchEvent(new Event('input')); })()"
    )
    page.wait(f"document.querySelector('{TABLE} .found').textContent === '4 of 96 edits'")
    assert column(page, "sample") == [EVIL] * 4
    click(page, f"document.querySelector('{TABLE} tbody button')")
    page.wait("document.getElementById('viewer').open")
    assert page.value("document.getElementById('viewer-title').textContent") == EVIL
    assert page.value("document.querySelectorAll('img[src=x]').length") == 0


def test_a_row_opens_all_of_an_edit_and_escape_closes_it(page: Browser) -> None:
    explorer(page)
    click(page, f"document.querySelectorAll('{TABLE} tbody tr')[1]")
    page.wait("document.getElementById('viewer').open")
    texts = page.value("document.querySelector('#viewer .side').textContent")
    assert "in-0" in texts
    assert "ROIR0.0200" in texts
    assert "abs(strength - -0.1) < 1e-6" in texts
    page.wait("document.querySelector('#viewer canvas').morph.image?.complete")
    assert near(colour(page, 0.2, selector="#viewer canvas"), (0, 10, 70))  # 20 darker
    page.press("Escape")
    page.wait("!document.getElementById('viewer').open")


def test_directions_have_a_table_of_their_own(page: Browser) -> None:
    explorer(page)
    click(page, "document.querySelectorAll('#explorer-tools input')[1]")
    rows = "document.querySelectorAll('#explorer-directions tbody tr')"
    page.wait(f"{rows}.length === 24")
    # the first has the edits 0.01 to 0.04; its id is of the sample, not of the region
    texts = page.value(f"[...{rows}[0].children].map((cell) => cell.textContent)")
    assert "0.0250" in texts


def test_charts_are_drawn_for_every_measure(page: Browser) -> None:
    assert page.value("document.querySelectorAll('.chart svg').length") == 3
    names = page.value(
        "[...document.querySelectorAll('#histogram-measure option')].map((o) => o.textContent)"
    )
    assert {"ROIR", "change in", "PSNR"} <= set(names)
    assert "NaN" not in page.value(
        "[...document.querySelectorAll('.chart')].map((c) => c.innerHTML).join('')"
    )


def test_colours_are_chosen_and_remembered(page: Browser, report: Path) -> None:
    light = page.value("getComputedStyle(document.body).backgroundColor")
    for expected in ("light", "dark"):
        click(page, "document.getElementById('theme')")
        assert page.value("document.documentElement.dataset.theme") == expected
    dark = page.value("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.open(report.as_uri())
    assert page.value("getComputedStyle(document.body).backgroundColor") == dark
    click(page, "document.getElementById('theme')")
    page.prefer(prefers_color_scheme="dark")
    assert page.value("getComputedStyle(document.body).backgroundColor") == dark
    page.prefer(prefers_color_scheme="light")
    assert page.value("getComputedStyle(document.body).backgroundColor") == light


def test_scripts_write_numbers_as_the_tables_do(page: Browser) -> None:
    values = [0.03456, 1234.5, 0.0, -2.0, 0.0000123, -0.0000456, 0.00999999, 0.5, 98765.4, 12.34]
    assert page.value(f"{values}.map(deltah.three)") == [three(value) for value in values]
    strengths = [0.1, -0.05, 1.0, 0.123456, -20.0]
    assert page.value(f"{strengths}.map(deltah.signed)") == [signed(s) for s in strengths]


def test_it_fits_a_phone(page: Browser, report: Path) -> None:
    page.resize(390, 844, phone=True)
    page.open(report.as_uri())
    explorer(page)
    assert page.value("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_reaches_the_content_first(page: Browser) -> None:
    page.press("Tab")
    assert page.value("document.activeElement.className") == "skip"
    page.press("Enter")
    page.wait("location.hash === '#main'")
