from __future__ import annotations

from pathlib import Path

from benchmarks.report import build, first_page_bytes, make_run
from lib.ledger.run_folder import RunFolder


def test_a_run_of_many_edits_has_a_light_first_page_and_all_its_numbers(tmp_path: Path) -> None:
    """The limits are those of 100,000 edits; what imports take of the memory is the most of it."""
    folder = RunFolder(str(tmp_path / "run"))
    make_run(folder, edits=12_000, shards=6, side=16)
    seconds, peak = build(folder.root)
    report = tmp_path / "run" / "report"
    assert seconds < 60
    assert peak < 600e6
    assert first_page_bytes(report / "index.html") < 3e6
    # 5,000 rows a chunk
    chunks = sorted(path.name for path in (report / "data").glob("edits-*.js"))
    assert chunks == ["edits-0000.js", "edits-0001.js", "edits-0002.js"]
