"""Scoring on the embedded model, whose faces have known factors."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import isnan
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.embedded import held_out, load_bench, segmented
from lib.demo.faces import FACTORS
from lib.demo.shards import write_shards
from lib.direction import WHOLE, Direction, content_id, stored
from lib.directions.library_rows import read_rows
from lib.directions.library_store import Library, read_library_folder, write_library
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.direction_effects import linearity, portrait, summary
from pipelines.effect_files import decode, encode
from pipelines.effects import Effect, Effects, Measured
from pipelines.library_plots import roir_against_strength
from pipelines.library_report import write_library_report
from pipelines.library_score import Scored, Scoring, score_library
from pipelines.library_sheets import COLUMNS, FRAME, SheetRow, sheet
from pipelines.measurement import Progress
from pipelines.seen_images import warn_of_seen

NUM_STEPS = 8
WINDOW = (600, 300)


def changed(direction: Direction, vector_SCYX: torch.Tensor, **more: object) -> Direction:
    unit_SCYX = stored(vector_SCYX, "float32")
    identity = content_id(
        unit_SCYX, direction.space, direction.h_layer, direction.model, direction.timesteps
    )
    return replace(direction, vector_SCYX=unit_SCYX, id=identity, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, shards: ModuleType) -> RunConfig:
    """Two good faces behind a file that is no image, and a shard that is no tar."""
    folder = tmp_path_factory.mktemp("held")
    (folder / "a.tar").write_bytes(b"no tar at all")
    shards.write_tar(
        folder / "b.tar", [("x.png", b"no image"), ("x.eyes.png", shards.mask(64, 64))]
    )
    write_shards(str(folder), shards=1, faces_per_shard=2, seed=9191)
    return RunConfig.model_validate(
        {
            "input": {"shards": [str(folder / "*.tar")]},
            "grid": {"num_steps": NUM_STEPS},
            "invert": {"refinements": 0, "batch_size": 2},
            "segment": {"regions": {"eyes": {"file": "eyes.png"}, "mouth": {"file": "mouth.png"}}},
            "edit": {"window": list(WINDOW)},
            "output": {"folder": str(folder / "none")},
            "execution": {"device": "cpu"},
        }
    )


@pytest.fixture(scope="module")
def directions() -> list[Direction]:
    """The strongest eye direction of another face, a random one, the first for all the image."""
    bench = load_bench(NUM_STEPS)
    samples, zones = held_out(1, seed=77)
    node = bench.grid.nearest_node(368)
    inverted = bench.inverted(samples, last=node, keep=[node], refinements=0)
    ((local,),) = bench.discover(segmented(inverted, zones, ["eyes"]), node, 1)
    noise_SCYX = torch.randn(local.vector_SCYX.shape, generator=torch.Generator().manual_seed(0))
    whole_SCYX = local.vector_SCYX + 1e-3 * noise_SCYX / noise_SCYX.norm()
    return [
        local,
        changed(local, noise_SCYX, method="random", singular_value=99.0),
        changed(local, whole_SCYX, region=WHOLE),
    ]


def score(root: Path, config: RunConfig, scoring: Scoring) -> Scored:
    return score_library(str(root), config, scoring, report=lambda progress: None)


@pytest.fixture(scope="module")
def scored(
    config: RunConfig, directions: Sequence[Direction], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Scored, list[str]]:
    root = tmp_path_factory.mktemp("library")
    write_library(str(root), {}, directions)
    messages: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Kept(logging.WARNING)
    logging.getLogger().addHandler(handler)
    result = score(root, config, Scoring(images=2))
    logging.getLogger().removeHandler(handler)
    return root, result, messages


@pytest.mark.timeout(300)
def test_a_local_direction_ranks_above_a_random_one(
    scored: tuple[Path, Scored, list[str]], directions: Sequence[Direction]
) -> None:
    root, _, _ = scored
    rows = {row["id"]: row for row in read_rows(str(root))}
    local, random = rows[directions[0].id], rows[directions[1].id]
    assert (local["rank"], random["rank"]) == (0, 1)  # the random one stood first, unscored
    assert local["score"] > 1.2 * random["score"]
    assert local["roir"] < 0.7 * random["roir"]
    for row in (local, random):
        assert row["in_change"] == pytest.approx(0.15, rel=0.06)
        assert row["scored_images"] == 2
        assert row["factor"] in FACTORS
        expected = (1 + row["consistency"]) / 2 * row["linearity"] / (1 + row["roir"])
        assert row["score"] == pytest.approx(expected, rel=1e-5)
    assert local["strength"] < random["strength"]
    assert 0.4 < local["linearity"] < 1
    assert list(rows) == sorted(rows, key=lambda identity: -rows[identity]["score"])


def test_a_direction_of_the_whole_image_has_no_outside(
    scored: tuple[Path, Scored, list[str]], directions: Sequence[Direction]
) -> None:
    (row,) = [row for row in read_rows(str(scored[0])) if row["region"] == WHOLE]
    assert isnan(row["roir"])
    expected = (1 + row["consistency"]) / 2 * row["linearity"]
    assert row["score"] == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_used_is_skipped_and_said(scored: tuple[Path, Scored, list[str]]) -> None:
    root, result, messages = scored
    assert (result.images, result.skipped) == (2, 2)
    assert sum(m.startswith(("a: ", "b #0: ")) for m in messages) == 2
    record = json.loads((root / "library.json").read_text())
    assert [image["shard"] for image in record["scored"]["images"]] == ["faces-00000"] * 2


def test_every_direction_has_a_sheet_and_the_page_shows_them(
    scored: tuple[Path, Scored, list[str]], directions: Sequence[Direction]
) -> None:
    root, _, _ = scored
    names = {f"{direction.id}.webp" for direction in directions}
    assert {p.name for p in (root / "sheets").iterdir()} == names
    local = np.asarray(Image.open(root / "sheets" / f"{directions[0].id}.webp").convert("RGB"))
    assert local.shape == (2 * 66 - 2, len(COLUMNS) * 66 - 2, 3)
    minus, middle, plus = (local[:64, k * 66 : k * 66 + 64].astype(int) for k in range(3))
    assert np.abs(plus - middle).max() > 5
    assert np.abs(minus - middle).max() > 5
    page = Path(write_library_report(str(root))).read_text()
    assert all(f"../sheets/{name}" in page for name in names)
    assert {p.name for p in (root / "report" / "plots").iterdir()} == {
        f"{plot}-{scheme}.svg" for plot in ("score", "strength") for scheme in ("light", "dark")
    }


@pytest.mark.timeout(300)
def test_scoring_that_was_stopped_goes_on_and_leaves_the_same_bytes(
    scored: tuple[Path, Scored, list[str]], config: RunConfig
) -> None:
    root, _, _ = scored

    def digests() -> dict[str, str]:
        return {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in [*root.glob("*.*"), *root.glob("sheets/*"), *root.glob("scores/*")]
        }

    before = digests()
    assert len(before) == 5
    reports: list[Progress] = []

    def stop_after_an_image(progress: Progress) -> None:
        reports.append(progress)
        if progress.images_done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_library(str(root), config, Scoring(images=2), report=stop_after_an_image)
    assert reports[-1] == Progress(images=2, images_done=1, tries=6, tries_done=3, tries_found=0)
    (left,) = (root / "scores").iterdir()
    kept = left.read_bytes()
    reports.clear()
    score_library(str(root), config, Scoring(images=2), report=reports.append)
    assert [report.tries_found for report in reports] == [0, 3, 3]
    assert digests() == before
    left.write_bytes(kept[:-7])  # what it would be on a disk that lost its end
    reports.clear()
    with pytest.raises(KeyboardInterrupt):
        score_library(str(root), config, Scoring(images=2), report=stop_after_an_image)
    assert (reports[-1].tries_found, left.read_bytes()) == (0, kept)
    left.unlink()


def test_effects_are_read_back_as_they_were(directions: Sequence[Direction]) -> None:
    numbers = Effect(True, 0.1, 0.15, float("inf"), 0.8, -0.7, torch.tensor([0.1, -0.3]))
    pixels = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 3)]
    mask = np.eye(8, dtype=bool)
    measured = [
        None,
        Measured(numbers, torch.rand(3, 4, 4), SheetRow(*pixels, mask, True)),
        Measured(replace(numbers, reached=False), torch.zeros(3, 4, 4), None),
        Measured(
            replace(numbers, reached=False),
            torch.zeros(3, 4, 4),
            SheetRow(*pixels[::-1], None, False),
        ),
    ]
    for given in (measured, [None], []):
        found = decode(encode(given))
        assert len(found) == len(given)
        for one, other in zip(found, given, strict=True):
            assert (one is None) == (other is None)
            if one is None or other is None:
                continue
            assert torch.equal(one.effect.factors_F, other.effect.factors_F)
            factors_F = other.effect.factors_F
            assert replace(one.effect, factors_F=factors_F) == other.effect
            assert torch.equal(one.portrait_CPP, other.portrait_CPP)
            assert (one.row is None) == (other.row is None)
            if one.row is not None and other.row is not None:
                assert one.row.reached == other.row.reached
                assert (one.row.mask is None) == (other.row.mask is None)
                for name in ("minus", "reconstruction", "plus", "mask"):
                    assert np.array_equal(getattr(one.row, name), getattr(other.row, name))
    with pytest.raises(ValueError, match="expected measured effects"):
        decode(encode(measured)[:-1])


def test_linearity_is_that_of_a_dial_and_not_of_a_switch() -> None:
    full = np.random.default_rng(0).normal(size=(3, 16, 16))
    mask = np.zeros((16, 16))
    mask[4:8] = 1
    elsewhere = full + 100 * (1 - mask)  # what happens outside of the region does not count

    def measured(half: np.ndarray) -> float:
        tensors = (torch.from_numpy(a).float() for a in (half, elsewhere, mask))
        return linearity(*tensors)

    assert measured(full / 2) == pytest.approx(1, abs=1e-6)
    assert measured(0.01 * full) == pytest.approx(0.02, abs=1e-6)
    assert measured(0.4 * full) == pytest.approx(0.8, abs=1e-6)
    assert measured(full) == pytest.approx(0, abs=1e-6)
    assert measured(-full) == 0


def test_a_row_that_missed_the_change_is_framed() -> None:
    grey = np.full((64, 64, 3), 90, np.uint8)
    rows = [SheetRow(grey, grey, grey, None, reached) for reached in (True, False)]
    cells = np.asarray(Image.open(BytesIO(sheet(rows, 0.15))).convert("RGB"))
    cells = np.stack([[cells[y : y + 64, 66 * k : 66 * k + 64] for k in range(4)] for y in (0, 66)])
    corners = cells[:, :, [0, 0, 63, 63], [0, 63, 0, 63]]
    assert not (corners[0] == FRAME).all(axis=-1).any()
    framed = (corners[1] == FRAME).all(axis=(1, 2))
    assert framed.tolist() == [True, False, True, True]
    assert (cells[1, 0, 4:-4, 4:-4] == 90).all()


def test_the_page_folds_what_was_not_scored_and_says_where_the_change_was_not_reached(
    scored: tuple[Path, Scored, list[str]], directions: Sequence[Direction], tmp_path: Path
) -> None:
    root = tmp_path / "library"
    shutil.copytree(scored[0], root)
    library = read_library_folder(str(root))
    changed_ones = [
        replace(d, scores=replace(d.scores, images=1) if i == 0 and d.scores else None)
        for i, d in enumerate(library.directions)
    ]
    write_library(str(root), library.record, changed_ones)
    page = Path(write_library_report(str(root))).read_text()
    ranking, rest = page.split('<section id="unscored">')
    first, *others = changed_ones
    assert f'title="{first.id}"' in ranking
    assert "reached 1/2" in ranking
    assert "no strength made the change in this image" in ranking
    assert "<details>" in rest
    for other in others:
        assert f'title="{other.id}"' not in ranking
        assert f'title="{other.id}"' in rest
    whole = Path(write_library_report(str(scored[0]))).read_text()
    assert '<section id="unscored">' not in whole
    assert "reached" not in whole.split("<body>")[1].split("<script>")[0]


def test_log_axes_have_labelled_ticks_alone() -> None:
    rows = [
        {"region": "eyes", "roir": r, "strength": r, "score": 0.3, "scored_images": 2}
        for r in (0.06, 0.11, 0.42)
    ]
    plot = roir_against_strength(rows, "light").decode()
    ticks = plot.count('id="xtick_')
    texts = [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", plot)]
    assert ticks == sum(text in ("0.1", "0.2", "0.3") for text in texts) / 2 == 3


def test_images_that_directions_were_found_in_are_warned_of(
    directions: Sequence[Direction], caplog: pytest.LogCaptureFixture
) -> None:
    def seen(built: dict[str, object], found_in: tuple[str, int] | None = None) -> int:
        shard, index = found_in or (None, None)
        made = tuple(replace(d, shard=shard, index=index) for d in directions)
        images = [
            SimpleNamespace(
                inverted=SimpleNamespace(sample=SimpleNamespace(shard=shard, index=index))
            )
            for shard, index in (("a", 0), ("a", 1), ("b", 0))
        ]
        held = SimpleNamespace(images=images, sha256={"a": "1" * 64, "b": "2" * 64})
        caplog.clear()
        return warn_of_seen(Library("lib", {"built": built}, made), held)  # type: ignore[arg-type]

    assert seen({"inputs": [{"shard": "other name", "sha256": "1" * 64}]}) == 2
    assert "2 of the 3 images are among those" in caplog.text
    assert seen({"inputs": [{"shard": "a", "sha256": "3" * 64}]}, ("a", 1)) == 0
    assert caplog.text == ""
    assert seen({"images": [{"shard": "b", "index": 0}, {"shard": "b", "index": 5}]}) == 1
    assert seen({}, ("a", 1)) == 1
    assert seen({}) == 0


def test_a_library_of_another_model_layer_or_region_is_refused(
    config: RunConfig, directions: Sequence[Direction], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    write_library(str(tmp_path / "lib"), {}, directions[:1])
    other = config.model_copy(
        update={"model": config.model.model_copy(update={"checkpoint": str(tiny_checkpoint)})}
    )
    with pytest.raises(ConfigProblem, match="the config has model"):
        score(tmp_path / "lib", other, Scoring(images=2))
    layer = config.model_copy(
        update={"model": config.model.model_copy(update={"h_layer": "before"})}
    )
    with pytest.raises(ConfigProblem, match="layer before"):
        score(tmp_path / "lib", layer, Scoring(images=2))
    write_library(str(tmp_path / "hair"), {}, [replace(directions[0], region="hair")])
    with pytest.raises(ConfigProblem, match=r"\['hair'\] are missing"):
        score(tmp_path / "hair", config, Scoring(images=2))
    bad = config.input.model_copy(update={"shards": (config.input.shards[0].replace("*", "b"),)})
    with pytest.raises(ConfigProblem, match="at least 2 held-out images"):
        score(tmp_path / "lib", config.model_copy(update={"input": bad}), Scoring(images=2))
    with pytest.raises(ConfigProblem, match="at least 2"):
        Scoring(images=1)


def test_a_region_that_lies_elsewhere_in_the_other_image_can_be_consistent() -> None:
    pattern_CHW = torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(2)) - 0.5
    portraits = []
    for top, left in ((5, 9), (30, 40)):
        moved_CHW, mask_HW = torch.rand(3, 64, 64), torch.zeros(64, 64)
        moved_CHW[:, top : top + 12, left : left + 20] = pattern_CHW
        mask_HW[top : top + 12, left : left + 20] = 1
        portraits.append(portrait(moved_CHW, mask_HW).flatten())
    assert float(torch.cosine_similarity(*portraits, dim=0)) == pytest.approx(1, abs=1e-5)


def effects(direction: Direction, reached: Sequence[bool], unit_ND: torch.Tensor) -> Effects:
    found = [Effect(r, 0.1, 0.15, 0.5, 0.8, 0.7, torch.zeros(0)) for r in reached]
    inside = [u_D for u_D, r in zip(unit_ND, reached, strict=True) if r]
    total_D = torch.stack(inside).sum(0) if inside else torch.zeros(1)
    return Effects(direction, len(reached), found, total_D)


def test_consistency_is_the_mean_cosine_over_pairs(directions: Sequence[Direction]) -> None:
    unit_ND = torch.nn.functional.normalize(
        torch.rand(5, 30, generator=torch.Generator().manual_seed(1)), dim=1
    )
    cosines = [float(unit_ND[i] @ unit_ND[j]) for i in range(5) for j in range(i)]
    found = summary(effects(directions[0], [True] * 5, unit_ND))
    assert found.consistency == pytest.approx(np.mean(cosines), abs=1e-5)
    assert found.score == pytest.approx((1 + np.mean(cosines)) / 2 * 0.8 / 1.5, abs=1e-5)


def test_images_that_never_reach_the_change_lower_the_score(
    directions: Sequence[Direction],
) -> None:
    unit_ND = torch.eye(30)[:1].expand(4, -1)
    some = summary(effects(directions[0], [True, True, True, False], unit_ND))
    assert (some.images, some.score) == (3, pytest.approx(0.75 * 0.8 / 1.5))
    one = summary(effects(directions[0], [True, False, False, False], unit_ND))
    assert (one.images, one.score) == (1, 0.0)
    none = summary(effects(directions[0], [False] * 4, unit_ND))
    assert (none.images, none.score) == (0, 0.0)
