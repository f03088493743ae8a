from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rewardtune.datasets.example import Category
from rewardtune.datasets.image_folder import ImageFolder
from rewardtune.datasets.images import decode_image

CATEGORIES = [Category(id=1, name="cat")]


def test_pictures_come_by_name_with_nothing_annotated(tmp_path: Path) -> None:
    Image.new("L", (6, 4), 255).save(tmp_path / "b.PNG")
    Image.new("RGB", (3, 5)).save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").touch()
    folder = ImageFolder(tmp_path, categories=CATEGORIES)
    examples = [folder.example(index) for index in range(len(folder))]
    assert [(e.image_id, e.file_name, e.height, e.width) for e in examples] == [
        (1, "a.jpg", 5, 3),
        (2, "b.PNG", 4, 6),
    ]
    assert all(len(e.xywh_N4) == len(e.category_N) == 0 for e in examples)
    assert decode_image(examples[1].image).shape == (4, 6, 3)
    assert folder.categories == (CATEGORIES[0],)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no pictures"):
        ImageFolder(tmp_path, categories=CATEGORIES)
    with pytest.raises(ValueError, match="is no folder of pictures"):
        ImageFolder(tmp_path / "missing", categories=CATEGORIES)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="torn.png"):
        ImageFolder(tmp_path, categories=CATEGORIES).example(0)
