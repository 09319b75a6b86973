"""What a config may ask an editor for, what it is by content, and what is built of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

from lib.models.checkpoint import EMBEDDED
from lib.objectives.prediction import Prediction
from lib.objectives.prompt_templates import IMAGENET
from lib.problems import ConfigProblem, ModelProblem
from pipelines.training.objective_building import (
    build_objective,
    objective_content,
    refuse_unfit_objective,
)
from pipelines.training.objective_config import Terms, located, target_file, term_names

CPU = torch.device("cpu")
TERMS: TypeAdapter[Any] = TypeAdapter(Terms)
SMILE = {"kind": "attribute", "name": "smile", "by": 0.5}
PAIRED = {"kind": "paired", "file": "smile.png"}


def words(model: object = "clip", **changes: Any) -> dict[str, Any]:
    texts = {"source": "face", "target": "smile face"}
    return {"kind": "clip", "model": str(model)} | texts | changes


def terms(*values: dict[str, Any]) -> Any:
    return TERMS.validate_python(values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([{"kind": "lpips"}], "'clip', 'attribute', 'paired', 'l1', 'identity'"),
        ([SMILE | {"weight": 0}], "greater than 0"),
        ([SMILE | {"weight": float("inf")}], "finite"),
        ([SMILE | {"to": 0.5}], "either `by` or `to`"),
        ([{"kind": "attribute", "name": "smile"}], "either `by` or `to`"),
        ([SMILE | {"by": 0}], "no change"),
        ([SMILE | {"keep": -1}], "greater than or equal to 0"),
        ([words(target="face ")], "other than the source"),
        ([words(target=" ")], "pattern"),
        ([words(templates=["a photo"])], "once in each template"),
        ([words(templates=["{} {}"])], "once in each template"),
        ([words(templates=[])], "one or more distinct templates"),
        ([words(templates="faces")], "imagenet"),
        ([words(form="squared")], "'cosine' or 'log'"),
        ([PAIRED | {"file": "/smile.png"}], "pattern"),
        ([PAIRED, {"kind": "paired", "file": "hat.png"}], "one counterfactual file"),
        ([{"kind": "l1"}], "asks for a change"),
        ([words(colour=1)], "not permitted"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        terms(*values)


def test_terms_of_a_kind_have_names_of_their_own() -> None:
    found = terms(words(), {"kind": "l1"}, words(target="smile"), PAIRED)
    assert term_names(found) == ("clip", "l1", "clip_2", "paired")
    assert target_file(found) == "smile.png"
    assert target_file(terms(SMILE)) is None


def test_paths_of_models_are_made_absolute_and_embedded_is_not() -> None:
    given = terms(SMILE, words("c"), {"kind": "identity", "model": "e"}, {"kind": "l1"})
    moved = located(given, lambda path: f"/root/{path}")
    assert moved[0].classifier == EMBEDDED
    assert (moved[1].model, moved[2].model) == ("/root/c", "/root/e")
    assert moved[3] == given[3]


def test_everything_that_a_config_names_is_built_and_gives_gradients(clip: Path) -> None:
    found = terms(
        words(clip, weight=2.0, templates=["a {}", "my {}"], form="log", against="image"),
        words(clip),
        SMILE | {"keep": 0.1},
        PAIRED | {"norm": "l1"},
        {"kind": "l1", "weight": 0.25, "against": "image"},
        {"kind": "identity", "model": EMBEDDED},
    )
    refuse_unfit_objective(found, 64)
    objective = build_objective(found, CPU)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 2, 3, 64, 64, generator=generator) * 2 - 1
    edited_BCHW = images[0].requires_grad_()
    losses = objective(Prediction(edited_BCHW, *images[1:]))
    assert tuple(losses.means) == objective.names == term_names(found)
    expected = sum(
        t.weight * float(losses.means[n]) for n, t in zip(objective.names, found, strict=True)
    )
    assert losses.total_B.mean().item() == pytest.approx(expected, rel=1e-5)
    losses.total_B.sum().backward()
    assert edited_BCHW.grad is not None
    assert float(edited_BCHW.grad.flatten(1).norm(dim=1).min()) > 0
    assert len({float(losses.means[n]) for n in ("clip", "clip_2")}) == 2


def test_content_is_of_the_models_files_and_not_their_place(clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "moved"))
    identity = {"kind": "identity", "model": str(clip)}
    here = objective_content(terms(words(clip), SMILE, identity))
    there = objective_content(terms(words(folder), SMILE, identity | {"model": str(folder)}))
    assert here == there
    assert str(clip) not in str(here)
    weights = load_file(folder / "model.safetensors")
    changed = dict(weights, logit_scale=weights["logit_scale"] + 1)
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    after = objective_content(terms(words(folder), SMILE, identity))
    assert {name for name in here if here[name] != after[name]} == {"clip"}


def test_a_set_of_templates_is_known_by_its_sentences(clip: Path) -> None:
    named = objective_content(terms(words(clip, templates="imagenet")))
    assert named == objective_content(terms(words(clip, templates=list(IMAGENET))))
    assert named["clip"]["templates"] == list(IMAGENET)


def test_what_models_cannot_do_is_refused_before_their_weights_are_read(
    clip: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(clip, tmp_path / "clip"))
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors")
    refuse_unfit_objective(terms(words(folder)), 64)
    for refused in (words(folder, templates="imagenet"), words(folder, target="face " * 11)):
        with pytest.raises(ConfigProblem, match=r"objective clip: .*the model reads 12"):
            refuse_unfit_objective(terms(refused), 64)
    with pytest.raises(ConfigProblem, match=r"objective attribute: .*nearest is 'smile'"):
        refuse_unfit_objective(terms(SMILE | {"name": "smil"}), 64)
    for embedded in (SMILE, {"kind": "identity", "model": EMBEDDED}):
        with pytest.raises(ConfigProblem, match="images of 64 pixels"):
            refuse_unfit_objective(terms(SMILE, embedded), 32)
    with pytest.raises(ModelProblem, match="is no folder"):
        refuse_unfit_objective(terms(words("openai/clip")), 64)


def test_a_probability_cannot_be_moved_by_an_amount(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"id2label": {"0": "smile", "1": "hat"}}')
    (tmp_path / "preprocessor_config.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    own = {"kind": "attribute", "classifier": str(tmp_path), "name": "hat"}
    refuse_unfit_objective(terms(own | {"to": 1}), 32)
    with pytest.raises(ConfigProblem, match=r"`by: 0\.5`, which is for regressions"):
        refuse_unfit_objective(terms(own | {"by": 0.5}), 32)


def test_a_config_is_read_and_named_without_torch(clip: Path) -> None:
    script = (
        "import sys\n"
        "from pydantic import TypeAdapter\n"
        "from pipelines.training.objective_building import objective_content\n"
        "from pipelines.training.objective_building import refuse_unfit_objective\n"
        "from pipelines.training.objective_config import Terms\n"
        "a = {'kind': 'attribute', 'name': 'smile', 'to': 0.5}\n"
        "c = {'kind': 'clip', 'model': sys.argv[1], 'source': 'face', 'target': 'smile'}\n"
        "objective_content(TypeAdapter(Terms).validate_python([a, c]))\n"
        "refuse_unfit_objective(TypeAdapter(Terms).validate_python([a]), 64)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(clip)],
        check=True,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "set()\n"
