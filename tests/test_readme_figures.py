"""Every figure that README states as measured is what its record says, to the digit printed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.readme_figures import (
    BOUNDED,
    EVIDENCE,
    HELD,
    NOT_MEASURED,
    SECTIONS,
    Bounded,
    Held,
    Records,
)

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"


@cache
def passages() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return flat("\n".join(section(readme, title) for title in SECTIONS))


def section(readme: str, title: str) -> str:
    found = readme.partition(f"## {title}\n")[2].partition("\n## ")[0]
    assert found, title
    lines = found.splitlines()
    return "\n".join(line for line in lines if not line.startswith(("    make", "    .venv")))


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def matched(passage: Held | Bounded, text: str) -> re.Match[str]:
    pattern = re.escape(flat(passage.text)).replace(r"\#", f"({NUMBER})")
    places = list(re.finditer(pattern, text))
    assert len(places) == 1, f"README has {len(places)} of: {passage.text}"
    return places[0]


def disagreements(text: str, records: Records) -> Iterator[str]:
    for passage in HELD:
        printed, wanted = matched(passage, text).groups(), passage.read(records)
        assert len(printed) == len(wanted), passage.text
        for shown, value in zip(printed, wanted, strict=True):
            if abs(as_number(shown) - value) > half_a_digit(shown):
                yield f"{passage.text}: README has {shown}, the record {value}"


def as_number(shown: str) -> float:
    return float(shown.replace(",", ""))


def half_a_digit(shown: str) -> float:
    decimals = len(shown.partition(".")[2])
    return float(0.5 * 10.0**-decimals + 1e-9)


def test_the_figures_are_those_of_the_records() -> None:
    assert list(disagreements(passages(), Records())) == []


def test_what_tests_found_is_within_what_they_assert() -> None:
    for passage in BOUNDED:
        printed = matched(passage, passages()).groups()
        for shown, (path, line) in zip(printed, passage.bounds, strict=True):
            asserted = re.findall(line, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert asserted, (path, line)
            assert as_number(shown) <= float(asserted[0]), passage.text


def test_no_number_of_these_sections_is_left_out() -> None:
    text = passages()
    known = [place.span() for way in NOT_MEASURED for place in re.finditer(way, text)]
    for passage in (*HELD, *BOUNDED):
        found = matched(passage, text)
        known += [found.span(number) for number in range(1, len(found.groups()) + 1)]
    left = [
        text[max(0, place.start() - 40) : place.end() + 20]
        for place in re.finditer(rf"(?<![A-Za-z0-9]){NUMBER}", text)  # "bf16" is a word
        if not any(start <= place.start() and place.end() <= end for start, end in known)
    ]
    assert left == []
    assert [way for way in NOT_MEASURED if not re.search(way, text)] == []


@pytest.mark.parametrize("passage", HELD, ids=lambda passage: passage.text[:30])
def test_a_changed_digit_in_readme_is_noticed(passage: Held) -> None:
    text = passages()
    found = matched(passage, text)
    for number, shown in enumerate(found.groups(), start=1):
        start, end = found.span(number)
        other = shown[:-1] + str((int(shown[-1]) + 2) % 10)
        changed = text[:start] + other + text[end:]
        assert list(disagreements(changed, Records())), f"{shown} or {other}, it is all the same"


def test_a_changed_digit_in_a_record_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(EVIDENCE, folder)
    record = folder / "studies" / "table2.jsonl"
    record.write_text(record.read_text().replace('"map": 0.3893584', '"map": 0.3993584'))
    assert list(disagreements(passages(), Records(folder)))


@pytest.mark.parametrize("record", sorted(EVIDENCE.glob("faults/crash_equivalence*.jsonl")))
def test_all_ways_ended_with_the_same_bytes_and_two_writes_did_not(record: Path) -> None:
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    whole = [line for line in lines if "two writes" not in line["way"]]
    for depth in (0, 1):
        of_depth = [line for line in whole if line["depth"] == depth]
        assert [line["way"] for line in of_depth] == ["a", "b", "c", "d", "e"]
        assert len({line["digest"] for line in of_depth}) == 1
    (broken,) = (line for line in lines if line not in whole)
    assert broken["digest"] not in {line["digest"] for line in whole}
