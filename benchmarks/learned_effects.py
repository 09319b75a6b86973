"""What learned editors do to faces of known factors: their own factor, the others, and where.

Shape suffixes: N faces, S strengths, F factors; B, C, H, W of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from benchmarks.embedded import SIZE, Bench
from lib.demo.faces import FACTORS, masks, render
from lib.demo.regressor import load, read
from lib.direction import Direction
from lib.editors.editor_files import read_editor
from lib.editors.editor_table import editor_url, read_editor_rows
from lib.editors.learned_editor import LearnedEditor
from lib.editors.library_editors import editors_root
from lib.editors.loading import load_editor
from lib.files.images import Geometry
from lib.models.checkpoint import EMBEDDED, open_checkpoint
from lib.pixels import psnr
from lib.records import Inverted, Sample
from lib.shift import Shift

OWN = {"smile": ("smile", "mouth"), "eyes-open": ("eye_open", "eyes")}
"""Beginning of an editor's label -> the factor it is for, and the zone of the face."""
REFINEMENTS = 2


@dataclass(frozen=True, slots=True)
class Faces:
    """Generated faces with their exact zones."""

    samples: list[Sample]
    zones: dict[str, Tensor]
    """Name -> (N, H, W) coverage."""


@dataclass(frozen=True, slots=True)
class Effects:
    """Of one editor on some faces at some strengths."""

    change_NSF: Tensor
    """Of the factors, since the reconstruction."""
    roir_NS: Tensor
    psnr_N: Tensor
    """Of the reconstruction."""
    factor: int

    def own(self, place: int) -> Tensor:
        """(N,): change of the editor's own factor at a strength."""
        return self.change_NSF[:, place, self.factor]

    def others(self, place: int) -> float:
        """Mean |change| of the other factors."""
        size_F = self.change_NSF[:, place].abs().mean(0)
        return float(size_F.sum() - size_F[self.factor]) / (len(FACTORS) - 1)

    def worst(self, place: int) -> tuple[str, float]:
        """The other factor that moves most, and its mean |change|."""
        size_F = self.change_NSF[:, place].abs().mean(0)
        size_F[self.factor] = 0
        return FACTORS[int(size_F.argmax())], float(size_F.max())

    def roir(self, place: int) -> float:
        """Median over the faces."""
        return float(self.roir_NS[:, place].median())


def faces_of(factors_NF: Tensor, name: str) -> Faces:
    """Drawn from these factors, which may lie beyond the range of training."""
    image_NCHW = render(factors_NF, SIZE).image_BCHW
    geometry = Geometry(SIZE, SIZE, 0, 0, SIZE, SIZE, SIZE, "PNG", "RGB", 1)
    samples = [
        Sample(name, i, f"face-{i:03d}", image_NCHW[i], geometry, {}, i)
        for i in range(len(factors_NF))
    ]
    return Faces(samples, dict(masks(factors_NF, SIZE).zones))


def editors_at(path: str, bench: Bench) -> list[Direction | LearnedEditor]:
    """All editors of a library that edit a factor, in the order of its table."""
    root, checkpoint, found = editors_root(path), open_checkpoint(EMBEDDED), []
    for record in read_editor_rows(root):
        if record.purpose == "editing" and own_of(record.label) is not None:
            _, tensors = read_editor(editor_url(root, record.id))
            found.append(load_editor(record, tensors, -1, bench.denoiser, checkpoint))
    return found


def own_of(label: str | None) -> tuple[str, str] | None:
    """Factor and zone of an editor by its label."""
    return next((own for start, own in OWN.items() if (label or "").startswith(start)), None)


def inverted(bench: Bench, faces: Faces, top: int) -> list[Inverted]:
    """Up to the node at timestep `top`."""
    last = bench.grid.last_node(top)
    return bench.inverted(faces.samples, last=last, keep=[], refinements=REFINEMENTS)


def effects(
    bench: Bench,
    editor: Direction | LearnedEditor,
    faces: Faces,
    latents: Sequence[Inverted],
    strengths: Sequence[float],
) -> Effects:
    """Every face at every strength, in the editor's own window."""
    own = own_of(editor.label)
    window = editor.window
    if own is None or window is None:
        raise ValueError(f"{editor.label}: expected an editor of a known factor with a window")
    factor, zone = own
    stage, regressor = bench.editor(window, batch_size=len(strengths)), load()
    change, roir, quality = [], [], []
    for face, mask_HW in zip(latents, faces.zones[zone], strict=True):
        sample = face.sample
        shifts = [Shift(editor, strength) for strength in strengths]
        decoded = stage.decoder(
            face.latent, shifts, x0_LYX=bench.denoiser.latent(sample.image_CHW[None])[0]
        )
        image_BCHW = decoded.x_BLYX.clamp(-1, 1)
        factors_BF = read(regressor, image_BCHW)
        change.append(factors_BF[1:] - factors_BF[:1])
        roir.append(_roir(image_BCHW[1:] - image_BCHW[:1], mask_HW))
        quality.append(psnr(image_BCHW[0], sample.image_CHW))
    return Effects(
        torch.stack(change), torch.stack(roir), torch.tensor(quality), FACTORS.index(factor)
    )


def _roir(moved_SCHW: Tensor, mask_HW: Tensor) -> Tensor:
    """(S,): mean |change| outside the zone / inside."""
    size_SHW = moved_SCHW.abs().mean(1)
    inside_S = (size_SHW * mask_HW).sum((1, 2)) / mask_HW.sum()
    outside_S = (size_SHW * (1 - mask_HW)).sum((1, 2)) / (1 - mask_HW).sum()
    return torch.where(inside_S > 0, outside_S / inside_S, torch.full_like(inside_S, nan))
