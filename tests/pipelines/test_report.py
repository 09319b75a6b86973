from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lib import schemas
from lib.commit import ShardResult, commit
from lib.problems import ConfigProblem
from lib.quarantine import quarantine
from lib.receipts import Failure
from lib.run_folder import RunFolder
from lib.run_record import run_record
from pipelines import report_numbers, report_sheets
from pipelines.config import RunConfig
from pipelines.contact_sheets import Layout, change, sprite
from pipelines.number_texts import percent, three
from pipelines.report import write_report
from pipelines.report_numbers import read_numbers, spread

EVIL = "<script>alert(1)</script>"
STRENGTHS = (0.2, -0.1)
REGIONS = ("eyes", "mouth")
LEFT_HALF = (0.0, 0.0, 0.5, 1.0)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def original(shard: int, index: int, side: int) -> np.ndarray:
    """One colour a sample, so that a picture in the report can be told from all others."""
    return np.full((side, side, 3), (20 + 40 * shard, 30 + 10 * index, 90), np.uint8)


def mask(side: int) -> np.ndarray:
    grey = np.zeros((side, side, 3), np.uint8)
    grey[:, : side // 2] = 255
    return grey


@dataclass
class Run:
    """A run of synthetic pictures: the edit brightens the left half by 100 * strength * 2."""

    folder: RunFolder
    inputs: Path
    layout: str = "pairs"
    side: int = 16
    keys: Mapping[tuple[int, int], str] = field(default_factory=dict)
    stored: bool = True
    own: bool = True

    def start(self, shards: int) -> None:
        config = RunConfig.model_validate(
            {
                "input": {"shards": [str(self.inputs / "in-*.tar")]},
                "segment": {
                    "regions": {"eyes": {"box": LEFT_HALF}, "mouth": {"file": "mouth.png"}}
                },
                "edit": {"strengths": STRENGTHS},
                "output": {"folder": self.folder.root, "layout": self.layout},
            }
        )
        self.folder.open_run(run_record({"side": self.side}, config.model_dump(mode="json")))
        urls = {f"in-{n}": str(self.inputs / f"in-{n}.tar") for n in range(shards)}
        self.folder.add_inputs(urls)

    def add(self, number: int, samples: int = 3, failed: Sequence[int] = ()) -> None:
        shard, side = f"in-{number}", self.side
        source, members, rows = {}, {}, []
        for index in range(samples):
            pixels = original(number, index, side)
            source[f"s{index}.png"] = png(pixels)
            source[f"s{index}.mouth.png"] = png(mask(side))
            edits = [(r, s) for r in REGIONS for s in STRENGTHS] if index not in failed else []
            for position, (region, strength) in enumerate(edits):
                edited = pixels.astype(int)
                edited[:, : side // 2] += int(200 * strength)
                stem = f"{shard}-{index:06d}-{position:03d}"
                pairs = self.layout == "pairs"
                member = f"{stem}.edited.png" if pairs else f"{stem}.png"
                members[member] = png(np.clip(edited, 0, 255))
                if pairs:
                    members[f"{stem}.mask.png"] = png(mask(side))
                    members[f"{stem}.original.png"] = png(pixels)
                rows.append(self.row(shard, number, index, position, member, region, strength))
        data = tar(source)
        if self.stored:
            self.inputs.mkdir(exist_ok=True)
            (self.inputs / f"{shard}.tar").write_bytes(data)
        failures = [
            Failure(shard, i, self.keys.get((number, i), f"s{i}"), "decode", "truncated", EVIL)
            for i in failed
        ]
        result = ShardResult(
            shard=shard,
            n_in=samples,
            input_size=len(data),
            input_sha256=hashlib.sha256(data).hexdigest(),
            images=tar(members) if members else b"",
            rows=pa.Table.from_pylist(rows, schema=schemas.EDITS),
            directions=self.directions(shard, number, samples, failed) if self.own else None,
            failures=failures,
        )
        assert commit(self.folder, result, str(self.folder.read_run()["fingerprint"]))

    def row(
        self, shard: str, number: int, index: int, position: int, member: str, region: str,
        strength: float,
    ) -> dict[str, object]:  # fmt: skip
        return {
            "shard": shard, "index": index, "key": self.keys.get((number, index), f"s{index}"),
            "edit": position, "image": "", "member": member, "sha256": "00", "region": region,
            "mask_sha256": "ab", "mask_area": 0.5, "rank": 0, "strength": strength,
            "added_directions": [], "added_regions": [], "added_ranks": [],
            "added_strengths": [], "noise": None,
            "direction": f"{shard}-{index}" if self.own else f"shared-{region}",
            "injection": "asymmetric", "t_high": 899, "t_low": 299,
            "in_change": abs(strength) * (1 + index), "out_change": 0.01, "roir": 0.25,
            "in_l2": 0.1, "out_l2": 0.01, "in_ssim": 0.5,
            "out_ssim": 0.9, "roir_original": 0.3, "reconstruction_l1": 0.01,
            "reconstruction_l2": 0.001, "reconstruction_ssim": 0.99, "posterior_gap": None,
            "filtered": None,
            "psnr": 40.0 + index, "network_evaluations": 36.0, "source_width": self.side,
            "source_height": self.side, "crop_left": 0, "crop_top": 0, "crop_width": self.side,
            "crop_height": self.side,
        }  # fmt: skip

    def directions(
        self, shard: str, number: int, samples: int, failed: Sequence[int]
    ) -> pa.Table | None:
        rows = [
            {
                "id": f"{shard}-{index}", "vector": np.zeros(4, np.float32).tolist(), "space": "h",
                "h_layer": "after", "model": "cd", "timesteps": [368], "method": "jacobian",
                "parameters": "{}", "region": "eyes", "mask_sha256": "ab", "shard": shard,
                "index": index, "key": "k", "rank": 0, "singular_value": 3.0 + index, "gap": 0.5,
                "residual": 0.01, "angle": 0.02, "converged": index != 0, "jvp_count": 40,
                "vjp_count": 38, "sign_rule": "mean", "h_norm": 12.5, "parents": [], "label": None,
                "support": 1,
            }
            for index in range(samples)
            if index not in failed
        ]  # fmt: skip
        if not rows:
            return None
        schema = schemas.directions((1, 4, 1, 1), "float32")
        plain = pa.schema([f for f in schema if f.name != "vector"])
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array([v for row in rows for v in row["vector"]], pa.float32()), 4
        )
        vector = pa.ExtensionArray.from_storage(schema.field("vector").type, vectors)
        table = pa.Table.from_pylist(rows, schema=plain)
        return table.add_column(1, schema.field("vector"), vector).cast(schema)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(RunFolder(str(tmp_path / "run")), tmp_path / "in")


class Page(HTMLParser):
    """What a browser sees: texts, and the files that the page names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)
        self.source = self.path.read_text()
        self.tags: list[str] = []
        self.files: set[str] = set()
        self.images: list[str] = []
        self.texts: list[str] = []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset") and value and value[0] != "#":
                self.files.add(value)
                if tag == "img":
                    self.images.append(value)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def sheet_image(self, number: int) -> np.ndarray:
        """Pixels of a sprite, (H, W, 4)."""
        name = sorted(n for n in self.images if n.startswith("sheets/"))[number]
        return np.asarray(Image.open(self.path.parent / name).convert("RGBA"))


def check_offline(page: Page) -> None:
    named = page.files - {"data:,"}
    assert not [name for name in named if ":" in name or name.startswith("/")]
    assert not [name for name in named if not (page.path.parent / name).is_file()]
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert page.tags.count("script") == 1


def test_pairs_show_every_sample_with_its_edits_in_order_of_strength(run: Run) -> None:
    run.start(2)
    run.add(0)
    run.add(1)
    page = Page(write_report(run.folder.root))
    check_offline(page)
    sprites = [name for name in page.images if name.startswith("sheets/")]
    assert len(sprites) == len(REGIONS) * 6
    # original, -0.1, +0.2, heat of each: cells of 16 pixels with 2 between them
    first = page.sheet_image(0)
    assert first.shape == (16, 5 * 16 + 4 * 2, 4)
    red = original(0, 0, 16)[0, 0, 0]
    assert [int(first[0, 18 * cell, 0]) for cell in range(3)] == [red, max(0, red - 20), red + 40]
    assert first[0, 16, 3] == 0
    assert first[0, 0, 3] == 255
    assert "Finished." in page.text
    assert "−0.1" in page.text


def test_the_heat_map_outlines_the_region_and_is_dark_where_nothing_changed(run: Run) -> None:
    run.start(1)
    run.add(0)
    first = Page(write_report(run.folder.root)).sheet_image(0)
    heat = first[:, 4 * 18 : 4 * 18 + 16, :3]
    assert (heat[:, 8:] == heat[0, 15]).all()
    assert heat[0, 15].max() < 8
    assert (heat[:, 7] == (94, 234, 212)).all()
    assert heat[8, 3].sum() > 300


def test_texts_of_shards_are_shown_and_never_run(run: Run) -> None:
    run.keys = {(0, 0): EVIL, (0, 2): '"><img src=x onerror=alert(1)>'}
    run.start(2)
    run.add(0, failed=(1, 2))
    quarantine(run.folder, "in-1", "in-1.tar", f"it is broken {EVIL}", None, 3)
    page = Page(write_report(run.folder.root))
    check_offline(page)
    assert EVIL not in page.source
    assert page.text.count(EVIL) >= 4  # the key on two sheets, the message, the reason
    assert "x" not in page.images
    assert "Finished , with 1 shard given up" in page.text.replace("Finished,", "Finished ,")
    assert "decode truncated 2" in page.text


def test_edited_layout_takes_originals_from_the_input(run: Run) -> None:
    run.layout = "edited"
    run.start(1)
    run.add(0)
    page = Page(write_report(run.folder.root))
    check_offline(page)
    for number in range(len(REGIONS) * 3):  # a box and a mask file
        sprite_HWC = page.sheet_image(number)
        assert (sprite_HWC[0, 0, :3] == original(0, number % 3, 16)[0, 0]).all()
        heat = sprite_HWC[:, 4 * 18 : 4 * 18 + 16, :3]
        assert (heat[:, 7] == (94, 234, 212)).all()


@pytest.mark.parametrize("how", ["missing", "changed", "no run.json"])
def test_edited_layout_without_its_input_says_so_and_shows_the_edits(run: Run, how: str) -> None:
    run.layout = "edited"
    run.start(1)
    run.add(0)
    source = run.inputs / "in-0.tar"
    if how == "missing":
        source.unlink()
    elif how == "changed":
        source.write_bytes(tar({"s0.png": png(original(5, 5, 16))}))
    else:
        Path(run.folder.run_url).unlink()
    page = Page(write_report(run.folder.root))
    check_offline(page)
    assert page.sheet_image(0).shape == (16, 2 * 16 + 2, 4)
    assert re.search("riginals.*(not stored|stores no originals)|stores no originals", page.text)


def test_a_missing_or_damaged_tar_is_a_notice_and_the_others_are_shown(run: Run) -> None:
    run.start(4)
    for number in range(4):
        run.add(number, samples=2)
    lost, cut, *_ = sorted((Path(run.folder.root) / "images").iterdir())
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:300])
    page = Page(write_report(run.folder.root))
    check_offline(page)
    assert f"images/{lost.name} is missing" in page.text
    assert f"images/{cut.name} cannot be read" in page.text
    assert len([name for name in page.images if "sheets/" in name]) == len(REGIONS) * 4


def test_a_damaged_commit_errors_file_and_quarantine_record_are_notices(run: Run) -> None:
    run.start(4)
    run.add(0)
    run.add(1, failed=(0,))
    root = Path(run.folder.root)
    (root / "commit" / "in-2.parquet").write_bytes(b"PAR1 and no more")
    for folder in ("errors", "directions"):
        next((root / folder).glob("in-1*")).write_bytes(b"nothing")
    (root / "quarantine").mkdir()
    (root / "quarantine" / "in-3.json").write_text("{")
    page = Page(write_report(run.folder.root))
    check_offline(page)
    for name in ("in-2.parquet", "errors/in-1-", "directions/in-1-", "quarantine/in-3.json"):
        assert name in page.text
    assert "unknown truncated 1" in page.text


def test_a_run_that_has_only_begun_has_a_report(run: Run) -> None:
    run.start(3)
    page = Page(write_report(run.folder.root))
    check_offline(page)
    assert "Unfinished: 3 of 3 shards to do." in page.text
    assert "Nothing is committed yet" in page.text
    assert "strengths: [0.2, -0.1]" in page.source


def test_a_run_whose_samples_all_failed_has_a_report(run: Run) -> None:
    run.start(1)
    run.add(0, failed=(0, 1, 2))
    page = Page(write_report(run.folder.root))
    check_offline(page)
    assert "No sample of the committed shards could be edited." in page.text


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="expected the output folder of a run"):
        write_report(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_the_tables_hold_the_medians(run: Run) -> None:
    run.start(1)
    run.add(0)
    page = Page(write_report(run.folder.root))
    # in_change is |strength| * (1, 2, 3), psnr 40, 41, 42, singular values 3, 4, 5
    assert "eyes 0 −0.1 3 0.200 0.0100 0.250 41.0" in page.text
    assert "mouth 0 +0.2 3 0.400 0.0100 0.250 41.0" in page.text
    assert "eyes 0 3 4.00 [3.50, 4.50] 0.500 [0.500, 0.500] 66.7 % 40 38" in page.text


def test_the_same_run_gives_the_same_report_and_leftovers_of_an_earlier_one_go(run: Run) -> None:
    run.start(1)
    run.add(0)
    report = Path(write_report(run.folder.root)).parent

    def content() -> dict[str, bytes]:
        return {str(p.relative_to(report)): p.read_bytes() for p in report.rglob("*.*")}

    before = content()
    (report / "sheets" / "99-99.webp").write_bytes(b"of an earlier report")
    write_report(run.folder.root)
    assert content() == before


def test_directions_of_a_library_have_a_sheet_each(run: Run) -> None:
    run.own = False
    run.start(1)
    run.add(0)
    page = Page(write_report(run.folder.root))
    check_offline(page)
    assert "eyes, direction rank 0 shared-eyes" in page.text
    assert "JVPs" not in page.text


def test_a_large_run_is_sampled_and_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_numbers, "MAX_SHARDS", 2)
    monkeypatch.setattr(report_numbers, "_MAX_ROWS", 16)
    run.start(4)
    for number in range(4):
        run.add(number, samples=4)
    numbers = read_numbers(run.folder)
    assert (numbers.samples_ok, numbers.edits, numbers.shards_read) == (16, 64, 2)
    assert numbers.with_images == ["in-0", "in-2"]
    # 16 rows a shard, 8 allowed: every second sample; the counts are of all
    assert {values.shape[1] for values in numbers.values.values()} == {4}
    assert set(numbers.counts.values()) == {8}
    page = Page(write_report(run.folder.root))
    assert "of 2 of 4 committed shards, evenly spaced" in page.text


def test_sheets_get_fewer_rows_when_they_would_be_heavy(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_sheets, "_BUDGET_BYTES", 3 * 2 * 88 * 16 * 1.8)
    run.start(3)
    for number in range(3):
        run.add(number)
    page = Page(write_report(run.folder.root))
    assert len([name for name in page.images if "sheets/" in name]) == len(REGIONS) * 3
    assert all(f"in-{number} #0" in page.text for number in range(3))


def test_large_pictures_are_reduced(run: Run) -> None:
    run.side = 320
    run.start(1)
    run.add(0, samples=1)
    assert Page(write_report(run.folder.root)).sheet_image(0).shape[0] == 256


def test_many_strengths_put_the_heat_maps_below() -> None:
    layout = Layout(8, (-0.2, -0.1, 0.1, 0.2), originals=True)
    assert (layout.columns, layout.lines, layout.width, layout.height) == (5, 2, 48, 18)
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    data = sprite(layout, black, [white, None, black, white], None, 2.0)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels[0, 10, :3].min() == 255
    assert pixels[0, 20, 3] == pixels[10, 20, 3] == 0
    assert pixels[10, 10, :3].sum() > 500 > 30 > pixels[10, 30, :3].sum()


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


def test_a_run_on_an_object_store_gets_its_report_there(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    root = f"memory://{uuid.uuid4().hex}/run"
    run = Run(RunFolder(root), tmp_path / "in")
    run.start(1)
    run.add(0)
    assert write_report(root) == f"{root}/report/index.html"
    names = {name.removeprefix("/") for name in store.find(f"{root}/report")}
    local = root.removeprefix("memory://")
    assert f"{local}/report/index.html" in names
    assert f"{local}/report/sheets/01-02.webp" in names
    store.rm(local, recursive=True)


def test_it_needs_neither_torch_nor_ray() -> None:
    code = "import sys, pipelines.report; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
