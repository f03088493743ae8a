from __future__ import annotations

import io

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rewardtune.datasets.images import (
    ORIENTATION_TAG,
    BrokenImage,
    decode_image,
    inspect_image,
    without_orientation,
)


def _picture(height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    """Smooth, and different in every corner, so that JPEG keeps it and turns show."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 2], axis=2).astype(np.uint8)


def _encoded(picture: Image.Image, kind: str, *, orientation: int | None = None) -> bytes:
    buffer = io.BytesIO()
    if orientation is None:
        picture.save(buffer, kind)
    else:
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        picture.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_png_pixels_come_back_exactly_and_may_be_written_to() -> None:
    pixels = _picture()
    decoded = decode_image(_encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8
    decoded[0, 0] = 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(kind: str, orientation: int, turn: object) -> None:
    assert callable(turn)
    picture = Image.fromarray(_picture())
    upright = turn(decode_image(_encoded(picture, kind)))
    data = _encoded(picture, kind, orientation=orientation)
    np.testing.assert_array_equal(decode_image(data), upright)
    facts = inspect_image(data)
    assert (facts.height, facts.width) == upright.shape[:2]
    assert (facts.stored_height, facts.stored_width) == (24, 40)
    assert facts.orientation == orientation


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_without_orientation_keeps_the_stored_pixels(kind: str, orientation: int) -> None:
    picture = Image.fromarray(_picture())
    bare = without_orientation(_encoded(picture, kind, orientation=orientation))
    np.testing.assert_array_equal(decode_image(bare), decode_image(_encoded(picture, kind)))
    assert inspect_image(bare).orientation == 1


def test_without_orientation_reencodes_no_jpeg() -> None:
    picture = Image.fromarray(_picture())
    plain, turned = _encoded(picture, "JPEG"), _encoded(picture, "JPEG", orientation=8)
    assert without_orientation(turned) == plain


def test_a_nonsensical_orientation_counts_as_upright() -> None:
    data = _encoded(Image.fromarray(_picture()), "JPEG", orientation=77)
    assert decode_image(data).shape == (24, 40, 3)
    assert inspect_image(data).orientation == 1


def test_grey_becomes_three_equal_colours() -> None:
    grey = _picture()[..., 0]
    for mode in ("L", "LA"):
        decoded = decode_image(_encoded(Image.fromarray(grey).convert(mode), "PNG"))
        np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_spans_the_whole_range() -> None:
    bits = _picture()[..., 0] > 127
    decoded = decode_image(_encoded(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(decoded[..., 1], np.where(bits, 255, 0))


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode_image(_encoded(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(decoded[..., 2], deep >> 8)


def test_palette_pictures_show_their_colours() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
    palette = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode_image(_encoded(palette, "PNG")), pixels)


def test_cmyk_jpeg_looks_like_its_rgb_original() -> None:
    pixels = _picture()
    data = _encoded(Image.fromarray(pixels).convert("CMYK"), "JPEG")
    error = np.abs(decode_image(data).astype(int) - pixels.astype(int))
    assert error.mean() < 4


def test_transparent_parts_show_white() -> None:
    layer = np.zeros((1, 3, 4), dtype=np.uint8)
    layer[0, :, 3] = [0, 255, 51]
    decoded = decode_image(_encoded(Image.fromarray(layer), "PNG"))
    assert decoded[0, :, 0].tolist() == [255, 0, 204]


@pytest.mark.parametrize("data", [b"", b"not a picture at all", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    for read in (decode_image, inspect_image, without_orientation):
        with pytest.raises(BrokenImage, match=r"picture"):
            read(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_truncated_picture_is_refused(kind: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = _encoded(Image.fromarray(noise), kind)
    for read in (decode_image, inspect_image):
        with pytest.raises(BrokenImage, match=r"truncated|incomplete|broken"):
            read(whole[: int(len(whole) * kept)])


_WHOLE = {kind: _encoded(Image.fromarray(_picture(9, 7)), kind) for kind in ("PNG", "JPEG", "GIF")}


@hypothesis.example(kind="PNG", cut=1.0, place=0.5)
@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(_WHOLE)), cut=st.floats(0, 1), place=st.floats(0, 1))
def test_damage_is_refused_or_harmless_but_never_another_error(
    kind: str, cut: float, place: float
) -> None:
    data = bytearray(_WHOLE[kind])
    data[int(place * (len(data) - 1))] ^= 0x5A
    damaged = bytes(data[: max(1, int(cut * len(data)))])
    outcomes = []
    for read in (decode_image, inspect_image):
        try:
            read(damaged)
        except BrokenImage:
            outcomes.append("refused")
        else:
            outcomes.append("read")
    # What conversion lets pass must also decode in training.
    assert outcomes[0] == outcomes[1]
