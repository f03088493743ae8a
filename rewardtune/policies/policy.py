"""The contract of a policy, and what it returns.

Axes: G groups (images), S rollouts of a group, T tokens, Q probed tokens, P positions, K ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

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


class Policy(Protocol):
    """A distribution over token sequences given an image.

    Nothing here assumes that tokens are drawn from left to right.
    """

    @property
    def module(self) -> nn.Module:
        """Owns the parameters; their dotted names are the names of checkpoints."""
        ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def sequence_length(self) -> int: ...

    @property
    def input_size(self) -> int:
        """Side of the square input image, in pixels."""
        ...

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
        ...

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
        ...
