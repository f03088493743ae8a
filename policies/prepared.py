"""Weights laid out once for many products with few rows.

On the CPU oneDNN's packed layout is twice as fast for 16 rows of ViT-B as a plain product, which
reads the kernel anew each time as if it were used once. These are the operators that
torch.compile would reach; called by hand they need no compiler.

Axes: N rows, D features in, X features out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class PreparedLinear:
    """``x @ kernel + bias`` in one dtype, for about ``num_rows`` rows at a time; no gradient."""

    def __init__(
        self, kernel_DX: Tensor, bias_X: Tensor | None, *, dtype: torch.dtype, num_rows: int
    ) -> None:
        self._bias_X = None if bias_X is None else bias_X.detach().to(dtype)
        kernel_XD = kernel_DX.detach().to(dtype).t()
        self._is_packed = can_pack(kernel_XD)
        self._kernel_XD: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(kernel_XD.contiguous(), num_rows)
            if self._is_packed
            else kernel_XD
        )

    def apply(self, x_ND: Tensor) -> Tensor:
        if not self._is_packed:
            return F.linear(x_ND, self._kernel_XD, self._bias_X)
        return self._packed(x_ND, "none", "")

    def apply_gelu(self, x_ND: Tensor) -> Tensor:
        """Followed by the tanh form of GELU."""
        if not self._is_packed:
            return F.gelu(F.linear(x_ND, self._kernel_XD, self._bias_X), approximate="tanh")
        return self._packed(x_ND, "gelu", "tanh")

    def apply_added(self, x_ND: Tensor, residual_NX: Tensor) -> Tensor:
        """Added to the residual."""
        if not self._is_packed:
            return residual_NX + F.linear(x_ND, self._kernel_XD, self._bias_X)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_ND, residual_NX, self._kernel_XD, self._bias_X, "add"
        )
        return result

    def _packed(self, x_ND: Tensor, activation: str, form: str) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_ND, self._kernel_XD, self._bias_X, activation, [], form
        )
        return result


def can_pack(kernel: Tensor) -> bool:
    """Whether this build and processor have the packed product for the kernel's kind."""
    if kernel.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if kernel.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return kernel.dtype == torch.float32
