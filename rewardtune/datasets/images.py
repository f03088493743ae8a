"""Encoded pictures to pixels, always upright and always RGB.

Axes: H height, W width, C the three colours.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

ORIENTATION_TAG = 0x0112
"""Where EXIF says how a picture was held: 1 upright, 3 upside down, 5-8 lying on a side."""

# Orientation to what undoes its correction.
_TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

# Everything Pillow's readers are known to raise on damaged data.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class BrokenImage(ValueError):
    """The bytes are not a whole picture in a format that Pillow reads."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a picture's header says, once its data are known to decode."""

    height: int
    """Of the upright picture."""
    width: int
    orientation: int
    """The EXIF orientation, 1 to 8."""

    @property
    def stored_height(self) -> int:
        """Height of the pixels as stored, before the orientation is applied."""
        return self.width if self.orientation >= 5 else self.height

    @property
    def stored_width(self) -> int:
        return self.height if self.orientation >= 5 else self.width


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture to upright RGB pixels [H, W, 3].

    EXIF orientation is applied; grey, palette and CMYK pictures become RGB; 16-bit samples
    keep their upper byte; transparent parts show white, as in a browser.

    Raises:
        BrokenImage: the data are truncated, damaged, or no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            upright: Image.Image = image
            if _orientation(image) != 1:
                upright = ImageOps.exif_transpose(image)
            return np.array(_rgb(upright), dtype=np.uint8)
    except _DECODE_ERRORS as error:
        raise BrokenImage(_complaint(data, error)) from error


def inspect_image(data: bytes) -> ImageFacts:
    """Size and orientation of a picture, after reading all of it to see that it decodes.

    Raises:
        BrokenImage: the data are truncated, damaged, or no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            # Pillow turns a TIFF as it loads it and forgets how it lay; the size it gives is the
            # upright one from the start. Others are asked after loading: a PNG's metadata may lie
            # behind its pixels, and asking would load it and swallow what is wrong with them.
            is_tiff = image.format == "TIFF"
            orientation = _orientation(image) if is_tiff else 1
            if orientation >= 5:
                width, height = height, width
            # Every byte is still read, but a JPEG is unpacked at an eighth of its size:
            # truncation is found all the same, in less time and a 64th of the memory.
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            image.load()
            if not is_tiff:
                orientation = _orientation(image)
            _refuse_floats(image)
    except _DECODE_ERRORS as error:
        raise BrokenImage(_complaint(data, error)) from error
    if orientation >= 5:
        height, width = width, height
    return ImageFacts(height=height, width=width, orientation=orientation)


def without_orientation(data: bytes) -> bytes:
    """The same pixels in a file that no longer asks for them to be turned.

    For data sets annotated on the pixels as stored. A JPEG loses its EXIF and XMP segments and
    nothing else; other formats are written anew as PNG.

    Raises:
        BrokenImage: the data are truncated, damaged, or no picture.
    """
    orientation = inspect_image(data).orientation
    if orientation == 1:
        return data
    if data.startswith(b"\xff\xd8"):
        stripped = _without_app1(data)
        if inspect_image(stripped).orientation == 1:
            return stripped
    bare = Image.fromarray(decode_image(data)).transpose(_TURN_BACK[orientation])
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG")
    return buffer.getvalue()


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except _DECODE_ERRORS:
        # Broken metadata beside sound pixels: cameras and editors do write such files.
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _refuse_floats(image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError("floating-point samples have no agreed range")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16-bit grey. Pillow's own convert() clips it to 255 instead of scaling it.
        grey_HW = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
        return Image.fromarray(grey_HW.astype(np.uint8)).convert("RGB")
    _refuse_floats(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _without_app1(data: bytes) -> bytes:
    """Copy a JPEG's segments up to the start of scan, leaving out APP1 (EXIF and XMP)."""
    kept = [data[:2]]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            break
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker != 0xE1:
            kept.append(data[at : at + length])
        at += length
    kept.append(data[at:])
    return b"".join(kept)


def _complaint(data: bytes, error: BaseException) -> str:
    if not data:
        return "the picture is empty (0 bytes)"
    reason = str(error).strip() or type(error).__name__
    if "BytesIO" in reason:
        reason = "no known picture format"
    return f"cannot decode the picture ({len(data)} bytes): {reason}"
