from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rewardtune.datasets.example import Category, Example
from rewardtune.evaluation.paint import (
    NamedBox,
    annotated_boxes,
    paint_boxes,
    picture_grid,
    predicted_boxes,
    side_by_side,
)

CATEGORIES = [Category(id=17, name="cat"), Category(id=90, name="kite")]
GREY_HWC = np.full((20, 30, 3), 90, dtype=np.uint8)


def test_annotation_and_results_become_boxes_with_words() -> None:
    example = Example(
        image_id=1,
        file_name="1.png",
        height=20,
        width=30,
        image=b"",
        xywh_N4=np.array([[1.0, 2.0, 3.0, 4.0]]),
        category_N=np.array([1]),
        area_N=np.array([12.0]),
        is_crowd_N=np.array([False]),
        annotation_id_N=np.array([5]),
    )
    assert annotated_boxes(example, CATEGORIES) == [NamedBox((1, 2, 4, 6), 1, "kite")]
    records = [
        {"category_id": 17, "bbox": [0, 0, 5, 5], "score": 0.875},
        {"category_id": 90, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"category_id": 90, "bbox": [1, 2, 3, 4], "score": 0.1},
    ]
    assert predicted_boxes(records, CATEGORIES, min_score=0.2) == [
        NamedBox((1, 2, 4, 6), 1, "kite 0.50"),
        NamedBox((0, 0, 5, 5), 0, "cat 0.88"),
    ]


def test_a_tiny_picture_is_enlarged_with_its_boxes() -> None:
    box = NamedBox((10, 8, 20, 16), 0, "")
    picture = paint_boxes(GREY_HWC, [box], min_side=300)
    assert picture.size == (300, 200)
    pixels_HWC = np.asarray(picture)
    assert pixels_HWC[159, 150].tolist() != [90, 90, 90], "lower edge, just inside"
    assert pixels_HWC[161, 150].tolist() == [90, 90, 90]
    assert pixels_HWC[120, 150].tolist() == [90, 90, 90], "the middle stays free"


def test_a_large_picture_keeps_its_size() -> None:
    assert paint_boxes(np.zeros((500, 400, 3), dtype=np.uint8), []).size == (400, 500)


@pytest.mark.parametrize("xyxy", [(-5, -5, 4, 4), (25, 15, 60, 40), (29, 19, 30, 20), (5, 5, 5, 5)])
def test_boxes_at_and_over_the_edge_are_drawn(xyxy: tuple[float, float, float, float]) -> None:
    drawn = np.asarray(paint_boxes(GREY_HWC, [NamedBox(xyxy, 1, "a long name 0.99")]))
    assert (drawn != 90).any()


def test_classes_differ_in_colour() -> None:
    box = (2.0, 2.0, 20.0, 15.0)
    pictures = [paint_boxes(GREY_HWC, [NamedBox(box, label, "")]).tobytes() for label in range(80)]
    assert len(set(pictures)) == 80


def test_a_grid_leaves_room_for_every_picture_and_title() -> None:
    red, blue = Image.new("RGB", (10, 6), "red"), Image.new("RGB", (4, 12), "blue")
    grid = picture_grid([[red, blue], [blue, red]])
    colours = {colour: count for count, colour in grid.getcolors() or []}
    assert colours[255, 0, 0] == 2 * 60 and colours[0, 0, 255] == 2 * 48
    titled = side_by_side({"left": red, "right": blue})
    assert titled.height > grid.height - 12
    assert titled.getcolors() is not None
