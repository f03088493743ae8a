"""The Adafactor variant of Zhai et al. 2022 (arXiv:2106.04560, section 3.4), as big_vision has it.

Adam with half of its memory: the second moment of a matrix is kept as one mean per row and one
per column, momentum in bfloat16. Unlike other Adafactors the learning rate is used as it is: no
relative step size, no update clipping by default. Algorithm spec, section 11.

State is a flat dict of tensors, one per parameter and kind, keyed ``kind/parameter name``:

* ``momentum``: [shape of the parameter], float32 or bfloat16.
* ``row`` and ``column``: the parameter's shape with size 1 on its largest and on its second
  largest axis; or else, where it is not factored,
* ``second_moment``: [shape of the parameter].
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

EPSILON = 1e-30
"""Added to squared gradients: a gradient that was always 0 gives an update of 0, not 0/0."""


@cache
def factored_axes(shape: tuple[int, ...], *, min_dim_size_to_factor: int) -> tuple[int, int] | None:
    """The largest and the second largest axis, or None where the second moment is kept whole.

    Of axes of one size the later counts as larger. All other axes are batch axes: attention
    kernels (D, H, Dh) have statistics of their own for each head.

    Args:
        shape: of the parameter, as big_vision stores it.
        min_dim_size_to_factor: the second largest axis must be at least this long.
    """
    if len(shape) < 2:
        return None
    by_size = sorted(range(len(shape)), key=lambda axis: shape[axis])
    second, largest = by_size[-2:]
    return (largest, second) if shape[second] >= min_dim_size_to_factor else None


def second_moment_decay(step: int, *, cap: float) -> float:
    """beta2 of the 0-based update ``step``: 0 at first, so no bias correction is needed."""
    return min(cap, 1.0 - float((step + 1) ** -0.8))


def initial_state(
    parameters: Mapping[str, Tensor], *, min_dim_size_to_factor: int, momentum_dtype: torch.dtype
) -> dict[str, Tensor]:
    """Zero statistics on each parameter's device; see the module for names and shapes."""
    state = {}
    for name, parameter in parameters.items():
        axes = factored_axes(tuple(parameter.shape), min_dim_size_to_factor=min_dim_size_to_factor)
        if axes is None:
            state[f"second_moment/{name}"] = torch.zeros_like(parameter)
        else:
            largest, second = axes
            state[f"row/{name}"] = parameter.new_zeros(_reduced(parameter.shape, largest))
            state[f"column/{name}"] = parameter.new_zeros(_reduced(parameter.shape, second))
        state[f"momentum/{name}"] = torch.zeros_like(parameter, dtype=momentum_dtype)
    return state


def _reduced(shape: Sequence[int], axis: int) -> list[int]:
    return [1 if i == axis else size for i, size in enumerate(shape)]


def advance(
    state: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    *,
    step: int,
    beta2_cap: float,
    momentum: float,
    min_dim_size_to_factor: int,
    clipping_threshold: float | None,
) -> list[Tensor]:
    """Fold one gradient into the state, in place, and return the directions to step in.

    Args:
        state: as ``initial_state`` made it.
        gradients: float32, one per parameter, named as in the state; not changed.
        step: updates made before this one.
        beta2_cap: upper limit of the second moment's decay.
        momentum: share of the earlier directions. Not debiased: the first step is a tenth of a
            full one, a built-in warm-up.
        min_dim_size_to_factor: the value that the state was made with.
        clipping_threshold: largest root mean square of a scaled gradient, or None.

    Returns:
        New float32 tensors in the order of ``gradients``, before learning rate and sign.
    """
    decay = second_moment_decay(step, cap=beta2_cap)
    scaled: dict[str, Tensor] = {}
    whole = []
    for name, gradient in gradients.items():
        axes = factored_axes(tuple(gradient.shape), min_dim_size_to_factor=min_dim_size_to_factor)
        if axes is None:
            whole.append(name)
        else:
            row, column = state[f"row/{name}"], state[f"column/{name}"]
            scaled[name] = _scale_factored(gradient, row, column, axes=axes, decay=decay)
    if whole:
        second_moments = [state[f"second_moment/{name}"] for name in whole]
        grads = [gradients[name] for name in whole]
        scaled.update(zip(whole, _scale_whole(grads, second_moments, decay=decay), strict=True))
    if clipping_threshold is not None:
        for update in scaled.values():
            rms = update.square().mean().sqrt()
            update.div_((rms / clipping_threshold).clamp(min=1.0))
    momenta = [state[f"momentum/{name}"] for name in gradients]
    directions = [scaled[name] for name in gradients]
    _accumulate(momenta, directions, momentum=momentum)
    return directions


def _scale_factored(
    gradient: Tensor, row: Tensor, column: Tensor, *, axes: tuple[int, int], decay: float
) -> Tensor:
    """The gradient over the root of its second moment, estimated as row x column / mean row."""
    largest, second = axes
    squared = gradient.square()
    for statistic, axis in ((row, largest), (column, second)):
        statistic.mul_(decay).add_(squared.mean(axis, keepdim=True) + EPSILON, alpha=1 - decay)
    row_scale = (row / row.mean(second, keepdim=True)).rsqrt_()
    return torch.mul(gradient, row_scale, out=squared).mul_(column.rsqrt())


def _scale_whole(
    gradients: list[Tensor], second_moments: list[Tensor], *, decay: float
) -> Sequence[Tensor]:
    squared = torch._foreach_mul(gradients, gradients)
    torch._foreach_add_(squared, EPSILON)
    torch._foreach_mul_(second_moments, decay)
    torch._foreach_add_(second_moments, squared, alpha=1 - decay)
    return torch._foreach_div(gradients, torch._foreach_sqrt(second_moments))


def _accumulate(momenta: list[Tensor], updates: list[Tensor], *, momentum: float) -> None:
    # Arithmetic is float32 whatever the storage. The reference multiplies in bfloat16, where
    # 0.9 is 0.8984: its steps are up to 1.5 % shorter in the long run (spec 11.1, step 4).
    torch._foreach_mul_(updates, 1 - momentum)
    torch._foreach_add_(updates, momenta, alpha=momentum)
    torch._foreach_copy_(momenta, updates)
