"""Each kind of image is decoded to the colours that its maker meant."""

from __future__ import annotations

import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from lib.files.images import Geometry, ImageError, decode, decode_mask, encode

RED, GREEN, BLUE, WHITE = (200, 30, 20), (20, 180, 40), (30, 60, 210), (255, 255, 255)
Array = npt.NDArray[Any]


def quarters(size: int = 32) -> Array:
    """Red, green / blue, white, in four quarters: shows every flip and rotation."""
    image = np.empty((size, size, 3), np.uint8)
    half = size // 2
    image[:half, :half], image[:half, half:] = RED, GREEN
    image[half:, :half], image[half:, half:] = BLUE, WHITE
    return image


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes, size: int = 32, fit: Any = "crop") -> tuple[Array, Geometry]:
    return decode(data, size=size, fit=fit, min_side=8, max_pixels=1_000_000)


def corners(image: Array) -> list[list[int]]:
    """The colours in the middle of the four quarters."""
    quarter = len(image) // 4
    places = (quarter, 3 * quarter)
    return [image[y, x].tolist() for y in places for x in places]


def near(image: Array, expected: list[tuple[int, int, int]], tolerance: int) -> bool:
    return bool(np.abs(np.array(corners(image)) - np.array(expected)).max() <= tolerance)


def png(mode: tuple[int, int], rows: bytes, side: int, extra: bytes = b"") -> bytes:
    """A PNG written by hand: mode is (bit depth, colour type), extra is chunks before the data."""
    stride = len(rows) // side
    lines = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(side))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, *mode, 0, 0, 0))
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


FOUR = [RED, GREEN, BLUE, WHITE]
RGB = Image.fromarray(quarters())
PALETTE = RGB.quantize(8)


@pytest.mark.parametrize(
    ("data", "mode", "tolerance"),
    [
        (stored(RGB, "PNG"), "RGB", 0),
        (stored(RGB, "BMP"), "RGB", 0),
        (stored(RGB, "TIFF"), "RGB", 0),
        (stored(RGB, "TIFF", compression="tiff_lzw"), "RGB", 0),
        (stored(RGB, "WEBP", lossless=True), "RGB", 0),
        (stored(RGB, "WEBP", quality=95), "RGB", 12),
        (stored(RGB, "JPEG", quality=95), "RGB", 6),
        (stored(RGB, "JPEG", quality=95, progressive=True), "RGB", 6),
        (stored(PALETTE, "PNG"), "P", 2),
        (stored(PALETTE, "GIF"), "P", 2),
        (stored(RGB.convert("RGBA"), "PNG"), "RGBA", 0),
        (stored(RGB.convert("CMYK"), "TIFF"), "CMYK", 2),
        (stored(RGB.convert("CMYK"), "JPEG", quality=95), "CMYK", 8),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_colour_images(data: bytes, mode: str, tolerance: int) -> None:
    image, geometry = read(data)
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert near(image, FOUR, tolerance)
    assert (geometry.mode, geometry.width, geometry.height) == (mode, 32, 32)


def test_cmyk_jpeg_holds_inverted_ink_as_photoshop_writes_it() -> None:
    # Ink of pure cyan: C=255. An Adobe file stores 255 - ink, hence the APP14 marker.
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    data = stored(cyan, "JPEG", quality=100)
    assert b"Adobe" in data
    assert near(read(data)[0], [(0, 255, 255)] * 4, 3)


def test_adobe_ycck_jpeg() -> None:
    # Bytes (100, 128, 128, 255) are stored, and APP14's transform is set to 2, which makes them
    # Y = 100 without chroma and K. The standard's C = M = Y = 255 - 100 = 155 are, in an Adobe
    # file, inverted ink: 155 is the brightness of the paper, and 255 means no black.
    data = bytearray(stored(Image.new("CMYK", (32, 32), (155, 127, 127, 0)), "JPEG", quality=100))
    place = data.index(b"Adobe")
    assert data[place + 11] == 0
    data[place + 11] = 2
    assert near(read(bytes(data))[0], [(155, 155, 155)] * 4, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(kind: str, orientation: int) -> None:
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:10, :20], upright[:10, 20:], upright[10:, :20], upright[10:, 20:] = FOUR
    # What a camera held that way stores: the inverse of what a viewer must do (EXIF 2.32, 4.6.4).
    stored_as = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    data = stored(Image.fromarray(np.ascontiguousarray(stored_as)), kind, exif=exif, **options)
    image, geometry = read(data, fit="stretch")
    assert (geometry.width, geometry.height) == (40, 20)
    assert near(image, FOUR, 6)
    if kind != "TIFF":
        assert geometry.orientation == orientation


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    expected = np.round(values / 257).astype(int)
    for data in (
        png((16, 0), values.astype(">u2").tobytes(), 32),
        stored(Image.fromarray(values), "TIFF"),
    ):
        image, geometry = read(data)
        assert geometry.mode.startswith("I;16")
        assert np.abs(image - expected[:, :, None]).max() <= 1


def test_16_bit_colour_keeps_its_high_byte() -> None:
    wide = quarters().astype(np.uint16) * 257
    image, _ = read(png((16, 2), wide.astype(">u2").tobytes(), 32))
    assert corners(image) == [list(colour) for colour in FOUR]


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_images_have_three_equal_channels(mode: str) -> None:
    grey = Image.fromarray(np.repeat([[0, 255]], 32, axis=0).repeat(16, axis=1).astype(np.uint8))
    image, geometry = read(stored(grey.convert(mode), "PNG"))
    assert geometry.mode == mode
    assert corners(image) == [[0] * 3, [255] * 3] * 2


def test_transparency_becomes_white() -> None:
    rgba = np.dstack([quarters(), np.full((32, 32), 255, np.uint8)])
    rgba[:16, :16, 3] = 0
    rgba[:16, 16:, 3] = 128
    image, _ = read(stored(Image.fromarray(rgba), "PNG"))
    # 128/255 of green (20, 180, 40) over white: 255 - 0.502 * (255 - g)
    assert near(image, [WHITE, (137, 217, 147), BLUE, WHITE], 1)


def test_grey_with_alpha_becomes_white() -> None:
    pixels = np.zeros((32, 32, 2), np.uint8)
    pixels[:, 16:, 1] = 255
    image, _ = read(png((8, 4), pixels.tobytes(), 32))
    assert corners(image) == [[255] * 3, [0] * 3] * 2


def test_transparent_palette_entries_become_white() -> None:
    index = np.zeros((32, 32), np.uint8)
    index[:, 16:] = 1
    chunks = chunk(b"PLTE", bytes(RED + BLUE)) + chunk(b"tRNS", b"\0\xff")
    image, geometry = read(png((8, 3), index.tobytes(), 32, chunks))
    assert geometry.mode == "P"
    assert corners(image) == [[255] * 3, list(BLUE)] * 2


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_grey_value_becomes_white(depth: int) -> None:
    value = 0x33 if depth == 8 else 0x3344
    pixels = np.full((32, 32), value, ">u1" if depth == 8 else ">u2")
    pixels[:, 16:] = 0
    data = png((depth, 0), pixels.tobytes(), 32, chunk(b"tRNS", struct.pack(">H", value)))
    assert corners(read(data)[0]) == [[255] * 3, [0] * 3] * 2


def test_crop_keeps_the_centre_and_stretch_keeps_all() -> None:
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, :32], wide[:, 32:64], wide[:, 64:] = RED, GREEN, BLUE
    data = stored(Image.fromarray(wide), "PNG")
    cropped, geometry = read(data)
    assert geometry == Geometry(96, 32, 32, 0, 32, 32, 32, "PNG", "RGB", 1)
    assert np.array_equal(cropped, np.full((32, 32, 3), GREEN))
    stretched, geometry = read(data, size=24, fit="stretch")
    assert (geometry.crop_left, geometry.crop_width, geometry.crop_height) == (0, 96, 32)
    assert [stretched[12, x].tolist() for x in (1, 12, 22)] == [list(c) for c in (RED, GREEN, BLUE)]
    tall, geometry = read(stored(Image.fromarray(wide.transpose(1, 0, 2)), "PNG"))
    assert (geometry.crop_left, geometry.crop_top) == (0, 32)
    assert np.array_equal(tall, np.full((32, 32, 3), GREEN))


def test_geometry_is_json() -> None:
    _, geometry = read(stored(RGB, "JPEG"))
    assert json.loads(json.dumps(asdict(geometry)))["crop_width"] == 32


def test_shrinking_is_free_of_aliasing() -> None:
    checks = np.indices((128, 128)).sum(0) % 2 * 255
    image, _ = read(stored(Image.fromarray(checks.astype(np.uint8)), "PNG"), size=16)
    assert np.abs(image.astype(int) - 127).max() <= 2


def kind_of(data: bytes, **options: Any) -> str:
    settings = {"size": 16, "fit": "crop", "min_side": 8, "max_pixels": 1_000_000} | options
    with pytest.raises(ImageError) as caught:
        decode(data, **settings)
    assert str(caught.value)
    return caught.value.kind


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg></svg>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_no_image(data: bytes) -> None:
    assert kind_of(data) == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = stored(Image.fromarray(noise), kind)
    read(data)
    for share in (0.95, 0.5, 0.2):
        assert kind_of(data[: int(len(data) * share)]) in ("truncated", "not_an_image")
    assert kind_of(data[: len(data) // 2]) == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_small_image_is_refused_by_its_shorter_side() -> None:
    data = stored(Image.new("RGB", (100, 7)), "PNG")
    assert kind_of(data) == "too_small"
    assert kind_of(data, min_side=7, max_pixels=699) == "too_large"
    read(stored(Image.new("RGB", (100, 8)), "PNG"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [2_000, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    # The pixels are not even there: what the header says decides.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    limit = Image.MAX_IMAGE_PIXELS
    assert kind_of(data) == "too_large"
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_too_large_where_warnings_are_errors() -> None:
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    assert kind_of(data, max_pixels=10**9) == "too_large"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused_and_one_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN)]
    assert kind_of(stored(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated"
    assert near(read(stored(frames[0], kind, save_all=True))[0], [RED] * 4, 12)


def test_a_photo_with_a_second_view_is_an_image() -> None:
    view = Image.fromarray(quarters())
    data = stored(view, "MPO", save_all=True, append_images=[view], quality=95)
    image, geometry = read(data)
    assert geometry.format == "JPEG"
    assert near(image, FOUR, 6)


def test_kinds_that_are_not_read_are_said_to_be_unsupported() -> None:
    assert kind_of(stored(Image.new("F", (32, 32)), "TIFF")) == "unsupported"
    assert kind_of(stored(Image.new("I", (32, 32)), "TIFF")) == "unsupported"
    assert kind_of(b"\0\0\0\x18ftypheic" + bytes(100)) == "unsupported"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_image_as_it_lies() -> None:
    data = stored(RGB, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert near(read(data)[0], FOUR, 6)


SEEDS = [
    stored(
        RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)
    ),
    stored(PALETTE, "PNG"),
    stored(PALETTE, "GIF"),
    stored(RGB, "TIFF", compression="tiff_deflate"),
    stored(RGB, "WEBP"),
    stored(RGB, "BMP"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 900), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_an_image_or_an_image_error(
    seed: bytes, place: int, filler: bytes
) -> None:
    place %= len(seed)
    data = seed[:place] + filler + seed[place + len(filler) :]
    try:
        image, _ = read(data)
    except ImageError:
        return
    assert image.shape == (32, 32, 3)


def test_threads_decode_to_the_same_pixels() -> None:
    expected = [read(seed)[0] for seed in SEEDS]
    with ThreadPoolExecutor(8) as pool:
        for turn in pool.map(lambda _: [read(seed)[0] for seed in SEEDS], range(24)):
            assert all(np.array_equal(a, b) for a, b in zip(turn, expected, strict=True))


SQUARE = Geometry(32, 32, 0, 0, 32, 32, 16, "PNG", "RGB", 1)


def left_half(value: int, width: int = 32, height: int = 32) -> Array:
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, : width // 2] = value
    return pixels


def mask(data: bytes, geometry: Geometry = SQUARE) -> Array:
    coverage = decode_mask(data, geometry=geometry, max_pixels=1_000_000)
    assert (coverage.shape, coverage.dtype) == ((geometry.size, geometry.size), np.float32)
    return coverage


LEFT = np.repeat([[1.0] * 8 + [0.0] * 8], 16, axis=0).astype(np.float32)
ALPHA = np.dstack([np.full((32, 32, 3), 90, np.uint8), left_half(255)])
INDEXED = Image.new("P", (32, 32))
INDEXED.putdata(left_half(3).ravel().tolist())
INDEXED.putpalette([0, 0, 0] * 256)


@pytest.mark.parametrize(
    "data",
    [
        stored(Image.fromarray(left_half(255)), "PNG"),
        stored(Image.fromarray(left_half(255)), "WEBP", lossless=True),
        stored(Image.fromarray(left_half(255)).convert("1"), "PNG"),
        stored(Image.fromarray(left_half(1)), "PNG"),
        png((16, 0), (left_half(255).astype(">u2") * 257).tobytes(), 32),
        png((16, 0), left_half(1).astype(">u2").tobytes(), 32),
        stored(INDEXED, "PNG"),
        stored(Image.fromarray(ALPHA), "PNG"),
        png((8, 4), np.dstack([left_half(0), left_half(255)]).tobytes(), 32),
        stored(Image.fromarray(left_half(255)).convert("RGB"), "PNG"),
        stored(Image.fromarray(left_half(255)).convert("RGBA"), "PNG"),
        stored(Image.fromarray(left_half(255, 16, 16)), "PNG"),
    ],
    ids=["grey", "webp", "1-bit", "0/1", "16-bit", "16-bit 0/1", "palette", "alpha", "grey alpha",
         "grey as RGB", "grey as opaque RGBA", "target size"],
)  # fmt: skip
def test_masks_of_all_kinds(data: bytes) -> None:
    assert np.array_equal(mask(data), LEFT)


def test_an_empty_and_a_full_mask() -> None:
    assert mask(stored(Image.new("L", (32, 32), 0), "PNG")).max() == 0
    assert mask(stored(Image.new("L", (32, 32), 255), "PNG")).min() == 1


def test_coverage_is_the_mean_of_the_area() -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[0, 0] = 255  # one of the four pixels under the target's first
    pixels[2, 2:4] = 128
    coverage = mask(stored(Image.fromarray(pixels), "PNG"))
    assert coverage[0, 0] == pytest.approx(0.25)
    assert coverage[1, 1] == pytest.approx(2 * 128 / 255 / 4)
    assert coverage.sum() == pytest.approx(0.25 + 64 / 255)


def test_the_mask_takes_the_crop_of_its_image() -> None:
    wide = np.zeros((32, 96), np.uint8)
    wide[:, 32:48] = 255
    _, geometry = read(stored(Image.new("RGB", (96, 32)), "PNG"), size=16)
    assert np.array_equal(mask(stored(Image.fromarray(wide), "PNG"), geometry), LEFT)


def test_the_mask_of_a_rotated_image_has_the_size_of_the_upright_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = stored(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    _, geometry = read(photo, size=16, fit="stretch")
    upright = np.zeros((40, 20), np.uint8)
    upright[:, :10] = 255
    assert np.array_equal(mask(stored(Image.fromarray(upright), "PNG"), geometry), LEFT)
    with pytest.raises(ImageError, match="40 x 20 pixels; expected 20 x 40") as caught:
        mask(stored(Image.new("L", (40, 20)), "PNG"), geometry)
    assert caught.value.kind == "mask_size"


def test_a_coloured_mask_is_refused() -> None:
    with pytest.raises(ImageError, match="coloured") as caught:
        mask(stored(RGB, "PNG"))
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(
    ("kind", "quality", "tolerance"),
    [("png", 1, 0), ("webp", 100, 0), ("webp", 90, 20), ("jpeg", 95, 8), ("jpeg", 60, 30)],
)
def test_encode_is_deterministic_and_as_exact_as_asked(
    kind: Any, quality: int, tolerance: int
) -> None:
    pixels = quarters()
    data = encode(pixels, kind, quality)
    assert data == encode(pixels.copy(), kind, quality)
    back = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(back - pixels).max() <= tolerance or near(back, FOUR, tolerance)
    if tolerance == 0:
        assert np.array_equal(back, pixels)


def test_encode_takes_views_that_are_not_contiguous() -> None:
    pixels = quarters()
    assert encode(pixels[:, ::-1], "png", 1) == encode(pixels[:, ::-1].copy(), "png", 1)


def test_encode_refuses_what_is_no_image_array() -> None:
    for wrong in (np.zeros((8, 8, 3), np.float32), np.zeros((3, 8, 8), np.uint8)):
        with pytest.raises(ValueError, match="expected a uint8 array"):
            encode(wrong, "png", 90)
    with pytest.raises(ValueError, match="quality from 1 to 100"):
        encode(quarters(), "jpeg", 0)
