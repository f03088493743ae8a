"""Drawing the groups of consecutive ordinals.

Axes: G groups, S rollouts, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rewardtune.datasets.example import Dataset
from rewardtune.datasets.order import DataOrder, OrderEntry
from rewardtune.policies.draw import Decoding, uniforms
from rewardtune.policies.policy import Policy, Samples
from rewardtune.policies.weights import load_weights
from rewardtune.records import Group, PackedWeights, Published, WeightManifest
from rewardtune.tasks.batch import images_in_view
from rewardtune.tasks.task import Task
from sampler.canary import check_canary


@dataclass(frozen=True, slots=True)
class Drawn:
    """One micro-batch, and what parts of it took."""

    groups: list[Group]
    images_seconds: float
    """Opening the pictures."""
    encode_seconds: float


class Sampler:
    """A policy of its own, drawing what the data order names.

    What it draws is a function of the run's seed, the ordinals and the loaded weights, and of
    how many ordinals it is handed at once: batch shape moves bits.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        task: Task,
        dataset: Dataset,
        order: DataOrder,
        seed: int,
        num_samples: int,
        decoding: Decoding,
    ) -> None:
        """Take ``policy`` over; its weights are replaced by ``load``."""
        self._policy = policy
        self._task = task
        self._dataset = dataset
        self._order = order
        self._seed = seed
        self._num_samples = num_samples
        self._decoding = decoding
        self._loaded: Published | None = None

    @property
    def loaded(self) -> Published | None:
        """The weights in use."""
        return self._loaded

    def load(self, weights: PackedWeights, published: Published) -> None:
        self._loaded = None  # a load that fails half way leaves nothing usable
        load_weights(self._policy, weights)
        self._loaded = published

    def check_canary(self, manifest: WeightManifest) -> float:
        """Largest error in a log-prob of the canary that was published with the loaded weights.

        Raises:
            DamagedWeights: it is too large; nothing is loaded any more.
        """
        if manifest.canary is None:
            return 0.0
        loaded, self._loaded = self._loaded, None
        error = check_canary(
            self._policy, manifest, self._images(self._entries(manifest.canary.ordinals))
        )
        self._loaded = loaded
        return error

    def _entries(self, ordinals: Sequence[int]) -> list[OrderEntry]:
        return [self._order.entry(ordinal) for ordinal in ordinals]

    def _images(self, entries: Sequence[OrderEntry]) -> torch.Tensor:
        images_GHWC = images_in_view(
            self._dataset,
            [(entry.example, entry.view) for entry in entries],
            task=self._task,
            framing=self._policy.framing,
        )
        return torch.from_numpy(images_GHWC)

    def sample(self, ordinals: Sequence[int]) -> Drawn:
        """Draw one micro-batch.

        Raises:
            RuntimeError: no weights are loaded.
        """
        if self._loaded is None:
            raise RuntimeError("the sampler has no weights: load some before sampling")
        started = time.perf_counter()
        entries = self._entries(ordinals)
        images_GHWC = self._images(entries)
        images_seconds = time.perf_counter() - started
        parameter = next(self._policy.parameters())
        samples = self._policy.sample(
            images_GHWC.to(parameter.device),
            self._uniforms(ordinals).to(parameter.device),
            decoding=self._decoding,
            probe_tokens=self._task.vocabulary.probe_tokens,
            stop_tokens=self._task.vocabulary.stop_tokens,
        )
        return Drawn(
            groups=_groups(ordinals, entries, samples, self._loaded),
            images_seconds=images_seconds,
            encode_seconds=samples.encode_seconds,
        )

    def _uniforms(self, ordinals: Sequence[int]) -> torch.Tensor:
        num_groups, num_samples = len(ordinals), self._num_samples
        uniforms_NT = uniforms(
            seed=self._seed,
            ordinals_N=torch.tensor(ordinals).repeat_interleave(num_samples),
            rollouts_N=torch.arange(num_samples).repeat(num_groups),
            sequence_length=self._policy.sequence_length,
        )
        uniforms_GST: torch.Tensor = uniforms_NT.unflatten(0, (num_groups, num_samples))
        return uniforms_GST


def _groups(
    ordinals: Sequence[int],
    entries: Sequence[OrderEntry],
    samples: Samples,
    published: Published,
) -> list[Group]:
    tokens_GST = samples.tokens_GST.cpu().numpy()
    log_probs_GST = samples.log_probs_GST.cpu().numpy()
    probe_log_probs_GSTQ = samples.probe_log_probs_GSTQ.cpu().numpy()
    return [
        Group(
            ordinal=ordinal,
            example=entry.example,
            view=entry.view,
            published=published,
            tokens_ST=tokens_GST[row],
            log_probs_ST=log_probs_GST[row],
            probe_log_probs_STQ=probe_log_probs_GSTQ[row],
        )
        for row, (ordinal, entry) in enumerate(zip(ordinals, entries, strict=True))
    ]
