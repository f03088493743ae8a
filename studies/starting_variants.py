"""What ``studies.starting_points`` changes, one thing at a time.

Settings are changed as a user would. What no setting says is done to the fresh network: initial
values are written anew, a stem is put in place of the patches, tokens of a box change places.
Axes: L levels, D width, N images, T tokens, S rollouts, Q probed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rewardtune.datasets.frame import Framed
from rewardtune.layers.position import patches_alike
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.policy import Policy
from rewardtune.tasks.detection.codec import TOKENS_PER_BOX
from rewardtune.tasks.task import Task
from rewardtune.tasks.vocabulary import Vocabulary

Array = TypeVar("Array", bound=NDArray[Any])
Edit = Callable[[EncoderDecoder, Vocabulary], None]

RECIPE = "recipe"


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    changed: str
    overrides: tuple[str, ...] = ()
    edit: Edit | None = None
    layout: tuple[int, ...] | None = None
    """Places of y0, x0, y1, x1, class and confidence in the order in which they are drawn."""
    share_of_steps: float = 1.0

    def change(self, policy: Policy, vocabulary: Vocabulary) -> Policy:
        if self.edit is not None:
            # Apart from what the run draws: its other initial values stay as they are.
            with torch.random.fork_rng(devices=()), torch.no_grad():
                self.edit(cast("EncoderDecoder", policy), vocabulary)
        return policy


class Layout:
    """A detection task whose boxes are drawn in another order of tokens."""

    def __init__(self, task: Task, places: tuple[int, ...]) -> None:
        self._task = task
        steps = np.arange(task.vocabulary.max_tokens).reshape(-1, TOKENS_PER_BOX)
        self._order_T = steps[:, list(places)].ravel()
        self._plain_T = np.argsort(self._order_T)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def plain(self, values: Array) -> Array:
        """Values [N, T] of drawn tokens in the task's own order."""
        return cast("Array", values[:, self._plain_T])

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        return self._task.target_tokens(framed, rng=rng)[self._order_T]

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Any:
        return self._task.decode(self.plain(tokens_ST), framed)

    def predict(
        self,
        decoded: Any,
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        return self._task.predict(
            decoded,
            log_probs_T[self._plain_T],
            probe_log_probs_TQ[self._plain_T],
            framed,
            score_rule=score_rule,
        )


class Stem(nn.Module):
    """Two overlapping convolutions in place of patches: an 8 x 8 grid of 48 pixels."""

    GRID = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width // 2, 7, stride=3, padding=3)
        self.norm = nn.LayerNorm(width // 2)
        self.second = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        for convolution in (self.first, self.second):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            convolution.bias.zero_()  # type: ignore[union-attr]
        self.kernel = self.second.weight
        """By which the encoder tells its dtype."""

    def forward(self, images_NHWC: Tensor) -> Tensor:
        x = self.first.forward(images_NHWC.movedim(-1, 1))
        x = F.gelu(self.norm.forward(x.movedim(1, -1))).movedim(-1, 1)
        return self.second.forward(x).flatten(2).transpose(1, 2)


def _stem(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    width = policy.config.width
    policy.patch_embedding = Stem(width)  # type: ignore[assignment]
    policy.position_embedding = nn.Parameter(patches_alike(Stem.GRID, width))


def _noise_positions(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    for embedding in (policy.position_embedding, policy.decoder.position_embedding):
        embedding.normal_(std=1 / math.sqrt(policy.config.width))


def _levels_apart(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    _random_embedding(policy, vocabulary)
    _blank_head(policy, vocabulary)


def _random_embedding(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    for run in vocabulary.levels:
        policy.decoder.token_embedding[run.start : run.stop].normal_()


def _blank_head(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    policy.decoder.head.project.kernel.zero_()


def _small_embeddings(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    policy.decoder.token_embedding.mul_(0.05)
    policy.decoder.position_embedding.mul_(0.05)


def _xavier_attention(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    bound = math.sqrt(3.0 / policy.config.width)
    for name, parameter in policy.decoder.named_parameters():
        if "attention" in name and name.endswith("kernel"):
            parameter.uniform_(-bound, bound)


def _normal_linear(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    for name, parameter in policy.named_parameters():
        if name.endswith("kernel") and ".head." not in name:
            parameter.normal_(std=0.02)


def _large_patches(policy: EncoderDecoder, vocabulary: Vocabulary) -> None:
    # What pictures normalised by ImageNet's mean and deviation would give.
    policy.patch_embedding.kernel.mul_(2.2)


VARIANTS = (
    Variant(RECIPE, "nothing"),
    Variant(
        "before",
        "all of it: as detectors started before",
        ("task_options.box_order=random", "policy.position_embedding=sincos2d"),
        _levels_apart,
    ),
    Variant("random_order", "boxes in random order", ("task_options.box_order=random",)),
    Variant("levels_apart", "levels begin apart: N(0, 1), in the head 0", edit=_levels_apart),
    Variant("levels_apart_embedded", "the same in the embedding alone", edit=_random_embedding),
    Variant("levels_apart_head", "the same in the head alone", edit=_blank_head),
    Variant("small_embeddings", "embeddings of tokens and places 1/20", edit=_small_embeddings),
    Variant("positions_noise", "positions begin as noise, N(0, 1/D)", edit=_noise_positions),
    Variant(
        "positions_fixed",
        "positions fixed, temperature 10,000",
        ("policy.position_embedding=sincos2d",),
    ),
    Variant("xavier_attention", "decoder's attention Xavier-uniform", edit=_xavier_attention),
    Variant("normal_linear", "all linear layers N(0, 0.02)", edit=_normal_linear),
    Variant("large_patches", "patch embedding 2.2 times larger", edit=_large_patches),
    Variant("patches_of_6", "patches of 6: 8 x 8", ("policy.patch_size=6",)),
    Variant("stem", "two convolutions for patches: 8 x 8", edit=_stem),
    Variant("class_first", "class before coordinates", layout=(4, 0, 1, 2, 3, 5)),
    Variant("x_first", "x before y", layout=(1, 0, 3, 2, 4, 5)),
    Variant(
        "class_read_out",
        "class last, by a readout",
        ("policy.readout_every=6",),
        layout=(0, 1, 2, 3, 5, 4),
    ),
    Variant("rate_1e-3", "rate 1e-3", ("learner.optimizer.learning_rate=1e-3",)),
    Variant("rate_4e-3", "rate 4e-3", ("learner.optimizer.learning_rate=4e-3",)),
    Variant("warmup_50", "warmup of 50", ("learner.schedule.warmup=50",)),
    Variant(
        "batches_of_64",
        "batches of 64, half the steps",
        ("learner.batch_size=64", "learner.micro_batch=64", "learner.schedule.warmup=100"),
        share_of_steps=0.5,
    ),
)
