"""Groups follow from seed, ordinals and weights, whoever draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.datasets.order import DataOrder
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.datasets.view import ViewConfig
from rewardtune.policies.draw import Decoding
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.weights import pack_weights
from rewardtune.records import Group, Published
from rewardtune.tasks.task import load_task
from sampler.sampler import Sampler

PUBLISHED = Published(term=2, policy_version=7)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    output: Path = tmp_path_factory.mktemp("digits")
    write_digits(
        output,
        num_scenes={"train": 16, "holdout": 1, "validation": 1},
        style=SceneStyle(size=32, max_digits=3),
    )
    return open_dataset(output / "train")


def make_sampler(dataset: ShardDataset, *, seed: int = 1, is_loaded: bool = True) -> Sampler:
    task = load_task("detection", {"max_boxes": 3}, categories=dataset.categories)
    torch.manual_seed(0)
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=32,
            patch_size=8,
            width=32,
            num_heads=2,
            mlp_width=32,
            encoder_depth=1,
            decoder_depth=1,
            vocab_size=task.vocabulary.size,
            sequence_length=task.vocabulary.max_tokens,
        )
    )
    torch.nn.init.normal_(policy.decoder.head.project.kernel, std=0.1)
    weights = pack_weights(policy, dtype=torch.float32)
    sampler = Sampler(
        policy,
        task=task,
        dataset=dataset,
        order=DataOrder(len(dataset), seed, ViewConfig(min_scale=0.5, max_scale=1.5)),
        seed=seed,
        num_samples=4,
        decoding=Decoding(),
    )
    if is_loaded:
        sampler.load(weights, PUBLISHED)
    return sampler


def same(a: list[Group], b: list[Group]) -> bool:
    return all(
        x.ordinal == y.ordinal
        and x.view == y.view
        and np.array_equal(x.tokens_ST, y.tokens_ST)
        and np.array_equal(x.log_probs_ST, y.log_probs_ST)
        and np.array_equal(x.probe_log_probs_STQ, y.probe_log_probs_STQ)
        for x, y in zip(a, b, strict=True)
    )


def test_two_samplers_draw_the_same_groups(dataset: ShardDataset) -> None:
    first, second = make_sampler(dataset), make_sampler(dataset)
    first.sample(range(40, 48))  # what was drawn before does not matter
    assert same(first.sample(range(8, 16)).groups, second.sample(range(8, 16)).groups)


def test_another_seed_draws_other_groups(dataset: ShardDataset) -> None:
    first, second = make_sampler(dataset), make_sampler(dataset, seed=2)
    assert not same(first.sample(range(8)).groups, second.sample(range(8)).groups)


def test_tokens_do_not_depend_on_the_micro_batch_beyond_rounding(dataset: ShardDataset) -> None:
    """Batch shape may move the last bits of log-probs, but not which numbers decide the draws."""
    sampler = make_sampler(dataset)
    together = sampler.sample(range(8)).groups
    alone = [sampler.sample([ordinal]).groups[0] for ordinal in range(8)]
    agree = [np.array_equal(a.tokens_ST, b.tokens_ST) for a, b in zip(together, alone, strict=True)]
    assert sum(agree) >= 7


def test_rollouts_of_a_group_differ(dataset: ShardDataset) -> None:
    (group,) = make_sampler(dataset).sample([3]).groups
    assert len(np.unique(group.tokens_ST, axis=0)) == 4


def test_groups_are_stamped_with_what_is_loaded(dataset: ShardDataset) -> None:
    assert {group.published for group in make_sampler(dataset).sample(range(2)).groups} == {
        PUBLISHED
    }


def test_without_weights_nothing_is_drawn(dataset: ShardDataset) -> None:
    with pytest.raises(RuntimeError, match="no weights"):
        make_sampler(dataset, is_loaded=False).sample(range(2))


def test_weights_that_do_not_fit_leave_nothing_loaded(dataset: ShardDataset) -> None:
    sampler = make_sampler(dataset)
    with pytest.raises(ValueError, match="differ in"):
        sampler.load({}, Published(3, 0))
    assert sampler.loaded is None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_steps(dataset: ShardDataset) -> None:
    sampler = make_sampler(dataset)

    def resident_after(num_steps: int) -> int:
        for step in range(num_steps):
            sampler.sample(range(step * 8, step * 8 + 8))
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    warm = resident_after(30)
    assert resident_after(150) - warm < 4096  # kB; one step's groups alone are 100 kB
