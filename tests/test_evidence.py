"""evidence/: what documents cite is there, and one index says how each record came to be."""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from rewardtune.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "evidence"
INDEX = (EVIDENCE / "README.md").read_text(encoding="utf-8")
RECORDS = sorted(p for p in EVIDENCE.rglob("*") if p.is_file() and p.name != "README.md")
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        ROOT / "deploy" / "README.md",
        EVIDENCE / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "configs").rglob("*.toml"),
    ]
)
# Logs whose name says what they are of; in the documents without their folder, too.
LOG_NAME = r"`((?:trial|digits|keypoints)_[\w.*-]+\.jsonl?|trial_[\w.*-]+)`"
NUM_IN_A_SCREENFUL = 50


@dataclass(frozen=True)
class Row:
    """A line of the index."""

    figure: str
    command: str
    records: tuple[str, ...]
    machine: str
    seeds: str
    commits: tuple[str, ...]


def rows() -> list[Row]:
    lines = [line for line in INDEX.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [
        Row(figure, command, tuple(re.findall(r"`([^`]+)`", records)), machine, seeds,
            tuple(commits.split(", ")))
        for figure, command, records, machine, seeds, commits in (c for c in cells if len(c) == 6)
        if records and figure != "figure"
    ]  # fmt: skip


def found_in_documents(pattern: str) -> list[tuple[Path, str]]:
    """What the pattern's group catches, with the document that has it."""
    texts = {document: document.read_text(encoding="utf-8") for document in DOCUMENTS}
    return [(where, each) for where, text in texts.items() for each in re.findall(pattern, text)]


def test_every_link_of_the_documents_leads_to_a_file() -> None:
    links = found_in_documents(r"\]\(([^)#\s]+)[^)]*\)")
    own = [(where, target) for where, target in links if "://" not in target]
    assert own
    assert [each for each in own if not (each[0].parent / each[1]).exists()] == []


def test_every_path_to_evidence_in_the_documents_leads_to_a_file() -> None:
    paths = found_in_documents(r"evidence/[\w.*/-]*[\w*/]")
    assert paths
    assert [each for each in paths if not list(ROOT.glob(each[1].rstrip("/")))] == []


def test_every_log_that_documents_name_is_there() -> None:
    names = [each for each in found_in_documents(LOG_NAME) if each[0].name != "moved.md"]
    assert names
    lost = [
        (where, name)
        for where, name in names
        if not list(EVIDENCE.rglob(name if ".json" in name else f"{name}.jsonl"))
    ]
    assert lost == []


def test_every_log_is_cited_by_a_document_and_not_by_the_index_alone() -> None:
    names = [
        name
        for where, name in found_in_documents(r"(?:trial|digits|keypoints)_[\w.*-]*\w")
        if where.parent != EVIDENCE and where.name != "moved.md"
    ]
    ends = ("", ".jsonl", ".json")
    cited = {path for name in names for end in ends for path in EVIDENCE.rglob(name + end)}
    logs = [path for path in RECORDS if EVIDENCE / "logs" in path.parents]
    assert [path.name for path in logs if path not in cited] == []


def test_no_folder_is_more_than_a_screenful() -> None:
    for folder in {path.parent for path in RECORDS}:
        assert len(list(folder.iterdir())) <= NUM_IN_A_SCREENFUL, folder


def test_evidence_holds_records_and_nothing_that_runs() -> None:
    assert {path.suffix for path in RECORDS} == {".jsonl", ".json"}


def test_every_record_is_in_the_index_once() -> None:
    found = [path for row in rows() for pattern in row.records for path in EVIDENCE.glob(pattern)]
    assert sorted(found) == RECORDS


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.records[0])
def test_a_row_of_the_index_says_what_repeats_it(row: Row) -> None:
    for pattern in row.records:
        assert list(EVIDENCE.glob(pattern)), pattern
    assert row.figure
    assert re.search(r"Zen 4|Xeon", row.machine)
    assert row.seeds
    assert all(re.fullmatch(r"[0-9a-f]{7,40}", commit) for commit in row.commits)
    commands = [c for c in re.findall(r"`([^`]+)`", row.command) if not c.startswith("--")]
    assert commands
    for command in commands:
        check(command)


def check(command: str) -> None:
    """The command is one of today's: its module, target, verb and config are there."""
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[0] in " ".join(targets).split()
    elif program == "python":
        assert words[0] == "-m"
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert program == "rewardtune"
        assert words[0] in get_command(app).commands  # type: ignore[attr-defined]
        for word in words[1:]:
            assert not word.startswith("configs/") or (ROOT / word).is_file()
