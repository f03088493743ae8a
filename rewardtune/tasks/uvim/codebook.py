"""Codewords: found, followed by running sums, and revived when nobody uses them.

Axes: N pictures, L codes of a picture, K codewords, E width of a codeword.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REVIVAL_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class CodeUse:
    """How a batch used the codebook, and what became of it."""

    max_share: float
    """Of all codes of the batch, those that are its most frequent one."""
    unused_share: float
    """Of all codewords, those that the batch does not use."""
    num_revivals: int


class Codebook(nn.Module):
    """A running sum of the vectors that each codeword stood for, and how many they were.

    Neither is a parameter: they follow the batches by ``follow``, not a gradient.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.dictionary: Tensor = nn.Buffer(torch.empty(size, width).normal_(std=size**-0.5))
        self.counts: Tensor = nn.Buffer(torch.ones(size))

    @property
    def size(self) -> int:
        return self.dictionary.shape[0]

    def codewords(self) -> Tensor:
        """Unit vectors [K, E]."""
        return F.normalize(self.dictionary / self.counts[:, None], dim=1, eps=0.0)

    def nearest(self, vector_NLE: Tensor) -> Tensor:
        """The codeword at the least Euclidean distance, of equal ones the first; int64 [N, L]."""
        # All codewords are unit vectors: the nearest has the largest product.
        return (vector_NLE @ self.codewords().t()).argmax(dim=-1)

    def lookup(self, code_NL: Tensor) -> Tensor:
        """Codewords [N, L, E]; code -1 is the last, as it is for an array in JAX.

        Raises:
            ValueError: a code that the codebook does not have.
        """
        low, high = (int(bound) for bound in code_NL.aminmax())
        if low < -1 or high >= self.size:
            raise ValueError(
                f"codes must be in -1..{self.size - 1}, got {low}..{high}: the policy speaks "
                f"another codebook's tokens"
            )
        return self.codewords()[code_NL % self.size]

    @torch.no_grad()
    def follow(
        self,
        vector_NLE: Tensor,
        code_NL: Tensor,
        *,
        momentum: float,
        min_count: float,
        generator: torch.Generator,
    ) -> CodeUse:
        """Take in a batch's vectors, then revive codewords whose count fell below ``min_count``.

        The least frequent becomes a copy of the most frequent, a thousandth apart, and each gets
        half of its sum; again, until no count is too low or none is high enough to be halved.

        Args:
            vector_NLE: before quantisation.
            momentum: share of the old sums that is kept.
            generator: of the revived copies' differences.

        Source: big_vision models/proj/uvim/vit.py, ``StatefulEncoder``'s dictionary update.
        """
        flat_M, vector_ME = code_NL.flatten(), vector_NLE.detach().flatten(0, 1).float()
        batch_counts = torch.bincount(flat_M, minlength=self.size).to(self.counts.dtype)
        sums = torch.zeros_like(self.dictionary).index_add_(0, flat_M, vector_ME)
        self.counts.mul_(momentum).add_(batch_counts)
        self.dictionary.mul_(momentum).add_(sums)
        return CodeUse(
            max_share=float(batch_counts.max() / batch_counts.sum()),
            unused_share=float((batch_counts == 0).float().mean()),
            num_revivals=self._revive(min_count, generator),
        )

    def _revive(self, min_count: float, generator: torch.Generator) -> int:
        num_revivals = 0
        while float(self.counts.min()) < min_count and float(self.counts.max()) > 2 * min_count:
            most, least = int(self.counts.argmax()), int(self.counts.argmin())
            noise = torch.rand(self.dictionary.shape[1], generator=generator)
            factor = 1.0 + _REVIVAL_SPREAD * (2.0 * noise.to(self.dictionary.device) - 1.0)
            half = self.dictionary[most] / 2
            self.dictionary[least], self.dictionary[most] = half * factor, half
            self.counts[least] = self.counts[most] = self.counts[most] / 2
            num_revivals += 1
        return num_revivals


def code_dropout(
    num_pictures: int, code_length: int, *, is_ordered: bool, generator: torch.Generator
) -> Tensor:
    """Which codes are kept in training, bool [N, L].

    Each picture keeps a share that is uniform: the first codes if ``is_ordered``, else any.

    Source: big_vision models/proj/uvim/vit.py, ``code_dropout``.
    """
    importance_L = torch.linspace(1, 0, code_length + 2)[1:-1]
    threshold_N1 = torch.rand(num_pictures, 1, generator=generator)
    kept_NL = importance_L > threshold_N1
    if is_ordered:
        return kept_NL
    order_NL = torch.rand(num_pictures, code_length, generator=generator).argsort(dim=1)
    return kept_NL.gather(1, order_NL)


def standardised(vector_NLE: Tensor) -> Tensor:
    """Each vector with mean 0 and variance 1 over its elements."""
    return F.layer_norm(vector_NLE, vector_NLE.shape[-1:], eps=1e-5)
