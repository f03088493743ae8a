from __future__ import annotations

import json
import multiprocessing
import os
import resource
import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.datasets.example import Category, Dataset, Example, Segment
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.datasets.shards.manifest import DatasetError
from rewardtune.datasets.shards.writer import ShardWriter

CATEGORIES = (Category(7, "cat"), Category(11, "sky", is_thing=False), Category(40, "dog"))


def make_example(number: int, *, num_objects: int | None = None) -> Example:
    rng = np.random.default_rng(number)
    num_objects = number % 4 if num_objects is None else num_objects
    return Example(
        image_id=1000 + number,
        file_name=f"folder/bïld {number}.png",
        height=10 + number,
        width=20,
        image=rng.bytes(50 + number),
        xywh_N4=rng.random((num_objects, 4)) * 9,
        category_N=rng.integers(0, 3, num_objects),
        area_N=rng.random(num_objects),
        is_crowd_N=rng.random(num_objects) < 0.3,
        annotation_id_N=rng.integers(0, 2**40, num_objects),
        segmentation_N=tuple("" if i % 2 else f"[[{i},1,2,3,4,5]]" for i in range(num_objects)),
        panoptic_png=rng.bytes(30) if number % 2 else b"",
        segments=tuple(
            Segment(id=s + 1, category=1, area=5, is_crowd=s == 2) for s in range(number % 3)
        ),
        captions=tuple(f"caption {i} of ünïcode" for i in range(number % 6)),
    )


def assert_same(got: Example, expected: Example) -> None:
    for field in fields(Example):
        a, b = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), field.name
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name


def write(
    directory: Path,
    examples: Sequence[Example],
    *,
    shard_bytes: int = 4000,
    overwrite: bool = False,
) -> ShardDataset:
    with ShardWriter(
        directory,
        categories=CATEGORIES,
        source="made here",
        shard_bytes=shard_bytes,
        overwrite=overwrite,
    ) as writer:
        for example in examples:
            writer.add(example)
    dataset = open_dataset(directory)
    assert writer.digest == dataset.digest
    assert writer.num_examples == len(dataset) == len(examples)
    return dataset


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a few examples make several batches and shards.
    monkeypatch.setattr("rewardtune.datasets.shards.writer._BATCH_ROWS", 3)


def test_examples_come_back_in_any_order(tmp_path: Path) -> None:
    examples = [make_example(number) for number in range(40)]
    dataset: Dataset = write(tmp_path / "set", examples)
    assert len(list((tmp_path / "set").glob("*.arrow"))) > 2
    for index in np.random.default_rng(0).permutation(40).tolist():
        assert_same(dataset.example(index), examples[index])


_texts = st.text(max_size=8)
_examples = st.builds(
    lambda image, boxes, captions, segmentation: replace(
        make_example(0, num_objects=len(boxes)),
        image=image,
        xywh_N4=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        captions=tuple(captions),
        segmentation_N=(segmentation,) * len(boxes),
    ),
    st.binary(max_size=50),
    st.lists(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4), max_size=4),
    st.lists(_texts, max_size=3),
    _texts,
)


@given(examples=st.lists(_examples, max_size=7))
def test_whatever_is_written_is_read(
    examples: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dataset = write(tmp_path_factory.mktemp("any") / "set", examples)
    for got, expected in zip(dataset, examples, strict=True):
        assert_same(got, expected)


def test_an_example_may_be_larger_than_a_shard(tmp_path: Path) -> None:
    large = replace(make_example(1), image=b"x" * 100_000)
    dataset = write(tmp_path / "set", [make_example(0), large, make_example(2)], shard_bytes=1000)
    assert_same(dataset.example(1), large)


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    example = write(tmp_path / "set", [make_example(3)]).example(0)
    with pytest.raises(ValueError, match="read-only"):
        example.xywh_N4[0, 0] = 1.0


def test_absent_segmentations_read_as_empty_texts(tmp_path: Path) -> None:
    example = replace(make_example(3), segmentation_N=())
    assert write(tmp_path / "set", [example]).example(0).segmentation_N == ("", "", "")


def test_categories_are_counted_without_crowds(tmp_path: Path) -> None:
    examples = [make_example(number) for number in range(20)]
    dataset = write(tmp_path / "set", examples)
    boxes = [
        int(category)
        for example in examples
        for category, crowd in zip(example.category_N, example.is_crowd_N, strict=True)
        if not crowd
    ]
    counts = [boxes.count(index) for index in range(3)]
    assert [c.num_instances for c in dataset.categories] == counts
    assert [replace(c, num_instances=0) for c in dataset.categories] == list(CATEGORIES)


def test_categories_without_boxes_are_counted_by_segments(tmp_path: Path) -> None:
    example = replace(make_example(0), segments=(Segment(1, 1, 9, False), Segment(2, 1, 9, True)))
    dataset = write(tmp_path / "set", [example])
    assert [c.num_instances for c in dataset.categories] == [0, 1, 0]


@pytest.mark.parametrize("index", [-1, 5, 10**9])
def test_an_index_out_of_range_is_an_index_error(tmp_path: Path, index: int) -> None:
    dataset = write(tmp_path / "set", [make_example(number) for number in range(5)])
    with pytest.raises(IndexError, match="indices run from 0 to 4"):
        dataset.example(index)


def test_an_empty_data_set_is_a_data_set(tmp_path: Path) -> None:
    assert list(write(tmp_path / "set", [])) == []


def test_same_examples_same_digest_other_examples_another(tmp_path: Path) -> None:
    examples = [make_example(number) for number in range(8)]
    digest = write(tmp_path / "a", examples).digest
    assert write(tmp_path / "b", examples).digest == digest
    assert write(tmp_path / "c", examples[::-1]).digest != digest
    crowd = replace(examples[3], is_crowd_N=~examples[3].is_crowd_N)
    assert write(tmp_path / "d", [*examples[:3], crowd, *examples[4:]]).digest != digest


def test_threads_may_share_a_data_set(tmp_path: Path) -> None:
    examples = [make_example(number) for number in range(40)]
    dataset = write(tmp_path / "set", examples)
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for index, example in enumerate(examples):
                assert_same(dataset.example(index), example)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- nothing half-written ---


def _writer(directory: Path) -> ShardWriter:
    return ShardWriter(directory, categories=CATEGORIES, source="made here", shard_bytes=4000)


def _fail_while_writing(directory: Path, error: BaseException, *, overwrite: bool = False) -> None:
    with ShardWriter(
        directory, categories=CATEGORIES, source="new", shard_bytes=4000, overwrite=overwrite
    ) as writer:
        for number in range(20):
            writer.add(make_example(number))
        raise error


@pytest.mark.parametrize("error", [KeyError(), KeyboardInterrupt()])
def test_an_exception_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        _fail_while_writing(tmp_path / "set", error)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_an_empty_folder_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(KeyError):
        _fail_while_writing(tmp_path / "set", KeyError())
    assert list((tmp_path / "set").iterdir()) == []


def test_no_data_set_can_be_opened_while_it_is_written(tmp_path: Path) -> None:
    with _writer(tmp_path / "set") as writer:
        for number in range(20):
            writer.add(make_example(number))
        with pytest.raises(DatasetError, match="has no manifest"):
            open_dataset(tmp_path / "set")
        with pytest.raises(ValueError, match="no digest yet"):
            _ = writer.digest
    assert len(open_dataset(tmp_path / "set")) == 20


def _fill_the_disk(directory: Path) -> None:
    # No file may grow beyond this: what a full disk says, without filling one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        with _writer(directory) as writer:
            writer.add(replace(make_example(1), image=b"x" * 100_000))
            writer.add(make_example(2))
            writer.add(make_example(3))
    except DatasetError as error:
        is_clear = "shard-00000.arrow" in str(error) and "make room" in str(error)
        os._exit(0 if is_clear else 2)
    os._exit(1)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_fill_the_disk, args=(tmp_path / "set",)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def test_an_existing_data_set_is_replaced_only_on_request(tmp_path: Path) -> None:
    old = [make_example(number) for number in range(30)]
    digest = write(tmp_path / "set", old).digest
    with pytest.raises(DatasetError, match="already holds a data set"), _writer(tmp_path / "set"):
        raise AssertionError("the block must not run")
    assert open_dataset(tmp_path / "set", verify=True).digest == digest

    write(tmp_path / "set", old[:2], overwrite=True)
    dataset = open_dataset(tmp_path / "set", verify=True)
    assert [example.image_id for example in dataset] == [1000, 1001]
    names = {path.name for path in (tmp_path / "set").iterdir()}
    assert names == {"manifest.json", "shard-00000.arrow"}


def test_a_failed_replacement_keeps_the_old_data_set(tmp_path: Path) -> None:
    digest = write(tmp_path / "set", [make_example(1)]).digest
    with pytest.raises(KeyError):
        _fail_while_writing(tmp_path / "set", KeyError(), overwrite=True)
    assert open_dataset(tmp_path / "set", verify=True).digest == digest


def test_other_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"other files \(thesis.tex\)"):
        write(tmp_path, [], overwrite=True)
    with pytest.raises(DatasetError, match="is a file"):
        write(tmp_path / "thesis.tex", [])
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_writers_cannot_share_a_folder(tmp_path: Path) -> None:
    with _writer(tmp_path / "set") as first:
        first.add(make_example(1))
        with pytest.raises(DatasetError, match="another process"), _writer(tmp_path / "set"):
            raise AssertionError("the block must not run")
    assert len(open_dataset(tmp_path / "set", verify=True)) == 1


def test_the_remains_of_a_killed_writer_are_cleared_away(tmp_path: Path) -> None:
    remains = tmp_path / "set" / ".partial"
    remains.mkdir(parents=True)
    (remains / "shard-00000.arrow").write_bytes(b"half")
    write(tmp_path / "set", [make_example(1)])
    assert not remains.exists()


def test_inconsistent_examples_are_refused(tmp_path: Path) -> None:
    example = make_example(3)
    with _writer(tmp_path / "set") as writer:
        with pytest.raises(ValueError, match="image 1003: annotation arrays differ in length"):
            writer.add(replace(example, area_N=example.area_N[:1]))
        with pytest.raises(ValueError, match="image 1003: category indices must be below 3"):
            writer.add(replace(example, category_N=np.array([0, 1, 3])))
        writer.add(example)
    assert_same(open_dataset(tmp_path / "set").example(0), example)


# --- what was changed since ---


@pytest.fixture
def dataset_path(tmp_path: Path) -> Path:
    write(tmp_path / "set", [make_example(number) for number in range(30)])
    return tmp_path / "set"


def test_a_missing_data_set_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist: expected a data set"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"has no manifest.json"):
        open_dataset(tmp_path)


def test_a_missing_shard_is_found_when_opening(dataset_path: Path) -> None:
    (dataset_path / "shard-00001.arrow").unlink()
    with pytest.raises(DatasetError, match=r"shard-00001.arrow is missing"):
        open_dataset(dataset_path)


def test_a_truncated_shard_is_found_when_opening(dataset_path: Path) -> None:
    shard = dataset_path / "shard-00001.arrow"
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    expected = rf"shard-00001.arrow has {size - 1} bytes, the manifest says {size}"
    with pytest.raises(DatasetError, match=expected):
        open_dataset(dataset_path)


def test_a_changed_byte_is_found_when_its_shard_is_first_read(dataset_path: Path) -> None:
    shard = dataset_path / "shard-00001.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    dataset = open_dataset(dataset_path)
    dataset.example(0)
    second = dataset.manifest.shards[0].num_examples
    with pytest.raises(DatasetError, match=r"shard-00001.arrow is not the shard.*sha256"):
        dataset.example(second)
    with pytest.raises(DatasetError, match=r"shard-00001.arrow is not the shard"):
        open_dataset(dataset_path, verify=True)


def test_a_changed_manifest_has_another_digest(dataset_path: Path) -> None:
    digest = open_dataset(dataset_path).digest
    manifest = dataset_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"cat"', '"cow"'))
    assert open_dataset(dataset_path).digest != digest


def test_the_digest_does_not_depend_on_the_manifest_s_spacing(dataset_path: Path) -> None:
    digest = open_dataset(dataset_path).digest
    manifest = dataset_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()), indent=7))
    assert open_dataset(dataset_path).digest == digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format_version": 1', '"format_version": 2', "format version 2, this program reads"),
        ('"num_examples": 30', '"num_examples": 31', "says 31 examples, but its shards hold 30"),
        ('"source"', '"sauce"', "is no manifest of a data set"),
        ("shard-00000.arrow", "../../etc/passwd", "is no manifest of a data set"),
        ("}", "", "is no manifest of a data set"),
    ],
)
def test_a_damaged_manifest_is_one_clear_error(
    dataset_path: Path, old: str, new: str, message: str
) -> None:
    manifest = dataset_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message):
        open_dataset(dataset_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b'{"source": "caf\xe9"}', "it is not text in UTF-8"), (b"[" * 10**6, "recursion")],
)
def test_a_manifest_that_cannot_be_decoded_is_one_line_with_the_files_name(
    dataset_path: Path, content: bytes, problem: str
) -> None:
    (dataset_path / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=f"manifest.json is no manifest .*{problem}") as raised:
        open_dataset(dataset_path)
    assert "\n" not in str(raised.value)
