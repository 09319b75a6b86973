"""The page of a training, of a folder that is written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml
from typer.testing import CliRunner

from cluster.cli import app
from lib.editors.editor_record import EditorRecord
from lib.editors.editor_table import write_editor_rows
from lib.files import parquet
from lib.ledger.run_record import run_record
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.learned_editors import chosen_editors
from pipelines.training.checkpoint import History, save_checkpoint
from pipelines.training.config import TrainConfig
from pipelines.training.page import term_rows, write_training_page
from pipelines.training.progress import Progress, ProgressFile

STEPS = 40
NAME = "smile"
EVIL = "<script>alert(1)</script>"
Configs = Callable[..., TrainConfig]
VOID = {"meta", "link", "img", "source", "br"}


class Structure(HTMLParser):
    """Tags that are opened and closed, the texts, and the files that the page names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.folder = Path(path).parent
        self.source = Path(path).read_text()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.files: list[str] = []
        self.cells: list[str] = []
        self.blocks: list[str] = []
        self.words: list[str] = []
        self.feed(self.source)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.blocks.append("")
        if tag == "td":
            self.cells.append("")
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("src", "srcset"):
                self.files.append(str(value))
            elif name == "href" and value != "data:,":
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            return
        self.words.append(data)
        if "pre" in self.open:
            self.blocks[-1] += data
        if "td" in self.open:
            self.cells[-1] += data


def page_of(root: Path) -> Structure:
    page = Structure(write_training_page(str(root)))
    assert all((page.folder / name).is_file() for name in page.files)
    assert sorted(p.name for p in (page.folder / "plots").glob("*")) == sorted(
        Path(name).name for name in page.files
    )
    assert {link.removeprefix("#") for link in page.links} == set(page.ids)
    assert not re.search(r"https?://", page.source)
    return page


@pytest.fixture
def begun(config: Configs) -> TrainConfig:
    """A training of two terms that has claimed its folder."""
    terms = [{"kind": "paired", "file": "bright.png", "weight": 2.0},
             {"kind": "l1", "weight": 0.5}]  # fmt: skip
    made = config(
        editor={"kind": "delta_h", "name": NAME, "window": [900, 300]}, objective=terms,
        training={"steps": STEPS, "batch_size": 4, "checkpoint_every": 10},
    )  # fmt: skip
    root = Path(made.output.folder)
    root.mkdir()
    record = run_record({"hand": "made"}, made.model_dump(mode="json"))
    (root / "training.json").write_text(json.dumps(record))
    return made


def losses(steps: int) -> dict[str, list[float]]:
    """Linear from 1 to 0 at the end of the training; the other term is constant."""
    paired = [1 - step / STEPS for step in range(steps)]
    return {"total": [2 * p + 0.125 for p in paired], "paired": paired, "l1": [0.25] * steps}


def fingerprint(root: Path) -> str:
    return str(json.loads((root / "training.json").read_text())["fingerprint"])


def record(root: Path, **values: object) -> EditorRecord:
    known: dict[str, object] = {
        "id": "a" * 16, "type": "direction", "label": NAME, "region": "image",
        "purpose": "editing", "method": "asyrp", "model": "c" * 64, "h_layer": "after",
        "timesteps": (833, 666, 500, 333), "window": (900, 300), "h_norms": (2.0,) * 4,
        "lengths": (0.1, 0.2, 0.3, 0.4), "unit_strength": 1.0, "shape": (4, 32, 8, 8),
        "architecture": {}, "parameters": {}, "data_sha256": "d" * 64, "images": 1234,
        "steps": STEPS, "losses": {}, "fingerprint": fingerprint(root),
    }  # fmt: skip
    return EditorRecord(**(known | values))  # type: ignore[arg-type]


def end(root: Path, *editors: EditorRecord) -> None:
    (root / "losses.parquet").write_bytes(
        parquet.encode(pa.table({"step": list(range(1, STEPS + 1))} | losses(STEPS)))
    )
    write_editor_rows(str(root), editors)
    about = {"v": 1, "model": "c" * 64, "h_layer": "after", "trained": {"editor": "a" * 16}}
    (root / "library.json").write_text(json.dumps(about))


def test_an_ended_training_shows_its_terms_and_what_it_made(begun: TrainConfig) -> None:
    root = Path(begun.output.folder)
    older = record(root, id="b" * 16, label="another", fingerprint="0" * 64)
    end(root, older, record(root))  # the folder is a library, to which others may be added
    page = page_of(root)
    assert f"Trained: direction {'a' * 16}" in page.text.replace(" .", ".")
    assert "another" not in page.text
    # tenths of 40 steps are 4 steps: means of 1, .975, .95, .925 and of .1, .075, .05, .025
    rows = [page.cells[n : n + 6] for n in range(0, len(page.cells), 6)]
    assert [row[:5] for row in rows] == [
        ["total", "–", "2.05", "0.250", "−87.8 %"],
        ["paired", "2", "0.963", "0.0625", "−93.5 %"],
        ["l1", "0.5", "0.250", "0.250", "+0 %"],
    ]
    assert "file bright.png" in rows[1][5]
    assert len(page.files) == 6  # three curves, light and dark
    for told in ("1,234", "833, 666, 500, 333", "cosine", "c" * 64, "deltah train CONFIG"):
        assert told in page.text, told


def test_what_the_page_says_to_write_is_read_by_runs_and_trainings(begun: TrainConfig) -> None:
    root = Path(begun.output.folder)
    end(root, record(root))
    use, retrain = page_of(root).blocks
    assert TrainConfig.model_validate(yaml.safe_load(retrain)) == begun
    sections = yaml.safe_load(use)
    others = {"input": {"shards": ["in.tar"]}, "output": {"folder": "out"},
              "segment": {"regions": {"left": {"box": [0, 0, 0.5, 1]}}}}  # fmt: skip
    made = RunConfig.model_validate(others | sections)
    (chosen,) = chosen_editors(made)
    assert (chosen.record.id, chosen.root) == ("a" * 16, str(root))
    assert made.edit.plan is not None
    assert "strength 1 is what was trained" in page_of(root).text
    end(root, record(root, unit_strength=0.6))
    assert "strength 1 is 0.600 of what was trained" in page_of(root).text
    end(root, record(root, type="rectifier", purpose="reconstruction", method="rectifier"))
    use, _ = page_of(root).blocks
    assert yaml.safe_load(use) == {"model": {"rectifier": str(root)}}


def test_a_training_that_goes_on_shows_its_last_checkpoint(begun: TrainConfig) -> None:
    root = Path(begun.output.folder)
    before = page_of_nothing(root)
    assert "Not over: not begun." in before.text
    assert "first checkpoint, after 10 steps" in before.text
    columns = losses(20)
    editor = torch.nn.Linear(2, 1)
    save_checkpoint(
        str(root), fingerprint=fingerprint(root), data_sha256="d" * 64, step=20,
        history=History(tuple(columns), tuple(zip(*columns.values(), strict=True))),
        editor=editor, optimizer=torch.optim.Adam(editor.parameters()),
    )  # fmt: skip
    ProgressFile(str(root))(Progress("training", 24, STEPS, {"total": 1.0}, 2.0))
    page = page_of(root)
    assert "Not over: training, step 24 of 40." in page.text
    assert "Up to the last checkpoint, step 20" in page.text
    assert "32.0 s" in page.text  # 16 steps of 4 images, 2 a second
    assert "use" not in page.ids
    assert page.cells[6:10] == ["paired", "2", "0.988", "0.538"]  # of 2 steps each


def test_show_tells_a_training_from_a_run(begun: TrainConfig) -> None:
    root = Path(begun.output.folder)
    shown = CliRunner().invoke(app, ["show", str(root), "--no-open"])
    assert shown.output.strip() == str(root / "report" / "index.html")
    assert "deltah training" in (root / "report" / "index.html").read_text()
    (root / "training.json").unlink()
    refused = CliRunner().invoke(app, ["show", str(root), "--no-open"])
    assert "expected the output folder of a run" in str(refused.exception)


def page_of_nothing(root: Path) -> Structure:
    return Structure(write_training_page(str(root)))


def test_texts_of_a_config_stay_texts(config: Configs) -> None:
    made = config(objective=[{"kind": "clip", "model": "clip", "source": "face", "target": EVIL}])
    root = Path(made.output.folder)
    root.mkdir()
    (root / "training.json").write_text(json.dumps(run_record({}, made.model_dump(mode="json"))))
    page = page_of_nothing(root)
    assert EVIL not in page.source
    assert EVIL in page.text


def test_the_sum_of_one_term_of_weight_1_is_not_drawn_twice() -> None:
    curves = {"total": [1.0, 0.5], "paired": [1.0, 0.5]}
    assert [row.name for row in term_rows(curves, [{"kind": "paired", "weight": 1.0}])] == [
        "paired"
    ]
    shown = term_rows({"total": [2.0], "l1": [1.0], "l1_2": [1.0]},
                      [{"kind": "l1", "weight": 0.5}, {"kind": "l1", "weight": 1.5}])  # fmt: skip
    assert [(row.name, row.weight) for row in shown] == [
        ("total", None), ("l1", 0.5), ("l1_2", 1.5),
    ]  # fmt: skip


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="expected the folder of a training"):
        write_training_page(str(tmp_path))
