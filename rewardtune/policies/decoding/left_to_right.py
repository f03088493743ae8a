"""Drawing sequences token by token from whatever gives the next token's logits.

Nothing in the loop waits for a GPU, but for a look now and then whether all is said.

Axes: G groups, S sequences of a group, N = G*S, T tokens, V vocabulary, Q probed tokens.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rewardtune.policies.draw import Decoding, draw_tokens, invert_cumulative, is_stop, tempered
from rewardtune.policies.policy import Samples

_LOOK_EVERY = 16
"""Positions from one look to the next, on a device that a look would hold up."""


class NextToken(Protocol):
    """A network at work on some sequences, with what it remembers of them."""

    def logits(self, token_N: Tensor, position: int) -> Tensor:
        """Float32 [N, V] of the tokens at ``position``, given those before it.

        Args:
            token_N: at ``position - 1``; the start symbol at position 0.
            position: one more than in the call before.
        """
        ...


def draw_left_to_right(
    network: NextToken,
    uniforms_GST: Tensor,
    *,
    decoding: Decoding,
    probe_tokens: tuple[int, ...],
    stop_tokens: tuple[int, ...],
    start_token: int = 0,
) -> Samples:
    """Draw ``uniforms_GST.shape[1]`` sequences of each group; see ``Policy.sample``."""
    num_groups, num_samples, length = uniforms_GST.shape
    uniforms_TN = uniforms_GST.flatten(0, 1).t().contiguous()
    drawn = _Drawn(
        length,
        num_groups * num_samples,
        probe_tokens,
        is_tempered=decoding.temperature != 1.0,
        device=uniforms_GST.device,
    )
    token_N = torch.full_like(drawn.tokens_TN[0], start_token)
    is_finished_N = torch.zeros_like(token_N, dtype=torch.bool)
    look_every = 1 if uniforms_GST.device.type == "cpu" else _LOOK_EVERY
    for position in range(length):
        logits_NV = network.logits(token_N, position)
        tempered_NV = tempered(logits_NV, decoding.temperature)
        probability_NV = tempered_NV.softmax(dim=-1)
        if decoding.is_whole:
            token_N = invert_cumulative(probability_NV, uniforms_TN[position])
        else:
            token_N = draw_tokens(logits_NV, uniforms_TN[position], decoding)
        if stop_tokens:
            token_N = token_N.masked_fill(is_finished_N, 0)
            is_finished_N = is_finished_N | is_stop(token_N, stop_tokens)
        drawn.record(position, token_N, tempered_NV, probability_NV)
        if probe_tokens:
            drawn.record_probes(position, logits_NV)
        is_time_to_look = bool(stop_tokens) and position % look_every == look_every - 1
        if is_time_to_look and bool(is_finished_N.all()):
            break
    return drawn.samples((num_groups, num_samples), stop_tokens)


class _Drawn:
    """What was drawn so far; all that can wait is computed once, at the end."""

    def __init__(
        self,
        length: int,
        num_sequences: int,
        probe_tokens: tuple[int, ...],
        *,
        is_tempered: bool,
        device: torch.device,
    ) -> None:
        # Ones where nothing is drawn any more: their logarithms are finite.
        def ones(*width: int) -> Tensor:
            return torch.ones(length, num_sequences, *width, device=device)

        self.tokens_TN = torch.zeros(length, num_sequences, dtype=torch.int64, device=device)
        self._probes_Q = torch.tensor(probe_tokens, dtype=torch.int64, device=device)
        self._logit_TN1 = ones(1)
        self._probe_logits_TNQ = ones(len(probe_tokens))
        self._probe_normaliser_TN1 = ones(1) if is_tempered else None
        self._top_logit_TN = ones()
        self._top_probability_TN = ones()

    def record(
        self, position: int, token_N: Tensor, tempered_NV: Tensor, probability_NV: Tensor
    ) -> None:
        self.tokens_TN[position] = token_N
        torch.gather(tempered_NV, 1, token_N[:, None], out=self._logit_TN1[position])
        torch.amax(tempered_NV, dim=-1, out=self._top_logit_TN[position])
        torch.amax(probability_NV, dim=-1, out=self._top_probability_TN[position])

    def record_probes(self, position: int, logits_NV: Tensor) -> None:
        torch.index_select(logits_NV, 1, self._probes_Q, out=self._probe_logits_TNQ[position])
        if self._probe_normaliser_TN1 is not None:
            normaliser_N1 = self._probe_normaliser_TN1[position]
            torch.logsumexp(logits_NV, dim=-1, keepdim=True, out=normaliser_N1)

    def samples(self, group_shape: tuple[int, int], stop_tokens: tuple[int, ...]) -> Samples:
        # The logsumexp of the logits, from the softmax that was there anyway.
        normaliser_TN1 = (self._top_logit_TN - self._top_probability_TN.log())[..., None]
        log_probs_TN = (self._logit_TN1 - normaliser_TN1).squeeze(-1)
        if stop_tokens:
            is_stop_TN = is_stop(self.tokens_TN, stop_tokens).to(torch.int64)
            log_probs_TN = log_probs_TN.masked_fill(is_stop_TN.cumsum(0) > is_stop_TN, 0.0)
        if self._probe_normaliser_TN1 is not None:
            normaliser_TN1 = self._probe_normaliser_TN1
        probe_log_probs_TNQ = self._probe_logits_TNQ - normaliser_TN1
        return Samples(
            tokens_GST=self.tokens_TN.t().to(torch.int32).unflatten(0, group_shape),
            log_probs_GST=log_probs_TN.t().unflatten(0, group_shape),
            probe_log_probs_GSTQ=probe_log_probs_TNQ.transpose(0, 1).unflatten(0, group_shape),
        )
