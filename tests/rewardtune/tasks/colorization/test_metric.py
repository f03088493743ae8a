"""The measures beside the reward, one picture at a time and over folders."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewardtune.tasks.colorization.definition import colour_reward
from rewardtune.tasks.colorization.metric import (
    ColourMetrics,
    colour_metrics,
    folder_colour_metrics,
    hasler_colourfulness,
    lightness_psnr,
    psnr,
)
from rewardtune.tasks.colorization.tripwire import colour_tripwires
from tests.rewardtune.tasks.colorization.shared_pictures import SHARED, needs_shared


def noise(seed: int = 0, *, height: int = 12, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(image).save(path)


def test_colourfulness_is_its_formula_pixel_by_pixel() -> None:
    image = noise()
    red_green, yellow_blue = [], []
    for red, green, blue in image.reshape(-1, 3).tolist():
        red_green.append(red - green)
        yellow_blue.append((red + green) / 2 - blue)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def variance(values: list[float]) -> float:
        return mean([(value - mean(values)) ** 2 for value in values])

    expected = math.sqrt(variance(red_green) + variance(yellow_blue)) + 0.3 * math.sqrt(
        mean(red_green) ** 2 + mean(yellow_blue) ** 2
    )
    assert hasler_colourfulness(image) == pytest.approx(expected, rel=1e-12)
    assert hasler_colourfulness(np.full((3, 3, 3), 90, dtype=np.uint8)) == 0


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    image = noise()
    assert psnr(image, image) == math.inf
    other = image.copy()
    other[0, 0] = image[0, 0] ^ 1  # three samples off by one
    error = 3 / image.size
    assert psnr(other, image) == pytest.approx(10 * math.log10(255**2 / error), rel=1e-12)
    assert psnr(image, other) == psnr(other, image)


def test_lightness_psnr_sees_greys_alone() -> None:
    black, white = (np.full((2, 2, 3), level, dtype=np.uint8) for level in (0, 255))
    assert lightness_psnr(black, white) == pytest.approx(0, abs=1e-6)
    assert lightness_psnr(black, black) == math.inf
    with pytest.raises(ValueError, match="one shape"):
        lightness_psnr(black, white[:1])


def test_a_pictures_figures_hold_the_rewards_own() -> None:
    image = noise()
    metrics, reward = colour_metrics(image), colour_reward(image)
    assert metrics.reward == pytest.approx(reward.reward, abs=1e-15)
    assert metrics.vivid == pytest.approx(reward.vivid, abs=1e-15)
    assert metrics.entropy == pytest.approx(reward.entropy, abs=1e-15)
    for name, value in asdict(colour_tripwires(image)).items():
        assert getattr(metrics, name) == pytest.approx(value, abs=1e-10)
    squared = colour_metrics(image, vivid_rule="squared", hue_range="half")
    assert squared.vivid >= metrics.vivid and squared.entropy != metrics.entropy


def test_a_folders_figures_are_the_means_of_its_pictures(tmp_path: Path) -> None:
    images = {f"{n}.png": noise(n, height=5 + n) for n in range(3)}
    for name, image in images.items():
        save(image, tmp_path / "ours" / name)
    (tmp_path / "ours" / "notes.txt").write_text("not a picture")
    metrics = folder_colour_metrics(tmp_path / "ours", per_image=True)
    assert metrics["n"] == 3
    assert [row["file"] for row in metrics["images"]] == list(images)
    names = [field.name for field in fields(ColourMetrics)]
    assert list(metrics) == ["n", *names, "images"]
    for name in names:
        values = [getattr(colour_metrics(image), name) for image in images.values()]
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-14)
        assert [row[name] for row in metrics["images"]] == values
    assert "psnr" not in metrics
    assert "images" not in folder_colour_metrics(tmp_path / "ours")


def test_a_folder_is_compared_with_its_originals(tmp_path: Path) -> None:
    for n in range(3):
        save(noise(n), tmp_path / "originals" / f"{n}.png")
        save(noise(n if n == 1 else n + 9), tmp_path / "ours" / f"{n}.png")
    save(noise(7), tmp_path / "originals" / "unused.png")
    metrics = folder_colour_metrics(tmp_path / "ours", reference=tmp_path / "originals")
    expected = [psnr(noise(n + 9), noise(n)) for n in (0, 2)]
    assert metrics["psnr"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert metrics["n"] == 3 and metrics["n_equal"] == 1 and metrics["n_equal_lightness"] == 1
    json.dumps(metrics, allow_nan=False)
    same = folder_colour_metrics(tmp_path / "ours", reference=tmp_path / "ours")
    assert same["psnr"] is None and same["n_equal"] == 3


def test_folders_that_cannot_be_judged_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent is not a folder"):
        folder_colour_metrics(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no pictures"):
        folder_colour_metrics(tmp_path)
    save(noise(), tmp_path / "ours" / "one.png")
    save(noise(height=3), tmp_path / "originals" / "one.jpg")
    with pytest.raises(ValueError, match=r"one\.png is 9 x 12 pixels .*one\.jpg is 9 x 3"):
        folder_colour_metrics(tmp_path / "ours", reference=tmp_path / "originals")
    save(noise(), tmp_path / "ours" / "two.png")
    save(noise(), tmp_path / "originals" / "one.jpg")
    with pytest.raises(ValueError, match=r"two\.png has no original"):
        folder_colour_metrics(tmp_path / "ours", reference=tmp_path / "originals")
    (tmp_path / "ours" / "two.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"two\.png cannot be read"):
        folder_colour_metrics(tmp_path / "ours")
    save(noise(), tmp_path / "ours" / "one.jpg")
    with pytest.raises(ValueError, match="the same name"):
        folder_colour_metrics(tmp_path / "ours")


@needs_shared
def test_the_stored_pictures_have_the_stored_mean_reward() -> None:
    expected = json.loads((SHARED / "expected.json").read_text())["images"]
    metrics = folder_colour_metrics(SHARED, per_image=True)
    assert metrics["n"] == len(expected)
    mean = np.mean([values["reward"] for values in expected.values()])
    assert metrics["reward"] == pytest.approx(mean, abs=1e-12)
    for row in metrics["images"]:
        assert row["reward"] == pytest.approx(expected[row["file"]]["reward"], abs=1e-12)
