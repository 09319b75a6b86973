"""A library says which learned editors it holds, also where it holds nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.views.library import show_rows
from lib.directions.library_rows import read_rows
from lib.editors.editor_record import EditorRecord
from lib.editors.editor_table import read_editor_rows, write_editor_rows
from lib.problems import ConfigProblem
from pipelines.library_report import write_library_report


def editor(identity: str, label: str, **values: object) -> EditorRecord:
    record: dict[str, object] = {
        "id": identity, "type": "direction", "label": label, "region": "mouth",
        "purpose": "editing", "method": "asyrp", "model": "c" * 64, "h_layer": "after",
        "timesteps": (800, 400), "window": (900, 300), "h_norms": (2.0, 3.0),
        "lengths": (0.1, 0.2), "unit_strength": 1.0, "shape": (2, 4, 1, 1), "architecture": {},
        "parameters": {}, "data_sha256": "d" * 64, "images": 1024, "steps": 160,
        "losses": {"total": (1.0, 0.5)}, "fingerprint": "f" * 64,
    }  # fmt: skip
    return EditorRecord(**(record | values))  # type: ignore[arg-type]


@pytest.fixture
def library(tmp_path: Path) -> str:
    """A library of two learned editors and no direction."""
    root = tmp_path / "lib"
    root.mkdir()
    about = {"v": 1, "model": "c" * 64, "h_layer": "after"}
    (root / "library.json").write_text(json.dumps(about))
    rectifier = editor("b" * 16, "<i>clear</i>", type="rectifier", region="image",
                       purpose="reconstruction", method="rectifier", shape=())  # fmt: skip
    write_editor_rows(str(root), [editor("a" * 16, "smile"), rectifier])
    return str(root)


def test_the_page_of_a_library_of_editors_alone_has_a_row_each(library: str) -> None:
    assert read_rows(library) == []
    page = Path(write_library_report(library)).read_text()
    assert "A library of 2 learned editors" in " ".join(page.split())
    assert page.count("<tr>") == 3  # a heading, two editors
    assert "<b>smile</b>" in page
    assert "&lt;i&gt;clear&lt;/i&gt;" in page
    assert "a" * 16 in page
    assert "1,024" in page
    assert "Ranking" not in page
    assert "Not scored" not in page


def test_the_list_names_editors_of_a_region_or_method(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    editors = read_editor_rows(library)
    show_rows(library, [], editors, region="mouth", method=None, top=None)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "smile" in line]
    told = ["a" * 16, "smile", "direction", "mouth", "asyrp", "900", "to", "300", "1,024"]
    assert line.split() == told
    show_rows(library, [], editors, region=None, method="rectifier", top=None)
    out = capsys.readouterr().out
    assert "<i>clear</i>" in out
    assert "smile" not in out
    with pytest.raises(ConfigProblem, match=r"there are regions \['image', 'mouth'\]"):
        show_rows(library, [], editors, region="hair", method=None, top=None)
