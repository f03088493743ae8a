"""COCO's PNG maps and JSON lists, in and out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewardtune.tasks.panoptic.files import (
    PredictedMap,
    ids_of_png,
    png_of_ids,
    read_ids,
    write_predictions,
)
from rewardtune.tasks.panoptic.metric import panoptic_metrics

COLOURS_HW3 = np.array([[[1, 2, 3], [0, 0, 0]], [[255, 255, 255], [0, 1, 0]]], dtype=np.uint8)
IDS_HW = np.array([[1 + 2 * 256 + 3 * 65536, 0], [2**24 - 1, 256]])


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind)
    return stream.getvalue()


def test_an_id_is_its_colour() -> None:
    np.testing.assert_array_equal(ids_of_png(encoded(Image.fromarray(COLOURS_HW3))), IDS_HW)
    np.testing.assert_array_equal(ids_of_png(png_of_ids(IDS_HW)), IDS_HW)
    with Image.open(io.BytesIO(png_of_ids(IDS_HW))) as picture:
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), COLOURS_HW3)


def test_alpha_is_ignored_and_a_palette_stands_for_its_colours() -> None:
    alpha_HW = np.array([[0, 7], [255, 0]], dtype=np.uint8)
    rgba = Image.fromarray(np.dstack([COLOURS_HW3, alpha_HW]))
    np.testing.assert_array_equal(ids_of_png(encoded(rgba)), IDS_HW)
    palette = Image.fromarray(COLOURS_HW3).quantize(colors=4)
    np.testing.assert_array_equal(ids_of_png(encoded(palette)), IDS_HW)


def test_pictures_that_give_no_ids_are_refused() -> None:
    rgb = Image.fromarray(COLOURS_HW3)
    with pytest.raises(ValueError, match="must be a PNG, got JPEG"):
        ids_of_png(encoded(rgb, "JPEG"))
    with pytest.raises(ValueError, match="colours of 8 bits .* got L of 8 bits"):
        ids_of_png(encoded(rgb.convert("L")))
    with pytest.raises(ValueError, match="got I;16 of 16 bits"):
        ids_of_png(encoded(Image.fromarray(np.zeros((2, 2), np.uint16))))
    whole = png_of_ids(np.random.default_rng(0).integers(2**24, size=(40, 40)))
    for broken in (b"", b"no picture", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match="cannot be decoded"):
            ids_of_png(broken)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="a.png: the map cannot be decoded"):
        read_ids(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="b.png is missing"):
        read_ids(tmp_path / "b.png")


@pytest.mark.parametrize("bad", [IDS_HW + 1, IDS_HW - 1, IDS_HW * 1.0, IDS_HW[0]])
def test_maps_that_no_png_can_hold_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        png_of_ids(bad)


def predictions() -> list[PredictedMap]:
    return [
        PredictedMap(
            image_id=image_id,
            file_name=f"{image_id}.png",
            id_HW=np.array([[9, 9, 0, 70_000]]),
            category_ids={9: 2, 70_000: 1},
        )
        for image_id in (4, 8)
    ]


def test_what_is_written_is_what_the_metric_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    write_predictions(path, predictions())
    written = json.loads(path.read_text())
    assert [a["image_id"] for a in written["annotations"]] == [4, 8]
    assert written["annotations"][0]["segments_info"] == [
        {"id": 9, "category_id": 2, "iscrowd": 0, "area": 2},
        {"id": 70_000, "category_id": 1, "iscrowd": 0, "area": 1},
    ]
    assert sorted(p.name for p in path.parent.iterdir()) == ["results", "results.json"]
    categories = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
    folder = tmp_path / "new" / "results"
    metrics = panoptic_metrics(written | {"categories": categories}, folder, written, folder)
    assert metrics["All"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 2}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    good = predictions()
    write_predictions(path, good)
    before = path.read_text()
    bad = [good[0], PredictedMap(9, "9.png", np.array([[5]]), {})]
    with pytest.raises(ValueError, match="image 9: segment 5 is painted but not listed"):
        write_predictions(path, bad, overwrite=True)
    twice = [good[0], good[0]]
    with pytest.raises(ValueError, match="image 4: '4.png' is no plain file name or is used twice"):
        write_predictions(path, twice, overwrite=True)
    with pytest.raises(FileExistsError, match="is already there"):
        write_predictions(path, good)
    assert path.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results", "results.json"]
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["4.png", "8.png"]
    write_predictions(path, good[:1], overwrite=True)
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["4.png"]
    unpainted = [PredictedMap(9, "9.png", np.array([[0]]), {5: 1})]
    with pytest.raises(ValueError, match="image 9: segment 5 is listed but not painted"):
        write_predictions(tmp_path / "other.json", unpainted)
    outside = [PredictedMap(9, "../9.png", np.array([[0]]), {})]
    with pytest.raises(ValueError, match="no plain file name"):
        write_predictions(tmp_path / "other.json", outside)
    with pytest.raises(ValueError, match="has no suffix"):
        write_predictions(tmp_path / "other", good)
