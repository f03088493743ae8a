from rewardtune.tasks.detection.suppression import suppress_duplicates


def box(x: float, score: float, *, image: int = 1, category: int = 1) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}


def test_the_better_of_two_overlapping_boxes_stays() -> None:
    worse, better, apart = box(1, 0.3), box(0, 0.9), box(30, 0.1)
    assert suppress_duplicates([worse, better, apart], iou_threshold=0.5) == [better, apart]


def test_other_images_and_categories_do_not_count() -> None:
    boxes = [box(0, 0.9), box(0, 0.3, image=2), box(0, 0.3, category=2)]
    assert suppress_duplicates(boxes, iou_threshold=0.5) == boxes


def test_a_dropped_box_suppresses_nothing() -> None:
    """a drops b; c overlaps b but not a, so it stays."""
    a, b, c = box(0, 0.9), box(4, 0.8), box(8, 0.7)
    assert suppress_duplicates([a, b, c], iou_threshold=0.3) == [a, c]
