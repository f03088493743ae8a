"""The files that benchmarks publish and take, read and told apart: COCO's annotations and results.

Ground truth: instances, panoptic and captions JSON, each a dictionary. Results: a list of records
for boxes, masks and captions; a dictionary of annotations, with a folder of PNGs, for panoptic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rewardtune.datasets.coco.record_fields import (
    BOX,
    ID,
    LIST,
    MASK,
    NAME,
    NUMBER,
    TEXT,
    FieldTest,
    check_records,
)

Kind: TypeAlias = Literal["instances", "panoptic", "captions"]

_LISTS: dict[Kind, tuple[str, ...]] = {
    "instances": ("images", "annotations", "categories"),
    "panoptic": ("annotations", "categories"),
    "captions": ("images", "annotations"),
}
_ARTICLE = {
    "instances": "an instances file",
    "panoptic": "a panoptic file",
    "captions": "a captions file",
    "detection results": "a list of detection results",
    "captions results": "a list of captions results",
}


def read_annotations(path: Path, kind: Kind) -> dict[str, Any]:
    """A ground truth file: ``annotations``, with the lists that its kind needs beside them.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, of another kind, or lacks a part; one line with its name.
    """
    content = read_json(path)
    _require_kind(content, kind, path, role="ground truth")
    for key in _LISTS[kind]:
        if not isinstance(content.get(key), list):
            raise ValueError(
                f"{path} has no list '{key}': {_ARTICLE[kind]} with the ground truth has "
                f"{', '.join(_LISTS[kind])}"
            )
        if key != "annotations":
            check_records(content[key], {"id": ID}, path, where=f"'{key}' entry")
    if kind == "panoptic":
        _check_panoptic(content["annotations"], path)
    else:
        of_objects = {"id": ID, "image_id": ID, "category_id": ID}
        of_captions = {"image_id": ID, "caption": TEXT}
        fields = of_captions if kind == "captions" else of_objects
        check_records(content["annotations"], fields, path, where="annotation")
    return dict(content)


def read_detection_results(
    path: Path,
) -> tuple[list[dict[str, Any]], Literal["bbox", "segm"]]:
    """Records of detections, and what they are: boxes if the first one has a box, else masks.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no list of such records; names the first that is not.
    """
    content = read_json(path)
    _require_kind(content, "detection results", path, role="results")
    is_boxes = not content or bool(content[0].get("bbox"))
    fields = {"image_id": ID, "category_id": ID, "score": NUMBER}
    outline = {"bbox": BOX} if is_boxes else {"segmentation": MASK}
    check_records(content, {**fields, **outline}, path, where="record")
    return list(content), "bbox" if is_boxes else "segm"


def read_caption_results(path: Path) -> list[dict[str, Any]]:
    """Records of image_id and caption.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no list of such records; names the first that is not.
    """
    content = read_json(path)
    _require_kind(content, "captions results", path, role="results")
    check_records(content, {"image_id": ID, "caption": TEXT}, path, where="record")
    return list(content)


def read_panoptic_results(path: Path) -> dict[str, Any]:
    """A dictionary with ``annotations``, one per image, of image_id, file_name, segments_info.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file; names the first annotation that is not.
    """
    content = read_json(path)
    _require_kind(content, "panoptic", path, role="results")
    if not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path} has no list 'annotations': panoptic results need one")
    _check_panoptic(content["annotations"], path)
    return dict(content)


def read_records(path: Path, fields: Mapping[str, FieldTest]) -> list[dict[str, Any]]:
    """Results of a kind that COCO has no name for: a list of records with these fields.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no list of such records; names the first that is not.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} is no list: the results must be a list of records")
    check_records(content, fields, path, where="record")
    return list(content)


def panoptic_folder(path: Path, folder: Path | None, *, option: str) -> Path:
    """Where a panoptic JSON's PNGs are: by default its name without .json, beside it."""
    found = folder or path.with_suffix("")
    if not found.is_dir():
        raise NotADirectoryError(
            f"{found} is not a folder: the PNGs of {path.name} are expected there, or where "
            f"{option} says"
        )
    return found


def read_json(path: Path) -> Any:
    """
    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON; says where.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: a JSON file is needed")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no JSON: it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is no JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply for any file of COCO's") from None


# --- what kind of file it is -----------------------------------------------------------------


def _require_kind(content: Any, wanted: str, path: Path, *, role: str) -> None:
    found = _kind_of(content)
    is_list = wanted in ("detection results", "captions results")
    if found == wanted or (found is None and isinstance(content, list if is_list else dict)):
        return
    looks = "neither annotations nor results of COCO's" if found is None else _ARTICLE[found]
    article = _ARTICLE[wanted] + (" with the ground truth" if role == "ground truth" else "")
    raise ValueError(f"{path} is {looks}: the {role} must be {article}")


def _kind_of(content: Any) -> str | None:
    """By its first record; None where there is none to tell by."""
    if isinstance(content, list):
        first = content[0] if content else None
        if isinstance(first, dict):
            if "caption" in first:
                return "captions results"
            if first.keys() & {"bbox", "segmentation", "score", "category_id"}:
                return "detection results"
        return None
    if not isinstance(content, Mapping) or not isinstance(content.get("annotations"), list):
        return None
    first = content["annotations"][0] if content["annotations"] else None
    if not isinstance(first, dict):
        return None
    for field, kind in (("segments_info", "panoptic"), ("caption", "captions")):
        if field in first:
            return kind
    return "instances" if "category_id" in first else None


def _check_panoptic(annotations: Sequence[Any], path: Path) -> None:
    fields = {"image_id": NAME, "file_name": TEXT, "segments_info": LIST}
    check_records(annotations, fields, path, where="annotation")
    for annotation in annotations:
        check_records(
            annotation["segments_info"],
            {"id": ID, "category_id": ID},
            path,
            where=f"image {annotation['image_id']}, segment",
        )
