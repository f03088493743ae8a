"""From one class list and resolution to another, at the layout of the paper's detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rewardtune.layers.position import tokens_alike
from rewardtune.policies.draw import GREEDY
from rewardtune.policies.kinds.carry import carry
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

NUM_BEFORE_CLASSES = 1004


def vocabulary(class_names: list[str], *, max_boxes: int = 2, **changes: Any) -> dict[str, Any]:
    """As the detection task describes it."""
    return {
        "task": "detection",
        "vocab_size": NUM_BEFORE_CLASSES + len(class_names),
        "sequence_length": 6 * max_boxes,
        "layout": ["y0", "x0", "y1", "x1", "class", "confidence"],
        "max_level": 1000,
        "max_confidence": 2,
        "num_classes": len(class_names),
        "class_names": class_names,
        **changes,
    }


OBJECTS365 = vocabulary([f"object {index}" for index in range(365)])
COCO = vocabulary([f"thing {index}" for index in range(80)])


@pytest.fixture
def objects365() -> EncoderDecoder:
    torch.manual_seed(0)
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=640,
            patch_size=16,
            width=8,
            num_heads=2,
            mlp_width=16,
            encoder_depth=1,
            decoder_depth=1,
            vocab_size=1369,
            sequence_length=12,
        )
    )
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    return policy


def test_objects365_at_640_becomes_coco_at_1280(objects365: EncoderDecoder) -> None:
    torch.manual_seed(7)
    coco = carry(objects365, vocabulary_from=OBJECTS365, vocabulary_to=COCO, input_size=1280)
    assert coco.config == objects365.config.model_copy(
        update={"input_size": 1280, "vocab_size": 1084}
    )
    old, new = (dict(p.named_parameters()) for p in (objects365, coco))
    changed = {
        "position_embedding",
        "decoder.token_embedding",
        "decoder.head.project.kernel",
        "decoder.head.project.bias",
    }
    for name in old.keys() - changed:
        assert torch.equal(new[name], old[name]), name
        assert new[name].data_ptr() != old[name].data_ptr(), name
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in new.values())

    kept = NUM_BEFORE_CLASSES
    name = "decoder.token_embedding"
    assert torch.equal(new[name][:kept], old[name][:kept])
    fresh = new[name][kept:].detach()
    assert fresh.shape == (80, 8)
    assert abs(fresh.mean()) < 4 / fresh.numel() ** 0.5
    assert abs(fresh.std() - 1) < 4 / fresh.numel() ** 0.5
    name = "decoder.head.project.kernel"
    assert torch.equal(new[name][:, :kept], old[name][:, :kept])
    assert not new[name][:, kept:].any()
    name = "decoder.head.project.bias"
    assert torch.equal(new[name][:kept], old[name][:kept])
    assert not new[name][kept:].any()

    grid = old["position_embedding"].detach().numpy().reshape(40, 40, 8)
    at = np.arange(80) * 39 / 79  # corners on corners
    columns = np.stack([[np.interp(at, range(40), row[:, d]) for d in range(8)] for row in grid])
    both = np.stack(
        [np.interp(at, range(40), columns[:, d, c]) for d in range(8) for c in range(80)]
    )
    expected = both.reshape(8, 80, 80).transpose(2, 1, 0).reshape(1, 6400, 8)
    np.testing.assert_allclose(new["position_embedding"].detach(), expected, rtol=0, atol=1e-5)


def test_the_carried_policy_runs(objects365: EncoderDecoder) -> None:
    coco = carry(objects365, vocabulary_from=OBJECTS365, vocabulary_to=COCO, input_size=1280)
    images = torch.randn(1, 1280, 1280, 3)
    tokens = coco.sample(images, torch.zeros(1, 1, 12), decoding=GREEDY).tokens_GST
    assert tokens.shape == (1, 1, 12)
    assert tokens.max() < 1084


def test_equal_class_lists_keep_their_rows(objects365: EncoderDecoder) -> None:
    state = torch.get_rng_state()
    larger = carry(
        objects365, vocabulary_from=OBJECTS365, vocabulary_to=OBJECTS365, input_size=1280
    )
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in objects365.named_parameters():
        if name != "position_embedding":
            assert torch.equal(larger.get_parameter(name), parameter)


def test_as_many_other_classes_start_afresh(objects365: EncoderDecoder) -> None:
    names = [f"other {index}" for index in range(365)]
    carried = carry(objects365, vocabulary_from=OBJECTS365, vocabulary_to=vocabulary(names))
    assert torch.equal(carried.position_embedding, objects365.position_embedding)
    assert not carried.decoder.head.project.kernel[:, NUM_BEFORE_CLASSES:].any()
    old, new = objects365.decoder.token_embedding, carried.decoder.token_embedding
    assert torch.equal(new[:NUM_BEFORE_CLASSES], old[:NUM_BEFORE_CLASSES])
    assert not (new[NUM_BEFORE_CLASSES:] == old[NUM_BEFORE_CLASSES:]).any()


def test_fresh_rows_follow_the_seed(objects365: EncoderDecoder) -> None:
    carried = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        policy = carry(objects365, vocabulary_from=OBJECTS365, vocabulary_to=COCO)
        carried.append(policy.decoder.token_embedding)
    assert torch.equal(carried[0], carried[1])
    assert not torch.equal(carried[0], carried[2])


def test_shorter_sequences_keep_the_first_positions(objects365: EncoderDecoder) -> None:
    shorter = OBJECTS365 | {"sequence_length": 6}
    carried = carry(objects365, vocabulary_from=OBJECTS365, vocabulary_to=shorter)
    assert carried.sequence_length == 6
    found = carried.decoder.position_embedding
    assert torch.equal(found, objects365.decoder.position_embedding[:, :6])
    assert found.untyped_storage().nbytes() == found.nbytes


def test_longer_sequences_keep_what_was_learned_and_go_on_as_a_fresh_policy_does() -> None:
    begun = EncoderDecoder.fresh(
        {"input_size": 32, "patch_size": 16, "width": 8, "num_heads": 2, "mlp_width": 16}
        | {"encoder_depth": 1, "decoder_depth": 1, "vocab_size": 1369, "sequence_length": 12}
    )
    with torch.no_grad():
        begun.decoder.position_embedding[:, 3] = 7.0  # what training has made of one
    longer = OBJECTS365 | {"sequence_length": 18}
    carried = carry(begun, vocabulary_from=OBJECTS365, vocabulary_to=longer)
    found = carried.decoder.position_embedding[0]
    assert (found[3] == 7.0).all()
    others = torch.arange(18) != 3
    assert torch.equal(found[others], tokens_alike(18, 8)[0, others])


def test_fixed_position_embeddings_take_any_length_and_grid(objects365: EncoderDecoder) -> None:
    config = objects365.config.model_copy(update={"position_embedding": "sincos2d"})
    longer = OBJECTS365 | {"sequence_length": 18}
    carried = carry(
        EncoderDecoder(config), vocabulary_from=OBJECTS365, vocabulary_to=longer, input_size=320
    )
    expected = EncoderDecoder(carried.config)
    assert torch.equal(carried.position_embedding, expected.position_embedding)
    assert torch.equal(carried.decoder.position_embedding, expected.decoder.position_embedding)


@pytest.mark.parametrize(
    ("found", "needed", "message"),
    [
        (OBJECTS365, COCO | {"max_level": 500}, "max_level is 1000 instead of 500. Only classes"),
        (OBJECTS365, COCO | {"task": "captioning"}, 'task is "detection" instead of "captioning"'),
        (OBJECTS365, COCO | {"vocab_size": 1085}, "it has 1004 before its classes, .* has 1005"),
        (COCO, COCO | {"num_classes": 79}, "has 1369 tokens, but .* its own describes 1084"),
    ],
)
def test_other_layouts_are_refused(
    objects365: EncoderDecoder, found: dict[str, Any], needed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        carry(objects365, vocabulary_from=found, vocabulary_to=needed)


def test_vocabularies_without_classes_carry_if_they_are_equal(
    random_policy: Callable[..., EncoderDecoder],
) -> None:
    policy = random_policy()
    words = {"task": "captioning", "vocab_size": 17, "sequence_length": 12, "words": ["a", "b"]}
    carried = carry(policy, vocabulary_from=words, vocabulary_to=words, input_size=64)
    assert torch.equal(carried.decoder.token_embedding, policy.decoder.token_embedding)
    assert carried.position_embedding.shape == (1, 64, 32)
    with pytest.raises(ValueError, match=r'words\[1\] is "b" instead of "c"'):
        carry(policy, vocabulary_from=words, vocabulary_to=words | {"words": ["a", "c"]})
