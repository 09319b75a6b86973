"""Runs whose window is found by the perceptual rule."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from lib.ledger.run_folder import RunFolder
from pipelines import perceptual_window
from pipelines.perceptual_window import resolved
from pipelines.plan import make_plan

EDIT = {
    "strengths": [0.1],
    "window": [900, 200],
    "window_rule": {"images": 3, "measure": "ssim", "boost": True},
}


def test_the_first_worker_measures_and_all_edit_in_what_it_found(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(4))
    config = shards.config(tiny_checkpoint, shard, tmp_path / "run", edit=EDIT)
    folder, (report,) = shards.work(config, [shard])
    assert report.outcome == "committed"
    found = json.loads((tmp_path / "run" / "window.json").read_text())
    assert (found["measure"], found["images"], found["thresholds"]["edit"]) == ("ssim", 3, 0.6)
    steps = {d["timestep"]: d for d in found["distances"]}
    assert sorted(steps) == [166, 332, 499, 666, 832]
    assert found["t_edit"] == min(t for t, d in steps.items() if d["predicted"] >= 0.6)
    assert found["t_boost"] == min(t for t, d in steps.items() if d["noisy"] >= 0.1)

    monkeypatch.setattr(perceptual_window, "measured", lambda *_: pytest.fail("measured again"))
    again = resolved(config, RunFolder(str(tmp_path / "run")))
    assert again.edit.window == (900, max(200, found["t_edit"]))
    assert again.edit.window_rule is None
    assert again.edit.boost_below == found["t_boost"]
    rows = pq.read_table(folder.commit_url("a")).to_pylist()
    lowest = min(t for t in steps if t >= again.edit.window[1])
    assert {(row["t_high"], row["t_low"]) for row in rows} == {(832, lowest)}

    by_hand = shards.config(
        tiny_checkpoint,
        shard,
        tmp_path / "by_hand",
        edit={"strengths": [0.1], "window": list(again.edit.window)},
    )
    assert resolved(by_hand, RunFolder(str(tmp_path / "by_hand"))) is by_hand


def test_a_plan_counts_the_window_as_it_is_written_and_says_so(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    config = shards.config(tiny_checkpoint, "in/a.tar", tmp_path / "run", edit=EDIT)
    rows = dict(make_plan(config, []).rows())
    assert rows["edited timesteps"].startswith("832 down to 332 at the lowest, found by the run")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"output": {"folder": "out", "latents": "float32"}}, "stores latents or reads them"),
        ({"edit": EDIT | {"boost_below": 100}}, "expected one of them, got 100 too"),
        ({"invert": {"method": "bdia"}}, "expected invert.method ddim with it, got bdia"),
    ],
)
def test_what_the_rule_cannot_be_combined_with_is_refused(
    shards: ModuleType, tmp_path: Path, sections: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        shards.config("embedded", "a.tar", tmp_path, **({"edit": EDIT} | sections))


def test_boosting_adds_the_same_noise_in_every_run(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(2))
    made = {}
    for name, below in (("plain", 0), ("boosted", 500), ("again", 500)):
        config = shards.config(tiny_checkpoint, shard, tmp_path / name, edit={"boost_below": below})
        shards.work(config, [shard])
        made[name] = shards.images(tmp_path / name)
    assert sorted(made["plain"]) == sorted(made["boosted"])
    for key, image in made["boosted"].items():
        assert (image == made["again"][key]).all()
        assert (image != made["plain"][key]).any()
