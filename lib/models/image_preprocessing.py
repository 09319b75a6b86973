"""The preprocessing of image models in torch, so that gradients of their answers reach the image.

The models' own processors round to 8 bits; this is the same without the rounding, compared with the
processor on trial pictures when it is made. Nothing is clamped: a prediction that overshoots white
keeps its gradient.

Shape suffixes: B batch, C colours, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib.models.transformers_folder import TransformersFolder
from lib.models.transformers_images import ImageProcessor
from lib.problems import ModelProblem

_MODES = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers of the resampling filters that torch has with antialiasing."""
_WHOLE_FROM = 384
"""The side from which ConvNeXt's processor cuts nothing off (`crop_pct`)."""
_TRIAL_SIDES = (48, 256)
_TRIAL_LEVELS = 2.0
"""8-bit levels that the processor's rounding, after each of the two axes, may make."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize, cut the middle out, scale: in this order, each where it is asked for."""

    mean_CHW: Tensor
    std_CHW: Tensor
    """Of colours in [0, 1]; device and precision of these two are those of the result."""
    resize: tuple[int, int] | int | None
    """(rows, columns), or of the shorter side."""
    mode: str
    """Of `torch.nn.functional.interpolate`."""
    crop: tuple[int, int] | None
    reverse_colours: bool = False

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """pixels_BCHW of RGB images in [-1, 1]; raises ValueError for other shapes."""
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(image_BCHW.shape)}")
        unit_BCHW = (image_BCHW.to(self.mean_CHW) + 1) / 2
        size = _resized(self.resize, unit_BCHW.shape[2], unit_BCHW.shape[3])
        if tuple(unit_BCHW.shape[2:]) != size:
            unit_BCHW = interpolate(
                unit_BCHW, size, mode=self.mode, antialias=True, align_corners=False
            )
        if self.crop is not None:
            unit_BCHW = _middle(unit_BCHW, *self.crop)
        pixels_BCHW = (unit_BCHW - self.mean_CHW) / self.std_CHW
        return pixels_BCHW.flip(1) if self.reverse_colours else pixels_BCHW


def square_preprocessing(
    side: int, mean: Sequence[float], std: Sequence[float], like: Tensor
) -> Preprocessing:
    """To a square by bicubic resampling, in the precision and on the device of `like`."""
    return Preprocessing(_colours(mean, like), _colours(std, like), (side, side), "bicubic", None)


def load_preprocessing(found: TransformersFolder, like: Tensor) -> Preprocessing:
    """What the processor of a folder does, in the precision and on the device of `like`.

    Raises:
        ModelProblem: the processor cannot run, or does something that is not reproduced here.
    """
    processor = ImageProcessor(found)
    try:
        made = _from_settings(processor, like)
        for side in _TRIAL_SIDES:
            _compare(processor, made, side)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelProblem(
            f"{found.folder}: expected an image processor that resizes, cuts out the middle and"
            f" normalises, which is what gradients can go through here; {error}"
        ) from error
    return made


def _from_settings(processor: ImageProcessor, like: Tensor) -> Preprocessing:
    def value(switch: str, name: str, default: Any) -> Any:
        return processor.setting(name) if processor.setting(switch) else default

    # Colours are compared in [0, 1] here, and in 255 * rescale_factor by the processor.
    scale = 255 * float(value("do_rescale", "rescale_factor", 1.0))
    mean = _three(value("do_normalize", "image_mean", 0.0))
    std = _three(value("do_normalize", "image_std", 1.0))
    if min(std) <= 0 or scale <= 0:
        raise ValueError(f"got image_std {std} and rescale_factor {scale / 255}")
    resize, crop = _sizes(processor)
    number = int(value("do_resize", "resample", 2))
    if number not in _MODES:
        raise ValueError(f"got resample {number}, expected 2 (bilinear) or 3 (bicubic)")
    return Preprocessing(
        _colours([m / scale for m in mean], like),
        _colours([s / scale for s in std], like),
        resize,
        _MODES[number],
        crop,
        bool(processor.setting("do_flip_channel_order")),
    )


def _sizes(processor: ImageProcessor) -> tuple[tuple[int, int] | int | None, Any]:
    """What to resize to, and what to cut out of that."""
    crop = _rectangle(processor.setting("crop_size"))
    crop = crop if processor.setting("do_center_crop") else None
    size = processor.setting("size")
    if not processor.setting("do_resize"):
        return None, crop
    if (rectangle := _rectangle(size)) is not None:
        return rectangle, crop
    if not isinstance(size, Mapping) or not size.get("shortest_edge"):
        raise ValueError(f"got size {size}, expected height and width, or shortest_edge")
    shortest, share = int(size["shortest_edge"]), processor.setting("crop_pct")
    if not isinstance(share, float):
        return shortest, crop
    if shortest >= _WHOLE_FROM:
        return (shortest, shortest), crop
    return int(shortest / share), (shortest, shortest)


def _rectangle(size: object) -> tuple[int, int] | None:
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    return None


def _resized(size: tuple[int, int] | int | None, rows: int, columns: int) -> tuple[int, int]:
    if size is None:
        return rows, columns
    if isinstance(size, tuple):
        return size
    if rows <= columns:
        return size, int(size * columns / rows)
    return int(size * rows / columns), size


def _middle(image_BCHW: Tensor, rows: int, columns: int) -> Tensor:
    height, width = image_BCHW.shape[2:]
    top, left = (height - rows) // 2, (width - columns) // 2
    if top < 0 or left < 0:
        raise ValueError(
            f"expected images of at least {columns} x {rows} pixels to cut out of, got"
            f" {width} x {height}"
        )
    return image_BCHW[:, :, top : top + rows, left : left + columns]


def _compare(processor: ImageProcessor, made: Preprocessing, side: int) -> None:
    """Raises ValueError where the two disagree by more than rounding."""
    generator = torch.Generator().manual_seed(side)
    noise_BCHW = torch.rand(1, 3, 6, 6, generator=generator) - 0.5
    smooth_BCHW = interpolate(noise_BCHW, (side, side), mode="bilinear")
    picture_BCHW = ((smooth_BCHW + 1) * 127.5).round() / 127.5 - 1
    expected_BCHW, got_BCHW = processor(picture_BCHW), made(picture_BCHW).float().cpu()
    if expected_BCHW.shape != got_BCHW.shape:
        raise ValueError(
            f"on a trial picture it gave {tuple(expected_BCHW.shape[1:])}, not"
            f" {tuple(got_BCHW.shape[1:])}"
        )
    level_CHW = 1 / (255 * made.std_CHW.float().cpu())
    level_CHW = level_CHW.flip(0) if made.reverse_colours else level_CHW
    levels = float(((expected_BCHW - got_BCHW) / level_CHW).abs().max())
    if not levels <= _TRIAL_LEVELS:
        raise ValueError(f"on a trial picture the two differ by {levels:.3g} levels of 255")


def _colours(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(list(values))[:, None, None]


def _three(value: Any) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)] * 3
    if len(values) != 3:
        raise ValueError(f"got values {values}, expected one of each of three colours")
    return values
