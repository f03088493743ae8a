"""Panoptic matching beside the packages that compute panoptic quality: one thread each.

Processor time, because the machine is shared. The maps are the 480 x 640 ones of the shared data
(real instances on a made background), or made ones where those are not there.

Axes: N pairs, H height, W width, G target labels, P predicted labels, C categories.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Before hotcoco starts its threads.
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from bench.figure import Figure, figure
from bench.rewards.panoptic_pairs import SIZE, PairFiles, Pairs, made_pairs, real_pairs, repeated
from rewardtune.datasets.example import Segment
from rewardtune.tasks.panoptic.definition import Counts, mean_quality
from rewardtune.tasks.panoptic.labels import labels_of_ids
from rewardtune.tasks.panoptic.matching import (
    NO_CATEGORY,
    BatchCounts,
    TargetTable,
    match_ids,
    match_labels,
    warm_up,
)
from rewardtune.tasks.panoptic.metric import panoptic_metrics
from rewardtune.tasks.panoptic.reward import PanopticTarget, panoptic_reward

NUM_SAMPLES = 8


def panoptic(*, is_quick: bool) -> Iterator[Figure]:
    """Pairs per second from labels, from ids, per group and from PNG files.

    Raises:
        AssertionError: a peer's panoptic quality is not ours.
    """
    pairs = repeated(real_pairs() or made_pairs(num=15), num=30 if is_quick else 60)
    num_rounds = 3 if is_quick else 7
    warm_up()
    labels, ids = _ours_of_labels(pairs), _ours_of_ids(pairs)
    groups, targets = _ours_by_groups(pairs)
    ways: dict[str, Callable[[], object]] = {
        "labels": labels,
        "ids": ids,
        "groups": groups,
        "targets": targets,
        "floor of labels": _reading(np.uint8, len(pairs)),
        "floor of ids": _reading(np.uint32, len(pairs)),
    }
    expected = _quality(labels(), len(pairs.categories))
    assert abs(_quality(ids(), len(pairs.categories)) - expected) < 1e-9

    with TemporaryDirectory() as folder:
        files = PairFiles.write(pairs, Path(folder))
        peers = _peers(pairs, files)
        with_answer = {"files": _ours_of_files(files), **peers}
        for name, way in with_answer.items():
            assert abs(way() - expected) < 1e-9, f"{name} disagrees"
        ways |= with_answer
        seconds = _processor_seconds(ways, num_rounds=num_rounds)

    handed_over = {name: seconds[name] for name in peers if name != PREPARED}
    fastest = min(handed_over, key=handed_over.__getitem__, default=None)

    def of(name: str, way: str, *, peer: str | None, floor: str | None = None) -> Figure:
        return figure(
            name,
            seconds[way],
            amount=len(pairs) * (NUM_SAMPLES if way == "groups" else 1),
            unit="pairs/s",
            peer=peer,
            peer_seconds=None if peer is None else seconds[peer],
            floor_seconds=None if floor is None else seconds[floor],
        )

    yield of("reward.panoptic", "labels", peer=fastest, floor="floor of labels")
    yield of("reward.panoptic.ids", "ids", peer=fastest, floor="floor of ids")
    if PREPARED in peers:
        yield of("reward.panoptic.handed_over", "labels", peer=HANDED_OVER)
        yield of("reward.panoptic.ids.prepared", "ids", peer=PREPARED, floor="floor of ids")
    yield of("reward.panoptic.files", "files", peer=HOTCOCO if HOTCOCO in peers else None)
    yield of("reward.panoptic.groups", "groups", peer=None)
    yield of("reward.panoptic.targets", "targets", peer=None)
    yield from _beside_torchmetrics(pairs, seconds["labels"] / len(pairs))
    noise = _noise(num=8)
    taken = _processor_seconds({"noise": noise}, num_rounds=num_rounds)["noise"]
    yield figure("reward.panoptic.noise", taken, amount=8, unit="pairs/s")


# --- ours ------------------------------------------------------------------------------------


def _tables(
    lists: Sequence[Sequence[Mapping[str, Any]]], index_of: Mapping[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.bool_], NDArray[np.float64]]:
    """Ids, categories, crowds and areas of all lists, void in front, padded to one length."""
    shape = (len(lists), max(len(segments) for segments in lists) + 1)
    id_NG = np.full(shape, -1, dtype=np.int64)
    id_NG[:, 0] = 0
    category_NG = np.full(shape, NO_CATEGORY, dtype=np.int32)
    is_crowd_NG = np.zeros(shape, dtype=np.bool_)
    area_NG = np.zeros(shape)
    for n, segments in enumerate(lists):
        for g, segment in enumerate(segments, start=1):
            id_NG[n, g] = segment["id"]
            category_NG[n, g] = index_of[segment["category_id"]]
            is_crowd_NG[n, g] = segment.get("iscrowd", 0)
            area_NG[n, g] = segment.get("area", 0)
    return id_NG, category_NG, is_crowd_NG, area_NG


def _ours_of_ids(pairs: Pairs) -> Callable[[], BatchCounts]:
    """Maps of ids as they stand in memory; all but the two tables is done anew each time."""
    index_of = {category["id"]: k for k, category in enumerate(pairs.categories)}
    target_id_NG, category_NG, is_crowd_NG, area_NG = _tables(pairs.targets, index_of)
    predicted_id_NP, predicted_category_NP, _, _ = _tables(pairs.predictions, index_of)
    table = TargetTable(category_NG, is_crowd_NG, area_NG)
    image_N = np.arange(len(pairs))
    is_merged_C = np.zeros(len(index_of), dtype=np.bool_)
    return lambda: match_ids(
        pairs.target_id_NHW,
        target_id_NG,
        table,
        pairs.predicted_id_NHW,
        predicted_id_NP,
        predicted_category_NP,
        image_N,
        is_merged_C=is_merged_C,
    )


def _ours_of_labels(pairs: Pairs) -> Callable[[], BatchCounts]:
    """Maps of labels, the target's prepared before as rewards have them."""
    index_of = {category["id"]: k for k, category in enumerate(pairs.categories)}
    target_id_NG, category_NG, is_crowd_NG, area_NG = _tables(pairs.targets, index_of)
    predicted_id_NP, predicted_category_NP, _, _ = _tables(pairs.predictions, index_of)
    # A place for the ids that are painted but not listed.
    padding = ((0, 0), (0, 1))
    table = TargetTable(
        np.pad(category_NG, padding, constant_values=NO_CATEGORY),
        np.pad(is_crowd_NG, padding),
        np.pad(area_NG, padding),
    )
    target_NHW = np.stack(
        [labels_of_ids(m, ids)[0] for m, ids in zip(pairs.target_id_NHW, target_id_NG, strict=True)]
    )
    predicted_NHW = np.stack(
        [
            labels_of_ids(m, ids)[0]
            for m, ids in zip(pairs.predicted_id_NHW, predicted_id_NP, strict=True)
        ]
    )
    image_N = np.arange(len(pairs))
    is_merged_C = np.zeros(len(index_of), dtype=np.bool_)
    return lambda: match_labels(
        target_NHW, table, predicted_NHW, predicted_category_NP, image_N, is_merged_C=is_merged_C
    )


def _ours_by_groups(pairs: Pairs) -> tuple[Callable[[], object], Callable[[], object]]:
    """The reward of each image's samples in a call of its own, and preparing its target."""
    index_of = {category["id"]: k for k, category in enumerate(pairs.categories)}
    is_thing_C = np.array([bool(category["isthing"]) for category in pairs.categories])
    segments = [
        [
            Segment(s["id"], index_of[s["category_id"]], s["area"], bool(s["iscrowd"]))
            for s in listed
        ]
        for listed in pairs.targets
    ]
    predicted_id_NP, category_NP, _, _ = _tables(pairs.predictions, index_of)
    groups = []
    for n in range(len(pairs)):
        label_HW, _ = labels_of_ids(pairs.predicted_id_NHW[n], predicted_id_NP[n])
        groups.append(
            (
                np.repeat(label_HW[None], NUM_SAMPLES, axis=0),
                np.repeat(category_NP[n : n + 1], NUM_SAMPLES, axis=0),
                PanopticTarget.of(pairs.target_id_NHW[n], segments[n]),
            )
        )

    def score() -> None:
        for label_SHW, category_SP, target in groups:
            panoptic_reward(label_SHW, category_SP, target, is_thing_C=is_thing_C)

    def prepare() -> None:
        for id_HW, listed in zip(pairs.target_id_NHW, segments, strict=True):
            PanopticTarget.of(id_HW, listed)

    return score, prepare


def _ours_of_files(files: PairFiles) -> Callable[[], float]:
    def score() -> float:
        metrics = panoptic_metrics(
            files.target, files.target_folder, files.predicted, files.predicted_folder
        )
        return float(metrics["All"]["pq"])

    return score


def _quality(counts: BatchCounts, num_categories: int) -> float:
    each = [
        Counts(
            float(counts.matched_iou_SC[:, c].sum()),
            int(counts.true_positives_SC[:, c].sum()),
            int(counts.false_positives_SC[:, c].sum()),
            int(counts.false_negatives_SC[:, c].sum()),
        )
        for c in range(num_categories)
    ]
    mean, _ = mean_quality(each)
    assert mean is not None
    return mean.pq


def _noise(*, num: int) -> Callable[[], object]:
    """The worst that can be asked for: a change at nearly every pixel, 16 labels a side."""
    maps = np.random.default_rng(0).integers(16, size=(2, num, *SIZE), dtype=np.uint8)
    category_NP = np.tile(np.arange(16, dtype=np.int32) - 1, (num, 1))
    table = TargetTable(category_NP, np.zeros((num, 16), np.bool_), np.full((num, 16), 19200.0))
    image_N, is_merged_C = np.arange(num), np.zeros(16, dtype=np.bool_)
    return lambda: match_labels(
        maps[0], table, maps[1], category_NP, image_N, is_merged_C=is_merged_C
    )


def _reading(dtype: type[np.unsignedinteger[Any]], num: int) -> Callable[[], object]:
    """What nobody can go below: reading both maps of each pair once."""
    maps = np.ones((2, num, *SIZE), dtype=dtype).reshape(2, num, -1).view(np.uint64)
    return lambda: [maps[side, n].sum() for n in range(num) for side in range(2)]


# --- peers -------------------------------------------------------------------------

HANDED_OVER = "vernier, predictions handed over each time"
PREPARED = "vernier, both maps handed over before"
HOTCOCO = "hotcoco, from PNG"


def _peers(pairs: Pairs, files: PairFiles) -> dict[str, Callable[[], float]]:
    """The installed ones; each returns its panoptic quality over all categories."""
    ways: dict[str, Callable[[], float]] = {}
    try:
        from vernier import panoptic as vernier
    except ModuleNotFoundError:
        pass
    else:
        target_info, predicted_info = (
            json.dumps(dict(enumerate(lists))).encode()
            for lists in (pairs.targets, pairs.predictions)
        )
        evaluator = vernier.Evaluator(parity_mode="strict")
        target = vernier.Dataset.from_arrays(
            dict(enumerate(pairs.target_id_NHW)),
            target_info,
            json.dumps(list(pairs.categories)).encode(),
        )
        predicted_maps = dict(enumerate(pairs.predicted_id_NHW))
        prepared = vernier.Predictions.from_arrays(predicted_maps, predicted_info)

        def handed_over() -> float:
            predicted = vernier.Predictions.from_arrays(predicted_maps, predicted_info)
            return float(evaluator.evaluate(target, predicted, num_threads=1).pq)

        ways[HANDED_OVER] = handed_over
        ways[PREPARED] = lambda: float(evaluator.evaluate(target, prepared, num_threads=1).pq)
    try:
        from hotcoco.panoptic import PanopticEval
    except ModuleNotFoundError:
        pass
    else:

        def from_png() -> float:
            evaluation = PanopticEval(
                files.target, files.predicted, gt_folder=files.target_folder,
                pred_folder=files.predicted_folder,
            )  # fmt: skip
            evaluation.evaluate()
            return float(evaluation.results()["All"]["pq"])

        ways[HOTCOCO] = from_png
    return ways


def _beside_torchmetrics(pairs: Pairs, seconds_per_pair: float) -> Iterator[Figure]:
    """One pair, which takes it more than a second. Its matching is not the official one."""
    try:
        import torch
        from torchmetrics.detection import PanopticQuality
    except ModuleNotFoundError:
        return
    things = {c["id"] for c in pairs.categories if c["isthing"]}
    stuff = {c["id"] for c in pairs.categories} - things
    metric = PanopticQuality(things=things, stuffs=stuff, allow_unknown_preds_category=True)
    sides = []
    for id_HW, segments in (
        (pairs.predicted_id_NHW[0], pairs.predictions[0]),
        (pairs.target_id_NHW[0], pairs.targets[0]),
    ):
        map_HW2 = np.zeros((*id_HW.shape, 2), dtype=np.int64)
        for segment in segments:
            map_HW2[id_HW == segment["id"]] = segment["category_id"], segment["id"]
        sides.append(torch.from_numpy(map_HW2[None]))
    taken = _processor_seconds({"peer": lambda: metric.update(*sides)}, num_rounds=1)["peer"]
    yield figure(
        "reward.panoptic.torchmetrics",
        seconds_per_pair,
        amount=1,
        unit="pairs/s",
        peer="torchmetrics PanopticQuality, which matches otherwise",
        peer_seconds=taken,
    )


def _processor_seconds(
    ways: Mapping[str, Callable[[], object]], *, num_rounds: int
) -> dict[str, float]:
    """Median processor time of each way, all threads together, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            taken[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in taken.items()}
