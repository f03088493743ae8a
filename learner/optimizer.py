"""One step of gradient descent over named parameters: Adafactor or AdamW.

Both share what surrounds the update rule, in this order (algorithm spec 11.1): clip the global
gradient norm, ask the rule for a direction, then

    p -= multiplier * (learning_rate * learning_rate_multiplier * direction
                       + weight_decay * weight_decay_multiplier * p)

where ``multiplier`` is the schedule's. Weight decay is not scaled by the learning rate, which
is the convention of big_vision and of the paper's tables. PyTorch's AdamW multiplies it, so
``torch.optim.AdamW(lr, weight_decay=w)`` is ``weight_decay = lr * w`` here.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learner import adafactor
from learner.config import AdafactorConfig, AdamWConfig


@dataclass(frozen=True)
class StepReport:
    """L2 norms over all trainable parameters, for metrics."""

    grad_norm: float
    """Of the gradients, before clipping."""

    update_norm: float
    """Of the change made to the parameters; none was made where it is not finite."""


class Optimizer:
    """Updates named float32 parameters in place from their ``.grad``.

    Statistics are factored in the parameter's own shape, so modules must store weights in
    big_vision's shapes. Parameters are visited in the order of their names, whatever order
    they came in: one model always gives the same bits.

    Frozen parameters stop requiring gradients, which spares their backward pass; all others
    start to.
    """

    def __init__(
        self, named_parameters: Mapping[str, nn.Parameter], config: AdafactorConfig | AdamWConfig
    ) -> None:
        """Start afresh, at step 0.

        Args:
            named_parameters: PyTorch's dotted names, as ``dict(model.named_parameters())``.
            config: patterns in it match those names with slashes for dots.

        Raises:
            ValueError: a pattern matches no parameter, all are frozen, or one is not float32.
        """
        names = sorted(named_parameters)
        frozen = {n for pattern in config.frozen for n in _matches(pattern, names, field="frozen")}
        self.frozen_names: tuple[str, ...] = tuple(n for n in names if n in frozen)
        self._names = [n for n in names if n not in frozen]
        self._parameters: dict[str, Tensor] = {n: named_parameters[n] for n in self._names}
        self._config = config
        self._learning_rates = self._learning_rate_of_each(names)
        self._weight_decays = self._weight_decay_by_index(names)
        self._num_steps = 0
        if not self._names:
            raise ValueError(f"nothing to train: all {len(names)} parameters are frozen")
        for name, parameter in self._parameters.items():
            if parameter.dtype != torch.float32:
                raise ValueError(
                    f"parameter '{name}' is {parameter.dtype}, but the optimizer needs float32 "
                    f"master weights: small updates round to nothing in less"
                )
        self._state = _initial_state(self._parameters, config)
        for name, parameter in named_parameters.items():
            parameter.requires_grad_(name not in frozen)

    def _learning_rate_of_each(self, names: Sequence[str]) -> list[float]:
        field = "learning_rate_multipliers"
        multipliers = _first_match(names, getattr(self._config, field), default=1.0, field=field)
        return [self._config.learning_rate * multipliers[name] for name in self._names]

    def _weight_decay_by_index(self, names: Sequence[str]) -> dict[int, float]:
        if self._config.weight_decay == 0:
            return {}  # and the default pattern need not fit a model that has no kernels
        field = "weight_decay_multipliers"
        multipliers = _first_match(names, getattr(self._config, field), default=0.0, field=field)
        decays = [self._config.weight_decay * multipliers[name] for name in self._names]
        return {index: decay for index, decay in enumerate(decays) if decay > 0}

    @property
    def num_steps(self) -> int:
        """Updates made so far."""
        return self._num_steps

    def zero_grad(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    def grad_norm(self) -> float:
        """L2 norm over all trainable gradients; see ``global_grad_norm``."""
        return global_grad_norm(self._gradients().values())

    @torch.no_grad()
    def step(self, multiplier: float, *, grad_norm: float | None = None) -> StepReport:
        """Update every trainable parameter and advance the state by one step.

        All of it or nothing: where the report's ``update_norm`` is not finite, weights and state
        are as they were. Whether the gradients are worth a step is the caller's decision: judge
        ``grad_norm()`` first.

        Args:
            multiplier: the schedule's, usually in [0, 1]. At 0 no weight moves, but the
                statistics take the gradients in.
            grad_norm: what ``grad_norm()`` gave, to save computing it again.

        Raises:
            ValueError: a trainable parameter has no gradient.
        """
        gradients = self._gradients()
        norm = global_grad_norm(gradients.values()) if grad_norm is None else grad_norm
        limit = self._config.grad_clip_norm
        if limit is not None and norm >= limit:
            clipped = torch._foreach_mul(list(gradients.values()), limit / norm)
            gradients = dict(zip(self._names, clipped, strict=True))
        before = {name: tensor.clone() for name, tensor in self._state.items()}
        directions = _advance(self._state, gradients, step=self._num_steps, config=self._config)
        deltas = self._deltas(directions, multiplier)
        update_norm = global_grad_norm(deltas)
        if math.isfinite(update_norm):
            torch._foreach_sub_(tuple(self._parameters.values()), tuple(deltas))
            self._num_steps += 1
        else:
            for name, tensor in before.items():
                self._state[name].copy_(tensor)
        return StepReport(grad_norm=norm, update_norm=update_norm)

    def _deltas(self, deltas: list[Tensor], multiplier: float) -> list[Tensor]:
        """What comes off the parameters; made of the directions, in place."""
        parameters = tuple(self._parameters.values())
        rates = [multiplier * rate for rate in self._learning_rates]
        torch._foreach_mul_(deltas, rates)
        if self._weight_decays:
            # Summed with the step before it meets the weights: p * (1 - decay) alone rounds
            # decays below 6e-8 to nothing.
            decayed = [parameters[index] for index in self._weight_decays]
            shares = [multiplier * decay for decay in self._weight_decays.values()]
            decays = list(torch._foreach_mul(decayed, shares))
            torch._foreach_add_([deltas[index] for index in self._weight_decays], decays)
        return deltas

    def _gradients(self) -> dict[str, Tensor]:
        gradients = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                raise ValueError(
                    f"parameter '{name}' has no gradient: the loss does not reach it, so freeze "
                    f"it with optimizer.frozen"
                )
            gradients[name] = parameter.grad
        return gradients

    def state_dict(self) -> dict[str, Tensor]:
        """All that ``load_state_dict`` needs, flat: ``step`` and ``kind/parameter name``.

        The tensors are the live ones; clone what must outlast the next step.
        """
        return {"step": torch.tensor(self._num_steps), **self._state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where the optimizer that gave ``state`` stood, bit for bit.

        Raises:
            ValueError: the state is of another model or another config; nothing was changed.
        """
        own = self.state_dict()
        if odd := sorted(own.keys() ^ state.keys()):
            side = "lacks" if odd[0] in own else "has an unknown"
            raise ValueError(
                f"optimizer state {side} '{odd[0]}' ({len(odd)} such differences): it was saved "
                f"with another model or optimizer config"
            )
        for name, tensor in own.items():
            found = state[name]
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise ValueError(
                    f"optimizer state '{name}' should be {tensor.dtype} {list(tensor.shape)} but "
                    f"is {found.dtype} {list(found.shape)}: it was saved with another model or "
                    f"optimizer config"
                )
        for name, tensor in self._state.items():
            tensor.copy_(state[name])
        self._num_steps = int(state["step"])


def global_grad_norm(gradients: Iterable[Tensor]) -> float:
    """L2 norm of all gradients as one vector; inf or nan as soon as one element is.

    Norms of single tensors are float32, their sum is taken in float64 and in the order given.
    """
    norms = torch._foreach_norm([gradient.detach() for gradient in gradients])
    return math.hypot(*torch.stack(norms).tolist())


def _initial_state(
    parameters: Mapping[str, Tensor], config: AdafactorConfig | AdamWConfig
) -> dict[str, Tensor]:
    if isinstance(config, AdafactorConfig):
        return adafactor.initial_state(
            parameters,
            min_dim_size_to_factor=config.min_dim_size_to_factor,
            momentum_dtype=getattr(torch, config.momentum_dtype),
        )
    kinds = ("momentum", "second_moment")
    return {f"{k}/{n}": torch.zeros_like(p) for k in kinds for n, p in parameters.items()}


def _advance(
    state: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    *,
    step: int,
    config: AdafactorConfig | AdamWConfig,
) -> list[Tensor]:
    if isinstance(config, AdafactorConfig):
        return adafactor.advance(
            state,
            gradients,
            step=step,
            beta2_cap=config.beta2_cap,
            momentum=config.momentum,
            min_dim_size_to_factor=config.min_dim_size_to_factor,
            clipping_threshold=config.clipping_threshold,
        )
    return _advance_adam(state, gradients, step=step, config=config)


def _advance_adam(
    state: Mapping[str, Tensor], gradients: Mapping[str, Tensor], *, step: int, config: AdamWConfig
) -> list[Tensor]:
    grads = list(gradients.values())
    momenta = [state[f"momentum/{name}"] for name in gradients]
    second_moments = [state[f"second_moment/{name}"] for name in gradients]
    torch._foreach_mul_(momenta, config.beta1)
    torch._foreach_add_(momenta, grads, alpha=1 - config.beta1)
    torch._foreach_mul_(second_moments, config.beta2)
    torch._foreach_addcmul_(second_moments, grads, grads, value=1 - config.beta2)
    debias = 1 - config.beta1 ** (step + 1)
    second_debias = 1 - config.beta2 ** (step + 1)
    scale = torch._foreach_sqrt(second_moments)
    torch._foreach_div_(scale, math.sqrt(second_debias))
    torch._foreach_add_(scale, config.epsilon)
    torch._foreach_mul_(scale, debias)
    return list(torch._foreach_div(momenta, scale))


def _first_match(
    names: Sequence[str],
    multipliers: Sequence[tuple[str, float]],
    *,
    default: float,
    field: str,
) -> dict[str, float]:
    values: dict[str, float] = {}
    for pattern, value in multipliers:
        for name in _matches(pattern, names, field=field):
            values.setdefault(name, value)
    return {name: values.get(name, default) for name in names}


def _matches(pattern: str, names: Sequence[str], *, field: str) -> list[str]:
    matched = [name for name in names if re.fullmatch(pattern, name.replace(".", "/"))]
    if not matched:
        some = ", ".join(f"'{name.replace('.', '/')}'" for name in names[:3])
        raise ValueError(
            f"optimizer.{field}: pattern '{pattern}' matches none of the {len(names)} parameters, "
            f"whose names are such as {some}"
        )
    return matched
