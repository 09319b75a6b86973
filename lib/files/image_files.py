"""Opens untrusted image files: what the header shows to be unusable is refused before decoding.

Pillow's global settings are not touched, so threads may open files side by side.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from PIL import Image

Image.init()  # register every decoder now: opening by name needs them

_READ_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_MAGICS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's parsers raise on damaged files, and warn of (a caller may make warnings errors).
_PARSE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Warning,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageError(ValueError):
    """An image that cannot be used.

    `kind` is not_an_image, truncated, too_small, too_large, animated or unsupported; of a mask also
    missing_mask, mask_size, mask_area, mask_class or not_finite.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def open_image(data: bytes, *, max_pixels: int, min_side: int = 1) -> tuple[Image.Image, int]:
    """The decoded image, as it lies in the file, and the EXIF orientation still to be undone.

    Raises:
        ImageError: it cannot be decoded, or its header says that it is too small, too large
            (Pillow's own limit of about 179 million pixels holds beside `max_pixels`) or animated.

    """
    try:
        image = Image.open(BytesIO(data), formats=_READ_FORMATS)
    except _BOMBS as error:
        raise ImageError("too_large", str(error)) from error
    except _PARSE_ERRORS as error:
        raise _unknown(data) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            "too_large",
            f"the image has {width} x {height} pixels; at most {max_pixels} are allowed",
        )
    if min(width, height) < min_side:
        raise ImageError(
            "too_small",
            f"the image has {width} x {height} pixels; expected sides of {min_side} or more",
        )
    try:
        # An MPO is a photo with a preview or a second view behind it, not an animation.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise ImageError("animated", "the file has several frames or pages; expected one image")
        orientation = _orientation(image)
        image.load()
    except ImageError:
        raise
    except _BOMBS as error:
        raise ImageError("too_large", str(error)) from error
    except MemoryError as error:
        raise ImageError("too_large", "there is not enough memory for this image") from error
    except _PARSE_ERRORS as error:
        raise ImageError(
            "truncated", f"the {image.format} image is cut or damaged: {error}"
        ) from error
    return image, orientation


def _unknown(data: bytes) -> ImageError:
    if data[4:8] == b"ftyp":
        return ImageError("unsupported", "HEIC and AVIF are not read; convert to JPEG, PNG or WebP")
    if data.startswith(_MAGICS):
        return ImageError("truncated", "the header of the image is cut or damaged")
    return ImageError(
        "not_an_image",
        f"no image was recognised in these {len(data)} bytes; expected one of JPEG, PNG, WebP, "
        "BMP, TIFF or GIF",
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; unreadable EXIF, which viewers ignore too, says nothing."""
    if image.format == "TIFF":
        return 1  # Pillow has turned it
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _PARSE_ERRORS:
        return 1
    return value if value in _TRANSPOSE else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation asks."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
