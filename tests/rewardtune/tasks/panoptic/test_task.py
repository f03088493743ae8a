"""The panoptic task as a whole: codec round trip, rewards, results and the official metric."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_workers.scoring.digest import ScorerSettings, scoring_sources
from reward_workers.scoring.resolved import resolve
from rewardtune.datasets.example import Category
from rewardtune.datasets.frame import Framed, Square, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.records import View, Window
from rewardtune.tasks.panoptic import TASK
from rewardtune.tasks.panoptic.codec import canonical_ids, label_maps, segment_ids, segments_of
from rewardtune.tasks.panoptic.definition import image_reward, match_image
from rewardtune.tasks.panoptic.files import png_of_ids
from rewardtune.tasks.panoptic.metric import panoptic_metrics
from rewardtune.tasks.panoptic.task import PanopticTask
from rewardtune.tasks.task import load_task
from tests.rewardtune.tasks.rollouts import predicted, scored
from tests.rewardtune.tasks.uvim.small import (
    CATEGORIES,
    SIZE,
    Examples,
    example,
    segment_map,
    write_stage_one,
)

VIEWS = (
    View(),
    View(flip=True),
    View(scale=1.4, offset_y=0.3, offset_x=1.0),
    View(scale=0.6),
    View(flip=True, window=Window()),
    View(offset_y=0.5, offset_x=1.0, window=Window(aspect=1.2, min_area=0.3, size=0.1)),
)
ROOT = Path(__file__).resolve().parents[4]


def task(folder: Path, **options: Any) -> PanopticTask:
    path = write_stage_one(folder, "panoptic")
    built = load_task("panoptic", {"stage_one": str(path), **options}, categories=CATEGORIES)
    assert isinstance(built, PanopticTask)
    return built


def drawn(num: int, seed: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.random.default_rng(seed).integers(0, 11, (num, 4)).astype(np.int32)


def predict(
    built: PanopticTask, tokens: np.ndarray[Any, Any], index: int = 0
) -> list[dict[str, Any]]:
    nothing = np.zeros(len(tokens), np.float32)
    return predicted(
        built,
        tokens,
        nothing,
        np.zeros((len(tokens), 0), np.float32),
        Framed.of(example(index, image_id=index + 1), View(), Square(side=SIZE)),
        score_rule="segments",
    )


def test_the_task_loads_by_name_and_describes_its_codes(tmp_path: Path) -> None:
    vocabulary = task(tmp_path).vocabulary
    assert (vocabulary.size, vocabulary.max_tokens, vocabulary.stop_tokens) == (11, 4, ())
    described = vocabulary.describe()
    assert described["class_names"] == ["cat", "dog", "grass"]
    other = write_stage_one(tmp_path, "panoptic", seed=1)
    another = TASK({"stage_one": str(other)}, categories=CATEGORIES).vocabulary.describe()
    assert described["stage_one"] != another["stage_one"]
    json.dumps(described)


def test_stage_one_is_an_artefact(tmp_path: Path) -> None:
    assert TASK.artefacts({"stage_one": "a/b"}) == {"stage_one": Path("a/b")}
    assert TASK.artefacts({}) == {}
    with pytest.raises(ValueError, match="no_such_file"):
        load_task("panoptic", {"stage_one": "no_such_file"}, categories=CATEGORIES)


@pytest.mark.parametrize("view", VIEWS)
def test_labels_follow_the_view_and_have_canonical_ids(view: View) -> None:
    labels = label_maps(Framed.of(example(), view, Square(side=SIZE)))
    semantics, instances = labels["semantics"], labels["instances"]
    assert semantics.shape == instances.shape == (SIZE, SIZE)
    assert set(np.unique(semantics)) <= {0, 1, 2, 3}
    assert np.array_equal(semantics > 0, instances > 0)
    found = np.unique(instances[instances > 0])
    assert np.array_equal(found, np.arange(1, len(found) + 1))
    keys = []
    for identity in found:
        rows, columns = np.nonzero(instances == identity)
        keys.append(SIZE * rows.mean() + columns.mean())
        assert len(np.unique(semantics[instances == identity])) == 1
    assert keys == sorted(keys)


def test_a_plain_view_of_the_labels_is_the_annotation() -> None:
    # 24 x 32 pixels into 32 x 32: the picture as it is, with eight empty rows below.
    labels = label_maps(Framed.of(example(), View(), Square(side=SIZE)))
    category_of = {300: 1, 5: 1, 66: 2, 70000: 3, 0: 0}
    expected = np.vectorize(category_of.get)(segment_map())
    np.testing.assert_array_equal(labels["semantics"][:24], expected)
    assert not labels["semantics"][24:].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_canonical_ids_only_rename(seed: int, height: int, width: int) -> None:
    ids = np.random.default_rng(seed).choice([0, 4, 17, 900], (height, width))
    renamed = canonical_ids(ids)
    pairs = set(zip(ids.ravel().tolist(), renamed.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert all((a == 0) == (b == 0) for a, b in pairs)
    np.testing.assert_array_equal(canonical_ids(renamed), renamed)


def test_target_tokens_are_codes_and_do_not_draw(tmp_path: Path) -> None:
    built, rng = task(tmp_path), np.random.default_rng(0)
    before = rng.bit_generator.state
    tokens = built.target_tokens(Framed.of(example(), View(), Square(side=SIZE)), rng=rng)
    assert tokens.shape == (4,) and tokens.dtype == np.int32
    assert tokens.min() >= 1 and tokens.max() <= 10
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("view", VIEWS)
def test_rewards_are_those_of_the_definition(tmp_path: Path, view: View) -> None:
    built, shown, tokens = task(tmp_path), example(), drawn(6)
    score = scored(built, tokens, Framed.of(shown, view, Square(side=SIZE)))
    maps = built.codec.decode_panoptic(tokens, _image(shown, view))
    labels = label_maps(Framed.of(shown, view, Square(side=SIZE)))
    areas = {int(i): int((labels["instances"] == i).sum()) for i in np.unique(labels["instances"])}
    listed = [
        replace(shown.segments[0], id=i, category=int(_class(labels, i)) - 1, area=area)
        for i, area in areas.items()
        if i > 0
    ]
    is_thing = np.array([True, True, False])
    for row, map_HW2 in enumerate(maps):
        ids, category_of = segments_of(map_HW2, is_thing_C=is_thing)
        counts = match_image(labels["instances"], listed, ids, category_of)
        assert score.reward_S[row] == pytest.approx(image_reward(counts), abs=1e-12)
    total = score.components["matched_iou"] + score.components["false_positive_penalty"]
    np.testing.assert_allclose(total, score.reward_S)


def _class(labels: Mapping[str, np.ndarray[Any, Any]], identity: int) -> int:
    return int(labels["semantics"][labels["instances"] == identity][0])


def _image(shown: Any, view: View) -> Any:
    return view_image(decode_image(shown.image), Framed.of(shown, view, Square(side=SIZE)).frame)


def test_a_score_does_not_depend_on_its_group_or_on_a_second_try(tmp_path: Path) -> None:
    built, tokens = task(tmp_path, decode_batch=4), drawn(7)
    together = scored(built, tokens, Framed.of(example(), View(), Square(side=SIZE))).reward_S
    for row in range(7):
        alone = scored(
            task(tmp_path, decode_batch=4),
            tokens[row : row + 1],
            Framed.of(example(), View(), Square(side=SIZE)),
        )
        assert alone.reward_S[0] == together[row]
    again = scored(built, tokens, Framed.of(example(), View(), Square(side=SIZE))).reward_S
    np.testing.assert_array_equal(again, together)


def test_segments_merge_stuff_and_keep_things_apart() -> None:
    map_HW2 = np.array([[[1, 0], [1, 4], [3, 1]], [[3, 2], [0, 5], [2, 4]]], dtype=np.int32)
    ids, category_of = segments_of(map_HW2, is_thing_C=np.array([True, True, False]))
    assert ids[0, 2] == ids[1, 0] and ids[1, 1] == 0
    assert len({int(ids[0, 0]), int(ids[0, 1]), int(ids[1, 2]), int(ids[0, 2])}) == 4
    assert category_of == {
        int(ids[0, 0]): 0,
        int(ids[0, 1]): 0,
        int(ids[0, 2]): 2,
        int(ids[1, 2]): 1,
    }


def test_results_and_files_give_the_same_official_figures(tmp_path: Path) -> None:
    built = task(tmp_path)
    data = Examples([example(0, image_id=1), example(1, image_id=2)])
    records = predict(built, drawn(1)[0], 0) + predict(built, drawn(1, 9)[0], 1)
    figures = built.evaluate(records, data, indices=[0, 1])
    assert next(iter(figures)) == "pq"
    results = tmp_path / "results"
    built.write_results(records, results)
    truth = {
        "categories": [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in CATEGORIES
        ],
        "annotations": [
            {
                "image_id": data.example(i).image_id,
                "file_name": f"{i}.png",
                "segments_info": [
                    {
                        "id": s.id,
                        "category_id": CATEGORIES[s.category].id,
                        "area": s.area,
                        "iscrowd": 0,
                    }
                    for s in data.example(i).segments
                ],
            }
            for i in range(2)
        ],
    }
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(data.example(i).panoptic_png)
    official = panoptic_metrics(
        truth, tmp_path, json.loads((results / "panoptic.json").read_text()), results / "panoptic"
    )
    assert figures["pq"] == official["All"]["pq"]
    assert figures.get("pq_stuff") == official["Stuff"]["pq"]
    assert json.loads(json.dumps(records)) == records


def test_a_perfect_prediction_scores_everything(tmp_path: Path) -> None:
    built, data = task(tmp_path), Examples([example()])
    shown = example()
    (record,) = predict(built, drawn(1)[0])
    record["png"] = base64.b64encode(png_of_ids(segment_ids(shown))).decode()
    record["segments_info"] = [
        {"id": s.id, "category_id": CATEGORIES[s.category].id} for s in shown.segments
    ]
    figures = built.evaluate([record], data, indices=[0])
    assert (figures["pq"], figures["pq_things"], figures["pq_stuff"]) == (1.0, 1.0, 1.0)
    assert figures["segments_per_image"] == 4


def test_predictions_have_the_image_s_size_and_pictures_can_be_drawn(tmp_path: Path) -> None:
    built, shown = task(tmp_path), example()
    (map_HW2,) = built.decode(drawn(1), Framed.of(shown, View(flip=True), Square(side=SIZE)))
    assert map_HW2.shape == (24, 32, 2)
    records = predict(built, drawn(1)[0])
    assert built.paint(shown, records).shape == built.paint(shown, None).shape == (24, 32, 3)
    assert not np.array_equal(built.paint(shown, None), built.paint(shown, records))


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    path = str(write_stage_one(tmp_path, "panoptic"))
    colours = str(write_stage_one(tmp_path, "colorization"))
    cases: list[tuple[dict[str, Any], tuple[Category, ...], str]] = [
        ({}, CATEGORIES, "panoptic option 'stage_one' is missing"),
        ({"stage_one": path, "colour": 1}, CATEGORIES, "unknown panoptic option 'colour' = 1"),
        ({"stage_one": path, "min_fraction": 2}, CATEGORIES, "'min_fraction' = 2"),
        ({"stage_one": colours}, CATEGORIES, "is for colorization"),
        ({"stage_one": path}, CATEGORIES[:2], "knows 3 classes but the data set has 2"),
        (
            {"stage_one": path},
            (*CATEGORIES[:2], Category(id=1, name="sky", is_thing=False)),
            "calls class 2 'grass' but the data set 'sky'",
        ),
    ]
    for options, categories, complaint in cases:
        with pytest.raises(ValueError, match=complaint) as raised:
            TASK(options, categories=categories)
        assert "\n" not in str(raised.value)
    built = task(tmp_path)
    with pytest.raises(ValueError, match="the policy sees 48 x 48 pixels but stage I"):
        scored(built, drawn(1), Framed.of(example(), View(), Square(side=48)))
    with pytest.raises(ValueError, match="has no panoptic map: convert the data set"):
        scored(
            built,
            drawn(1),
            Framed.of(replace(example(), panoptic_png=b""), View(), Square(side=SIZE)),
        )


def test_neither_dense_task_imports_torch_before_it_decodes() -> None:
    script = (
        "import sys, rewardtune.tasks.panoptic, rewardtune.tasks.colorization; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_the_reward_s_digest_covers_the_network_and_the_weights(tmp_path: Path) -> None:
    found = scoring_sources("panoptic")
    for name in (
        "rewardtune.tasks.uvim.codec",
        "rewardtune.tasks.uvim.stage_one",
        "rewardtune.tasks.panoptic.reward",
    ):
        assert name in found
    digests = []
    for folder, seed in (("a", 0), ("b", 0), ("b", 1)):
        (tmp_path / folder).mkdir(exist_ok=True)
        options = {"stage_one": str(write_stage_one(tmp_path / folder, "panoptic", seed))}
        digests.append(resolve("panoptic", options, None).digest(scorer=ScorerSettings()))
    assert digests[0] == digests[1] != digests[2]
