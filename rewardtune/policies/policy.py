"""The contract of a policy, and what it returns.

Axes: G groups (images), S rollouts of a group, T tokens, Q probed tokens, P positions, K ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel
from torch import Tensor, nn

from rewardtune.datasets.frame import Framing
from rewardtune.policies.draw import Decoding


@dataclass(frozen=True, slots=True)
class Samples:
    tokens_GST: Tensor
    """int32; 0 after a stop token."""
    log_probs_GST: Tensor
    """float32, of the distribution at the decoding's temperature, whatever ``top_k`` and ``top_p``
    leave of it; 0 after a stop token."""
    probe_log_probs_GSTQ: Tensor
    """float32, of the probed tokens at every position; at temperature 1."""
    encode_seconds: float = 0.0
    """Of the time that sampling took; 0 where the policy does not encode apart."""


@dataclass(frozen=True, slots=True)
class TokenQueries:
    """Positions and tokens whose log-probs are wanted beside those of the sequence itself."""

    positions_P: Tensor
    token_ids_K: Tensor


@dataclass(frozen=True, slots=True)
class TokenLogProbs:
    drawn_GST: Tensor
    """float32 log-probability of each given token given those before it."""
    queried_GSPK: Tensor | None


class Policy(nn.Module, ABC):
    """A distribution over token sequences given an image: one network, which a file can hold.

    Whatever the pipeline asks of a policy stands here. A subclass fills in what is abstract; what
    is not has a default that refuses in one line, where only some kinds can. Nothing here assumes
    that tokens are drawn from left to right. Parameters' dotted names are the names of
    checkpoints. ``policy.kind`` of a run names the class (``rewardtune.policies.find``).
    """

    kind: ClassVar[str]
    """Its name in configs and policy files; of a class that gives none, "module:Class"."""
    sampler_dtypes: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    """What samplers may compute it in; its head stays float32 in either."""
    config: BaseModel
    """Sizes of the network; stored beside its weights."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" not in vars(cls):
            cls.kind = f"{cls.__module__}:{cls.__qualname__}"

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    @property
    @abstractmethod
    def sequence_length(self) -> int: ...

    @property
    @abstractmethod
    def framing(self) -> Framing:
        """How it wants its pictures."""

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
        """Log-probs of given sequences, differentiable; each image is encoded once.

        Args:
            images_GHWC: in [-1, 1].
            tokens_GST: int64.
            queries: further log-probs to return, always at temperature 1.
            temperature: of the distribution whose log-probs the sequences' are: what they were
                drawn at, where they are rollouts.
            recompute: keep only block inputs for the backward pass.
        """

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
        """Draw S sequences per image, each image encoded once; no gradient.

        Args:
            uniforms_GST: the numbers that decide the draws, see
                ``rewardtune.policies.draw.uniforms``.
            probe_tokens: whose log-probs are returned at every position.
            stop_tokens: a sequence that draws any of them is finished; none: every position is
                drawn.
        """

    @classmethod
    @abstractmethod
    def fresh(cls, sizes: Mapping[str, Any]) -> Self:
        """A network with initial values, drawn from torch's random numbers.

        Args:
            sizes: ``vocab_size`` and ``sequence_length`` of the task, the sizes that ``[policy]``
                sets, such as ``input_size``, and whatever ``policy.options`` has.

        Raises:
            ValueError: the sizes are not those of such a network.
        """

    def start_levels(self, levels: Sequence[range]) -> None:
        """Initial values in which neighbouring levels are alike; a kind may keep its own.

        Args:
            levels: runs of tokens that stand for evenly spaced values (``Vocabulary.levels``).
        """

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

    @classmethod
    def load(cls, folder: Path, *, sequence_length: int) -> Self:
        """Read a model from a folder of another library's, which ``policy.checkpoint`` names.

        Raises:
            ValueError: it cannot be read as such a policy.
        """
        raise ValueError(
            f"policies of kind '{cls.kind}' are read from policy files, but policy.checkpoint = "
            f"{folder} is a folder: name the file that pretrain or tune wrote"
        )

    def export(self, folder: Path) -> str:
        """Write the model as another library loads it; gives the name of what does.

        Raises:
            ValueError: no other library knows the network, or the folder is not empty.
        """
        raise ValueError(
            f"policies of kind '{self.kind}' have no form but the policy file: export is for runs "
            "that started from another library's model"
        )

    def check_vocabulary(self, vocabulary: Mapping[str, Any], stop_tokens: tuple[int, ...]) -> None:
        """Hold what ``load`` read against the task's tokens.

        Args:
            vocabulary: as the task describes it.
            stop_tokens: what ends a sequence of the task's.

        Raises:
            ValueError: the network speaks other tokens.
        """
        sizes = {"vocab_size": self.vocab_size, "sequence_length": self.sequence_length}
        for key, own in sizes.items():
            if vocabulary[key] != own:
                raise ValueError(
                    f"the policy has {key} = {own} but the task {vocabulary[key]}: change the "
                    "task's options, or set policy.checkpoint to another model"
                )

    def carried(
        self,
        *,
        vocabulary_from: Mapping[str, Any],
        vocabulary_to: Mapping[str, Any],
        framing: Framing,
    ) -> Self:
        """The policy for another vocabulary or framing; may draw torch's random numbers.

        Args:
            vocabulary_from, vocabulary_to: the old and the new task's ``vocabulary.describe()``.
            framing: how it is to want its pictures.

        Raises:
            ValueError: this policy cannot be carried there.
        """
        if vocabulary_from != vocabulary_to:
            raise ValueError(
                f"policies of kind '{self.kind}' keep their tokens, but task "
                f"'{vocabulary_to.get('task')}' has others: set policy.checkpoint to one that was "
                "trained for it, or start without"
            )
        raise ValueError(
            f"policy.input_size = {framing.side} but the checkpoint has {self.framing.side}, and "
            f"policies of kind '{self.kind}' keep theirs: leave the key out"
        )

    def with_readout(self, every: int, *, seen_as: int | None) -> Self:
        """The policy with weights of its own for the last of ``every`` tokens.

        It may have them already. No token's distribution changes.

        Args:
            seen_as: what later tokens see in place of one that was read out.

        Raises:
            ValueError: this kind has none, or it has another.
        """
        raise ValueError(
            f"a readout needs a policy of kind 'encoder_decoder', got '{self.kind}': leave "
            "policy.readout out"
        )

    def take_encoder(self, path: Path) -> None:
        """Start from the encoder of a network that another library published.

        Raises:
            ValueError: this kind has no such encoder, or the file does not fit.
        """
        raise ValueError(
            f"policy.encoder = {path} is no policy file, and policies of kind '{self.kind}' take "
            "their encoder from nothing else: name a policy file"
        )
