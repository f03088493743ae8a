"""Which token is drawn: a pure function of logits and a uniform number.

The number for (seed, ordinal, rollout, position) comes from a counter hash in integer
arithmetic, so a sample does not depend on who drew it, in which batch, or on which device.

Axes: N sequences, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen from the policy's distribution.

    ``temperature`` divides the logits first. Of what that gives, ``top_k`` keeps the k most
    likely tokens, of equal ones the first, and ``top_p`` the fewest whose probabilities sum to
    it, with all that equal the last of them; at most one of the two is set. ``is_greedy`` takes
    the most likely token, the first of several.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    is_greedy: bool = False

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_p is not None:
            raise ValueError(
                f"top_k={self.top_k} and top_p={self.top_p} exclude each other: set one of them"
            )
        if self.temperature <= 0:
            raise ValueError(
                f"temperature must be positive, got {self.temperature}: for the most likely "
                "token use greedy decoding"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def is_whole(self) -> bool:
        """Whether tokens are drawn, and any may be."""
        return not self.is_greedy and self.top_k is None and self.top_p is None


GREEDY = Decoding(is_greedy=True)


def is_stop(tokens: Tensor, stop_tokens: tuple[int, ...]) -> Tensor:
    """Which of the tokens end a sequence: booleans of their shape."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for stop_token in stop_tokens:  # one, most often: a kernel of torch.isin costs more
        found |= tokens == stop_token
    return found


def _mix(word: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 on 32-bit words held in int64."""
    word = word ^ (word >> 16)
    word = (word * 0x85EBCA6B) & _MASK32
    word = word ^ (word >> 13)
    word = (word * 0xC2B2AE35) & _MASK32
    return word ^ (word >> 16)


def _fold(state: Tensor, word: Tensor | int) -> Tensor:
    # The odd constant keeps equal words at different depths from cancelling.
    return _mix((state * 0x9E3779B1 + word + 0x7F4A7C15) & _MASK32)


def uniforms(*, seed: int, ordinals_N: Tensor, rollouts_N: Tensor, sequence_length: int) -> Tensor:
    """Uniform numbers [N, T] in [0, 1) on a grid of 2^-24, float32.

    Args:
        seed: of the run, any integer of at most 64 bits.
        ordinals_N, rollouts_N: int64, which group and which of its rollouts each row is.
        sequence_length: T.
    """
    words = (seed & _MASK32, (seed >> 32) & _MASK32)
    words_N = (*words, ordinals_N & _MASK32, ordinals_N >> 32, rollouts_N)
    # Two hashes of 32 bits: of one alone, some pair among 100 000 rollouts would be equal.
    first_N = torch.zeros_like(ordinals_N)
    second_N = torch.full_like(ordinals_N, 0x6A09E667)
    for word in words_N:
        first_N, second_N = _fold(first_N, word), _fold(second_N, word)
    positions_T = torch.arange(sequence_length, dtype=torch.int64, device=ordinals_N.device)
    state_NT = _mix((_fold(first_N[:, None], positions_T) + second_N[:, None]) & _MASK32)
    return (state_NT >> 8).to(torch.float32) * 2.0**-24


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """The logits of the distribution that is drawn from; at temperature 1 these very ones."""
    return logits if temperature == 1.0 else logits / temperature


def restrict(logits_NV: Tensor, decoding: Decoding) -> Tensor:
    """Tempered logits with everything outside ``top_k`` / ``top_p`` at -inf."""
    logits_NV = tempered(logits_NV, decoding.temperature)
    if decoding.top_k is not None and decoding.top_k < logits_NV.shape[-1]:
        order_NV = logits_NV.sort(dim=-1, descending=True, stable=True).indices
        dropped = order_NV[:, decoding.top_k :]
        return logits_NV.scatter(-1, dropped, float("-inf"))
    if decoding.top_p is not None and decoding.top_p < 1:
        sorted_NV = logits_NV.sort(dim=-1, descending=True).values
        mass_NV = sorted_NV.softmax(dim=-1).cumsum(dim=-1)
        # Rounding may keep the whole mass below top_p: then the last token is the cutoff.
        cutoff_N1 = (mass_NV < decoding.top_p).sum(dim=-1, keepdim=True)
        cutoff_N1 = cutoff_N1.clamp(max=logits_NV.shape[-1] - 1)
        return logits_NV.masked_fill(logits_NV < sorted_NV.gather(-1, cutoff_N1), float("-inf"))
    return logits_NV


def draw_tokens(logits_NV: Tensor, uniform_N: Tensor, decoding: Decoding) -> Tensor:
    """One token per row, int64 [N].

    Sampling inverts the cumulative distribution in float32: the first index whose cumulative
    probability exceeds ``uniform * total``, never one of probability 0.
    """
    if decoding.is_greedy:
        return logits_NV.argmax(dim=-1)  # of equal maxima the first, on every device
    return invert_cumulative(restrict(logits_NV, decoding).softmax(dim=-1), uniform_N)


def invert_cumulative(probability_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """The draw of ``draw_tokens`` from probabilities instead of logits."""
    vocab_size = probability_NV.shape[-1]
    cumulative_NV = probability_NV.cumsum(dim=-1)
    threshold_N1 = uniform_N[:, None] * cumulative_NV[:, -1:]
    token_N = torch.searchsorted(cumulative_NV, threshold_N1, right=True).squeeze(-1)
    # Summed in order, as on the CPU, the sum rises above the threshold only at a token that has
    # mass; all there is to see to is a threshold at the total itself.
    if probability_NV.device.type == "cpu" and bool((token_N < vocab_size).all()):
        return token_N
    last_N = vocab_size - 1 - (probability_NV > 0).flip(-1).to(torch.uint8).argmax(dim=-1)
    return torch.minimum(token_N, last_N)
