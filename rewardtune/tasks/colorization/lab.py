"""sRGB pixels to CIELAB, with the constants of scikit-image's ``rgb2lab``.

Axes: ... any leading axes, 3 channels last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

XYZ_FROM_LINEAR_33 = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE_3 = np.array([0.95047, 1.0, 1.08883])
"""D65 seen by the 2 degree observer."""


def linear_levels() -> NDArray[np.float64]:
    """Light of each of the 256 sRGB levels, 0 to 1."""
    level = np.arange(256) / 255.0
    return np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)


def srgb_to_lab(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Lightness 0 to 100, a and b about -128 to 127 [..., 3].

    Grey is not exactly a = b = 0: with these constants greys stand at about (-0.0025, 0.0047),
    and only black at (0, 0).

    Raises:
        ValueError: the array is not uint8 with three channels last.
    """
    check_pixels(image)
    xyz = linear_levels()[image] @ XYZ_FROM_LINEAR_33.T / WHITE_3
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def check_pixels(image: NDArray[Any]) -> None:
    """Raises ValueError unless the array is uint8 [..., 3]."""
    if image.dtype != np.uint8 or image.ndim < 1 or image.shape[-1] != 3:
        raise ValueError(
            f"pixels must be uint8 with three channels last, got {image.dtype} "
            f"{list(image.shape)}: round_to_levels makes them of floats in [-1, 1]"
        )
