"""Decodes images and masks to one size, and encodes results to the same bytes every time."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from lib.files.image_files import ImageError, open_image, upright

__all__ = [
    "MODES_16_BIT",
    "Fit",
    "Format",
    "Geometry",
    "ImageError",
    "decode",
    "decode_mask",
    "decode_whole",
    "decode_whole_mask",
    "encode",
    "fitted",
]

Fit = Literal["crop", "stretch"]
Format = Literal["png", "jpeg", "webp"]

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
MODES_16_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's names of grey with 16 bits."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image was brought to the model's size; `dataclasses.asdict` of it is JSON."""

    width: int
    """Pixels, after the rotation that EXIF asks for."""
    height: int
    crop_left: int
    """The part that was kept, in pixels of the rotated image."""
    crop_top: int
    crop_width: int
    crop_height: int
    size: int
    """Side of the square result in pixels."""
    format: str
    mode: str
    """Pillow's name of the pixel format in the file, such as RGB, CMYK or I;16."""
    orientation: int
    """EXIF orientation 1 to 8 that was undone; 1 is upright (TIFF is turned by its decoder)."""


def decode(
    data: bytes, *, size: int, fit: Fit, min_side: int, max_pixels: int
) -> tuple[npt.NDArray[np.uint8], Geometry]:
    """Decode an image to `size` x `size` x 3, RGB.

    Transparent parts become white; 16-bit values are scaled to 8 bits; colour profiles are not
    applied. `fit="crop"` keeps the centred square, `"stretch"` the whole image. Resized by Lanczos.

    Raises:
        ImageError: the image cannot be used; see its `kind`. Pillow's own limit of about 179
            million pixels holds where `max_pixels` is larger.

    """
    image, orientation = open_image(data, max_pixels=max_pixels, min_side=min_side)
    mode, file_format = image.mode, image.format or ""
    pixels = upright(_to_rgb(image), orientation)
    width, height = pixels.size
    left, top, crop_width, crop_height = 0, 0, width, height
    if fit == "crop":
        crop_width = crop_height = min(width, height)
        left, top = (width - crop_width) // 2, (height - crop_height) // 2
    geometry = Geometry(
        width=width,
        height=height,
        crop_left=left,
        crop_top=top,
        crop_width=crop_width,
        crop_height=crop_height,
        size=size,
        format="JPEG" if file_format == "MPO" else file_format,
        mode=mode,
        orientation=orientation,
    )
    pixels = _crop(pixels, geometry).resize((size, size), Image.Resampling.LANCZOS)
    return np.array(pixels, dtype=np.uint8), geometry


def decode_mask(data: bytes, *, geometry: Geometry, max_pixels: int) -> npt.NDArray[np.float32]:
    """Decode a mask to coverage in [0, 1], float32 of shape (size, size).

    Grey is scaled by its bit depth, or taken as it is where no value is above 1. In a palette image
    every index above 0 is inside. An alpha channel that is not opaque throughout is the mask,
    whatever the colours. The mask goes through the image's crop, then is resized by area averaging;
    one that has the target size already is taken as it is.

    Raises:
        ImageError: it cannot be decoded; it is coloured (`unsupported`); or it has neither the
            image's size, a multiple or fraction of it, nor the target size (`mask_size`).

    """
    image, orientation = open_image(data, max_pixels=max_pixels)
    coverage = upright(Image.fromarray(_coverage(image)), orientation)
    coverage = fitted(coverage, geometry, Image.Resampling.BOX)
    return np.clip(np.asarray(coverage, dtype=np.float32), 0.0, 1.0)


def decode_whole(data: bytes, *, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decode an image to (H, W, 3), RGB, upright, at its own size; colours as in `decode`.

    Raises:
        ImageError: the image cannot be used; see its `kind`.

    """
    image, orientation = open_image(data, max_pixels=max_pixels)
    return np.array(upright(_to_rgb(image), orientation), dtype=np.uint8)


def decode_whole_mask(
    data: bytes, *, size: tuple[int, int], max_pixels: int
) -> npt.NDArray[np.float32]:
    """Decode a mask to coverage in [0, 1], float32 of shape (H, W), resized by area averaging to
    `size` = (W, H); values as in `decode_mask`.

    Raises:
        ImageError: it cannot be decoded, or is coloured (`unsupported`).

    """
    image, orientation = open_image(data, max_pixels=max_pixels)
    coverage = upright(Image.fromarray(_coverage(image)), orientation)
    if coverage.size != size:
        coverage = coverage.resize(size, Image.Resampling.BOX)
    return np.clip(np.asarray(coverage, dtype=np.float32), 0.0, 1.0)


def encode(image_HWC: npt.NDArray[np.uint8], format: Format, quality: int) -> bytes:  # noqa: A002
    """Encode an RGB image, shape (H, W, 3) uint8; the same pixels give the same bytes.

    `quality` is 1 to 100. PNG ignores it; WebP is lossless at 100; JPEG keeps the full colour
    resolution from 90 on.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError(
            f"expected a uint8 array of shape (H, W, 3), got {image_HWC.dtype} {image_HWC.shape}"
        )
    if not 1 <= quality <= 100:
        raise ValueError(f"expected a quality from 1 to 100, got {quality}")
    image = Image.fromarray(np.ascontiguousarray(image_HWC))
    file = BytesIO()
    if format == "png":
        image.save(file, "PNG", compress_level=6)
    elif format == "jpeg":
        image.save(file, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    elif format == "webp":
        image.save(file, "WEBP", quality=quality, lossless=quality == 100, method=4)
    else:
        raise ValueError(f"expected format png, jpeg or webp, got {format!r}")
    return file.getvalue()


def _crop(image: Image.Image, geometry: Geometry) -> Image.Image:
    left, top = geometry.crop_left, geometry.crop_top
    return image.crop((left, top, left + geometry.crop_width, top + geometry.crop_height))


def fitted(image: Image.Image, geometry: Geometry, resample: Image.Resampling) -> Image.Image:
    """A mask through the crop of its image, at the target size; one that has that size already is
    taken as it is. Raises ImageError `mask_size` as `decode_mask`.
    """
    target = (geometry.size, geometry.size)
    if image.size == (geometry.width, geometry.height):
        return _crop(image, geometry).resize(target, resample)
    if image.size == target:
        return image
    # CelebAMask-HQ has masks of half the side of its images.
    across, down = image.width / geometry.width, image.height / geometry.height
    if abs(image.width * geometry.height / geometry.width - image.height) >= 1:
        raise ImageError(
            "mask_size",
            f"the mask has {image.width} x {image.height} pixels; expected "
            f"{geometry.width} x {geometry.height} as the image, a multiple or fraction of that, or"
            f" {target[0]} x {target[1]}",
        )
    left, top = geometry.crop_left * across, geometry.crop_top * down
    right, bottom = left + geometry.crop_width * across, top + geometry.crop_height * down
    box = (left, top, min(right, image.width), min(bottom, image.height))
    return image.resize(target, resample, box=box)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in MODES_16_BIT or (image.mode == "I" and image.format == "PNG"):
        return _grey_to_rgb(image)
    if image.mode not in _MODES:
        raise ImageError(
            "unsupported", f"pixels of kind {image.mode} are not read; save with 8 or 16 bits"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, coloured).convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _coverage(image: Image.Image) -> npt.NDArray[np.float32]:
    """Mask values in [0, 1] at the file's own size and orientation."""
    if image.mode == "P":
        return (np.asarray(image) > 0).astype(np.float32)
    if image.mode in ("LA", "PA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() < 255:
            return alpha.astype(np.float32) / np.float32(255)
    if image.mode in MODES_16_BIT or (image.mode == "I" and image.format == "PNG"):
        return _scaled(np.asarray(image), 65535)
    if image.mode in ("1", "L", "LA"):
        return _scaled(np.asarray(image.convert("L")), 255)
    if image.mode not in _MODES:
        raise ImageError("unsupported", f"a mask of pixel kind {image.mode} is not read")
    values = np.asarray(image.convert("RGB"))
    if (values != values[:, :, :1]).any():
        raise ImageError("unsupported", "the mask is coloured; expected grey, 1 bit or a palette")
    return _scaled(values[:, :, 0], 255)


def _scaled(values: npt.NDArray[np.generic], full: int) -> npt.NDArray[np.float32]:
    # Label files often hold 0 and 1 where a viewer would need 0 and 255.
    scale = 1 if values.size and values.max() <= 1 else full
    return values.astype(np.float32) / np.float32(scale)
