"""The learned editors of a run, around its loaded model, and the rectifier that its images are
decoded with.
"""

from __future__ import annotations

from collections.abc import Callable

from lib.denoiser import Denoiser
from lib.direction import Direction
from lib.editors.editor_files import find_editor, read_editor
from lib.editors.editor_record import RECTIFIER
from lib.editors.learned_editor import LearnedEditor
from lib.editors.loading import load_editor, rebuilt_rectifier
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.records import Sample
from lib.rectifier.rectified import RectifiedDenoiser
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.learned_editors import RANK, check_rectifier, chosen_editors
from pipelines.library_fit import refuse_unfit
from pipelines.model_source import open_model


def load_editors(config: RunConfig, engine: Engine) -> tuple[Direction | LearnedEditor, ...]:
    """In the order in which plans count them.

    Raises:
        ConfigProblem: one is not there, damaged, or does not fit the model, window or regions.
    """
    chosen = chosen_editors(config)
    if not chosen:
        return ()
    checkpoint = open_model(config.model)
    refuse_unfit(config, checkpoint, (), [editor.fact for editor in chosen])
    editors = []
    for editor in chosen:
        record, tensors = read_editor(editor.url)
        if record != editor.record:
            raise ConfigProblem(
                f"learned: the file of {record.label} is {record.id}, its library's table says"
                f" {editor.record.id}; add it to the library again"
            )
        editors.append(load_editor(record, tensors, RANK, engine.denoiser, checkpoint))
    return tuple(editors)


def load_rectification(config: RunConfig, engine: Engine) -> Callable[[Sample], Denoiser] | None:
    """What makes the denoiser of an image, with `model.rectifier`; None without it.

    Raises:
        ConfigProblem: it cannot be used with this model.
    """
    path, frozen = config.model.rectifier, engine.denoiser
    if path is None:
        return None
    check_rectifier(config, open_model(config.model))
    if not isinstance(frozen, UNetDenoiser):
        raise ConfigProblem("model.rectifier: expected a model without guidance")
    record, tensors = find_editor(path, RECTIFIER, engine.model, "model.rectifier")
    rectifier = rebuilt_rectifier(record, tensors, frozen).to(frozen.device)
    rectifier.eval().requires_grad_(False)

    def rectify(sample: Sample) -> Denoiser:
        x0_LYX = frozen.latent(sample.image_CHW[None])[0]
        return RectifiedDenoiser(frozen, rectifier, x0_LYX)

    return rectify
