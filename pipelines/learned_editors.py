"""Which learned editors a run applies: from the tables of libraries alone, so that `plan` refuses
what the run would. No torch here.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lib.directions.edit_query import Candidate
from lib.directions.library_facts import LibraryFact
from lib.editors.editor_record import EDITING, RECONSTRUCTION, RECTIFIER, EditorRecord
from lib.editors.editor_table import editor_url, read_editor_rows
from lib.editors.library_editors import editor_head, editors_root
from lib.files import storage
from lib.models.checkpoint import Checkpoint, weights_sha256
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery

RANK = -1
"""Of learned editors, which are not ranked among the directions of an image."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A learned editor that a run applies."""

    record: EditorRecord
    root: str
    """The folder of its library."""

    @property
    def url(self) -> str:
        """Of its file."""
        return editor_url(self.root, self.record.id)

    @property
    def fact(self) -> LibraryFact:
        """As a library says it of a direction."""
        record = self.record
        shape = record.shape[-3:]
        return LibraryFact(
            url=self.url,
            row=0,
            id=record.id,
            candidate=Candidate(record.region, RANK, record.method, record.id, record.label),
            space=record.space,
            h_layer=record.h_layer,
            model=record.model,
            shape=(shape[0], shape[1], shape[2]) if len(shape) == 3 else (),
            timesteps=record.timesteps,
            window=record.window,
            type=record.type,
        )


def chosen_editors(config: RunConfig) -> tuple[Chosen, ...]:
    """Those of the section `learned`, and those of a library that `discover` reads.

    Raises:
        ConfigProblem: a library, label or id is not there, or an editor makes no edit.
    """
    found: dict[str, Chosen] = {}
    if config.learned is not None:
        learned = config.learned
        root = editors_root(learned.path)
        records = read_editor_rows(root)
        if not records:
            raise ConfigProblem(
                f"learned.path: expected learned editors at {storage.redact(learned.path)}, found"
                " none; `deltah train` makes them"
            )
        for record in _named(records, learned.labels, learned.ids):
            found.setdefault(record.id, Chosen(record, root))
    if isinstance(config.discover, LibraryDiscovery):
        for chosen in _of_library(config, config.discover):
            found.setdefault(chosen.record.id, chosen)
    return tuple(found.values())


def editors_sha256(chosen: Sequence[Chosen]) -> list[str]:
    """Of the files' contents, in order; raises ConfigProblem where one is missing."""
    digests = []
    for editor in chosen:
        try:
            data = storage.read_bytes(editor.url)
        except FileNotFoundError as error:
            raise ConfigProblem(
                f"{storage.redact(editor.url)}: expected the editor {editor.record.label}, which"
                f" is in the table of {storage.redact(editor.root)}; found no file"
            ) from error
        digests.append(hashlib.sha256(data).hexdigest())
    return digests


def _named(
    records: Sequence[EditorRecord], labels: Sequence[str], ids: Sequence[str]
) -> list[EditorRecord]:
    """Editors by label and first digits of the id; without either all that edit."""
    known = sorted({record.label for record in records})
    for label in labels:
        if label not in known:
            near = difflib.get_close_matches(label, known, n=1, cutoff=0)
            raise ConfigProblem(
                f"learned.labels: no learned editor is called {label!r}; the nearest is {near[0]!r}"
            )
    for start in ids:
        count = sum(record.id.startswith(start) for record in records)
        if count != 1:
            raise ConfigProblem(
                f"learned.ids: expected the first digits of one editor's id, got {start}, with"
                f" which {count or 'none'} of {', '.join(r.id for r in records[:8])} begin"
            )
    asked = bool(labels or ids)
    chosen = [
        record
        for record in records
        if (record.label in labels or any(record.id.startswith(start) for start in ids))
        or (not asked and record.purpose == EDITING)
    ]
    for record in chosen:
        _refuse_reconstruction(record, "learned")
    if not chosen:
        raise ConfigProblem(
            "learned.path: expected an editor that edits, found only rectifiers that reconstruct;"
            " those belong into model.rectifier"
        )
    return chosen


def _of_library(config: RunConfig, discover: LibraryDiscovery) -> list[Chosen]:
    """Editors in the folder of a library: those whose ids are given, else those that edit one of
    the regions.
    """
    if discover.path.endswith(".parquet"):
        return []
    regions = discover.regions or (*config.segment.regions, WHOLE)
    chosen = []
    for record in read_editor_rows(discover.path):
        if record.id in discover.ids:
            _refuse_reconstruction(record, "discover.ids")
        elif discover.ids or record.region not in regions or record.purpose != EDITING:
            continue
        chosen.append(Chosen(record, discover.path))
    return chosen


def _refuse_reconstruction(record: EditorRecord, option: str) -> None:
    if record.purpose != EDITING:
        raise ConfigProblem(
            f"{option}: {record.label} ({record.id}) is a rectifier that was trained to reconstruct"
            " and makes no edit; expected it as model.rectifier"
        )


def check_rectifier(config: RunConfig, checkpoint: Checkpoint) -> int:
    """Factor on the network evaluations of decoding: 2 with `model.rectifier`, whose kernels depend
    on what the frozen network predicts.

    Raises:
        ConfigProblem: it is not there, of another model, trained to edit, or the model is guided.
    """
    if config.model.rectifier is None:
        return 1
    option = "model.rectifier"
    if config.model.guidance_scale > 1:
        raise ConfigProblem(f"{option}: expected model.guidance_scale: 1 with it")
    model = weights_sha256(checkpoint)
    record = editor_head(config.model.rectifier, RECTIFIER, model, option)
    if record.purpose != RECONSTRUCTION:
        raise ConfigProblem(
            f"{option}: {record.label} ({record.id}) was trained to edit; expected one that was"
            " trained to reconstruct, and this one in the section learned"
        )
    return 2
