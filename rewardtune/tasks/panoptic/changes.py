"""Where a map changes: 64 pixels at a time, for use inside kernels.

Written as LLVM's portable vectors, which become whatever the processor has; numba's own loops do
not, and a loop over 8-byte words takes twice as long.

Numba's cache does not see that a kernel of another file calls what is here: whoever edits this
file also deletes the cache (the ``__pycache__`` folders).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray


def _generate_changes(typing_context: Any, map_N: Any, start: Any) -> Any:
    signature = types.uint64(map_N, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        num_bits = signature.args[0].dtype.bitwidth
        vector = ir.VectorType(ir.IntType(num_bits), 64)

        def pixels(first: Any) -> Any:
            address = builder.bitcast(builder.gep(array.data, [first]), vector.as_pointer())
            return builder.load(address, align=num_bits // 8)

        here = pixels(arguments[1])
        before = pixels(builder.sub(arguments[1], ir.Constant(arguments[1].type, 1)))
        return builder.bitcast(builder.icmp_unsigned("!=", before, here), ir.IntType(64))

    return signature, generate


def _generate_lowest_bit(typing_context: Any, bits: Any) -> Any:
    signature = types.intp(types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return signature, generate


changes_in = cast("Callable[[NDArray[Any], int], Any]", intrinsic(_generate_changes))
"""Of a map and a place: bit j of 64 says that pixel ``place + j`` is unlike the one before it.

Looks at no bounds: the place is at least 1 and 64 before the end.
"""

lowest_bit = cast("Callable[[Any], int]", intrinsic(_generate_lowest_bit))
"""Position of the lowest bit that is set; there must be one."""
