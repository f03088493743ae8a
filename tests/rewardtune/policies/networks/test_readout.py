"""The second stream against its formula, and what it may not touch.

Axes: as in ``rewardtune.policies.networks.readout``; H heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rewardtune.policies.draw import Decoding
from rewardtune.policies.kinds.carry import carry, with_readout
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.kinds.parallel import ParallelPolicy
from tests.rewardtune.policies.conftest import SIZES

if TYPE_CHECKING:
    from rewardtune.layers.attention import AttentionRead, CrossAttention, SelfAttention

    Build = Callable[..., EncoderDecoder]

EVERY = 3
READ = torch.arange(12) % EVERY == EVERY - 1
IMAGES = torch.randn(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(17, (2, 4, 12), generator=torch.Generator().manual_seed(2))


def attended(
    query_D: Tensor, seen_XD: Tensor, own: AttentionRead, kept: SelfAttention | CrossAttention
) -> Tensor:
    """One position's attention, head by head, as the formula has it."""
    heads = []
    for h in range(own.num_heads):
        query_K = query_D @ own.query.kernel[:, h]
        keys_XK, values_XK = seen_XD @ kept.key.kernel[:, h], seen_XD @ kept.value.kernel[:, h]
        weight_X = (keys_XK @ query_K / query_K.numel() ** 0.5).softmax(dim=0)
        heads.append(weight_X @ values_XK @ own.out.kernel[h])
    return torch.stack(heads).sum(dim=0)


def logits_by_definition(policy: EncoderDecoder, context_PD: Tensor, tokens_T: Tensor) -> Tensor:
    """Of every position that is read out, one after the other [R, V]."""
    decoder, readout = policy.decoder, policy.decoder.readout
    assert readout is not None
    before_T = F.pad(tokens_T[:-1], (1, 0))
    if policy.config.readout_seen_as is not None:
        for position in (READ.nonzero()[:-1, 0] + 1).tolist():
            if before_T[position] != 0:
                before_T[position] = policy.config.readout_seen_as
    x_TD = decoder.token_embedding[before_T] + decoder.position_embedding[0]
    drawn_TD = x_TD
    for block in decoder.blocks:
        drawn_TD = block(drawn_TD[None], context_PD[None])[0]
    drawn_TD = decoder.norm(drawn_TD)
    state_RD = []
    for position in READ.nonzero()[:, 0].tolist():
        start_D = x_TD[position] + readout.drawn.bias
        for other in range(EVERY - 1):
            kernel_DD = readout.drawn.kernel.unflatten(0, (EVERY - 1, -1))[other]
            start_D = start_D + drawn_TD[position - (EVERY - 1) + other] @ kernel_DD
        state_RD.append(start_D)
    for block, own in zip(decoder.blocks, readout.blocks, strict=True):
        normed_TD = block.norm_0(x_TD)  # type: ignore[operator]
        for index, position in enumerate(READ.nonzero()[:, 0].tolist()):
            y_D = state_RD[index]
            y_D = (
                y_D
                + attended(
                    own.norm_0(y_D),  # type: ignore[operator]
                    normed_TD[: position + 1],
                    own.self_attention,  # type: ignore[arg-type]
                    block.self_attention,  # type: ignore[arg-type]
                )
            )
            y_D = y_D + attended(
                own.norm_1(y_D),  # type: ignore[operator]
                context_PD,
                own.cross_attention,  # type: ignore[arg-type]
                block.cross_attention,  # type: ignore[arg-type]
            )
            state_RD[index] = y_D + own.mlp(own.norm_2(y_D))  # type: ignore[operator]
        x_TD = block(x_TD[None], context_PD[None])[0]
    return readout.head(readout.norm(torch.stack(state_RD)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("seen_as", [None, 2])
def test_a_readout_is_its_formula(random_policy: Build, seen_as: int | None) -> None:
    policy = random_policy(readout_every=EVERY, readout_seen_as=seen_as)
    context_GPD = policy.encode(IMAGES)
    found = policy.logits(context_GPD, TOKENS.flatten(0, 1)).unflatten(0, (2, 4))
    for g in range(2):
        for s in range(4):
            expected_RV = logits_by_definition(policy, context_GPD[g], TOKENS[g, s])
            torch.testing.assert_close(found[g, s, READ], expected_RV, rtol=0, atol=2e-5)


def test_sequences_may_end_within_a_step(random_policy: Build) -> None:
    policy = random_policy(readout_every=EVERY)
    whole = policy.log_prob(IMAGES, TOKENS).drawn_GST
    for length in (1, 2, 3, 7):
        found = policy.log_prob(IMAGES, TOKENS[..., :length]).drawn_GST
        torch.testing.assert_close(found, whole[..., :length], rtol=0, atol=1e-5)


def test_a_readout_starts_as_the_decoder(random_policy: Build) -> None:
    policy = random_policy()
    extended = with_readout(policy, EVERY)
    assert extended.config == policy.config.model_copy(update={"readout_every": EVERY})
    drawn = policy.log_prob(IMAGES, TOKENS).drawn_GST
    found = extended.log_prob(IMAGES, TOKENS).drawn_GST
    torch.testing.assert_close(found, drawn, rtol=0, atol=1e-5)
    own = {parameter.data_ptr() for parameter in policy.parameters()}
    assert not any(parameter.data_ptr() in own for parameter in extended.parameters())


def test_no_other_token_feels_a_readout(random_policy: Build) -> None:
    """Neither its weights nor the gradient of what it says."""
    policy = random_policy(readout_every=EVERY)
    drawn = policy.log_prob(IMAGES, TOKENS).drawn_GST
    drawn[..., READ].sum().backward()
    for name, parameter in policy.named_parameters():
        is_own = name.startswith("decoder.readout.")
        gradient = parameter.grad
        assert is_own == (gradient is not None and bool(gradient.any())), name
    policy.zero_grad()
    policy.log_prob(IMAGES, TOKENS).drawn_GST[..., ~READ].sum().backward()
    assert policy.decoder.readout is not None
    for parameter in policy.decoder.readout.parameters():
        assert parameter.grad is None or not parameter.grad.any()
    with torch.no_grad():
        for parameter in policy.decoder.readout.parameters():
            parameter.add_(torch.randn_like(parameter))
    changed = policy.log_prob(IMAGES, TOKENS).drawn_GST
    assert torch.equal(changed[..., ~READ], drawn[..., ~READ])
    assert not torch.isclose(changed[..., READ], drawn[..., READ]).any()


@pytest.mark.parametrize("seen_as", [None, 2])
def test_later_tokens_see_which_was_read_out_only_if_they_shall(
    random_policy: Build, seen_as: int | None
) -> None:
    policy = random_policy(readout_every=EVERY, readout_seen_as=seen_as)
    assert (TOKENS[..., READ] > 0).any() and (TOKENS[..., READ] == 0).any()
    others = torch.where(READ & (TOKENS > 0), TOKENS % 16 + 1, TOKENS)
    before = policy.log_prob(IMAGES, TOKENS).drawn_GST
    after = policy.log_prob(IMAGES, others).drawn_GST
    is_same = torch.equal(before[..., ~READ], after[..., ~READ])
    assert is_same == (seen_as is not None)
    padded = torch.where(READ, 0, TOKENS)
    after = policy.log_prob(IMAGES, padded).drawn_GST
    assert not torch.equal(before[..., ~READ], after[..., ~READ])


@pytest.mark.parametrize("seen_as", [None, 2])
def test_sampling_sees_what_teacher_forcing_sees(random_policy: Build, seen_as: int | None) -> None:
    policy = random_policy(readout_every=EVERY, readout_seen_as=seen_as)
    uniforms_GST = torch.rand(2, 4, 12, generator=torch.Generator().manual_seed(3))
    samples = policy.sample(IMAGES, uniforms_GST, decoding=Decoding())
    found = policy.log_prob(IMAGES, samples.tokens_GST.long()).drawn_GST
    torch.testing.assert_close(found, samples.log_probs_GST, rtol=0, atol=2e-5)
    read = samples.tokens_GST[..., READ]
    assert (read != 2).any() and (read != 0).any()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"readout_seen_as": 2}, "readout_seen_as needs readout_every"),
        ({"readout_every": 3, "readout_seen_as": 17}, "readout_seen_as 17 is no token"),
        ({"readout_every": 1}, "greater than or equal to 2"),
        ({"readout_every": 5}, "sequence_length 12 is no multiple of readout_every 5"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(sizes: dict[str, int], message: str) -> None:
    values = {**SIZES["vtt"].model_dump(), **sizes}
    with pytest.raises(ValueError, match=message):
        EncoderDecoderConfig.model_validate(values)


def test_carried_to_other_classes_a_readout_keeps_what_it_knows(random_policy: Build) -> None:
    policy = random_policy(readout_every=EVERY)
    old = {"vocab_size": 17, "num_classes": 5, "class_names": list("abcde")}
    new = {"vocab_size": 15, "num_classes": 3, "class_names": list("xyz")}
    carried = carry(policy, vocabulary_from=old, vocabulary_to=new)
    for head in (policy.decoder.head, policy.decoder.readout.head):  # type: ignore[union-attr]
        assert head.project.kernel.shape[1] == 17
    assert carried.decoder.readout is not None and policy.decoder.readout is not None
    kept = policy.decoder.readout.head.project.kernel[:, :12]
    found = carried.decoder.readout.head.project.kernel
    assert torch.equal(found[:, :12], kept)
    assert found.shape[1] == 15
    assert not found[:, 12:].any()


def test_a_policy_that_draws_all_at_once_has_no_readout(random_policy: Build) -> None:
    config = random_policy(readout_every=EVERY).config
    with pytest.raises(ValueError, match="readout_every = 3 needs a decoder that draws token by"):
        ParallelPolicy(config)
