"""A policy that is one network, so that a file can hold it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel
from torch import Tensor, nn

from rewardtune.policies.draw import Decoding
from rewardtune.policies.policy import Samples, TokenLogProbs, TokenQueries

_PLACES = {
    "encoder_decoder": ("rewardtune.policies.kinds.encoder_decoder", "EncoderDecoder"),
    "parallel": ("rewardtune.policies.kinds.parallel", "ParallelPolicy"),
    "hugging_face": ("rewardtune.policies.hugging_face.policy", "HuggingFacePolicy"),
}
"""Modules are imported when needed: one of them needs transformers."""

KINDS = tuple(_PLACES)


class NetworkPolicy(nn.Module, ABC):
    """What the kinds of ``Policy`` share; each says how it scores and draws sequences."""

    architecture: ClassVar[str]
    """Its key in ``KINDS``."""
    config: BaseModel
    """Sizes of the network; stored beside its weights."""

    @property
    def module(self) -> nn.Module:
        return self

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    @property
    @abstractmethod
    def sequence_length(self) -> int: ...

    @property
    @abstractmethod
    def input_size(self) -> int: ...

    @classmethod
    @abstractmethod
    def fresh(cls, sizes: Mapping[str, Any]) -> Self:
        """A network with initial values, drawn from torch's random numbers."""

    @classmethod
    @abstractmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        """A network of stored sizes whose weights ``fill`` brings; draws no random numbers.

        Raises:
            ValidationError: the sizes are not those of such a network.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All that a file must hold, by name."""
        return dict(self.named_parameters())

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over float32 tensors of the names and shapes of ``tensors()``."""
        self.load_state_dict(tensors, assign=True)

    @abstractmethod
    def log_prob(
        self,
        images_GHWC: Tensor,
        tokens_GST: Tensor,
        *,
        queries: TokenQueries | None = None,
        temperature: float = 1.0,
        recompute: bool = False,
    ) -> TokenLogProbs:
        """See ``Policy.log_prob``."""

    @abstractmethod
    def sample(
        self,
        images_GHWC: Tensor,
        uniforms_GST: Tensor,
        *,
        decoding: Decoding,
        probe_tokens: tuple[int, ...] = (),
        stop_tokens: tuple[int, ...] = (),
    ) -> Samples:
        """See ``Policy.sample``."""


def network_class(kind: str) -> type[NetworkPolicy]:
    """The class of one of ``KINDS``."""
    module_name, name = _PLACES[kind]
    found: type[NetworkPolicy] = getattr(importlib.import_module(module_name), name)
    return found
