"""Native kernels: how a reward's inner loop is compiled by numba and fed.

A kernel takes arguments only and reads no module constants: numba's cache would not notice that
one changed. Each task's module that holds kernels has a ``warm_up`` which calls all of them once,
so that no lease pays for compiling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as native code on one thread, without the interpreter lock.

    Compiled at its first call (seconds, once per machine; later read from numba's cache).
    """
    try:
        return cast(F, numba.njit(function, cache=True, nogil=True))
    except RuntimeError:
        # Neither the package's folder nor the home directory is writable, as in a hardened
        # container: compile in every process instead.
        return cast(F, numba.njit(function, nogil=True))


def plain(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The array as kernels take it: of one dtype, contiguous, writeable; copied only if needed.

    Numba compiles anew for arrays that are read-only or strided, as those off the wire are.
    """
    if array.dtype == dtype and array.flags.carray:
        return array  # np.require takes longer to say so than a small kernel runs
    return np.require(array, dtype, ["C_CONTIGUOUS", "WRITEABLE", "ALIGNED"])
