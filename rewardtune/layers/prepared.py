"""Weights laid out once for many products.

On the CPU oneDNN's packed products are the faster ones: for 16 rows of ViT-B in half the time,
because they do not lay the kernel out again at every call, and with GELU on the way out instead
of in a pass of its own. torch.compile would reach the same operators; called by hand they need
no compiler. Elsewhere, and where a product is too small to earn back their longer way there,
plain ones serve.

Axes: N rows, D features in, X features out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_PACKED = 2**20
"""Multiplications from which a packed float32 product is ahead, measured at widths 96 and 768."""


class PreparedLinear:
    """``x @ kernel + bias`` in one dtype, for about ``num_rows`` rows at a time; no gradient."""

    def __init__(
        self, kernel_DX: Tensor, bias_X: Tensor | None, *, dtype: torch.dtype, num_rows: int
    ) -> None:
        self._bias_X = None if bias_X is None else bias_X.detach().to(dtype)
        self._kernel_XD = kernel_DX.detach().to(dtype).t()
        self._is_packed = _packs(self._kernel_XD, num_rows)
        if self._is_packed:
            self._kernel_XD = torch.ops.mkldnn._reorder_linear_weight(
                self._kernel_XD.contiguous(), num_rows
            )

    def apply(self, x_ND: Tensor) -> Tensor:
        if self._is_packed:
            return self._packed(x_ND, "none", "")
        return F.linear(x_ND, self._kernel_XD, self._bias_X)

    def apply_gelu(self, x_ND: Tensor) -> Tensor:
        """Followed by the tanh form of GELU."""
        if self._is_packed:
            return self._packed(x_ND, "gelu", "tanh")
        return F.gelu(F.linear(x_ND, self._kernel_XD, self._bias_X), approximate="tanh")

    def apply_added(self, x_ND: Tensor, residual_NX: Tensor) -> Tensor:
        """Added to the residual."""
        if self._is_packed:
            # The overload by name: torch would first try, and describe at length, the other.
            added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                x_ND, residual_NX, self._kernel_XD, self._bias_X, "add"
            )
            return added
        if self._bias_X is None:
            return torch.addmm(residual_NX, x_ND, self._kernel_XD.t())
        return residual_NX + F.linear(x_ND, self._kernel_XD, self._bias_X)

    def _packed(self, x_ND: Tensor, activation: str, form: str) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise.default(
            x_ND, self._kernel_XD, self._bias_X, activation, [], form
        )
        return result


def _packs(kernel: Tensor, num_rows: int) -> bool:
    if kernel.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if kernel.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return kernel.dtype == torch.float32 and num_rows * kernel.numel() >= _SMALLEST_PACKED
