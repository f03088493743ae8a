"""Kernels compile anywhere, and take arrays as they come off the wire."""

from __future__ import annotations

from typing import Any

import numpy as np

from rewardtune.tasks.kernel import compiled, plain


def test_a_kernel_compiles_where_no_cache_can_be_written() -> None:
    # Numba finds no place to cache a function that has no file: the same error as in a
    # container whose file system is read-only.
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x", namespace)
    assert compiled(namespace["double"])(21) == 42


def test_a_plain_array_is_not_copied_and_any_other_becomes_one() -> None:
    array = np.arange(6, dtype=np.int32)
    assert plain(array, np.int32) is array
    frozen = array.copy()
    frozen.flags.writeable = False
    for other in (frozen, array[::2], array.astype(np.int64)):
        made = plain(other, np.int32)
        assert made.flags.writeable and made.flags.c_contiguous and made.dtype == np.int32
        np.testing.assert_array_equal(made, other)
