"""Policy files: what comes back, and what damaged or foreign ones are told."""

from __future__ import annotations

import json
import math
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.policy_file import (
    PolicyFileError,
    check_vocabulary,
    load_policy,
    policy_digest,
    save_policy,
)
from tests.faults.damaged_policies import GOOD, damage_many

Build = Callable[..., EncoderDecoder]

VOCABULARY = {
    "task": "detection",
    "vocab_size": 17,
    "sequence_length": 12,
    "layout": ["y0", "x0", "y1", "x1", "class", "confidence"],
    "num_classes": 3,
    "class_names": ["cat", "dog", "Käfer"],
}
PROVENANCE = {"config": {"seed": 1}, "identity_hash": "ab", "data_digest": None}


def names_under(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.fixture
def saved(tmp_path: Path, random_policy: Build) -> Path:
    path = tmp_path / "policy.safetensors"
    save_policy(path, random_policy(), vocabulary=VOCABULARY, provenance=PROVENANCE)
    return path


@pytest.mark.parametrize("position_embedding", ["learned", "sincos2d"])
def test_what_was_saved_is_what_is_loaded(
    tmp_path: Path, random_policy: Build, position_embedding: str
) -> None:
    policy = random_policy(position_embedding=position_embedding)
    path = tmp_path / "new" / "folder" / "p.safetensors"
    save_policy(path, policy, vocabulary=VOCABULARY, provenance=PROVENANCE)
    loaded = load_policy(path)
    assert loaded.vocabulary == VOCABULARY
    assert loaded.provenance == PROVENANCE
    assert loaded.policy.config == policy.config
    found = dict(loaded.policy.named_parameters())
    for name, parameter in policy.named_parameters():
        assert torch.equal(found[name], parameter)
        assert found[name].requires_grad
    for name, buffer in policy.named_buffers():
        assert torch.equal(loaded.policy.get_buffer(name), buffer)
    images, tokens = torch.randn(1, 32, 32, 3), torch.randint(17, (1, 2, 12))
    expected = policy.log_prob(images, tokens).drawn_GST
    assert torch.equal(loaded.policy.log_prob(images, tokens).drawn_GST, expected)


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    state = torch.get_rng_state()
    load_policy(saved)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_stored_as_float32(tmp_path: Path, random_policy: Build) -> None:
    policy = random_policy().bfloat16()
    path = tmp_path / "p.safetensors"
    save_policy(path, policy, vocabulary={}, provenance={})
    for name, parameter in load_policy(path).policy.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, policy.get_parameter(name).float())


def test_a_loaded_policy_survives_its_file(saved: Path, random_policy: Build) -> None:
    loaded = load_policy(saved).policy
    saved.write_bytes(bytes(saved.stat().st_size))  # in place: the same inode
    for name, parameter in random_policy().named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)


def test_equal_policies_are_equal_bytes(saved: Path, random_policy: Build, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    turned = dict(reversed(VOCABULARY.items()))
    save_policy(other, random_policy(), vocabulary=turned, provenance=PROVENANCE)
    assert other.read_bytes() == saved.read_bytes()
    assert policy_digest(other) == policy_digest(saved)
    assert len(policy_digest(saved)) == 64
    save_policy(other, random_policy(seed=1), vocabulary=VOCABULARY, provenance=PROVENANCE)
    assert policy_digest(other) != policy_digest(saved)


def test_everyone_who_may_read_new_files_may_read_a_policy(saved: Path) -> None:
    (saved.parent / "plain").touch()
    assert saved.stat().st_mode == (saved.parent / "plain").stat().st_mode


def test_files_that_are_not_there_say_so(tmp_path: Path) -> None:
    for read in (load_policy, policy_digest):
        with pytest.raises(PolicyFileError, match=r"policy .*none not found: check policy.checkp"):
            read(tmp_path / "none")
        with pytest.raises(PolicyFileError, match=r"cannot be read: .*Is a directory"):
            read(tmp_path)


def test_every_truncation_is_called_one(saved: Path) -> None:
    raw = saved.read_bytes()
    size = len(raw)
    for length in (0, 5, 8, 9, 100, size // 2, size - 1):
        saved.write_bytes(raw[:length])
        with pytest.raises(PolicyFileError, match=rf"policy {saved} is truncated: ") as raised:
            load_policy(saved)
        assert str(length) in str(raised.value)
    assert f"it has {size - 1} of its {size} bytes" in str(raised.value)


def test_what_is_no_policy_says_so(saved: Path, tmp_path: Path) -> None:
    saved.write_text("a text that is longer than nine bytes")
    with pytest.raises(PolicyFileError, match="is no policy: it is not a safetensors file"):
        load_policy(saved)
    safetensors.torch.save_file({"a": torch.ones(2)}, saved)
    with pytest.raises(PolicyFileError, match="is no policy: .*not one of rewardtune's"):
        load_policy(saved)


def rewrite(
    path: Path,
    change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None],
    *,
    has_digest: bool = False,
) -> None:
    """As a file of before digests, unless told."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["rewardtune"])
    tensors = safetensors.torch.load_file(path)
    if not has_digest:
        del metadata["digest"]
    change(metadata, tensors)
    safetensors.torch.save_file(tensors, path, metadata={"rewardtune": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: m.update(format=2), "'encoder_decoder' in format 2, but this version"),
        (lambda m, t: m.update(architecture="rnn"), "is 'rnn' in format 1, but this version"),
        (lambda m, t: m.update(architecture="gone:Net"), "there is no module gone here: put its"),
        (lambda m, t: m.pop("vocabulary"), "is damaged: metadata: vocabulary Field required"),
        (lambda m, t: m["config"].update(depth=3), "is damaged: config: depth Extra inputs"),
        (lambda m, t: m["config"].update(width=30), "is damaged: config: .*width 30 is no mult"),
        (lambda m, t: t.pop("decoder.norm.bias"), "is damaged: it lacks 'decoder.norm.bias'"),
        (lambda m, t: t.update(extra=torch.ones(1)), "is damaged: it has an unknown 'extra'"),
        (
            lambda m, t: t.update({"decoder.norm.bias": torch.ones(5)}),
            r"'decoder.norm.bias' is torch.float32 \[5\] instead of torch.float32 \[32\]",
        ),
        (
            lambda m, t: t.update({"decoder.norm.bias": torch.ones(32).half()}),
            r"'decoder.norm.bias' is torch.float16 \[32\] instead",
        ),
    ],
)
def test_damage_is_one_line_that_names_the_file(
    saved: Path, change: Callable[..., None], message: str
) -> None:
    rewrite(saved, change)
    with pytest.raises(PolicyFileError, match=message) as raised:
        load_policy(saved)
    assert str(saved) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_of_before_digests_still_loads(saved: Path, random_policy: Build) -> None:
    rewrite(saved, lambda metadata, tensors: None)
    for name, parameter in load_policy(saved).policy.named_parameters():
        assert torch.equal(parameter, random_policy().get_parameter(name))


@pytest.mark.parametrize(
    "change",
    [
        lambda m, t: m["config"].update(num_heads=2),
        lambda m, t: m["vocabulary"].update(num_classes=4),
        lambda m, t: m["provenance"].update(identity_hash="ac"),
        lambda m, t: t["decoder.norm.bias"].add_(1e-3),
        lambda m, t: t.update(
            {
                "decoder.norm.bias": t["decoder.norm.scale"].clone(),
                "decoder.norm.scale": t["decoder.norm.bias"].clone(),
            }
        ),
    ],
)
def test_what_would_load_as_something_else_is_refused(
    saved: Path, change: Callable[..., None]
) -> None:
    rewrite(saved, change, has_digest=True)
    with pytest.raises(PolicyFileError, match=rf"policy {saved} is damaged: .*SHA-256 differs"):
        load_policy(saved)


def test_no_damage_to_a_byte_is_loaded_in_silence(tmp_path: Path) -> None:
    found = damage_many(tmp_path, range(400))
    assert sum(found.values()) == 400
    assert {what: number for what, number in found.items() if what not in GOOD} == {}
    # The same damage shows where there is no digest: it is a test of the digest.
    assert damage_many(tmp_path, range(100), has_digest=False)["silent"] > 5


def test_a_digest_whose_name_is_damaged_does_not_pass_for_none(saved: Path) -> None:
    rewrite(saved, lambda m, t: m.update(digesu=m.pop("digest")), has_digest=True)
    with pytest.raises(PolicyFileError, match="is damaged: metadata: digesu Extra inputs"):
        load_policy(saved)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("has_digest", [True, False])
def test_a_weight_that_is_not_finite_is_refused_by_its_name(
    tmp_path: Path, random_policy: Build, number: float, has_digest: bool
) -> None:
    policy, path = random_policy(), tmp_path / "p.safetensors"
    with torch.no_grad():
        policy.get_parameter("decoder.norm.bias")[3] = number
    save_policy(path, policy, vocabulary={}, provenance={})
    if not has_digest:
        rewrite(path, lambda metadata, tensors: None)
    with pytest.raises(PolicyFileError, match="not finite in 'decoder.norm.bias'") as raised:
        load_policy(path)
    assert str(path) in str(raised.value)


def test_a_garbled_header_is_damage(saved: Path) -> None:
    raw = bytearray(saved.read_bytes())
    raw[20:40] = b"\xff" * 20
    saved.write_bytes(raw)
    with pytest.raises(PolicyFileError, match="is damaged: its header is no valid JSON"):
        load_policy(saved)
    raw = bytearray(b"\x0d" + b"\0" * 7 + b'{"a": [1, 2]}')
    saved.write_bytes(raw)
    with pytest.raises(PolicyFileError, match="is damaged"):
        load_policy(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "captioning"}, 'task is "detection" instead of "captioning"'),
        ({"num_classes": 80}, "num_classes is 3 instead of 80"),
        (
            {"class_names": ["cat", "horse", "Käfer"]},
            r'class_names\[1\] is "dog" instead of "horse"',
        ),
        ({"class_names": ["cat"]}, "class_names has 3 entries instead of 1"),
        ({"words": {"a": 1}}, r'words is null instead of \{"a": 1\}'),
    ],
)
def test_another_vocabulary_is_refused_with_what_differs(
    change: dict[str, Any], message: str
) -> None:
    path = Path("some/policy.safetensors")
    needed = VOCABULARY | change
    with pytest.raises(PolicyFileError, match=message) as raised:
        check_vocabulary(VOCABULARY, needed, path)
    said = str(raised.value)
    assert (
        f"policy some/policy.safetensors speaks other tokens than task '{needed['task']}'" in said
    )
    assert "set policy.checkpoint to one trained for" in said


def test_the_same_vocabulary_is_accepted() -> None:
    check_vocabulary(VOCABULARY, json.loads(json.dumps(VOCABULARY)), Path("p"))


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Writes beyond it fail, as on a full disk; Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_error_and_leaves_the_old_policy(
    saved: Path, random_policy: Build
) -> None:
    before = saved.read_bytes()
    large = random_policy(width=256)
    with files_limited_to(1_000_000), pytest.raises(PolicyFileError) as raised:
        save_policy(saved, large, vocabulary=VOCABULARY, provenance=PROVENANCE)
    num_bytes = 4 * sum(parameter.numel() for parameter in large.parameters())
    said = str(raised.value)
    found = re.match(rf"cannot write policy {saved}, which needs (\d+) bytes: ", said)
    assert found is not None
    assert num_bytes < int(found[1]) < num_bytes + 2000
    assert "File too large" in said
    assert said.endswith("Make room or choose another folder; nothing was changed")
    assert names_under(saved.parent) == [saved.name]
    assert saved.read_bytes() == before
    save_policy(saved, large, vocabulary=VOCABULARY, provenance=PROVENANCE)
    assert load_policy(saved).policy.config.model_dump()["width"] == 256


def test_whoever_reads_the_old_policy_goes_on_reading_it(saved: Path, random_policy: Build) -> None:
    before = saved.read_bytes()
    with saved.open("rb") as reader:
        save_policy(saved, random_policy(seed=1), vocabulary={}, provenance={})
        assert reader.read() == before
    assert saved.read_bytes() != before


def test_a_writer_that_is_stopped_leaves_the_old_policy(
    saved: Path, random_policy: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def stop(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        save_policy(saved, random_policy(seed=1), vocabulary={}, provenance={})
    assert names_under(saved.parent) == [saved.name]
    assert saved.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path, random_policy: Build) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolicyFileError, match="cannot write policy"):
        save_policy(tmp_path / "file" / "p", random_policy(), vocabulary={}, provenance={})
    assert names_under(tmp_path) == ["file"]
