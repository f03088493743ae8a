"""Where captions to count come from: image id and text of each, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rewardtune.datasets.coco.broken import ConversionError
from rewardtune.datasets.coco.json_stream import JsonReader
from rewardtune.datasets.shards.dataset import open_dataset


def captions_of(path: Path) -> Iterator[tuple[int, str]]:
    """The captions of a COCO captions JSON, or of a data set's folder.

    Neither is held in memory.

    Raises:
        ValueError: it is neither, an annotation lacks image_id or caption, or an image of a data
            set has no captions.
        OSError: it cannot be opened.
    """
    path = Path(path)
    return _of_dataset(path) if path.is_dir() else _of_coco(path)


def _of_dataset(path: Path) -> Iterator[tuple[int, str]]:
    dataset = open_dataset(path)
    for index in range(len(dataset)):
        example = dataset.example(index)
        if not example.captions:
            raise ValueError(
                f"image {example.file_name} (id {example.image_id}) of {path} has no captions, and "
                "a run on it would stop there: leave it out of the captions file's images"
            )
        for caption in example.captions:
            yield example.image_id, caption


def _of_coco(path: Path) -> Iterator[tuple[int, str]]:
    has_annotations = False
    with JsonReader(path) as reader:
        for key in reader:
            if key == "images":
                # One by one: the list may not fit in memory.
                for _ in reader.items(key):
                    pass
                continue
            if key != "annotations":
                reader.skip()
                continue
            has_annotations = True
            for place, (item, _) in enumerate(reader.items(key)):
                image_id, caption = item.get("image_id"), item.get("caption")
                if not isinstance(image_id, int) or not isinstance(caption, str):
                    raise ConversionError(
                        f"{path}: annotation {place} needs an integer 'image_id' and a text "
                        f"'caption', got {item!r}"
                    )
                yield image_id, caption
    if not has_annotations:
        raise ConversionError(
            f"{path} has no list 'annotations': a COCO captions file has one item per caption there"
        )
