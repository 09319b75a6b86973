"""Complete configs of trainings to start from."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config import Grid, Input, Model
from pipelines.training.config import Schedule, TrainConfig, TrainExecution, TrainOutput
from pipelines.training.editor_config import (
    Editor,
    FineTuneEditor,
    FunctionEditor,
    RectifierEditor,
    StepShiftsEditor,
)
from pipelines.training.objective_config import ClipTerm, PairedTerm, PixelTerm, Term

_FACES = "demo-output/training/training-{00000..00031}.tar"
_WINDOW = (900, 300)


def train_smile() -> TrainConfig:
    """The demo's smile: a free delta h from faces beside the same faces with more of it."""
    editor = StepShiftsEditor(kind="delta_h", name="smile", region="mouth", window=_WINDOW)
    return _of_faces(editor, "smile", steps=160)


def train_eyes() -> TrainConfig:
    """The demo's opening of the eyes, likewise."""
    editor = StepShiftsEditor(
        kind="delta_h", name="eyes-open", region="eyes", window=_WINDOW, unit=0.6
    )
    return _of_faces(editor, "eye_open", steps=120)


def train_smile_fn() -> TrainConfig:
    """The smile by f_t, Asyrp's network."""
    editor = FunctionEditor(kind="direction_fn", name="smile-fn", region="mouth", window=_WINDOW)
    return _of_faces(editor, "smile", steps=300)


def train_eyes_fn() -> TrainConfig:
    """The opening of the eyes by f_t."""
    editor = FunctionEditor(
        kind="direction_fn", name="eyes-open-fn", region="eyes", window=_WINDOW, unit=0.6
    )
    return _of_faces(editor, "eye_open", steps=150)


def train_smile_unrolled() -> TrainConfig:
    """The smile by f_t in Asyrp's own style: along the edited trajectory, on few faces."""
    editor = FunctionEditor(
        kind="direction_fn", name="smile-unrolled", region="mouth", window=_WINDOW
    )
    return _of_few_faces(editor, Schedule(style="unrolled", steps=96, batch_size=8))


def train_smile_tuned() -> TrainConfig:
    """The smile by fine-tuning all weights (DiffusionCLIP), on few faces."""
    editor = FineTuneEditor(
        kind="fine_tune", name="smile-tuned", region="mouth", learning_rate=1e-4
    )
    return _of_few_faces(editor, Schedule(steps=150, batch_size=8))


def train_smile_rectified() -> TrainConfig:
    """The smile on top of the rectifier of `train-rectifier` (Hou et al.), on few faces."""
    editor = RectifierEditor(
        kind="rectifier",
        name="smile-rectified",
        region="mouth",
        start="demo-output/train-rectifier",
    )
    return _of_few_faces(editor, Schedule(steps=100, batch_size=8))


def train_rectifier() -> TrainConfig:
    """A rectifier of the embedded model that reconstructs."""
    return TrainConfig(
        input=Input(shards=(_FACES,)),
        editor=RectifierEditor(kind="rectifier", name="faithful", learning_rate=2e-3),
        training=Schedule(steps=360, batch_size=8, weight_decay=1e-5),
        output=TrainOutput(folder="demo-output/train-rectifier"),
    )


def train_celebahq() -> TrainConfig:
    """Asyrp's smile on google/ddpm-celebahq-256: f_t driven by text, with a CLIP model on disk."""
    return TrainConfig(
        input=Input(shards=("celebahq/{00000..00003}.tar",)),
        model=Model(checkpoint="google/ddpm-celebahq-256"),
        grid=Grid(num_steps=40),
        editor=FunctionEditor(kind="direction_fn", name="smiling", window=(999, 513)),
        objective=(
            ClipTerm(
                kind="clip",
                weight=0.8,
                model="models/clip-vit-base-patch16",
                source="face",
                target="smiling face",
                templates="imagenet",
            ),
            PixelTerm(kind="l1", weight=3.0),
        ),
        training=Schedule(steps=2000, batch_size=8),
        output=TrainOutput(folder="celebahq-smiling"),
        execution=TrainExecution(engine="ray", workers=1, gpus_per_worker=1.0),
    )


def _of_few_faces(editor: Editor, schedule: Schedule) -> TrainConfig:
    config = _of_faces(editor, "smile", steps=1)
    shards = (_FACES.replace("{00000..00031}", "{00000..00001}"),)
    return config.model_copy(update={"input": Input(shards=shards), "training": schedule})


def _of_faces(editor: Editor, factor: str, steps: int) -> TrainConfig:
    paired: Term = PairedTerm(kind="paired", file=f"{factor}_up.png")
    return TrainConfig(
        input=Input(shards=(_FACES,)),
        editor=editor,
        objective=(paired,),
        training=Schedule(steps=steps, batch_size=12),
        output=TrainOutput(folder=f"demo-output/train-{editor.name}", dtype="float16"),
    )


TRAIN_PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "train-smile": train_smile,
    "train-eyes": train_eyes,
    "train-smile-fn": train_smile_fn,
    "train-eyes-fn": train_eyes_fn,
    "train-smile-unrolled": train_smile_unrolled,
    "train-smile-tuned": train_smile_tuned,
    "train-smile-rectified": train_smile_rectified,
    "train-rectifier": train_rectifier,
    "train-celebahq": train_celebahq,
}
