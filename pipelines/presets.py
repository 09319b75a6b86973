"""Complete configs to start from. A YAML file may name one with `preset:` and change what it
likes.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config import Execution, Grid, Input, Model, Output, RunConfig
from pipelines.discovery_config import JacobianDiscovery, LocalisedDiscovery
from pipelines.edit_config import Edit
from pipelines.edit_plan_config import EditPlan, Selected
from pipelines.evaluate_config import AttributeChanges, Evaluate
from pipelines.inversion_config import Invert
from pipelines.learned_config import Learned
from pipelines.segment_config import Box, MaskFile, Segment, Source


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
        evaluate=Evaluate(attributes=AttributeChanges()),
        execution=Execution(engine="ray", workers=2),
    )


def demo_learned() -> RunConfig:
    """The demo with the learned smile and opening of the eyes beside the directions that are found:
    what `deltah demo` runs.
    """
    return demo().model_copy(
        update={
            "learned": Learned(path="embedded", labels=("smile", "eyes-open")),
            "edit": Edit(
                window=(560, 300),
                strengths=(-0.1, 0.1),
                plan=EditPlan(
                    entries=(
                        Selected(labels=("smile", "eyes-open"), strengths=(0.5, 1.0)),
                        Selected(methods=("jacobian",)),
                    )
                ),
            ),
        }
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


def demo_held_out() -> RunConfig:
    """The demo on faces that `demo-library` does not see: for `deltah library score`."""
    return demo().model_copy(
        update={
            "input": Input(shards=("demo-output/held-out/held-out-{00000..00001}.tar",)),
            "output": Output(folder="demo-output/held-out-run", layout="pairs", format="png"),
        }
    )


def demo_regions() -> RunConfig:
    """The parts of the demo's faces, learned without a mask: for `deltah regions`."""
    return demo().model_copy(
        update={
            "pipeline": "region_model",
            "output": Output(folder="demo-output/regions-run"),
        }
    )


def celebahq_256() -> RunConfig:
    """google/ddpm-celebahq-256 (or -ema-celebahq-256) on aligned CelebA-HQ faces, with boxes for
    eyes and mouth.

    Boxes fit the alignment of CelebA-HQ; side files such as `eyes.png` are better where you have
    them.
    """
    return RunConfig(
        input=Input(shards=("celebahq/{00000..00029}.tar",)),
        model=Model(checkpoint="google/ddpm-celebahq-256"),
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


def church_256() -> RunConfig:
    """google/ddpm-church-256 on photographs of churches (LSUN), with boxes for sky and building."""
    return _of_scenes(
        "church", {"sky": Box(box=(0.0, 0.0, 1.0, 0.3)), "building": Box(box=(0.2, 0.15, 0.8, 0.9))}
    )


def bedroom_256() -> RunConfig:
    """google/ddpm-bedroom-256 on photographs of bedrooms (LSUN), with boxes for wall and bed."""
    return _of_scenes(
        "bedroom", {"wall": Box(box=(0.0, 0.0, 1.0, 0.4)), "bed": Box(box=(0.15, 0.5, 0.85, 1.0))}
    )


def ldm_celebahq() -> RunConfig:
    """CompVis/ldm-celebahq-256, unconditional latent diffusion, on the faces of celebahq-256."""
    return celebahq_256().model_copy(
        update={
            "model": Model(checkpoint="CompVis/ldm-celebahq-256"),
            "output": Output(folder="celebahq-ldm-edited", layout="pairs", format="webp"),
        }
    )


def stable_diffusion() -> RunConfig:
    """Stable Diffusion 1.5 on any photographs, with the empty prompt and a box in the middle.

    Guidance makes inversion less exact; say what the images show in model.prompt first.
    """
    return RunConfig(
        input=Input(shards=("photographs/{00000..00009}.tar",)),
        model=Model(checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5"),
        grid=Grid(num_steps=50),
        invert=Invert(refinements=2, batch_size=4),
        segment=Segment(regions={"middle": Box(box=(0.25, 0.25, 0.75, 0.75))}),
        discover=JacobianDiscovery(timesteps=(500,), directions=3, chunk=4),
        edit=Edit(window=(900, 300), strengths=(-0.1, 0.1), batch_size=4),
        output=Output(folder="photographs-edited", layout="pairs", format="webp", quality=95),
        execution=Execution(engine="ray", workers=1, gpus_per_worker=1.0),
    )


def _of_scenes(name: str, regions: dict[str, Source]) -> RunConfig:
    """The celebahq preset with another model of the same architecture."""
    return celebahq_256().model_copy(
        update={
            "input": Input(shards=(f"{name}/{{00000..00029}}.tar",)),
            "model": Model(checkpoint=f"google/ddpm-{name}-256"),
            "segment": Segment(regions=regions),
            "output": Output(folder=f"{name}-edited", layout="pairs", format="webp", quality=95),
        }
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "demo": demo,
    "demo-learned": demo_learned,
    "demo-library": demo_library,
    "demo-held-out": demo_held_out,
    "demo-regions": demo_regions,
    "celebahq-256": celebahq_256,
    "church-256": church_256,
    "bedroom-256": bedroom_256,
    "ldm-celebahq": ldm_celebahq,
    "stable-diffusion": stable_diffusion,
}
