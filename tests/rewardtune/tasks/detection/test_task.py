"""The detection task as the pipeline sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.frame import Framed, Square
from rewardtune.records import Group, Published, Score, View, Window
from rewardtune.tasks.detection import TASK
from rewardtune.tasks.detection.class_rewards import _rewards, class_rewards, warm_up
from rewardtune.tasks.detection.codec import Boxes, DetectionCodec
from rewardtune.tasks.detection.kernel import Targets
from rewardtune.tasks.detection.task import DetectionTask
from rewardtune.tasks.task import Task, load_task
from tests.rewardtune.tasks.rollouts import predicted, scored

FIXTURE = np.load(Path(__file__).parents[3] / "fixtures" / "detection_reward.npz")
CODEC = DetectionCodec(num_classes=80, max_boxes=12)
# Category ids with gaps, as COCO has them; frequencies as in the published reward.
CATEGORIES = tuple(
    Category(id=10 + 3 * index, name=f"class {index}", num_instances=int(count))
    for index, count in enumerate(FIXTURE["cfg/cls_counts"])
)
# In a square of 1000 pixels a pixel is a coordinate level.
SIDE = 1000


def example_of(
    xyxy_N4: Sequence[Sequence[float]],
    label_N: Sequence[int] | None = None,
    *,
    is_crowd_N: Sequence[bool] | None = None,
    height: int = SIDE,
    width: int = SIDE,
) -> Example:
    box_N4 = np.array(xyxy_N4, dtype=np.float64).reshape(-1, 4)
    num_boxes = len(box_N4)
    xywh_N4 = np.concatenate([box_N4[:, :2], box_N4[:, 2:] - box_N4[:, :2]], axis=1)
    return Example(
        image_id=42,
        file_name="42.png",
        height=height,
        width=width,
        image=b"",
        xywh_N4=xywh_N4,
        category_N=np.array(label_N if label_N is not None else [0] * num_boxes, dtype=np.int64),
        area_N=np.prod(xywh_N4[:, 2:], axis=1),
        is_crowd_N=np.array(is_crowd_N if is_crowd_N is not None else [False] * num_boxes, bool),
        annotation_id_N=np.arange(1, num_boxes + 1),
    )


def fixture_example(index: int) -> Example:
    boxes = CODEC.decode(FIXTURE["in/gt_tokens"][index])
    boxes = boxes[boxes.is_present_N]
    yxyx_N4 = np.rint(boxes.yxyx_N4 * SIDE)
    return example_of(yxyx_N4[:, [1, 0, 3, 2]].tolist(), boxes.label_N.tolist())


def task_of(**options: Any) -> DetectionTask:
    return DetectionTask({"max_boxes": 12, **options}, categories=CATEGORIES)


def score(task: DetectionTask, tokens_ST: np.ndarray, example: Example) -> Score:
    return scored(task, tokens_ST, Framed.of(example, View(), Square(side=SIDE)))


def group_of(tokens_ST: np.ndarray) -> Group:
    return Group(
        ordinal=0,
        example=0,
        view=View(),
        published=Published(term=1, policy_version=0),
        tokens_ST=tokens_ST,
        log_probs_ST=np.zeros(tokens_ST.shape, dtype=np.float32),
        probe_log_probs_STQ=np.zeros((*tokens_ST.shape, 2), dtype=np.float32),
    )


def test_the_task_is_found_by_name_and_keeps_the_contract() -> None:
    task: Task = load_task("detection", {"max_boxes": 5}, categories=CATEGORIES)
    assert isinstance(task, TASK)
    assert (task.name, task.vocabulary.size, task.vocabulary.max_tokens) == ("detection", 1084, 30)
    assert (task.vocabulary.stop_tokens, task.vocabulary.probe_tokens) == ((), (1, 2))


@pytest.mark.parametrize(
    ("aggregate", "published"),
    [
        ("mean", "out/reward_mean_over_thresholds"),
        ("big_vision", "out/reward_reference_aggregate"),
    ],
)
def test_scores_are_the_published_rewards(aggregate: str, published: str) -> None:
    task = task_of(aggregate=aggregate)
    for index in range(5):
        scored = score(task, FIXTURE["in/pred_tokens"][index], fixture_example(index))
        np.testing.assert_allclose(scored.reward_S, FIXTURE[published][index], rtol=0, atol=1e-5)
        parts = scored.components
        np.testing.assert_array_equal(scored.reward_S, parts["match"] + parts["duplicate_penalty"])
        np.testing.assert_array_equal(
            parts["boxes"], (FIXTURE["out/pred_confs"][index] > 0).sum(axis=1)
        )
        np.testing.assert_allclose(
            scored.aux["match_iou"], FIXTURE["out/match_iou"][index], rtol=0, atol=1e-5
        )


def test_the_share_of_repeated_boxes_is_watched() -> None:
    task = task_of()
    row_T = FIXTURE["in/pred_tokens"][0, :1].copy()
    boxes = row_T.reshape(1, -1, 6)
    boxes[:, :] = task.target_tokens(
        Framed.of(fixture_example(0), View(), Square(side=640)), rng=np.random.default_rng(0)
    ).reshape(-1, 6)[:1]
    scored = score(task, boxes.reshape(1, -1), fixture_example(0))
    (num_boxes,) = scored.components["boxes"]
    assert scored.components["duplicate_ratio"] == [(num_boxes - 1) / num_boxes]
    nothing = score(task, np.zeros_like(row_T), fixture_example(0))
    assert nothing.components["duplicate_ratio"] == [0.0]


def test_confidence_targets_give_the_published_loss() -> None:
    task = task_of(aggregate="big_vision")
    logits_BTV = FIXTURE["loss/logits_factor_u"] @ FIXTURE["loss/logits_factor_w"]
    log_probs_BTV = logits_BTV - np.log(np.exp(logits_BTV).sum(axis=-1, keepdims=True))
    losses = []
    for index in range(5):
        tokens_ST = FIXTURE["in/pred_tokens"][index, :1]
        targets = task.token_targets(
            group_of(tokens_ST), score(task, tokens_ST, fixture_example(index))
        )
        assert targets is not None and targets.weight == 0.3
        assert targets.positions_P.tolist() == list(range(5, 72, 6))
        assert targets.token_ids_K.tolist() == [0, 1, 2]
        np.testing.assert_allclose(targets.probabilities_SPK.sum(axis=-1), 1.0, atol=1e-6)
        log_probs_PK = log_probs_BTV[index][np.ix_(targets.positions_P, targets.token_ids_K)]
        losses.append(-(targets.probabilities_SPK[0] * log_probs_PK).sum(axis=-1).mean())
    assert np.mean(losses) == pytest.approx(float(FIXTURE["loss/conf_term"]), abs=1e-5)


def test_the_confidence_of_a_repeat_is_its_overlap_or_nothing() -> None:
    example = fixture_example(1)
    target_T = task_of().target_tokens(
        Framed.of(example, View(), Square(side=SIDE)), rng=np.random.default_rng(0)
    )
    tokens_T = np.zeros_like(target_T)
    tokens_T[:6], tokens_T[6:12], tokens_T[12:18] = target_T[:6], target_T[:6], target_T[6:12]
    assert target_T[11] > 0
    taught = []
    for keeps in (True, False):
        task = task_of(duplicates_keep_overlap=keeps)
        scored = score(task, tokens_T[None], example)
        targets = task.token_targets(group_of(tokens_T[None]), scored)
        assert targets is not None
        np.testing.assert_allclose(scored.aux["match_iou"][0, :3], 1.0, atol=1e-4)
        np.testing.assert_allclose(targets.probabilities_SPK.sum(axis=-1), 1.0, atol=1e-6)
        taught.append(targets.probabilities_SPK[0, :3, 2])
    np.testing.assert_allclose(taught, [[1, 1, 1], [1, 0, 1]], atol=1e-4)


def test_the_recall_reward_weighs_objects_alike_and_teaches_no_confidence() -> None:
    task = task_of(reward="recall")
    assert task.config.iou_thresholds == (0.5,)
    example = fixture_example(0)
    tokens_ST = FIXTURE["in/pred_tokens"][0]
    scored = score(task, tokens_ST, example)
    assert np.all(scored.components["match"] == np.rint(scored.components["match"]))
    assert task.token_targets(group_of(tokens_ST), scored) is None
    assert task_of(reward="recall", confidence_weight=0.1).config.confidence_weight == 0.1


@pytest.mark.parametrize("reward", ["map", "recall"])
def test_perfect_beats_empty_and_garbage_scores(reward: str) -> None:
    task, example = task_of(reward=reward), fixture_example(1)
    perfect_T = task.target_tokens(
        Framed.of(example, View(), Square(side=SIDE)), rng=np.random.default_rng(0)
    )
    garbage_T = np.random.default_rng(1).integers(-5, 5000, 72, dtype=np.int32)
    tokens_ST = np.stack([perfect_T, np.zeros_like(perfect_T), garbage_T])
    scored = score(task, tokens_ST, example)
    assert scored.reward_S[0] == pytest.approx(task.class_weight_C[example.category_N].sum())
    assert scored.reward_S[1] == 0.0
    assert np.isfinite(scored.reward_S[2])
    is_box_P = perfect_T[task.codec.confidence_positions_P] > 0
    np.testing.assert_allclose(scored.aux["match_iou"][0], is_box_P, atol=1e-4)


def test_a_rollout_scores_the_same_alone_and_in_its_group() -> None:
    task, example = task_of(), fixture_example(2)
    tokens_ST = FIXTURE["in/pred_tokens"][2]
    together = score(task, tokens_ST, example)
    for s in range(3):
        alone = score(task, tokens_ST[s : s + 1], example)
        assert alone.reward_S[0] == together.reward_S[s]
        np.testing.assert_array_equal(alone.aux["match_iou"][0], together.aux["match_iou"][s])


def test_an_image_without_objects_rewards_nothing() -> None:
    scored = score(task_of(), FIXTURE["in/pred_tokens"][0], example_of([]))
    np.testing.assert_array_equal(scored.reward_S, 0.0)


@pytest.mark.parametrize("options", [{}, {"aggregate": "big_vision"}, {"reward": "recall"}])
def test_what_a_box_earns_is_what_it_adds_to_the_boxes_before_it(options: dict[str, Any]) -> None:
    task = task_of(**options)
    num_earning = 0
    for index in range(5):
        tokens_ST, example = FIXTURE["in/pred_tokens"][index], fixture_example(index)
        step_reward_SP = score(task, tokens_ST, example).aux["step_reward"]
        before_S = np.zeros(len(tokens_ST))
        for box in range(CODEC.max_boxes):
            prefix_ST = tokens_ST.copy()
            prefix_ST[:, 6 * (box + 1) :] = 0
            reward_S = score(task, prefix_ST, example).reward_S
            np.testing.assert_allclose(step_reward_SP[:, box], reward_S - before_S, atol=1e-12)
            before_S = reward_S
        num_earning += int(np.count_nonzero(step_reward_SP))
    assert num_earning > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"aggregate": "big_vision"}, {"reward": "recall", "duplicate_penalty": 0.1}]
)
def test_class_rewards_are_what_the_box_would_have_earned_as_another_class(
    options: dict[str, Any],
) -> None:
    task = task_of(**options, class_rewards=True)
    num_classes, num_other = CODEC.num_classes, 0
    for index in range(2):
        tokens_ST, example = FIXTURE["in/pred_tokens"][index].copy(), fixture_example(index)
        # The first box again, so that there are repeats.
        tokens_ST[:, -6:] = tokens_ST[:, :6]
        scored = score(task, tokens_ST, example)
        rewards = task.token_rewards(group_of(tokens_ST), scored)
        assert rewards.positions_P.tolist() == list(range(4, 72, 6))
        assert rewards.token_ids_K.tolist() == [CODEC.first_class + c for c in range(num_classes)]
        label_SP = CODEC.decode(tokens_ST).label_N
        drawn_SP = np.take_along_axis(rewards.reward_SPK, label_SP[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(drawn_SP, scored.aux["step_reward"], atol=1e-12)
        for box in range(CODEC.max_boxes):
            for c in range(num_classes):
                changed_ST = tokens_ST.copy()
                changed_ST[:, 6 * box + 4] = CODEC.first_class + c
                expected_S = score(task, changed_ST, example).aux["step_reward"][:, box]
                np.testing.assert_allclose(rewards.reward_SPK[:, box, c], expected_S, atol=1e-12)
                num_other += int(np.count_nonzero(expected_S[c != label_SP[:, box]]))
    assert num_other > 5
    assert task.has_token_rewards and not task_of(**options).has_token_rewards


def test_warming_up_leaves_nothing_to_compile_for_class_rewards() -> None:
    warm_up()
    kernel: Any = _rewards
    num_compiled = len(kernel.signatures)
    tokens_ST = FIXTURE["in/pred_tokens"][0].astype(np.int16)[::-1]
    score(task_of(class_rewards=True), tokens_ST, fixture_example(0))
    assert len(kernel.signatures) == num_compiled


def test_class_rewards_of_no_target_and_of_several_images() -> None:
    task = task_of(class_rewards=True)
    aux = score(task, FIXTURE["in/pred_tokens"][0], example_of([])).aux
    assert aux["class_reward"].shape == (3, CODEC.max_boxes, CODEC.num_classes)
    assert np.all(aux["class_reward"] == 0)
    with pytest.raises(ValueError, match="one image at a time, got 0"):
        class_rewards(
            FIXTURE["in/pred_tokens"][0],
            Targets.of([], CODEC),
            codec=CODEC,
            class_weight_C=np.ones(CODEC.num_classes),
            iou_thresholds=(0.5,),
            threshold_weight_K=np.ones(1),
            duplicate_penalty=0.3,
        )


def test_sequences_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="max_boxes"):
        score(task_of(), np.zeros((2, 66), dtype=np.int32), example_of([]))


def seen_boxes(example: Example, view: View, *, input_size: int = SIDE) -> Boxes:
    tokens_T = task_of().target_tokens(
        Framed.of(example, view, Square(side=input_size)), rng=np.random.default_rng(0)
    )
    boxes = CODEC.decode(tokens_T)
    return boxes[boxes.is_present_N]


def test_targets_leave_out_crowds_and_boxes_without_area() -> None:
    example = example_of(
        [[100, 200, 300, 400], [0, 0, 500, 500], [10, 10, 10, 90], [10, 10, 10.2, 90]],
        [7, 1, 1, 1],
        is_crowd_N=[False, True, False, False],
    )
    boxes = seen_boxes(example, View())
    np.testing.assert_allclose(boxes.yxyx_N4, [[0.2, 0.1, 0.4, 0.3]])
    assert (boxes.label_N.tolist(), boxes.confidence_N.tolist()) == ([7], [2])


def test_targets_follow_the_view_and_drop_what_it_mostly_cuts_off() -> None:
    example = example_of([[0, 0, 100, 100], [400, 0, 600, 100], [400, 0, 900, 100]], [0, 1, 2])
    # Twice the size, cut at the bottom and right: 500 image pixels a side are left.
    boxes = seen_boxes(example, View(scale=2.0))
    assert sorted(boxes.label_N.tolist()) == [0, 1]
    by_label = boxes.yxyx_N4[np.argsort(boxes.label_N)]
    np.testing.assert_allclose(by_label, [[0, 0, 0.2, 0.2], [0, 0.8, 0.2, 1.0]])
    flipped = seen_boxes(example_of([[0, 0, 100, 100]]), View(flip=True))
    np.testing.assert_allclose(flipped.yxyx_N4, [[0.0, 0.9, 0.1, 1.0]])


def predict(task: DetectionTask, *, score_rule: str) -> list[dict[str, Any]]:
    """Four slots: a box, no box, swapped corners, a box in the padding below the image."""
    tokens_P6 = np.zeros((12, 6), dtype=np.int32)
    level_44 = np.array([[100, 200, 300, 600], [0, 0, 9, 9], [300, 0, 100, 9], [600, 0, 700, 100]])
    tokens_P6[:4, :4] = level_44 + task.codec.first_level
    tokens_P6[:4, 4] = np.array([5, 0, 0, 0]) + task.codec.first_class
    tokens_P6[:4, 5] = [2, 0, 2, 1]
    log_probs_T = np.log(np.full(72, 0.25, dtype=np.float32))
    probe_TQ = np.log(np.full((72, 2), [0.2, 0.6], dtype=np.float32))
    return predicted(
        task,
        tokens_P6.reshape(-1),
        log_probs_T,
        probe_TQ,
        Framed.of(example_of([], height=200, width=400), View(), Square(side=100)),
        score_rule=score_rule,
    )


@pytest.mark.parametrize(
    ("rule", "expected"), [("class", 0.25), ("p2", 0.6), ("p2_norm", 0.75), ("class_p2", 0.15)]
)
def test_predictions_are_coco_results_in_pixels(rule: str, expected: float) -> None:
    (record,) = predict(task_of(), score_rule=rule)
    assert record["image_id"] == 42
    assert record["category_id"] == 10 + 3 * 5
    np.testing.assert_allclose(record["bbox"], [80.0, 40.0, 160.0, 80.0])
    assert record["score"] == pytest.approx(expected, rel=1e-6)
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(flip=True),
        View(scale=1.25, offset_y=0.5, offset_x=0.5),
        View(window=Window()),
        View(flip=True, offset_y=0.5, offset_x=0.5, window=Window(1.1, 0.6, 0.5)),
    ],
)
def test_decoded_boxes_are_in_pixels_of_the_image_whatever_the_view(view: View) -> None:
    task = task_of()
    example = example_of([[200, 300, 400, 600], [500, 450, 700, 550]], [1, 2])
    boxes = seen_boxes(example, view)
    tokens_T = task.codec.encode(boxes, rng=np.random.default_rng(0))
    hidden_T = np.zeros_like(tokens_T)
    (decoded, empty) = task.decode(
        np.stack([tokens_T, hidden_T]), Framed.of(example, view, Square(side=SIDE))
    )
    assert empty == []
    assert {(box.category, box.name) for box in decoded} == {(1, "class 1"), (2, "class 2")}
    for box in decoded:
        expected = [200, 300, 400, 600] if box.category == 1 else [500, 450, 700, 550]
        np.testing.assert_allclose(box.xyxy, expected, atol=1.0)


def test_a_score_is_finite_where_no_probability_is_left() -> None:
    task = task_of()
    tokens_T = task.codec.encode(
        Boxes(np.array([[0.0, 0.0, 0.5, 0.5]]), np.array([1]), np.array([2])),
        rng=np.random.default_rng(0),
    )
    (record,) = predicted(
        task,
        tokens_T,
        np.zeros(72, dtype=np.float32),
        np.full((72, 2), -np.inf, dtype=np.float32),
        Framed.of(example_of([]), View(), Square(side=SIDE)),
        score_rule="p2_norm",
    )
    assert record["score"] == 0.0


def test_an_unknown_score_rule_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'p3'.*class.*p2.*p2_norm"):
        predict(task_of(), score_rule="p3")


@dataclass(frozen=True)
class Examples:
    """A data set in memory."""

    examples: tuple[Example, ...]
    categories: tuple[Category, ...] = CATEGORIES
    digest: str = "made up"

    def __len__(self) -> int:
        return len(self.examples)

    def example(self, index: int) -> Example:
        return self.examples[index]


def test_evaluation_gives_coco_figures_of_the_chosen_examples() -> None:
    task = task_of()
    examples = [
        replace(
            fixture_example(i),
            image_id=100 + i,
            annotation_id_N=np.arange(8 * i + 1, 8 * i + 1 + len(fixture_example(i).xywh_N4)),
        )
        for i in range(3)
    ]
    results: list[Mapping[str, Any]] = []
    for example in examples[:2]:
        tokens_T = task.target_tokens(
            Framed.of(example, View(), Square(side=SIDE)), rng=np.random.default_rng(0)
        )
        results += predicted(
            task,
            tokens_T,
            np.zeros(72, dtype=np.float32),
            np.zeros((72, 2), dtype=np.float32),
            Framed.of(example, View(), Square(side=SIDE)),
            score_rule="p2",
        )
    dataset = Examples(tuple(examples))
    metrics = task.evaluate(results, dataset, indices=[0, 1])
    assert metrics["map"] == pytest.approx(1.0)
    assert metrics["ar100"] == pytest.approx(1.0)
    assert metrics["boxes_per_image"] == len(results) / 2
    assert all(value >= 0 for value in metrics.values())
    assert task.evaluate([], dataset, indices=[2])["map"] == 0.0
    with pytest.raises(ValueError, match="100"):
        task.evaluate(results, dataset, indices=[1, 2])
    with pytest.raises(ValueError, match="no indices"):
        task.evaluate(results, dataset, indices=[])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_box": 5}, r"'max_box' = 5.*max_boxes, reward, aggregate"),
        ({"reward": "ap"}, r"'reward' = 'ap'.*'map' or 'recall'"),
        ({"max_boxes": 0}, r"'max_boxes' = 0.*greater than or equal to 1"),
        ({"iou_thresholds": [0.7, 0.5]}, r"iou_thresholds must be a rising list"),
        ({"reward": "recall", "class_weight_smoothing": 0.1}, r"needs reward 'map'"),
        ({"duplicate_penalty": float("nan")}, r"duplicate_penalty"),
        ({"confidence_weight": float("inf")}, r"confidence_weight"),
        (
            {"repeats_keep_overlap": False},
            r"task_options.repeats_keep_overlap is now called task_options.duplicates_keep_overlap",
        ),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        task_of(**options)
    assert "\n" not in str(caught.value)


def test_no_category_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one category"):
        DetectionTask({}, categories=[])


def test_the_vocabulary_describes_itself_as_json() -> None:
    described = task_of().vocabulary.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["num_classes"] == len(described["class_names"]) == 80
    other = [replace(category, name="other") for category in CATEGORIES]
    assert DetectionTask({"max_boxes": 12}, categories=other).vocabulary.describe() != described
