"""Weights as bytes and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.weights import load_weights, pack_weights, packed_bytes, unpack_tensor
from rewardtune.records.weights import TensorLayout, UncheckedWeights, WeightBuffer, weights_digest

Build = Callable[..., EncoderDecoder]


class Odd(nn.Module):
    """Parameters of sizes that do not align, one of them empty, one transposed, one frozen."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.scalar = nn.Parameter(torch.randn(()))
        self.none = nn.Parameter(torch.empty(0, 3))
        self.turned = nn.Parameter(torch.randn(5, 3).t())
        self.frozen = nn.Parameter(torch.randn(7), requires_grad=False)
        self.head = nn.Linear(3, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_as_they_went(random_policy: Build, dtype: torch.dtype) -> None:
    policy, other = random_policy(), random_policy(seed=1)
    load_weights(other, pack_weights(policy, dtype=dtype))
    for name, parameter in policy.named_parameters():
        expected = parameter if "head" in name.split(".") else parameter.to(dtype).float()
        assert torch.equal(other.get_parameter(name), expected), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_odd_shapes_come_back_too(dtype: torch.dtype) -> None:
    module, other = Odd(), Odd(seed=1)
    packed = pack_weights(module, dtype=dtype)
    assert packed["none"].shape == (0, 3)
    assert packed["head.weight"].dtype == "float32"
    load_weights(other, packed)
    assert torch.equal(other.turned, module.turned.to(dtype).float())
    assert torch.equal(other.head.weight, module.head.weight)


def test_packed_weights_do_not_follow_the_module() -> None:
    module = Odd()
    before = module.frozen.clone()
    packed = pack_weights(module, dtype=torch.float32)
    with torch.no_grad():
        module.frozen.zero_()
    assert torch.equal(unpack_tensor(packed["frozen"]), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_that_is_used_again_gives_the_same_bytes(dtype: torch.dtype) -> None:
    module = Odd()
    fresh = pack_weights(module, dtype=dtype)
    used = np.full(packed_bytes(module, dtype=dtype), 0xAB, np.uint8)
    again = pack_weights(module, dtype=dtype, into=used)
    assert np.shares_memory(again.data_B, used)
    assert again.data_B.tobytes() == fresh.data_B.tobytes()
    assert weights_digest(again) == weights_digest(fresh)


def test_memory_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"need 320 bytes, the buffer has 100"):
        pack_weights(Odd(), dtype=torch.float32, into=np.empty(100, np.uint8))


def test_memory_that_cannot_be_written_to_is_read_without_a_warning() -> None:
    module, other = Odd(), Odd(seed=1)
    packed = pack_weights(module, dtype=torch.float32)
    packed.data_B.flags.writeable = False
    load_weights(other, WeightBuffer(packed.data_B, packed.layout))
    assert torch.equal(other.frozen, module.frozen)


def test_weights_of_another_shape_are_refused(random_policy: Build) -> None:
    packed = pack_weights(random_policy(), dtype=torch.float32)
    wider = random_policy(mlp_width=96)
    with pytest.raises(ValueError, match="should be .* but the weights hold"):
        load_weights(wider, packed)


class Damaged(Exception):
    pass


def unchecked(packed: WeightBuffer, *, digest: str) -> UncheckedWeights:
    return UncheckedWeights(packed.data_B, packed.layout, digest=digest, damaged=Damaged)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unchecked_weights_load_like_checked_ones(
    dtype: torch.dtype, num_threads: int, random_policy: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardtune.policies.weights.num_threads_of", lambda weights: num_threads)
    for module, other in ((Odd(), Odd(seed=1)), (random_policy(), random_policy(seed=1))):
        packed = pack_weights(module, dtype=dtype)
        load_weights(other, unchecked(packed, digest=weights_digest(packed)))
        assert pack_weights(other, dtype=dtype).data_B.tobytes() == packed.data_B.tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_changed_byte_anywhere_is_found_while_loading(
    num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardtune.policies.weights.num_threads_of", lambda weights: num_threads)
    module = nn.Sequential(nn.Linear(40, 60), nn.Linear(60, 30))
    packed = pack_weights(module, dtype=torch.float32)
    digest = weights_digest(packed)
    for at in range(0, len(packed.data_B), 97):
        packed.data_B[at] ^= 1
        with pytest.raises(Damaged):
            load_weights(module, unchecked(packed, digest=digest))
        packed.data_B[at] ^= 1
    load_weights(module, unchecked(packed, digest=digest))


@pytest.mark.parametrize("change", ["name", "shape", "dtype"])
def test_a_damaged_layout_is_damage_and_an_odd_module_is_not(change: str) -> None:
    module = nn.Linear(3, 2)
    packed = pack_weights(module, dtype=torch.float32)
    first, *others = packed.layout
    changed = {
        "name": TensorLayout("w", first.dtype, first.shape, 0, first.num_bytes),
        "shape": TensorLayout(first.name, first.dtype, (5, 7), 0, first.num_bytes),
        "dtype": TensorLayout(first.name, "floot32", first.shape, 0, first.num_bytes),
    }[change]
    damaged = WeightBuffer(packed.data_B, [changed, *others])
    with pytest.raises(Damaged):
        load_weights(module, unchecked(damaged, digest=weights_digest(packed)))
    with pytest.raises(ValueError, match="'weight' should be"):
        load_weights(nn.Linear(3, 3), unchecked(packed, digest=weights_digest(packed)))


def test_no_parameters_are_no_weights_but_have_a_digest() -> None:
    packed = pack_weights(nn.ReLU(), dtype=torch.float32)
    load_weights(nn.ReLU(), unchecked(packed, digest=weights_digest(packed)))
    with pytest.raises(Damaged):
        load_weights(nn.ReLU(), unchecked(packed, digest="another"))
