"""The colorization task as a whole: codes, rewards, results and figures."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardtune.datasets.frame import Framed, Square, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.records import View, Window
from rewardtune.tasks.colorization import TASK
from rewardtune.tasks.colorization.codec import colour_image, grey, in_image
from rewardtune.tasks.colorization.definition import colour_reward, round_to_levels
from rewardtune.tasks.colorization.metric import folder_colour_metrics
from rewardtune.tasks.colorization.task import ColorizationTask
from rewardtune.tasks.colorization.tripwire import ColourTripwires, colour_tripwires
from rewardtune.tasks.task import PicturedTask, load_task
from tests.rewardtune.tasks.rollouts import predicted, scored
from tests.rewardtune.tasks.uvim.small import SIZE, Examples, example, write_stage_one

VIEWS = (
    View(),
    View(flip=True),
    View(scale=1.4, offset_y=0.3, offset_x=1.0),
    View(scale=0.6),
    View(flip=True, window=Window()),
    View(offset_y=0.5, offset_x=1.0, window=Window(aspect=1.2, min_area=0.3, size=0.1)),
)


def task(folder: Path, **options: Any) -> ColorizationTask:
    path = write_stage_one(folder, "colorization")
    built = load_task("colorization", {"stage_one": str(path), **options}, categories=())
    assert isinstance(built, ColorizationTask) and isinstance(built, PicturedTask)
    return built


def drawn(num: int, seed: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.random.default_rng(seed).integers(0, 11, (num, 4)).astype(np.int32)


def predict(built: ColorizationTask, tokens: np.ndarray[Any, Any], index: int) -> dict[str, Any]:
    (record,) = predicted(
        built,
        tokens,
        np.zeros(len(tokens), np.float32),
        np.zeros((len(tokens), 0), np.float32),
        Framed.of(example(index, image_id=index + 1), View(), Square(side=SIZE)),
        score_rule="picture",
    )
    return record


def test_grey_is_the_weighted_level_of_each_pixel() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (5, 7, 3))
    found = grey((levels / 127.5 - 1).astype(np.float32))
    expected = np.rint(levels @ np.array([0.2989, 0.5870, 0.1140]))
    np.testing.assert_allclose((found[..., 0] + 1) * 127.5, expected, atol=1.001)
    assert np.mean(np.abs((found[..., 0] + 1) * 127.5 - expected) > 0.01) < 0.05
    assert np.array_equal(found[..., 0], found[..., 1]) and found.dtype == np.float32
    assert not grey(np.zeros((2, 2, 3), np.float32)).any()
    both = grey(np.stack([found, found[::-1]]))
    np.testing.assert_array_equal(both[0], grey(found))


@pytest.mark.parametrize("view", VIEWS)
def test_rewards_are_those_of_the_decoded_pictures(tmp_path: Path, view: View) -> None:
    built, tokens = task(tmp_path), drawn(5)
    score = scored(built, tokens, Framed.of(example(), view, Square(side=SIZE)))
    context = grey(colour_image(Framed.of(example(), view, Square(side=SIZE))))
    for row, picture in enumerate(built.codec.decode_colours(tokens, context)):
        expected = colour_reward(round_to_levels(picture))
        assert score.reward_S[row] == pytest.approx(expected.reward, abs=1e-12)
        assert score.components["vivid"][row] == pytest.approx(expected.vivid, abs=1e-12)
        assert score.components["entropy"][row] == pytest.approx(expected.entropy, abs=1e-12)


@pytest.mark.parametrize("reading", [{}, {"vivid_rule": "squared", "hue_range": "half"}])
def test_what_is_watched_is_that_of_the_decoded_pictures(
    tmp_path: Path, reading: dict[str, Any]
) -> None:
    built, tokens = task(tmp_path, **reading), drawn(5)
    components = scored(built, tokens, Framed.of(example(), View(), Square(side=SIZE))).components
    context = grey(colour_image(Framed.of(example(), View(), Square(side=SIZE))))
    for row, picture in enumerate(built.codec.decode_colours(tokens, context)):
        watched = asdict(colour_tripwires(round_to_levels(picture), **reading))
        assert components.keys() == {"vivid", "entropy"} | watched.keys()
        for name, value in watched.items():
            assert components[name][row] == pytest.approx(value, abs=1e-10)


def test_what_is_watched_is_no_part_of_the_reward(tmp_path: Path) -> None:
    score = scored(task(tmp_path), drawn(5), Framed.of(example(), View(), Square(side=SIZE)))
    product = score.components["vivid"] * score.components["entropy"]
    np.testing.assert_array_equal(score.reward_S, product)


def test_nothing_is_seen_of_the_colours_but_their_grey(tmp_path: Path) -> None:
    built, shown = task(tmp_path), example()
    seen = built.input_images(colour_image(Framed.of(shown, View(), Square(side=SIZE)))[None])
    assert np.array_equal(seen[..., 0], seen[..., 2])
    colour = decode_image(shown.image)
    other = np.repeat(
        np.rint(colour @ np.array([0.2989, 0.5870, 0.1140]))[..., None], 3, axis=-1
    ).astype(np.uint8)
    import io
    from dataclasses import replace

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(other).save(stream, format="PNG")
    without = replace(shown, image=stream.getvalue(), image_id=2)
    # One level of rounding apart at most: the context is as good as the same.
    first = built.decode(drawn(1), Framed.of(shown, View(), Square(side=SIZE)))[0].astype(int)
    second = built.decode(drawn(1), Framed.of(without, View(), Square(side=SIZE)))[0].astype(int)
    assert np.abs(first - second).mean() < 2


def test_target_tokens_are_codes_of_the_picture_in_its_view(tmp_path: Path) -> None:
    built, rng = task(tmp_path), np.random.default_rng(0)
    tokens = built.target_tokens(Framed.of(example(), VIEWS[2], Square(side=SIZE)), rng=rng)
    image = colour_image(Framed.of(example(), VIEWS[2], Square(side=SIZE)))
    np.testing.assert_array_equal(tokens, built.codec.encode({"color": image}, grey(image)))


def test_a_score_does_not_depend_on_its_group(tmp_path: Path) -> None:
    built, tokens = task(tmp_path, decode_batch=4), drawn(6)
    together = scored(built, tokens, Framed.of(example(), View(), Square(side=SIZE))).reward_S
    for row in range(6):
        alone = scored(
            built, tokens[row : row + 1], Framed.of(example(), View(), Square(side=SIZE))
        )
        assert alone.reward_S[0] == together[row]


def test_files_give_the_figures_of_the_records(tmp_path: Path) -> None:
    built = task(tmp_path)
    data = Examples([example(0, image_id=1), example(1, image_id=2)])
    records = [predict(built, drawn(1)[0], 0), predict(built, drawn(1, 5)[0], 1)]
    assert json.loads(json.dumps(records)) == records
    figures = built.evaluate(records, data, indices=[0, 1])
    built.write_results(records, tmp_path / "results")
    originals = tmp_path / "originals"
    originals.mkdir()
    for index in range(2):
        shown = data.example(index)
        (originals / f"{Path(shown.file_name).stem}.png").write_bytes(shown.image)
    official = folder_colour_metrics(tmp_path / "results" / "pictures", reference=originals)
    for ours, theirs in [("colour_reward", "reward"), *((n, n) for n in ("vivid", "psnr"))]:
        assert figures[ours] == pytest.approx(official[theirs], rel=1e-12)
    assert next(iter(figures)) == "colour_reward"
    for field in fields(ColourTripwires):
        assert figures[field.name] == pytest.approx(official[field.name], rel=1e-12)


def test_pictures_have_the_image_s_size(tmp_path: Path) -> None:
    built, record = task(tmp_path), predict(task(tmp_path), drawn(1)[0], 0)
    for view in VIEWS:
        (picture,) = built.decode(drawn(1), Framed.of(example(), view, Square(side=SIZE)))
        assert picture.shape == (24, 32, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(built.paint(example(), None), decode_image(example().image))
    assert built.paint(example(), [record]).shape == (24, 32, 3)


def test_a_picture_of_a_window_lies_where_the_window_was() -> None:
    shown = example()
    window = Window(aspect=1.2, min_area=0.3, size=0.1)
    view = View(flip=True, offset_y=0.5, offset_x=1.0, window=window)
    frame = Framed.of(shown, view, Square(side=SIZE)).frame
    laid = frame.geometry
    back = in_image(np.full((SIZE, SIZE, 3), 7, np.uint8), frame)
    expected = np.full((24, 32, 3), 255, np.uint8)
    # Offset 1 is at the right of the flipped image: at the left of the image itself.
    expected[laid.source_top :][: laid.source_height, : laid.source_width] = 7
    np.testing.assert_array_equal(back, expected)
    # Stretched and back, a picture is what it was but for the resampling.
    soft = np.add.outer(np.arange(24), np.arange(32))[..., None].repeat(3, axis=-1).astype(np.uint8)
    whole = View(flip=True, window=Window())
    frame = Framed.of(shown, whole, Square(side=SIZE)).frame
    returned = in_image(round_to_levels(view_image(soft, frame)), frame)
    assert np.abs(returned.astype(int) - soft).max() <= 2


def test_switches_change_the_reward(tmp_path: Path) -> None:
    plain = scored(task(tmp_path), drawn(3), Framed.of(example(), View(), Square(side=SIZE)))
    squared = scored(
        task(tmp_path, vivid_rule="squared"),
        drawn(3),
        Framed.of(example(), View(), Square(side=SIZE)),
    )
    assert (squared.components["vivid"] >= plain.components["vivid"]).all()
    assert (squared.components["vivid"] > plain.components["vivid"]).any()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    panoptic = str(write_stage_one(tmp_path, "panoptic"))
    with pytest.raises(ValueError, match="is for panoptic: name one for colorization"):
        TASK({"stage_one": panoptic}, categories=())
    with pytest.raises(ValueError, match="colorization option 'hue_range' = 'most'"):
        TASK({"stage_one": panoptic, "hue_range": "most"}, categories=())
    built = task(tmp_path)
    with pytest.raises(ValueError, match="image 1 .* has no result"):
        built.evaluate([], Examples([example()]), indices=[0])
    with pytest.raises(ValueError, match="the policy sees 16 x 16 pixels but stage I"):
        scored(built, drawn(1), Framed.of(example(), View(), Square(side=16)))
