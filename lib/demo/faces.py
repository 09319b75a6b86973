"""Faces drawn from 16 known factors, so that every claim of the demo has an exact ground truth.

Shapes are signed distances in head units (head half-height = 1, v points down), with analytic edges
and supersampling. The counterfactual of a face is the same call with one factor changed.
Shape suffixes: B batch, F factors, C colours, K classes, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FACTORS: tuple[str, ...] = (
    "skin", "face_w", "hair_col", "hair_len", "eye_open", "eye_col", "gaze", "brow",
    "smile", "lip_col", "mouth_open", "bg_hue", "bg_grad", "pos_x", "pos_y", "scale",
)  # fmt: skip
CLASSES: tuple[str, ...] = ("background", "hair", "skin", "brows", "eyes", "nose", "mouth")
ZONES: tuple[str, ...] = ("eyes", "brows", "mouth", "hair")

_SKIN = ((1.0, 0.87, 0.78), (0.96, 0.77, 0.62), (0.80, 0.57, 0.41), (0.54, 0.36, 0.26))
_HAIR = ((0.13, 0.11, 0.14), (0.36, 0.21, 0.13), (0.62, 0.33, 0.17), (0.91, 0.74, 0.44))
_IRIS = ((0.42, 0.22, 0.09), (0.30, 0.56, 0.24), (0.18, 0.47, 0.88))
_LIPS = ((0.93, 0.58, 0.56), (0.84, 0.17, 0.24), (0.45, 0.08, 0.26))
_EYE_U, _EYE_WIDTH, _BROW_LENGTH, _BROW_TRAVEL, _MOUTH_V = 0.39, 0.265, 0.24, 0.09, 0.57
_CHUNK = 4


@dataclass(frozen=True)
class Faces:
    """factors_BF: float32 in [-1, 1], in the order of FACTORS; image_BCHW: RGB in [-1, 1]."""

    factors_BF: Tensor
    image_BCHW: Tensor


@dataclass(frozen=True)
class Masks:
    """Exact areas of a batch of faces, as float32 coverage in [0, 1].

    zones: BHW by name; the largest area a part can occupy in that pose, so the region of an edit.
    segmentation_BKHW: the visible area of each class in CLASSES; sums to 1 over K.
    """

    zones: dict[str, Tensor]
    segmentation_BKHW: Tensor


@dataclass(frozen=True)
class _Canvas:
    """Head coordinates of every sample point; pixel_B11 is the pixel pitch in head units."""

    u_BHW: Tensor
    v_BHW: Tensor
    y_HW: Tensor
    pixel_B11: Tensor

    def cover(self, distance_BHW: Tensor) -> Tensor:
        return (0.5 - distance_BHW / self.pixel_B11).clamp(0, 1)

    def ellipse(
        self, u: Tensor | float, v: Tensor | float, a: Tensor | float, b: Tensor | float
    ) -> Tensor:
        """First-order distance to an ellipse with centre (u, v) and half axes (a, b)."""
        p_BHW, q_BHW = (self.u_BHW - u) / a, (self.v_BHW - v) / b
        k_BHW = torch.sqrt(p_BHW**2 + q_BHW**2 + 1e-9)
        return k_BHW * (k_BHW - 1) / torch.sqrt((p_BHW / a) ** 2 + (q_BHW / b) ** 2 + 1e-9)


def sample_factors(n: int, seed: int) -> Tensor:
    """n independent faces: factors_BF float32, uniform in [-1, 1]."""
    return torch.rand(n, len(FACTORS), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def render(factors_BF: Tensor, size: int = 64, supersampling: int = 2) -> Faces:
    """Draws each face at size x size pixels, from supersampling**2 samples per pixel."""
    image_BCHW = torch.cat(
        [
            _pool(_paint(f_BF, size, supersampling, segment=False)[0], supersampling)
            for f_BF in _chunks(factors_BF)
        ]
    )
    return Faces(factors_BF, (image_BCHW * 2 - 1).clamp(-1, 1))


def masks(factors_BF: Tensor, size: int = 64, supersampling: int = 2) -> Masks:
    """Segmentation and edit zones of the faces that render() draws from the same factors."""
    parts = [_masks(f_BF, size, supersampling) for f_BF in _chunks(factors_BF)]
    zones = {name: torch.cat([part.zones[name] for part in parts]) for name in ZONES}
    return Masks(zones, torch.cat([part.segmentation_BKHW for part in parts]))


def counterfactual(factors_BF: Tensor, factor: str, change: float) -> Tensor:
    """The same faces with one factor moved by change and clipped to [-1, 1]."""
    moved_BF = factors_BF.clone()
    column = FACTORS.index(factor)
    moved_BF[:, column] = (moved_BF[:, column] + change).clamp(-1, 1)
    return moved_BF


def _chunks(factors_BF: Tensor) -> Sequence[Tensor]:
    if factors_BF.ndim != 2 or factors_BF.shape[1] != len(FACTORS):
        shape = tuple(factors_BF.shape)
        raise ValueError(f"factors must have shape (B, {len(FACTORS)}), got {shape}")
    return torch.split(factors_BF, _CHUNK)


def _pool(x_BCHW: Tensor, supersampling: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(x_BCHW, supersampling)


def _ramp(anchors: Sequence[tuple[float, float, float]], x_B: Tensor) -> Tensor:
    """Colour B311 on a piecewise linear ramp whose ends are x = -1 and x = 1."""
    table_NC = torch.tensor(anchors)
    t_B = (x_B + 1) / 2 * (len(anchors) - 1)
    low_B = t_B.floor().clamp(0, len(anchors) - 2).long()
    w_B1 = (t_B - low_B)[:, None]
    return torch.lerp(table_NC[low_B], table_NC[low_B + 1], w_B1)[:, :, None, None]


def _hue(hue_B: Tensor) -> Tensor:
    phase_C = torch.tensor([0.0, 1 / 3, 2 / 3])
    return (0.5 + 0.5 * torch.cos(2 * torch.pi * (hue_B[:, None] - phase_C)))[:, :, None, None]


def _canvas(f: dict[str, Tensor], samples: int) -> _Canvas:
    axis_N = (torch.arange(samples) + 0.5) / samples * 2 - 1
    y_HW, x_HW = torch.meshgrid(axis_N, axis_N, indexing="ij")
    scale_B11 = 0.69 + 0.05 * f["scale"]
    u_BHW = (x_HW - 0.07 * f["pos_x"]) / scale_B11
    v_BHW = (y_HW - 0.04 - 0.05 * f["pos_y"]) / scale_B11
    return _Canvas(u_BHW, v_BHW, y_HW, 2 / samples / scale_B11)


def _eye_height(eye_open: Tensor | float) -> Tensor | float:
    return 0.172 + 0.102 * eye_open


def _brow(c: _Canvas, side: int, lift: Tensor | float, travel: float = 0.0) -> Tensor:
    """Distance to one brow; with a travel, to all brows between lift - travel and lift + travel."""
    t_BHW = c.u_BHW * side - _EYE_U
    reach_BHW = t_BHW.clamp(-_BROW_LENGTH, _BROW_LENGTH)
    v_BHW = -0.525 - lift + 1.2 * (reach_BHW - 0.02) ** 2
    off_BHW = ((c.v_BHW - v_BHW).abs() - travel).clamp_min(0)
    return torch.sqrt((t_BHW - reach_BHW) ** 2 + off_BHW**2 + 1e-9) - (0.047 - 0.05 * reach_BHW)


def _mouth(c: _Canvas, smile: Tensor, mouth_open: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distances to the lips and to the opening between them, and depth below the upper lip."""
    width = 0.37 + 0.05 * smile
    gap = 0.012 + 0.065 * (mouth_open + 1)
    curl = 0.17 * smile + 0.06
    s_BHW = c.u_BHW / width
    profile_BHW = 1 - s_BHW**2
    line_BHW = _MOUTH_V + 0.8 * gap + curl * (profile_BHW - 0.6)
    slope_BHW = (c.u_BHW / width**2 * 2 * (curl.abs() + 0.07 + gap)).clamp(-2, 2)
    norm_BHW = torch.sqrt(1 + slope_BHW**2)
    off_BHW = c.v_BHW - line_BHW
    lips_BHW = (off_BHW.abs() - (gap + 0.075) * profile_BHW) / norm_BHW
    inner_BHW = (off_BHW.abs() - gap * (profile_BHW - 0.06)) / norm_BHW
    lips_BHW = torch.maximum(lips_BHW, c.u_BHW.abs() - width)
    inner_BHW = torch.maximum(inner_BHW, c.u_BHW.abs() - 0.94 * width)
    return lips_BHW, inner_BHW, off_BHW + gap * profile_BHW


def _hair_front(c: _Canvas, width: Tensor) -> Tensor:
    cap_BHW = c.ellipse(0, -0.12, width + 0.13, 1.06)
    side_BHW = (c.u_BHW / (width + 0.06)).clamp(-1.2, 1.2)
    line_BHW = -0.68 - 0.16 * torch.sin(2.6 * side_BHW + 0.9) + 0.75 * side_BHW**4
    return torch.maximum(cap_BHW, (c.v_BHW - line_BHW) / (1 + 1.5 * side_BHW**2))


def _hair_back(c: _Canvas, width: Tensor, hair_len: Tensor) -> Tensor:
    bottom, half, radius = 0.66 + 0.56 * hair_len, width + 0.15, 0.18
    flare_BHW = half + 0.05 * c.v_BHW.clamp(0, 1.5)
    du_BHW = c.u_BHW.abs() - flare_BHW + radius
    dv_BHW = (c.v_BHW - (bottom - 0.35) / 2).abs() - (bottom + 0.35) / 2 + radius
    corner_BHW = torch.hypot(du_BHW.clamp_min(0), dv_BHW.clamp_min(0))
    box_BHW = corner_BHW + torch.maximum(du_BHW, dv_BHW).clamp_max(0) - radius
    crown_BHW = torch.maximum(c.ellipse(0, -0.14, half, 1.06), c.v_BHW)
    return torch.minimum(box_BHW, crown_BHW)


def _paint(
    factors_BF: Tensor, size: int, supersampling: int, segment: bool = True
) -> tuple[Tensor, Tensor]:
    """All layers from back to front: RGB in [0, 1] and segmentation, at sample resolution."""
    f = {name: factors_BF[:, i, None, None] for i, name in enumerate(FACTORS)}
    column = dict(zip(FACTORS, factors_BF.unbind(1), strict=True))
    c = _canvas(f, size * supersampling)
    width = 0.80 + 0.08 * f["face_w"]
    u_BHW, v_BHW = c.u_BHW, c.v_BHW
    light_BHW = 1 - 0.12 * u_BHW.abs().clamp_max(1.2) ** 3 - 0.04 * v_BHW
    skin_BCHW = _ramp(_SKIN, column["skin"]) * light_BHW[:, None]
    tint = torch.tensor([0.98, 0.45, 0.42])[None, :, None, None]
    blush_BHW = torch.exp(-(((u_BHW.abs() - 0.52) / 0.17) ** 2) - ((v_BHW - 0.40) / 0.13) ** 2)
    rosy_BCHW = tint * skin_BCHW.amax(1, keepdim=True)
    face_BCHW = torch.lerp(skin_BCHW, rosy_BCHW, 0.35 * blush_BHW[:, None])
    strand_BHW = torch.atan2(u_BHW - 0.25, v_BHW + 1.6)
    ring_BHW = (torch.hypot(u_BHW, v_BHW + 0.1) - 0.86) / 0.09
    gloss_BHW = torch.exp(-(ring_BHW**2)) * (v_BHW < -0.1)
    shine_BHW = 1 + 0.11 * torch.sin(22 * strand_BHW) + 0.25 * gloss_BHW
    hair_B311 = _ramp(_HAIR, column["hair_col"])
    hair_BCHW = hair_B311 * shine_BHW[:, None] + 0.05 * gloss_BHW[:, None]
    hue_B = 0.45 + 0.4 * column["bg_hue"]
    glow_BHW = 0.86 - 0.16 * f["bg_grad"] * c.y_HW
    image_BCHW = (0.52 + 0.48 * _hue(hue_B)) * glow_BHW[:, None]
    cloth_BCHW = (0.22 + 0.5 * _hue(hue_B + 0.5)) * (1.15 - 0.2 * u_BHW.abs())[:, None]
    segmentation_BKHW = torch.zeros(len(factors_BF), len(CLASSES), *u_BHW.shape[1:])
    segmentation_BKHW[:, 0] = 1

    def lay(name: str, cover_BHW: Tensor, colour_BCHW: Tensor | float) -> None:
        nonlocal image_BCHW
        alpha_B1HW = cover_BHW[:, None]
        image_BCHW = image_BCHW + alpha_B1HW * (colour_BCHW - image_BCHW)
        if segment:
            segmentation_BKHW.mul_(1 - alpha_B1HW)
            segmentation_BKHW[:, CLASSES.index(name)] += cover_BHW

    for side in (-1, 1):
        lay("skin", c.cover(c.ellipse(side * (width + 0.02), 0.08, 0.12, 0.20)), skin_BCHW * 0.9)
    lay("hair", c.cover(_hair_back(c, width, f["hair_len"])), hair_BCHW * 0.74)
    lay("skin", c.cover(torch.maximum(u_BHW.abs() - 0.30, 0.6 - v_BHW)), skin_BCHW * 0.80)
    shirt_BHW = torch.maximum(c.ellipse(0, 2.05, 1.25, 0.86), -c.ellipse(0, 1.14, 0.36, 0.20))
    lay("background", c.cover(shirt_BHW), cloth_BCHW)
    jaw = width * (1 - 0.13 * v_BHW.clamp(0, 1.2) ** 2)
    lay("skin", c.cover(c.ellipse(0, 0, jaw, 1.0)), face_BCHW)
    lay("nose", 0.9 * c.cover(c.ellipse(0, 0.30, 0.095, 0.055)), skin_BCHW * 0.78)
    lay("nose", c.cover(c.ellipse(0, 0.265, 0.062, 0.055)), skin_BCHW * 1.06)
    lay("hair", c.cover(_hair_front(c, width)), hair_BCHW)
    height, dark_B311 = _eye_height(f["eye_open"]), 0.16 * hair_B311 + 0.05
    iris_B311, gaze = _ramp(_IRIS, column["eye_col"]), 0.085 * f["gaze"]
    for side in (-1, 1):
        u = side * _EYE_U
        lay("eyes", c.cover(c.ellipse(u, -0.03, _EYE_WIDTH + 0.025, height + 0.035)), dark_B311)
        white_BHW = c.cover(c.ellipse(u, 0.012, _EYE_WIDTH, height))
        shade_BHW = (0.99 - 0.5 * (-v_BHW - height + 0.16).clamp(0, 0.5))[:, None]
        lay("eyes", white_BHW, shade_BHW)
        lay("eyes", white_BHW * c.cover(c.ellipse(u + gaze, 0.0, 0.185, 0.195)), iris_B311 * 0.5)
        lay("eyes", white_BHW * c.cover(c.ellipse(u + gaze, 0.0, 0.155, 0.165)), iris_B311 * 1.1)
        lay("eyes", white_BHW * c.cover(c.ellipse(u + gaze, 0.0, 0.085, 0.095)), 0.04)
        lay("eyes", white_BHW * c.cover(c.ellipse(u + gaze - 0.065, -0.065, 0.052, 0.052)), 1.0)
    lips_BHW, inner_BHW, depth_BHW = _mouth(c, f["smile"], f["mouth_open"])
    lip_B311, inside_BHW = _ramp(_LIPS, column["lip_col"]), c.cover(inner_BHW)
    relief_BHW = 1 + 0.8 * (depth_BHW - 0.08).clamp(-0.15, 0.15)
    lay("mouth", c.cover(lips_BHW), lip_B311 * relief_BHW[:, None])
    lay("mouth", inside_BHW, torch.tensor([0.30, 0.05, 0.08])[None, :, None, None])
    lay("mouth", inside_BHW * c.cover(depth_BHW - 0.075) * c.cover(0.02 - depth_BHW), 0.97)
    for side in (-1, 1):
        lay("brows", c.cover(_brow(c, side, _BROW_TRAVEL * f["brow"])), hair_B311 * 0.62)
    return image_BCHW, segmentation_BKHW


def _masks(factors_BF: Tensor, size: int, supersampling: int) -> Masks:
    f = {name: factors_BF[:, i, None, None] for i, name in enumerate(FACTORS)}
    c = _canvas(f, size * supersampling)
    margin = c.pixel_B11
    tall = _eye_height(1.0)
    eyes = [c.ellipse(s * _EYE_U, -0.03, _EYE_WIDTH + 0.025, tall + 0.042) for s in (-1, 1)]
    brows = [_brow(c, side, 0.0, _BROW_TRAVEL) for side in (-1, 1)]
    mouth = [
        torch.minimum(*_mouth(c, smile.expand_as(margin), opening.expand_as(margin))[:2]) - 0.02
        for smile in torch.linspace(-1, 1, 9)
        for opening in torch.linspace(-1, 1, 5)
    ]
    distances = {"eyes": eyes, "brows": brows, "mouth": mouth}
    zones = {
        name: _pool(c.cover(torch.stack(parts).amin(0) - margin)[:, None], supersampling)[:, 0]
        for name, parts in distances.items()
    }
    segmentation_BKHW = _pool(_paint(factors_BF, size, supersampling)[1], supersampling)
    longest_BF = factors_BF.clone()
    longest_BF[:, FACTORS.index("hair_len")] = 1
    hair = CLASSES.index("hair")
    zones["hair"] = _pool(_paint(longest_BF, size, supersampling)[1], supersampling)[:, hair]
    return Masks(zones, segmentation_BKHW)
