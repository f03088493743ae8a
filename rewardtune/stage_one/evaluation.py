"""How well labels come through stage I: encoded to codes, decoded, and measured.

It is the most that a policy which speaks these codes can reach.

Axes: N pictures, H height, W width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.datasets.example import Dataset
from rewardtune.datasets.frame import Framed, Square
from rewardtune.records import View
from rewardtune.stage_one.batch import LabelledBatch, StageOneTask, labelled_batch
from rewardtune.tasks.colorization.definition import round_to_levels
from rewardtune.tasks.colorization.metric import colour_metrics, psnr
from rewardtune.tasks.panoptic.codec import in_image, segments_of
from rewardtune.tasks.panoptic.dataset_metric import dataset_metrics
from rewardtune.tasks.panoptic.files import segments_info
from rewardtune.tasks.uvim.config import COLOUR
from rewardtune.tasks.uvim.panoptic_map import decode_panoptic
from rewardtune.tasks.uvim.patches import join_channels
from rewardtune.tasks.uvim.stage_one import StageOne

_BATCH_SIZE = 50
VIEW = View()
"""Everything is measured on the whole image, unflipped: padded, unless a run's views say other."""


@torch.no_grad()
def reconstruction_metrics(
    network: StageOne,
    task: StageOneTask,
    dataset: Dataset,
    *,
    indices: Sequence[int],
    view: View = VIEW,
) -> dict[str, float]:
    """Figures of labels that went through the codes, the main one first.

    "panoptic": pq, sq, rq, pq_things, pq_stuff at the images' own sizes. "colorization": psnr of
    the input-sized picture, and its reward, vivid fraction and hue entropy.

    Args:
        view: of every picture: the whole of it, laid into the input as in training.

    Raises:
        ValueError: no examples.
    """
    if not indices:
        raise ValueError("evaluation needs at least one example: the data set is empty")
    measure = _panoptic if task == "panoptic" else _colours
    return measure(network, dataset, indices, view)


def _panoptic(
    network: StageOne, dataset: Dataset, indices: Sequence[int], view: View
) -> dict[str, float]:
    is_thing_C = np.array([category.is_thing for category in dataset.categories])
    maps: dict[int, NDArray[np.int64]] = {}
    results = []
    decoder, framing = network.decoder, Square(side=network.config.input_size)
    for rows, batch in _batches(network, "panoptic", dataset, indices, view):
        codewords = network.codebook.lookup(network.encode(batch.labels, batch.images_NHWC))
        state = decoder.states(codewords, decoder.context(batch.images_NHWC))
        for index, map_HW2 in zip(rows, decode_panoptic(decoder, state), strict=True):
            example = dataset.example(index)
            frame = Framed.of(example, view, framing).frame
            found, label_of = segments_of(
                in_image(map_HW2.cpu().numpy(), frame), is_thing_C=is_thing_C
            )
            category_ids = {i: dataset.categories[label].id for i, label in label_of.items()}
            maps[example.image_id] = found
            segments = segments_info(found, category_ids)
            results.append({"image_id": example.image_id, "segments_info": segments})
    return dataset_metrics(
        dataset, results, indices=indices, read_prediction=lambda record: maps[record["image_id"]]
    )


def _colours(
    network: StageOne, dataset: Dataset, indices: Sequence[int], view: View
) -> dict[str, float]:
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for _, batch in _batches(network, "colorization", dataset, indices, view):
        code = network.encode(batch.labels, batch.images_NHWC)
        output = network.decode(code, batch.images_NHWC)[COLOUR]
        found = round_to_levels(join_channels(output, network.config.patch_size).cpu().numpy())
        truth = round_to_levels(batch.labels[COLOUR].cpu().numpy())
        for picture, original in zip(found, truth, strict=True):
            metrics = colour_metrics(picture)
            figures["psnr"].append(psnr(picture, original))
            figures["reward"].append(metrics.reward)
            figures["vivid"].append(metrics.vivid)
            figures["entropy"].append(metrics.entropy)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _batches(
    network: StageOne, task: StageOneTask, dataset: Dataset, indices: Sequence[int], view: View
) -> Iterator[tuple[Sequence[int], LabelledBatch]]:
    device = _device(network)
    for start in range(0, len(indices), _BATCH_SIZE):
        rows = indices[start : start + _BATCH_SIZE]
        batch = labelled_batch(
            task,
            dataset,
            [(index, view) for index in rows],
            input_size=network.config.input_size,
        )
        yield rows, batch.rows(slice(None), device)


def _device(network: StageOne) -> torch.device:
    weights: Tensor = network.decoder.stem.kernel
    return weights.device
