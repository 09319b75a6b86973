"""Complete configs to start from. A YAML file may name one with `preset:` and change what it
likes.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config import (
    Box,
    Edit,
    Execution,
    Grid,
    Input,
    Invert,
    MaskFile,
    Model,
    Output,
    RunConfig,
    Segment,
)
from pipelines.discovery_config import JacobianDiscovery, LocalisedDiscovery


def demo() -> RunConfig:
    """The embedded face model on generated faces: minutes on two CPU cores."""
    return RunConfig(
        input=Input(shards=("demo-output/faces/faces-{00000..00007}.tar",)),
        model=Model(checkpoint="embedded"),
        grid=Grid(num_steps=16),
        invert=Invert(refinements=2, batch_size=8),
        segment=Segment(
            regions={name: MaskFile(file=f"{name}.png") for name in ("eyes", "mouth", "hair")}
        ),
        discover=JacobianDiscovery(timesteps=(368,), directions=1, tolerance=0.2),
        edit=Edit(window=(560, 300), strengths=(-0.1, 0.1)),
        output=Output(folder="demo-output/run", layout="pairs", format="png"),
        execution=Execution(engine="ray", workers=2),
    )


def demo_library() -> RunConfig:
    """Localised directions of the demo's faces, without edits: for `deltah library build`."""
    return demo().model_copy(
        update={
            "pipeline": "direction_library",
            "discover": LocalisedDiscovery(method="localised", timesteps=(368,), directions=3),
            "output": Output(folder="demo-output/library-run"),
        }
    )


def celebahq_256() -> RunConfig:
    """google/ddpm-celebahq-256 (or -ema-) on aligned CelebA-HQ faces, with boxes for eyes and
    mouth.

    Boxes fit the alignment of CelebA-HQ; side files such as `eyes.png` are better where you have
    them.
    """
    return RunConfig(
        input=Input(shards=("celebahq/{00000..00029}.tar",)),
        model=Model(checkpoint="models/ddpm-celebahq-256"),
        grid=Grid(num_steps=50),
        invert=Invert(refinements=2, batch_size=16),
        segment=Segment(
            regions={
                "eyes": Box(box=(0.22, 0.38, 0.78, 0.55)),
                "mouth": Box(box=(0.32, 0.66, 0.68, 0.84)),
            }
        ),
        discover=JacobianDiscovery(timesteps=(368,), directions=3),
        edit=Edit(window=(900, 300), strengths=(-0.1, -0.05, 0.05, 0.1)),
        output=Output(folder="celebahq-edited", layout="pairs", format="webp", quality=95),
        execution=Execution(engine="ray", workers=1, gpus_per_worker=1.0),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "demo": demo,
    "demo-library": demo_library,
    "celebahq-256": celebahq_256,
}
