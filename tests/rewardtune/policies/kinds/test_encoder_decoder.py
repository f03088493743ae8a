"""The network against big_vision's outputs, and what it promises beyond them.

Axes: as in ``rewardtune.policies.kinds.encoder_decoder``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rewardtune.policies.kinds.big_vision import from_published
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.policy import TokenQueries

if TYPE_CHECKING:
    from tests.rewardtune.policies.conftest import Reference

    Load = Callable[[str], Reference]
    Build = Callable[..., EncoderDecoder]


def assert_near(found: Tensor, expected: Tensor, *, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=atol)


def test_the_encoder_equals_big_vision_half_block_by_half_block(reference: Load) -> None:
    vit = reference("vit_encoder")
    policy = vit.policy
    x = policy.patch_embedding.forward(vit.tensor("in/image"))
    assert_near(x, vit.tensor("out/stem").flatten(1, 2))
    x = x + policy.position_embedding
    assert_near(x, vit.tensor("out/with_posemb"))
    for index, block in enumerate(policy.encoder.blocks):
        x = x + block.attention(block.norm_0(x))  # type: ignore[operator]
        assert_near(x, vit.tensor(f"out/block{index:02d}/+sa"))
        x = x + block.mlp(block.norm_1(x))  # type: ignore[operator]
        assert_near(x, vit.tensor(f"out/block{index:02d}/+mlp"))
    encoded = policy.encode(vit.tensor("in/image"))
    assert_near(policy.encoder.norm(x), encoded, atol=1e-6)
    assert_near(encoded, vit.tensor("out/encoded"))
    assert_near(encoded.mean(dim=1), vit.tensor("out/head_input"))


@pytest.mark.parametrize("name", ["vtt", "vtt_eos"])
def test_teacher_forced_logits_equal_big_vision(reference: Load, name: str) -> None:
    vtt = reference(name)
    context = vtt.policy.encode(vtt.tensor("in/image"))
    assert_near(context, vtt.tensor("out/encoded"))
    assert_near(vtt.policy.logits(context, vtt.tensor("in/tokens")), vtt.tensor("out/logits"))
    greedy = vtt.policy.logits(context, vtt.tensor("out/greedy_tokens"))
    if name == "vtt":  # vtt_eos stops computing once all sequences have stopped
        assert_near(greedy, vtt.tensor("out/greedy_logits"))


@pytest.mark.parametrize("name", ["vtt", "vtt_eos"])
def test_cross_entropy_equals_big_vision(reference: Load, name: str) -> None:
    vtt = reference(name)
    tokens_NT = vtt.tensor("in/tokens")
    drawn = vtt.policy.log_prob(vtt.tensor("in/image"), tokens_NT[:, None]).drawn_GST
    nll_NT = -drawn[:, 0]
    assert_near(nll_NT.mean(dim=1), vtt.tensor("out/xent_per_example"))
    assert_near(nll_NT.mean(), vtt.tensor("out/xent"))
    if name == "vtt_eos":
        is_real = tokens_NT != 0
        masked = (nll_NT * is_real).sum(dim=1) / is_real.sum(dim=1)
        assert_near(masked, vtt.tensor("out/xent_padmasked_per_example"))


@pytest.mark.parametrize("name", ["vtt", "vtt_eos"])
def test_log_probs_of_given_samples_equal_big_vision(reference: Load, name: str) -> None:
    vtt = reference(name)
    drawn = vtt.policy.log_prob(vtt.tensor("in/image"), vtt.tensor("out/sample_tokens")).drawn_GST
    expected = vtt.tensor("out/sample_logprobs")
    # Once every sequence of its batch has stopped, the reference leaves zeros.
    num_steps = int(expected.flatten(0, 1).any(dim=0).nonzero().max()) + 1
    assert num_steps == vtt.policy.sequence_length or name == "vtt_eos"
    assert_near(drawn[..., :num_steps], expected[..., :num_steps])
    assert_near(drawn[..., :num_steps].sum(dim=-1), vtt.tensor("out/sample_scores"), atol=3e-5)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["vtt", "vtt_eos"])
def test_the_reinforce_gradient_of_every_parameter_equals_big_vision(
    reference: Load, name: str, recompute: bool
) -> None:
    vtt = reference(name)
    reward_GS = vtt.tensor("in/rewards")
    baseline_G = reward_GS[:, 1:].mean(dim=1)
    assert_near(baseline_G, vtt.tensor("out/baseline"), atol=1e-6)
    drawn_GST = vtt.policy.log_prob(
        vtt.tensor("in/image"), vtt.tensor("out/sample_tokens")[:, :1], recompute=recompute
    ).drawn_GST
    advantage_G = reward_GS[:, 0] - baseline_G
    loss = -(advantage_G[:, None] * drawn_GST[:, 0]).mean()
    assert_near(loss, vtt.tensor("out/reinforce_loss"), atol=3e-6)
    loss.backward()
    parameters = dict(vtt.policy.named_parameters())
    gradients = vtt.under("out/reinforce_grads")
    assert {from_published(name) for name in gradients} == parameters.keys()
    for published, expected in gradients.items():
        gradient = parameters[from_published(published)].grad
        assert gradient is not None
        assert_near(gradient, torch.from_numpy(expected), atol=6e-6)


def test_queried_log_probs_are_those_of_the_logits(random_policy: Build) -> None:
    policy = random_policy()
    images, tokens_GST = torch.randn(2, 32, 32, 3), torch.randint(17, (2, 3, 12))
    queries = TokenQueries(torch.tensor([0, 5, 11]), torch.tensor([2, 0]))
    found = policy.log_prob(images, tokens_GST, queries=queries)
    logits_NTV = policy.logits(policy.encode(images), tokens_GST.flatten(0, 1))
    expected = logits_NTV.log_softmax(-1).unflatten(0, (2, 3))
    assert found.queried_GSPK is not None
    assert_near(found.queried_GSPK, expected[:, :, [0, 5, 11]][..., [2, 0]].detach())
    assert_near(found.drawn_GST, expected.gather(-1, tokens_GST[..., None])[..., 0].detach())
    assert policy.log_prob(images, tokens_GST).queried_GSPK is None


def test_each_image_is_encoded_once_for_all_its_sequences(
    random_policy: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = random_policy()
    encoded = []
    forward = policy.encoder.forward

    def counting(x_NTD: Tensor, *, recompute: bool = False) -> Tensor:
        encoded.append(len(x_NTD))
        return forward(x_NTD, recompute=recompute)

    monkeypatch.setattr(policy.encoder, "forward", counting)
    policy.log_prob(torch.randn(3, 32, 32, 3), torch.zeros(3, 8, 12, dtype=torch.int64))
    assert encoded == [3]


def test_sequences_see_their_own_image_and_their_own_past(random_policy: Build) -> None:
    policy = random_policy()
    images, tokens_GST = torch.randn(2, 32, 32, 3), torch.randint(17, (2, 4, 12))
    together = policy.log_prob(images, tokens_GST).drawn_GST
    for group in range(2):
        for row in range(4):
            one = tokens_GST[group, row][None, None]
            alone = policy.log_prob(images[group : group + 1], one).drawn_GST
            assert_near(alone[0, 0], together[group, row].detach())

    changed = tokens_GST.clone()
    changed[..., 7] = (changed[..., 7] + 1) % 17
    context = policy.encode(images)
    before = policy.logits(context, tokens_GST.flatten(0, 1))
    after = policy.logits(context, changed.flatten(0, 1))
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert (before[:, 8:] != after[:, 8:]).any(dim=-1).all()


def test_recomputing_activations_changes_no_gradient(random_policy: Build) -> None:
    policy = random_policy()
    images, tokens_GST = torch.randn(2, 32, 32, 3), torch.randint(17, (2, 2, 12))
    gradients = []
    for recompute in (False, True):
        policy.zero_grad()
        policy.log_prob(images, tokens_GST, recompute=recompute).drawn_GST.sum().backward()
        gradients.append({name: p.grad for name, p in policy.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_the_head_computes_in_float32_under_autocast(
    random_policy: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = random_policy()
    images, tokens_GST = torch.randn(1, 32, 32, 3), torch.randint(17, (1, 2, 12))
    states = []
    forward = policy.decoder.head.forward

    def recording(state: Tensor) -> Tensor:
        states.append(state)
        return forward(state)

    monkeypatch.setattr(policy.decoder.head, "forward", recording)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        context = policy.encode(images)
        logits = policy.logits(context, tokens_GST[0])
        drawn = policy.log_prob(images, tokens_GST).drawn_GST
    assert logits.dtype == drawn.dtype == torch.float32
    head = policy.decoder.head.project
    assert_near(logits, (states[0].float() @ head.kernel + head.bias).detach(), atol=1e-5)
    exact = policy.log_prob(images, tokens_GST).drawn_GST
    assert_near(drawn, exact.detach(), atol=0.2)


def test_a_new_policy_is_uniform(random_policy: Build) -> None:
    policy = EncoderDecoder(random_policy().config)
    tokens = torch.randint(17, (1, 2, 12))
    drawn = policy.log_prob(torch.randn(1, 32, 32, 3), tokens).drawn_GST
    assert_near(drawn, torch.full((1, 2, 12), -math.log(17)), atol=1e-6)


def test_initial_values_are_those_of_big_vision() -> None:
    """Algorithm spec, section 2; each moment within four standard errors."""
    torch.manual_seed(0)
    width, hidden = 128, 384
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=128,
            patch_size=8,
            width=width,
            num_heads=4,
            mlp_width=hidden,
            encoder_depth=2,
            decoder_depth=2,
            vocab_size=500,
            sequence_length=200,
        )
    )
    uniform = {"attention": math.sqrt(6 / (2 * width)), "mlp": math.sqrt(6 / (width + hidden))}
    for name, parameter in policy.named_parameters():
        value = parameter.detach()
        part, leaf = name.split(".")[-3:-1], name.rpartition(".")[2]
        if name == "decoder.token_embedding":
            std, limit = 1.0, math.inf
        elif name.endswith("position_embedding"):
            std, limit = 1 / math.sqrt(width), math.inf
        elif name.startswith("decoder.head") or (leaf == "bias" and "mlp" not in part):
            std, limit = 0.0, 0.0
        elif leaf == "scale":
            value, std, limit = value - 1, 0.0, 0.0
        elif leaf == "bias":
            std, limit = 1e-6, math.inf
        elif "cross_attention" in part or "self_attention" in part or "patch" in name:
            fan_in = 8 * 8 * 3 if "patch" in name else width
            std = math.sqrt(1 / fan_in)
            limit = 2 * std / 0.87962566103423978
        else:
            limit = uniform[part[0]]
            std = limit / math.sqrt(3)
        error = 4 * std / math.sqrt(value.numel())
        assert abs(value.mean()) <= error, name
        assert abs(value.std() - std) <= error, name
        assert value.abs().max() <= limit * (1 + 1e-6), name
        if 0 < limit < math.inf:
            assert value.abs().max() > 0.98 * limit, name


def test_a_fixed_position_embedding_is_no_parameter(random_policy: Build) -> None:
    policy = random_policy(position_embedding="sincos2d", width=32)
    assert not any("position" in name for name in policy.state_dict())
    assert policy.position_embedding.shape == (1, 16, 32)
    assert policy.decoder.position_embedding.shape == (1, 12, 32)
    learned = EncoderDecoder(policy.config.model_copy(update={"position_embedding": "learned"}))
    learned.load_state_dict(
        {
            **policy.state_dict(),
            "position_embedding": policy.position_embedding,
            "decoder.position_embedding": policy.decoder.position_embedding,
        }
    )
    images, tokens = torch.randn(1, 32, 32, 3), torch.randint(17, (1, 2, 12))
    found = policy.log_prob(images, tokens).drawn_GST
    assert_near(found, learned.log_prob(images, tokens).drawn_GST.detach(), atol=0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"input_size": 30}, "input_size 30 is no multiple of patch_size 8"),
        ({"num_heads": 3}, "width 32 is no multiple of num_heads 3"),
        ({"decoder_depth": 0}, "decoder_depth"),
        ({"depth": 3}, "depth"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(
    random_policy: Build, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        EncoderDecoderConfig.model_validate({**random_policy().config.model_dump(), **sizes})
