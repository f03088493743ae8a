"""The tutorial's task: what its parts promise."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keypoints.codec import KeypointCodec
from keypoints.oks import matched_similarity, similarity
from keypoints.points import POINTS, annotated_objects
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

import rewardtune
from reward_workers.scoring.digest import ScorerSettings, reward_digest, scoring_sources
from rewardtune.datasets.coco.instances import coco_instances
from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.frame import Framed, Square
from rewardtune.records import View
from rewardtune.reward_lab.check import check_reward
from rewardtune.reward_lab.probes import probe_for
from rewardtune.tasks.task import PicturedTask, Task, load_task
from tests.rewardtune.tasks.rollouts import predicted, scored

# pycocotools decodes masks by a call that numpy 2 will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TASKS = Path(__file__).parents[2] / "examples" / "tasks"
CATEGORIES = (Category(1, "ring"), Category(7, "bar"))
SIZE = 40
CODEC = KeypointCodec(num_classes=2, max_objects=3, num_levels=SIZE)
FLIPPED = View(flip=True)


def task(**options: Any) -> Task:
    options = {"max_objects": 3, "num_levels": SIZE, **options}
    return load_task("keypoints", options, categories=CATEGORIES)


def example_of(masks: list[NDArray[np.bool_]], *, crowd: tuple[int, ...] = ()) -> Example:
    """Rings and bars in turn."""
    file = BytesIO()
    Image.new("RGB", (SIZE, SIZE)).save(file, "png")
    number = np.arange(len(masks))
    return Example(
        image_id=3,
        file_name="3.png",
        height=SIZE,
        width=SIZE,
        image=file.getvalue(),
        xywh_N4=np.zeros((len(masks), 4)),
        category_N=number % 2,
        area_N=np.array([float(mask.sum()) for mask in masks]),
        is_crowd_N=np.isin(number, crowd),
        annotation_id_N=number + 1,
        segmentation_N=tuple(run_lengths(mask) for mask in masks),
    )


def run_lengths(mask_HW: NDArray[np.bool_]) -> str:
    rle = coco_mask.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    return json.dumps({"size": rle["size"], "counts": rle["counts"].decode()})


def block(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    """The last row and column are part of it."""
    mask_HW = np.zeros((SIZE, SIZE), dtype=bool)
    mask_HW[top : bottom + 1, left : right + 1] = True
    return mask_HW


TWO = example_of([block(20, 22, 30, 26), block(4, 3, 9, 15)])


def test_the_points_are_where_the_mask_ends() -> None:
    mask_HW = np.zeros((SIZE, SIZE), dtype=bool)
    mask_HW[2, [5, 6, 7]] = mask_HW[10, 9] = mask_HW[6, 1] = mask_HW[8, 20] = True
    (points_K2,) = annotated_objects(example_of([mask_HW])).xy_NK2
    assert dict(zip(POINTS, points_K2.tolist(), strict=True)) == {
        "top": [6.5, 2.5],
        "left": [1.5, 6.5],
        "bottom": [9.5, 10.5],
        "right": [20.5, 8.5],
    }


def test_polygons_and_run_lengths_say_the_same() -> None:
    polygon = "[[3, 4, 16, 4, 16, 10, 3, 10]]"
    counts = [0, 0]
    flat = block(4, 3, 9, 15).T.ravel()  # column by column
    counts = [int(n) for n in np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size])]
    plain = json.dumps({"size": [SIZE, SIZE], "counts": counts})
    told = [replace(TWO, segmentation_N=(text, TWO.segmentation_N[1])) for text in (polygon, plain)]
    for example in told:
        np.testing.assert_array_equal(
            annotated_objects(example).xy_NK2[0], annotated_objects(TWO).xy_NK2[1]
        )


def test_crowds_and_objects_without_a_mask_are_left_out() -> None:
    nothing = np.zeros((SIZE, SIZE), dtype=bool)
    example = example_of([block(1, 1, 5, 5), nothing, block(9, 9, 12, 12)], crowd=(0,))
    assert annotated_objects(example).category_N.tolist() == [0]
    np.testing.assert_array_equal(annotated_objects(example).xy_NK2[0, 0], [11, 9.5])


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(0, SIZE - 1), min_size=8, max_size=8)),
        max_size=5,
    )
)
def test_what_is_encoded_is_decoded_from_left_to_right(
    objects: list[tuple[int, list[int]]],
) -> None:
    category_N = np.array([category for category, _ in objects], dtype=np.int64)
    levels_NK2 = np.array([levels for _, levels in objects]).reshape(-1, 4, 2)
    found = list(CODEC.decode(CODEC.encode(category_N, (levels_NK2 + 0.5) / SIZE)))
    kept = sorted(range(len(objects)), key=lambda n: levels_NK2[n, 1, 1])[: CODEC.max_objects]
    assert [each.category for each in found] == [objects[n][0] for n in kept]
    for each, n in zip(found, kept, strict=True):
        np.testing.assert_allclose(each.yx_K2, (levels_NK2[n] + 0.5) / SIZE)


@given(
    st.lists(
        st.integers(0, CODEC.vocab_size - 1),
        min_size=CODEC.sequence_length,
        max_size=CODEC.sequence_length,
    )
)
def test_any_tokens_at_all_decode_score_and_predict(tokens: list[int]) -> None:
    tokens_T = np.array(tokens, dtype=np.int32)
    made = task()
    score = scored(made, tokens_T[None], Framed.of(TWO, View(), Square(side=SIZE)))
    (decoded,) = made.decode(tokens_T[None], Framed.of(TWO, View(), Square(side=SIZE)))
    assert -0.3 * CODEC.max_objects <= score.reward_S[0] <= 2
    assert score.components["objects"][0] == len(decoded) <= CODEC.max_objects
    assert len(records_of(made, tokens_T, TWO)) == len(decoded)


def records_of(made: Task, tokens_T: NDArray[np.int32], example: Example) -> list[dict[str, Any]]:
    zeros_T = np.zeros(len(tokens_T), dtype=np.float32)
    framed = Framed.of(example, View(), Square(side=SIZE))
    return predicted(made, tokens_T, zeros_T, zeros_T[:, None][:, :0], framed, score_rule="object")


def test_similarity_is_coco_s_own() -> None:
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    annotated, guess = rng.uniform(0, 40, (3, 4, 2)), rng.uniform(0, 40, (5, 4, 2))
    guess[:3] = annotated + rng.normal(0, 2, annotated.shape)
    area_N = rng.uniform(20, 200, 3)
    evaluation = COCOeval(iouType="keypoints")
    evaluation.params.imgIds, evaluation.params.catIds = [1], [1]
    evaluation.params.kpt_oks_sigmas = np.full(4, 0.1)
    flat = [[n for x, y in each for n in (x, y, 2)] for each in (*annotated, *guess)]
    evaluation._gts[1, 1] = [
        {"keypoints": flat[n], "area": area_N[n], "bbox": [0, 0, 9, 9]} for n in range(3)
    ]
    evaluation._dts[1, 1] = [{"keypoints": each, "score": -n} for n, each in enumerate(flat[3:])]
    np.testing.assert_allclose(
        similarity(guess, annotated, area_N, sigma=0.1), evaluation.computeOks(1, 1), rtol=1e-9
    )


def test_the_best_pair_of_a_class_is_matched_first_and_nothing_twice() -> None:
    oks_MN = np.array([[0.6, 0.9], [0.8, 0.95], [1.0, 1.0]])
    matched_M = matched_similarity(oks_MN, np.array([0, 0, 1]), np.array([0, 0]))
    assert matched_M.tolist() == [0.6, 0.95, 0.0]


@pytest.mark.parametrize("view", [View(), FLIPPED, View(scale=0.8, offset_y=0.5, offset_x=0.2)])
def test_perfect_tokens_earn_every_object_whatever_the_view(view: View) -> None:
    made = task(num_levels=400)
    tokens_T = made.target_tokens(
        Framed.of(TWO, view, Square(side=80)), rng=np.random.default_rng(0)
    )
    empty_T = np.zeros_like(tokens_T)
    twice_T = np.concatenate([tokens_T[:9], tokens_T[:9], tokens_T[9:18]])
    rolled_ST = np.stack([tokens_T, empty_T, twice_T])
    perfect, empty, doubled = scored(
        made, rolled_ST, Framed.of(TWO, view, Square(side=80))
    ).reward_S
    assert perfect == pytest.approx(2, abs=0.02)
    assert empty == 0
    assert doubled == pytest.approx(perfect - 0.3)
    (bar, ring), *_ = made.decode(tokens_T[None], Framed.of(TWO, view, Square(side=80)))
    if view.flip:
        bar, ring = ring, bar
    assert (bar.name, ring.name) == ("bar", "ring")
    assert ring.points["left"] == pytest.approx((22.5, 25.5), abs=0.2)
    assert ring.points["right"] == pytest.approx((26.5, 25.5), abs=0.2)
    assert bar.points["bottom"] == pytest.approx((9.5, 9.5), abs=0.2)


def test_an_object_that_the_view_cuts_is_not_asked_for() -> None:
    made = task()
    view = View(scale=2.0, offset_y=1.0, offset_x=1.0)  # the lower right quarter: the ring's
    tokens_T = made.target_tokens(
        Framed.of(TWO, view, Square(side=SIZE)), rng=np.random.default_rng(0)
    )
    assert (tokens_T[0], tokens_T[9]) == (1, 0)


class _Two:
    """A data set of one image."""

    digest = ""
    categories = CATEGORIES

    def __len__(self) -> int:
        return 1

    def example(self, index: int) -> Example:
        return TWO


def test_perfect_results_have_an_ap_of_1_and_none_of_0() -> None:
    made = task(num_levels=400)
    tokens_T = made.target_tokens(
        Framed.of(TWO, View(), Square(side=SIZE)), rng=np.random.default_rng(0)
    )
    records = records_of(made, tokens_T, TWO)
    assert {record["category_id"] for record in records} == {1, 7}
    assert made.evaluate(records, _Two(), indices=[0])["ap"] == pytest.approx(1)
    half = made.evaluate(records[:1], _Two(), indices=[0])
    assert half["ar"] == pytest.approx(0.5) and half["objects_per_image"] == 1
    assert made.evaluate([], _Two(), indices=[0])["ap"] == 0


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_results_file_scores_as_the_task_evaluates_it(tmp_path: Path) -> None:
    made = task()
    rng = np.random.default_rng(0)
    tokens_T = made.target_tokens(Framed.of(TWO, View(), Square(side=SIZE)), rng=rng)
    tokens_T[1:9] = np.minimum(tokens_T[1:9] + rng.integers(4, size=8), CODEC.vocab_size - 1)
    records = records_of(made, tokens_T, TWO)
    evaluated = made.evaluate(records, _Two(), indices=[0])
    assert 0 < evaluated.pop("ap") < 1 and evaluated.pop("objects_per_image") == 2
    results = write(tmp_path / "results.json", records)
    truth = write(tmp_path / "instances.json", coco_instances(_Two(), [0]))
    scored = rewardtune.score("keypoints", results, annotations=truth)
    assert scored == {**evaluated, "ap": scored["ap"]}
    assert scored["ap"] == made.evaluate(records, _Two(), indices=[0])["ap"]
    strict = rewardtune.score("keypoints", results, annotations=truth, sigma=0.01)
    assert strict["ap"] < scored["ap"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": [1, 2, 2]}, "keypoints = [1, 2, 2]: it must be 12 numbers"),
        ({"score": None}, "record 1 has score = null"),
        ({"image_id": 4}, "results.json speaks of image 4"),
    ],
)
def test_results_files_that_are_broken_are_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    record = {"image_id": 3, "category_id": 1, "keypoints": [0.0] * 12, "score": 0.5}
    results = write(tmp_path / "results.json", [{**record, **change}])
    truth = write(tmp_path / "instances.json", coco_instances(_Two(), [0]))
    with pytest.raises(ValueError, match=re.escape(message)):
        rewardtune.score("keypoints", results, annotations=truth)


def test_the_probe_s_predictions_keep_every_rule() -> None:
    options = {"max_objects": 6, "num_levels": 400}
    report = check_reward(
        probe_for("keypoints", _Two(), options=options), _Two(), indices=[0], num_samples=4
    )
    assert report.violations == ()
    reward = {kind: figures.reward for kind, figures in report.kinds.items()}
    assert list(reward) == ["perfect", "shuffled", "duplicated", "jittered", "random", "empty"]
    assert reward["perfect"] == reward["shuffled"] == pytest.approx(2, abs=0.01)
    assert reward["duplicated"] == pytest.approx(reward["perfect"] - 0.6)
    assert reward["empty"] == 0 and reward["random"] < reward["jittered"] < reward["perfect"]


def test_the_probe_tells_a_reward_that_pays_twice_for_one_object() -> None:
    probe = probe_for(
        "keypoints", _Two(), options={"max_objects": 6}, custom=f"{__name__}:number_of_objects"
    )
    report = check_reward(probe, _Two(), indices=[0], num_samples=4)
    assert {violation.rule for violation in report.violations} == {"doubled object"}


def number_of_objects(predictions: list[list[Any]], example: Example) -> list[float]:
    return [float(len(objects)) for objects in predictions]


def test_predictions_are_drawn_where_they_are() -> None:
    made = task()
    assert isinstance(made, PicturedTask)
    tokens_T = made.target_tokens(
        Framed.of(TWO, View(), Square(side=SIZE)), rng=np.random.default_rng(0)
    )
    nothing, annotation, prediction = (
        made.paint(TWO, records) for records in ([], None, records_of(made, tokens_T, TWO))
    )
    assert nothing.shape == annotation.shape == prediction.shape == (400, 400, 3)
    for picture in (annotation, prediction):
        changed = np.argwhere((picture != nothing).any(axis=-1))
        # The bar's top is at row 4.5, its words above; the ring's bottom at 30.5, of 40 each.
        assert 30 <= changed[:, 0].min() <= 45 and 300 <= changed[:, 0].max() <= 312


def test_an_option_that_there_is_not_is_one_line() -> None:
    with pytest.raises(ValueError, match="max_object") as told:
        task(max_object=3)
    assert "\n" not in str(told.value)


def test_every_file_of_the_package_decides_the_reward_digest(tmp_path: Path) -> None:
    files = sorted(path.stem for path in (TASKS / "keypoints").glob("*.py"))
    assert len(files) == 8
    shutil.copytree(TASKS / "keypoints", tmp_path / "keypoints")
    found = {
        name.removeprefix("keypoints.")
        for name in scoring_sources("keypoints", search_path=[str(tmp_path)])
        if name.startswith("keypoints")
    }
    assert found == {"keypoints" if name == "__init__" else name for name in files}

    def digest() -> str:
        return reward_digest("keypoints", {}, scorer=ScorerSettings(), search_path=[str(tmp_path)])

    before = digest()
    source = tmp_path / "keypoints" / "oks.py"
    source.write_text(source.read_text().replace("left_MN.max() > 0", "left_MN.max() > 0.5"))
    assert digest() != before
