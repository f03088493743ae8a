"""Examples as the columns of an Arrow record batch, and back.

Axes: R rows of a record batch, N objects of an example.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rewardtune.datasets.example import Example, Segment

_OBJECT = pa.struct(
    [
        pa.field("xywh", pa.list_(pa.float64(), 4), nullable=False),
        pa.field("category", pa.int64(), nullable=False),
        pa.field("area", pa.float64(), nullable=False),
        # A byte each: Arrow's own booleans are bits, which numpy cannot view.
        pa.field("is_crowd", pa.uint8(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("segmentation", pa.string(), nullable=False),
    ]
)
_SEGMENT = pa.struct(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("category", pa.int64(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("is_crowd", pa.uint8(), nullable=False),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("objects", pa.list_(pa.field("item", _OBJECT, nullable=False)), nullable=False),
        pa.field("panoptic_png", pa.large_binary(), nullable=False),
        pa.field("segments", pa.list_(pa.field("item", _SEGMENT, nullable=False)), nullable=False),
        pa.field(
            "captions", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False
        ),
    ]
)


def batch_of(rows: Sequence[Example]) -> pa.RecordBatch:
    """Lay examples out in columns, each of them one buffer and its offsets."""
    objects = pa.StructArray.from_arrays(
        [
            pa.FixedSizeListArray.from_arrays(
                pa.array(_joined([row.xywh_N4.reshape(-1) for row in rows], np.float64)), 4
            ),
            pa.array(_joined([row.category_N for row in rows], np.int64)),
            pa.array(_joined([row.area_N for row in rows], np.float64)),
            pa.array(_joined([row.is_crowd_N for row in rows], np.uint8)),
            pa.array(_joined([row.annotation_id_N for row in rows], np.int64)),
            pa.array(
                [
                    text
                    for row in rows
                    for text in (row.segmentation_N or ("",) * len(row.category_N))
                ],
                pa.string(),
            ),
        ],
        fields=list(_OBJECT),
    )
    segments = [segment for row in rows for segment in row.segments]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.image_id for row in rows], pa.int64()),
            pa.array([row.file_name for row in rows], pa.string()),
            pa.array([row.height for row in rows], pa.int64()),
            pa.array([row.width for row in rows], pa.int64()),
            pa.array([row.image for row in rows], pa.large_binary()),
            _lists(objects, [len(row.category_N) for row in rows], SCHEMA.field("objects").type),
            pa.array([row.panoptic_png for row in rows], pa.large_binary()),
            _lists(
                pa.StructArray.from_arrays(
                    [
                        pa.array([segment.id for segment in segments], pa.int64()),
                        pa.array([segment.category for segment in segments], pa.int64()),
                        pa.array([segment.area for segment in segments], pa.int64()),
                        pa.array([int(segment.is_crowd) for segment in segments], pa.uint8()),
                    ],
                    fields=list(_SEGMENT),
                ),
                [len(row.segments) for row in rows],
                SCHEMA.field("segments").type,
            ),
            _lists(
                pa.array([text for row in rows for text in row.captions], pa.string()),
                [len(row.captions) for row in rows],
                SCHEMA.field("captions").type,
            ),
        ],
        schema=SCHEMA,
    )


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts]).astype(dtype, copy=False)


def _lists(values: pa.Array, lengths: Sequence[int], kind: pa.DataType) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


@dataclass(frozen=True, slots=True)
class _Texts:
    """A column of strings or bytes: one buffer, cut at offsets."""

    data: memoryview
    offsets: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, array: pa.Array, offset_type: type[np.generic]) -> _Texts:
        _, offsets, data = array.buffers()
        return cls(
            data=memoryview(data) if data is not None else memoryview(b""),
            offsets=np.frombuffer(offsets, dtype=offset_type)[: len(array) + 1],
        )

    def bytes_at(self, row: int) -> bytes:
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]])

    def text_at(self, row: int) -> str:
        return str(self.data[self.offsets[row] : self.offsets[row + 1]], "utf-8")

    def texts(self, start: int, stop: int) -> tuple[str, ...]:
        cuts = self.offsets[start : stop + 1].tolist()
        return tuple(str(self.data[a:b], "utf-8") for a, b in itertools.pairwise(cuts))


@dataclass(frozen=True, slots=True)
class Columns:
    """A record batch as numpy views, from which a row is read in microseconds.

    Arrow's own access by row (``slice`` and ``to_pylist``) takes three times as long, and
    makes lists where codecs want arrays.
    """

    image_id_R: NDArray[np.int64]
    file_name: _Texts
    height_R: NDArray[np.int64]
    width_R: NDArray[np.int64]
    image: _Texts
    object_cuts: NDArray[np.int32]
    xywh: NDArray[np.float64]
    category: NDArray[np.int64]
    area: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    annotation_id: NDArray[np.int64]
    segmentation: _Texts
    panoptic_png: _Texts
    segment_cuts: NDArray[np.int32]
    segment_fields: tuple[NDArray[Any], ...]
    caption_cuts: NDArray[np.int32]
    captions: _Texts

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Columns:
        column = {name: batch.column(name) for name in batch.schema.names}
        objects, segments = column["objects"].values, column["segments"].values
        return cls(
            image_id_R=column["image_id"].to_numpy(),
            file_name=_Texts.of(column["file_name"], np.int32),
            height_R=column["height"].to_numpy(),
            width_R=column["width"].to_numpy(),
            image=_Texts.of(column["image"], np.int64),
            object_cuts=column["objects"].offsets.to_numpy(),
            xywh=objects.field("xywh").values.to_numpy().reshape(-1, 4),
            category=objects.field("category").to_numpy(),
            area=objects.field("area").to_numpy(),
            is_crowd=objects.field("is_crowd").to_numpy().view(np.bool_),
            annotation_id=objects.field("id").to_numpy(),
            segmentation=_Texts.of(objects.field("segmentation"), np.int32),
            panoptic_png=_Texts.of(column["panoptic_png"], np.int64),
            segment_cuts=column["segments"].offsets.to_numpy(),
            segment_fields=tuple(
                segments.field(name).to_numpy() for name in ("id", "category", "area", "is_crowd")
            ),
            caption_cuts=column["captions"].offsets.to_numpy(),
            captions=_Texts.of(column["captions"].values, np.int32),
        )

    def example(self, row: int) -> Example:
        start, stop = self.object_cuts[row], self.object_cuts[row + 1]
        return Example(
            image_id=int(self.image_id_R[row]),
            file_name=self.file_name.text_at(row),
            height=int(self.height_R[row]),
            width=int(self.width_R[row]),
            image=self.image.bytes_at(row),
            xywh_N4=self.xywh[start:stop],
            category_N=self.category[start:stop],
            area_N=self.area[start:stop],
            is_crowd_N=self.is_crowd[start:stop],
            annotation_id_N=self.annotation_id[start:stop],
            segmentation_N=self.segmentation.texts(start, stop),
            panoptic_png=self.panoptic_png.bytes_at(row),
            segments=self._segments(row),
            captions=self.captions.texts(self.caption_cuts[row], self.caption_cuts[row + 1]),
        )

    def _segments(self, row: int) -> tuple[Segment, ...]:
        start, stop = self.segment_cuts[row], self.segment_cuts[row + 1]
        if start == stop:
            return ()
        fields = (values[start:stop].tolist() for values in self.segment_fields)
        return tuple(
            Segment(id=number, category=category, area=area, is_crowd=bool(is_crowd))
            for number, category, area, is_crowd in zip(*fields, strict=True)
        )
