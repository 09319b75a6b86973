from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fsspec
import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lib.ledger.driver_record import DriverRecord, write_driver
from lib.ledger.quarantine import quarantine
from lib.ledger.run_folder import RunFolder
from lib.ledger.work import Work
from lib.problems import ConfigProblem
from lib.receipts import Failure
from pipelines.evaluation.measured_rows import MeasuredFiles, MeasuredRows
from pipelines.evaluation.outputs import (
    FIGURE_COLUMNS,
    FIGURES,
    MATRIX,
    MATRIX_COLUMNS,
    SPREAD,
)
from pipelines.heat_maps import change
from pipelines.number_texts import duration, percent, three
from pipelines.report import cards, numbers
from pipelines.report.measured import add_measured
from pipelines.report.numbers import medians_by_group, read_numbers, spread
from pipelines.report.page import write_report

EVIL = "<script>alert(1)</script>"
REGIONS = ("eyes", "mouth")


class Page(HTMLParser):
    """What a browser sees before any script: texts, and the files that the page names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.folder = self.path.parent
        self.source = self.path.read_text()
        self.tags: list[str] = []
        self.files: set[str] = set()
        self.texts: list[str] = []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.texts).split())
        script = (self.folder / "data" / "summary.js").read_text()
        self.summary: dict[str, Any] = json.loads(
            script.removeprefix("deltah.begin(").removesuffix(");\n")
        )
        self.cards: list[dict[str, Any]] = self.summary["cards"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset") and value and value[0] != "#":
                self.files.add(value)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def sheet(self, title: str) -> list[dict[str, Any]]:
        (found,) = [sheet for sheet in self.summary["sheets"] if sheet["title"] == title]
        return [self.cards[number] for number in found["cards"]]

    def cell(self, card: dict[str, Any], column: int, line: int) -> np.ndarray:
        """Pixels of a cell of a card's sprite, (side, side, 4)."""
        sprite = np.asarray(Image.open(self.folder / card["file"]).convert("RGBA"))
        side = card["side"]
        return sprite[line * side : (line + 1) * side, column * side : (column + 1) * side]


def report_of(run: Any) -> Page:
    page = Page(write_report(run.folder.root))
    check_offline(page)
    return page


def check_offline(page: Page) -> None:
    named = page.files - {"data:,"}
    named |= {card["file"] for card in page.cards}
    outside = {name for name in named if name.startswith("../")}
    assert not [name for name in outside if not (page.folder / name).resolve().is_file()]
    named |= {chunk for table in page.summary["tables"].values() for chunk in table["chunks"]}
    if page.summary["thumbnails"]:
        named |= set(page.summary["thumbnails"]["files"])
    assert not [name for name in named if ":" in name or name.startswith("/")]
    assert not [name for name in named if not (page.folder / name).is_file()]
    for file in (page.path, *page.folder.glob("*.js"), *page.folder.glob("data/*.js")):
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|innerHTML|insertAdjacent|fetch\(", text), file
        assert file.suffix == ".html" or text.isascii() or file.parent == page.folder


def test_every_sample_has_its_edits_in_order_of_strength(run: Any) -> None:
    run.start(2)
    run.add(0)
    run.add(1)
    page = report_of(run)
    assert [sheet["title"] for sheet in page.summary["sheets"]] == ["eyes", "mouth"]
    found = page.sheet("eyes")
    assert [(card["shard"], card["index"]) for card in found] == [
        (shard, index) for shard in ("in-0", "in-1") for index in range(3)
    ]
    assert found[0]["strengths"] == [-0.1, 0.2]
    # a lossless sprite: the original, then the edits, 200 * strength brighter in the left half
    red = [int(page.cell(found[0], column, 0)[0, 0, 0]) for column in range(3)]
    assert red == [20, 0, 60]
    assert "Finished." in page.text
    assert "−0.1" in page.text


def test_the_difference_is_dark_where_nothing_changed_and_the_region_is_tinted(run: Any) -> None:
    run.start(1)
    run.add(0)
    page = report_of(run)
    card = page.sheet("eyes")[0]
    heat = page.cell(card, 2, 1)[..., :3].astype(int)
    assert heat[:, 8:].max() < 8
    changed = 40 / 127.5  # 200 * 0.2 of 255 grey values, images in [-1, 1]
    expected = mpl.colormaps["inferno"](changed / card["heat"], bytes=True)[:3]
    assert heat[8, 3].tolist() == list(expected)
    region = page.cell(card, 0, 1)
    assert (region[:, 8:, 3] == 0).all()
    assert region[8, 0, 3] == region[8, 3, 3] < region[8, 7, 3]  # the border is stronger
    assert tuple(region[8, 7, :3]) == (94, 234, 212)


def test_texts_of_shards_are_shown_and_never_run(run: Any) -> None:
    run.keys = {(0, 0): EVIL, (0, 2): '"><img src=x onerror=alert(1)>'}
    run.start(2)
    run.add(0, failed=(1, 2))
    quarantine(run.folder, "in-1", "in-1.tar", f"it is broken {EVIL}", None, 3)
    page = report_of(run)
    assert EVIL not in page.source
    assert page.text.count(EVIL) >= 2  # the message, the reason
    assert "x" not in page.files
    for script in page.folder.glob("data/*.js"):
        assert not {"<", ">", "&"} & set(script.read_text())
    assert page.cards[0]["key"] == EVIL
    assert "with 1 shard given up" in page.text
    assert "decode truncated 2" in page.text


def test_edited_layout_takes_originals_from_the_input(run: Any) -> None:
    run.layout = "edited"
    run.start(1)
    run.add(0)
    page = report_of(run)
    assert len(page.cards) == len(REGIONS) * 3
    for card in page.cards:  # a box and a mask file
        expected = (20, 30 + 10 * card["index"], 90)
        assert tuple(page.cell(card, 0, 0)[0, 0, :3]) == expected
        assert (page.cell(card, 0, 1)[:, 7, 3] > 200).all()


@pytest.mark.parametrize("how", ["missing", "changed", "no run.json"])
def test_edited_layout_without_its_input_says_so_and_shows_the_edits(run: Any, how: str) -> None:
    run.layout = "edited"
    run.start(1)
    run.add(0)
    source = run.inputs / "in-0.tar"
    if how == "missing":
        source.unlink()
    elif how == "changed":
        source.write_bytes(bytes(10240))
    else:
        Path(run.folder.run_url).unlink()
    page = report_of(run)
    assert not page.cards[0]["original"]
    assert page.cell(page.cards[0], 1, 0)[0, 0, 3] == 255
    assert re.search("riginals.*(not stored|stores no originals)|stores no originals", page.text)


def test_a_missing_or_damaged_tar_is_a_notice_and_the_others_are_shown(run: Any) -> None:
    run.start(4)
    for number in range(4):
        run.add(number, samples=2)
    lost, cut, *_ = sorted((Path(run.folder.root) / "images").iterdir())
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:300])
    page = report_of(run)
    assert f"images/{lost.name} is missing" in page.text
    assert f"images/{cut.name} cannot be read" in page.text
    assert len(page.sheet("eyes")) == 4


def test_a_damaged_commit_errors_file_and_quarantine_record_are_notices(run: Any) -> None:
    run.start(4)
    run.add(0)
    run.add(1, failed=(0,))
    root = Path(run.folder.root)
    (root / "commit" / "in-2.parquet").write_bytes(b"PAR1 and no more")
    for folder in ("errors", "directions"):
        next((root / folder).glob("in-1*")).write_bytes(b"nothing")
    (root / "quarantine").mkdir()
    (root / "quarantine" / "in-3.json").write_text("{")
    (root / "drivers").mkdir()
    (root / "drivers" / "x.json").write_text("{")
    (root / "evaluation").mkdir()
    (root / "evaluation" / "figures.parquet").write_bytes(b"none")
    page = report_of(run)
    for name in (
        "in-2.parquet", "errors/in-1-", "directions/in-1-", "quarantine/in-3.json",
        "drivers/x.json", "evaluation/figures.parquet",
    ):  # fmt: skip
        assert name in page.text
    assert "unknown truncated 1" in page.text


def test_a_run_that_has_only_begun_has_a_report(run: Any) -> None:
    run.start(3)
    page = report_of(run)
    assert "Unfinished: 3 of 3 shards to do." in page.text
    assert "Nothing is committed yet" in page.text
    assert "strengths: [0.2, -0.1]" in page.source


def test_a_run_whose_samples_all_failed_has_a_report(run: Any) -> None:
    run.start(1)
    run.add(0, failed=(0, 1, 2))
    page = report_of(run)
    assert "No sample of the committed shards could be edited." in page.text


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="expected the output folder of a run"):
        write_report(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_the_tables_hold_the_medians(run: Any) -> None:
    run.start(1)
    run.add(0)
    page = report_of(run)
    # in_change is |strength| * (1, 2, 3), psnr 40, 41, 42, singular values 3, 4, 5
    assert re.search(r"eyes 0 −0\.1 3 0\.250 .*0\.200 0\.0100 .*41\.0", page.text)
    assert "eyes 0 3 4.00 [3.50, 4.50] 0.500 [0.500, 0.500] 66.7 % 40 38" in page.text
    found = read_numbers(run.folder)
    medians = dict(zip(found.keys, medians_by_group(found, ["in_change", "psnr"]), strict=True))
    by_hand = {key: values["in_change"] for key, values in medians.items()}
    assert [round(value, 6) for value in by_hand.values()] == [0.2, 0.4, 0.2, 0.4]


def test_the_same_run_gives_the_same_report_and_leftovers_of_an_earlier_one_go(run: Any) -> None:
    run.start(1)
    run.add(0)
    report = Path(write_report(run.folder.root)).parent

    def content() -> dict[str, bytes]:
        return {str(p.relative_to(report)): p.read_bytes() for p in report.rglob("*.*")}

    before = content()
    for name in ("cards/9999.webp", "sheets/99-99.webp", "data/edits-0099.js"):
        (report / name).parent.mkdir(exist_ok=True)
        (report / name).write_bytes(b"of an earlier report")
    write_report(run.folder.root)
    assert content() == before


def test_directions_of_a_library_have_a_sheet_each(run: Any) -> None:
    run.own = False
    run.start(1)
    run.add(0)
    page = report_of(run)
    assert [sheet["direction"] for sheet in page.summary["sheets"]] == [
        "shared-eyes",
        "shared-mouth",
    ]
    assert "JVPs" not in page.text
    table = page.summary["tables"]["directions"]
    assert (table["rows"], table["files"]) == (2, None)
    columns = {each["label"]: each for each in table["columns"]}
    assert columns["region"]["choices"] == ["eyes", "mouth"]
    assert columns["edits"]["high"] == 6  # 3 samples at 2 strengths
    assert columns["ROIR"]["high"] == 0.25


def test_sheets_of_one_region_and_rank_are_told_apart_by_the_direction(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.own = False
    row = type(run).row
    ids = iter(range(100))

    def named(self: Any, *where: Any) -> dict[str, object]:
        return row(self, *where) | {"region": "eyes", "direction": "ab"[next(ids) % 2] * 16}

    monkeypatch.setattr(type(run), "row", named)
    run.start(1)
    run.add(0)
    titles = [sheet["title"] for sheet in report_of(run).summary["sheets"]]
    assert titles == ["eyes aaaaaaaa", "eyes bbbbbbbb"]


def test_a_large_run_is_sampled_and_says_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "MAX_SHARDS", 2)
    monkeypatch.setattr(numbers, "MAX_EDITS", 16)
    run.start(4)
    for number in range(4):
        run.add(number, samples=4)
    found = read_numbers(run.folder)
    assert (found.samples_ok, found.n_edits, found.shards_read) == (16, 64, 2)
    # 16 rows a shard, 16 allowed of both: every second sample; the counts are of all
    assert found.every == 2
    assert set(found.edits["shard"].to_pylist()) == {"in-0", "in-2"}
    assert set(found.edits["index"].to_pylist()) == {0, 2}
    assert set(found.counts.values()) == {8}
    page = report_of(run)
    assert "of 2 of 4 committed shards, evenly spaced" in page.text
    assert "one in 2 samples" in page.text


def test_the_best_and_worst_edits_are_shown_though_their_samples_are_not_on_a_sheet(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "MAX_SAMPLES", 2)
    monkeypatch.setattr(cards, "_MIN_SAMPLES", 2)
    run.roir = {(0, 2, 0): 0.01, (1, 2, 1): 9.0, (1, 0, 1): 0.001}
    run.start(2)
    run.add(0)
    run.add(1)
    page = report_of(run)
    assert len(page.sheet("eyes")) == 2
    lists = {(each["measure"], each["end"]): each["cards"] for each in page.summary["extremes"]}
    best, at = lists["roir", "best"][0]
    # (1, 0, 1) changes its region too little to be good
    assert (page.cards[best]["shard"], page.cards[best]["index"]) == ("in-0", 2)
    assert page.cards[best]["values"]["roir"][at] == 0.01
    worst, at = lists["roir", "worst"][0]
    assert (page.cards[worst]["shard"], page.cards[worst]["strengths"][at]) == ("in-1", -0.1)


def test_scores_and_filters_of_the_config_are_shown(run: Any) -> None:
    run.own_columns = {"score_identity": 0.75, "change_smile": -0.5}
    run.filtered = {(0, 0, 1): "roir < 0.1", (0, 2, 3): "roir < 0.1"}
    run.start(1)
    run.add(0)
    page = report_of(run)
    columns = {each["name"]: each for each in page.summary["tables"]["edits"]["columns"]}
    assert columns["score_identity"]["label"] == "identity"
    assert columns["change_smile"]["low"] == -0.5
    assert columns["filtered"]["choices"] == ["roir < 0.1"]
    assert columns["filtered"]["hasNone"]
    assert re.search(r"roir < 0\.1 2 0 16\.7 %", page.text)  # of 12
    assert page.cards[0]["values"]["score_identity"] == [0.75, 0.75]


def test_what_deltah_evaluate_left_is_shown(run: Any) -> None:
    run.start(1)
    run.add(0)
    folder = Path(run.folder.root) / "evaluation"
    (folder / "plots").mkdir(parents=True)
    (folder / "plots" / "linearity.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    figures = [("all", "roir", 0.25, 0.2, 0.3, 12, "ratio, median"),
               ("all", "edits", 1200.0, None, None, 1200, "edits"),
               ("<img src=x>", "roir", 0.5, 0.4, 0.6, 6, "ratio, median"),
               ("eyes/0", "roir", 0.7, 0.6, 0.8, 3, "ratio, median"),
               ("eyes/1", "roir", 0.3, 0.2, 0.4, 3, "ratio, median")]  # fmt: skip
    names = [field.name for field in FIGURE_COLUMNS]
    table = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in figures], schema=FIGURE_COLUMNS
    )
    pq.write_table(table, folder / FIGURES)
    effects = [{"edit": "eyes 0", "attribute": name, "effect": value, "low": -1.0, "high": 1.0,
                "count": 3, "target": False}
               for name, value in (("smile", -0.5), ("gaze", 1.0))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(effects, schema=MATRIX_COLUMNS), folder / MATRIX)
    distances = {"frechet_distance": {"value": 1.5, "low": None, "high": None},
                 "kernel_distance": {"value": 0.25, "low": 0.125, "high": 0.5}}  # fmt: skip
    spread = {"embedding": "<b>vit", "dimensions": 256, "originals": 1,
              "scopes": {"all": {"edited": 12, **distances}}}  # fmt: skip
    (folder / SPREAD).write_text(json.dumps(spread))
    page = report_of(run)
    assert "metric all <img src=x> unit" in page.text
    assert "By direction metric eyes/0 eyes/1 unit" in page.text
    assert "x" not in page.files
    assert "roir 0.250 [0.200, 0.300] 0.500 [0.400, 0.600] ratio, median" in page.text
    assert "edits 1,200 – edits" in page.text
    assert "eyes 0 −0.500 1.00" in page.text
    assert "--weight: 30%" in page.source  # half as strong as the strongest, which has 60 %
    assert "to 1 original, by embeddings of 256 numbers from <b>vit" in page.text
    assert (
        "edited images 12 Fréchet distance 1.50 kernel distance 0.250 [0.125, 0.500]" in page.text
    )
    assert "../evaluation/plots/linearity.svg" in page.files


def test_what_was_measured_of_the_stored_pictures_stands_beside_the_other_numbers(run: Any) -> None:
    run.start(2)
    for number in range(2):
        run.add(number)
    folder = Path(run.folder.root) / "evaluation"
    rows = MeasuredRows(("score_identity",))
    rows.add_original(0, "s0", [0.5, 0.5])
    rows.add_edit(2, "s2", 1, {"score_identity": 0.75}, [0.5, 0.5])
    rows.add_edit(0, "s0", 3, {"score_identity": 0.25}, [0.5, 0.5])
    rows.add_failure(Failure("in-1", 1, "s1", "measure", "not_an_image", "no"))
    MeasuredFiles(str(folder), "ab" * 32).write("in-1", rows.table)
    page = report_of(run)
    found = read_numbers(run.folder)
    assert add_measured(run.folder, found, {}) == []
    values = {
        (row["shard"], row["index"], row["edit"]): row["score_identity"]
        for row in found.edits.to_pylist()
        if not np.isnan(row["score_identity"])
    }
    assert values == {("in-1", 2, 1): 0.75, ("in-1", 0, 3): 0.25}
    labels = [each["label"] for each in page.summary["tables"]["edits"]["columns"]]
    assert "identity" in labels
    next((folder / "rows").iterdir()).write_bytes(b"none")
    assert "evaluation/rows/in-1-abababababababab.parquet cannot be read" in report_of(run).text


def test_throughput_and_cost_are_those_of_the_drivers(run: Any) -> None:
    run.start(1)
    run.add(0)
    work = Work(shards=1, images=30, model_s=60.0, read_s=1.0, write_s=2.0, wall_s=200.0)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for name in ("20260101T000000.1Z-a-1", "20260101T000000.2Z-b-2"):
        record = DriverRecord(
            v=1, name=name, host="h", pid=1, engine="ray", workers=2, gpus_per_worker=0.0,
            started_at=moment, seen_at=moment, state="ended", exit_code=0, sentence="", to_do=1,
            in_flight=0, waiting=0, ready_workers=0, loading_workers=0, images_per_s=0.0,
            work=work,
        )  # fmt: skip
        write_driver(run.folder, record)
    page = report_of(run)
    # 60 images in 2 drivers of 200 s each; 120 s of the model
    assert "0.150 images a second of 2 workers (ray), 60 images in 2 shards" in page.text
    assert "2.00 min of the model, 2.00 s an image" in page.text
    assert "6.67 min from start to end" in page.text


def test_large_pictures_are_reduced(run: Any) -> None:
    run.side = 320
    run.start(1)
    run.add(0, samples=1)
    page = report_of(run)
    assert Image.open(page.folder / page.cards[0]["file"]).size == (3 * 256, 2 * 256)
    assert Image.open(page.folder / page.summary["thumbnails"]["files"][0]).size == (640, 64)


def test_change_is_in_units_of_images_from_minus_one_to_one() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert change(white, black).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_spread_takes_even_steps() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread("ab", 4) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.03456, "0.0346"), (1234.5, "1,230"), (0.0, "0"), (-2.0, "−2.00"), (None, "–"),
     (float("nan"), "–"), (float("inf"), "∞"), (0.0000123, "1.23e−05"), (0.00999999, "0.0100")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert three(value) == text


def test_almost_all_is_not_all() -> None:
    assert (percent(1.0), percent(0.9999), percent(0.25)) == ("100 %", "99.9 %", "25 %")


def test_durations_change_their_unit() -> None:
    assert (duration(8.25), duration(720), duration(36000)) == ("8.25 s", "12.0 min", "10.0 h")


def test_a_run_on_an_object_store_gets_its_report_there(tmp_path: Path, run: Any) -> None:
    store = fsspec.filesystem("memory")
    root = f"memory://{uuid.uuid4().hex}/run"
    run.folder = RunFolder(root)
    run.start(1)
    run.add(0)
    assert write_report(root) == f"{root}/report/index.html"
    local = root.removeprefix("memory://")
    names = {name.removeprefix("/") for name in store.find(f"{root}/report")}
    for name in ("index.html", "morph.js", "data/edits-0000.js", "cards/0000.webp"):
        assert f"{local}/report/{name}" in names
    store.rm(local, recursive=True)


def test_it_needs_neither_torch_nor_ray() -> None:
    code = "import sys, pipelines.report.page; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
