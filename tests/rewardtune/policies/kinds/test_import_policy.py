"""Published checkpoints as policies whose sizes follow from their arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rewardtune.policies.kinds.import_policy import import_policy

if TYPE_CHECKING:
    from tests.rewardtune.policies.conftest import Reference

    Load = Callable[[str], Reference]


def test_a_stage_two_gives_the_reference_s_logits(reference: Load) -> None:
    vtt = reference("vtt")
    policy = import_policy(vtt.path, vocab_size=17, sequence_length=12)
    assert policy.config == vtt.policy.config
    context = policy.encode(vtt.tensor("in/image"))
    logits = policy.logits(context, vtt.tensor("in/tokens"))
    expected = vtt.tensor("out/logits")
    torch.testing.assert_close(logits.detach(), expected, rtol=0, atol=1e-4)


def test_a_plain_vit_becomes_the_encoder_of_a_fresh_decoder(reference: Load) -> None:
    vit = reference("vit_augreg_style_ckpt")
    torch.manual_seed(3)
    policy = import_policy(
        vit.path, vocab_size=5, sequence_length=3, input_size=40, decoder_depth=1
    )
    assert policy.config == vit.policy.config
    with np.load(vit.path.with_name("vit_augreg_style_expected.npz")) as stored:
        image, encoded = (torch.from_numpy(stored[n]) for n in ("in/image", "out/encoded"))
    torch.testing.assert_close(policy.encode(image).detach(), encoded, rtol=0, atol=1e-4)
    state = policy.decoder.token_embedding
    assert state.shape == (5, 24) and not torch.equal(state, vit.policy.decoder.token_embedding)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vocab_size": 18}, "speaks 17 tokens but the task needs 18"),
        ({"sequence_length": 9}, "sequences of 12 tokens but the task's have 9"),
        ({"decoder_depth": 3}, "has 2 decoder blocks: leave out --decoder-depth 3"),
    ],
)
def test_a_stage_two_for_something_else_is_refused(
    reference: Load, changes: dict[str, int], complaint: str
) -> None:
    wanted = {"vocab_size": 17, "sequence_length": 12, **changes}
    with pytest.raises(ValueError, match=complaint):
        import_policy(reference("vtt").path, **wanted)


def test_an_encoder_needs_to_be_told_of_its_decoder(reference: Load) -> None:
    with pytest.raises(ValueError, match="say how many blocks the decoder gets"):
        import_policy(reference("vit_encoder").path, vocab_size=5, sequence_length=3)


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, **{"params/a/kernel": np.zeros(3)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neither a plain ViT nor a UViM stage II"):
        import_policy(path, vocab_size=5, sequence_length=3)
