"""KL to the policy that tuning began with: 0 at first, and what it is by definition after."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from rewardtune.evaluation.divergence import kl_divergence
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.run.assembly import assemble
from tests.rewardtune.tiny_run import tiny_config, write_tiny_digits


def test_it_is_zero_for_the_same_policy_and_the_mean_gap_for_another(tmp_path: Path) -> None:
    parts = assemble(tiny_config(write_tiny_digits(tmp_path / "digits"), tmp_path / "run"))
    assert parts.holdout is not None
    policy = parts.policy
    assert isinstance(policy, EncoderDecoder)
    with torch.no_grad():
        policy.decoder.head.project.kernel.zero_()
        policy.decoder.head.project.bias.normal_(generator=torch.Generator().manual_seed(0))
    same = kl_divergence(policy, copy.deepcopy(policy), parts.holdout, task=parts.task)
    assert same == pytest.approx(0.0, abs=1e-5)

    uniform = copy.deepcopy(policy)
    with torch.no_grad():
        uniform.decoder.head.project.bias.zero_()
        # The kernel is 0, so the policy draws from its bias alone.
        log_p_V = policy.decoder.head.project.bias.log_softmax(-1)
    exact = float((log_p_V.exp() * log_p_V).sum()) + torch.tensor(policy.vocab_size).log().item()
    found = kl_divergence(policy, uniform, parts.holdout, task=parts.task)
    assert found == pytest.approx(exact, rel=0.15)
