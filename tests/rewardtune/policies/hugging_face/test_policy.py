"""transformers' models as policies: the same function as transformers makes of them, and back.

Axes: N sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import VisionEncoderDecoderModel

from rewardtune.policies.draw import GREEDY, Decoding, uniforms
from rewardtune.policies.hugging_face.config import HuggingFaceError, quietly
from rewardtune.policies.hugging_face.policy import HuggingFacePolicy
from tests.rewardtune.policies.hugging_face_models import (
    KINDS,
    PIECES,
    START,
    STOP,
    save_model,
    tiny_model,
)

pytestmark = pytest.mark.slow

LENGTH = 12
MEAN, STD = torch.tensor([0.48, 0.45, 0.4]), torch.tensor([0.26, 0.27, 0.28])

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made: dict[str, Path] = {}

    def build(kind: str) -> Path:
        if kind not in made:
            with quietly():
                made[kind] = save_model(tiny_model(kind), tmp_path_factory.mktemp(kind))
        return made[kind]

    return build


def theirs(folder: Path) -> Any:
    with quietly():
        model: Any = VisionEncoderDecoderModel.from_pretrained(folder)
    return model.eval()


def pictures(count: int) -> Tensor:
    return torch.rand(count, 32, 32, 3, generator=torch.Generator().manual_seed(5)) * 2 - 1


def as_their_processor_has_it(images_GHWC: Tensor) -> Tensor:
    return (((images_GHWC + 1) / 2 - MEAN) / STD).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_generate(folder: Folder, kind: str) -> None:
    images = pictures(12)
    policy = HuggingFacePolicy.load(folder(kind), sequence_length=LENGTH)
    ours = policy.sample(images, torch.zeros(12, 1, LENGTH), decoding=GREEDY, stop_tokens=(STOP,))
    with quietly():
        generated = theirs(folder(kind)).generate(
            as_their_processor_has_it(images), do_sample=False, max_new_tokens=LENGTH
        )
    assert (generated[:, 0] == START).all()
    expected = torch.nn.functional.pad(generated[:, 1:], (0, LENGTH + 1 - generated.shape[1]))
    assert ours.tokens_GST[:, 0].tolist() == expected.tolist()


def test_some_sequence_stops_before_its_end(folder: Folder) -> None:
    """Else nothing above would have tested stopping."""
    lengths = set()
    for kind in KINDS:
        policy = HuggingFacePolicy.load(folder(kind), sequence_length=LENGTH)
        tokens = policy.sample(
            pictures(12), torch.zeros(12, 1, LENGTH), decoding=GREEDY, stop_tokens=(STOP,)
        ).tokens_GST
        lengths |= set((tokens == STOP).any(dim=-1).flatten().tolist())
    assert lengths == {False, True}


def test_a_weight_that_is_not_finite_is_refused_by_its_name(tmp_path: Path) -> None:
    model = tiny_model(KINDS[0])
    name, parameter = list(model.named_parameters())[-1]
    parameter.data.view(-1)[0] = float("nan")
    folder = save_model(model, tmp_path / "model")
    with pytest.raises(HuggingFaceError, match=rf"{folder} has .* not finite in '{name}'"):
        HuggingFacePolicy.load(folder, sequence_length=LENGTH)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_are_those_of_the_model_s_own_forward(folder: Folder, kind: str) -> None:
    images, tokens_GST = pictures(3), torch.randint(len(PIECES), (3, 4, LENGTH))
    policy = HuggingFacePolicy.load(folder(kind), sequence_length=LENGTH)
    found = policy.log_prob(images, tokens_GST).drawn_GST
    model, tokens_NT = theirs(folder(kind)), tokens_GST.flatten(0, 1)
    inputs_NT = torch.cat([torch.full((12, 1), START), tokens_NT[:, :-1]], dim=1)
    pixels = as_their_processor_has_it(images).repeat_interleave(4, dim=0)
    logits_NTV = model(pixel_values=pixels, decoder_input_ids=inputs_NT).logits
    expected = logits_NTV.log_softmax(-1).gather(-1, tokens_NT[..., None])[..., 0]
    torch.testing.assert_close(found.flatten(0, 1).detach(), expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_model_s_own_loss(folder: Folder, kind: str) -> None:
    images, tokens_GST = pictures(2), torch.randint(len(PIECES), (2, 3, LENGTH))
    policy = HuggingFacePolicy.load(folder(kind), sequence_length=LENGTH)
    (-policy.log_prob(images, tokens_GST).drawn_GST.mean()).backward()
    model = theirs(folder(kind))
    pixels = as_their_processor_has_it(images).repeat_interleave(3, dim=0)
    model(pixel_values=pixels, labels=tokens_GST.flatten(0, 1)).loss.backward()
    own = dict(policy.model.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            assert name not in own
        else:
            torch.testing.assert_close(
                own[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name
            )


@pytest.mark.parametrize("kind", ["vit_bert", "vit_gpt2", "deit_bert_narrow"])
def test_keys_of_an_image_stand_once_for_all_its_sequences(
    folder: Folder, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = HuggingFacePolicy.load(folder(kind), sequence_length=LENGTH)
    seen = []
    forward = policy.model.decoder.forward

    def spying(**inputs: Any) -> Any:
        seen.append((len(inputs["input_ids"]), len(inputs["encoder_hidden_states"])))
        return forward(**inputs)

    monkeypatch.setattr(policy.model.decoder, "forward", spying)
    policy.sample(pictures(2), torch.zeros(2, 8, LENGTH), decoding=GREEDY)
    assert seen == [(16, 2)] * LENGTH


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_policy_loads_in_transformers(
    folder: Folder, kind: str, tmp_path: Path
) -> None:
    policy = HuggingFacePolicy.load(folder(kind), sequence_length=LENGTH)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01)
    policy.export(tmp_path / "tuned")
    with quietly():
        model, report = VisionEncoderDecoderModel.from_pretrained(  # type: ignore[misc]
            tmp_path / "tuned", output_loading_info=True
        )
    assert not report["missing_keys"] and not report["unexpected_keys"]  # type: ignore[has-type]
    images = pictures(2)
    drawn = policy.sample(images, torch.zeros(2, 1, LENGTH), decoding=GREEDY, stop_tokens=(STOP,))
    with quietly():
        generated = model.eval().generate(  # type: ignore[has-type]
            as_their_processor_has_it(images), do_sample=False, max_new_tokens=LENGTH
        )[:, 1:]
    assert drawn.tokens_GST[:, 0, : generated.shape[1]].tolist() == generated.tolist()
    before = theirs(folder(kind))
    for name, parameter in model.named_parameters():  # type: ignore[has-type]
        moved = parameter - before.get_parameter(name)
        expected = 0.0 if "pooler" in name else 0.01  # takes no part in captions, so it stays
        torch.testing.assert_close(moved, torch.full_like(moved, expected), rtol=0, atol=1e-6)
    for name in ("preprocessor_config.json", "vocab.txt", "generation_config.json"):
        assert (tmp_path / "tuned" / name).read_text() == (folder(kind) / name).read_text()


def test_export_overwrites_nothing(folder: Folder, tmp_path: Path) -> None:
    policy = HuggingFacePolicy.load(folder("vit_bert"), sequence_length=LENGTH)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(HuggingFaceError, match="holds other files"):
        policy.export(tmp_path)


def test_pictures_are_normalised_by_halves_without_a_processor(folder: Folder) -> None:
    policy = HuggingFacePolicy.load(folder("vit_bert"), sequence_length=LENGTH)
    files = dict(policy.config.files)
    del files["preprocessor_config.json"]
    plain = policy.config.model_copy(update={"files": files})
    assert (plain.image_mean, plain.image_std) == ((0.5,) * 3, (0.5,) * 3)


def test_loading_draws_no_random_numbers(folder: Folder) -> None:
    path = folder("vit_bert")
    state = torch.get_rng_state()
    policy = HuggingFacePolicy.load(path, sequence_length=LENGTH)
    HuggingFacePolicy.build(policy.config.model_dump())
    assert torch.equal(torch.get_rng_state(), state)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = tiny_model("vit_gpt2")
    model.decoder.lm_head.weight = model.decoder.transformer.wte.weight
    model.decoder.config.tie_word_embeddings = True
    with quietly():
        save_model(model, tmp_path)
    policy = HuggingFacePolicy.load(tmp_path, sequence_length=LENGTH)
    built = HuggingFacePolicy.build(policy.config.model_dump())
    for one in (policy, built):
        assert one.model.decoder.lm_head.weight is one.model.decoder.transformer.wte.weight
    assert built.tensors().keys() == policy.tensors().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "no VisionEncoderDecoderModel: its config.json says 'bert'"),
        ({"decoder_start_token_id": None}, "has no decoder_start_token_id"),
    ],
)
def test_models_that_cannot_be_policies_say_why(
    folder: Folder, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for path in folder("vit_bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("config.json", "generation_config.json"):
        values = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({**values, **change}))
    with pytest.raises(HuggingFaceError, match=message):
        HuggingFacePolicy.load(tmp_path, sequence_length=LENGTH)


def test_sequences_longer_than_the_model_s_positions_are_refused(folder: Folder) -> None:
    with pytest.raises(HuggingFaceError, match="41 tokens do not fit a decoder with 40 positions"):
        HuggingFacePolicy.load(folder("vit_bert"), sequence_length=41)


def test_folders_without_a_model_say_so(tmp_path: Path) -> None:
    with pytest.raises(HuggingFaceError, match="is no folder"):
        HuggingFacePolicy.load(tmp_path / "none", sequence_length=4)
    with pytest.raises(HuggingFaceError, match="it has no config.json"):
        HuggingFacePolicy.load(tmp_path, sequence_length=4)


def test_a_damaged_model_says_so(folder: Folder, tmp_path: Path) -> None:
    for path in folder("vit_bert").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(HuggingFaceError, match="cannot be read"):
        HuggingFacePolicy.load(tmp_path, sequence_length=4)


def test_draws_of_other_seeds_differ(folder: Folder) -> None:
    policy = HuggingFacePolicy.load(folder("vit_bert"), sequence_length=LENGTH)

    def drawn(seed: int) -> Tensor:
        number = uniforms(
            seed=seed,
            ordinals_N=torch.zeros(4, dtype=torch.int64),
            rollouts_N=torch.arange(4),
            sequence_length=LENGTH,
        )
        return policy.sample(pictures(1), number[None], decoding=Decoding()).tokens_GST

    assert not torch.equal(drawn(1), drawn(2))
