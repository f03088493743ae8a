"""The files behind reward digests, name for name.

``digest_lists.json`` was made when everything of ours moved below ``rewardtune``. Of every task and
function there it was the list of the commit before (36a8acc), each name as ``docs/moved.md`` maps
it, plus the ``__init__`` of rooms that are new: ``reward_workers.scoring``, ``rewardtune.datasets``
and its ``coco`` and ``shards``, captioning's ``cider`` and ``ptb``. One name went: ``image_text``
reads pictures by ``rewardtune.datasets.images``, which is no longer a module of ``tasks``. So no
reward lost a file that decides it, and ``rewardtune/__init__.py`` became none.

Since then the lists have gained ``token_task``, which tasks share, and each task's ``probe`` and
``results_files`` with what these import: files of a task's folder count, whatever they are for.

A file that is missing from a list can change without a run's workers noticing. One too many ends
runs for nothing: their digest is another. Where a list is to change, look at what changes, then
``python -m tests.reward_workers.scoring.test_digest_lists`` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from reward_workers.scoring.config import RewardConfig
from reward_workers.scoring.digest import function_sources, run_sources, scoring_sources

LISTS = Path(__file__).with_name("digest_lists.json")
ROOT = Path(__file__).resolve().parents[3]
TASKS = ("detection", "panoptic", "colorization", "captioning")
FUNCTIONS = (
    "right_count:right_count",
    "known_classes:KnownClasses",
    "tidy_boxes:tidy",
    "image_text:ImageText",
)
COMPOSED = "detection + right_count:right_count"
EXPECTED: dict[str, list[str]] = json.loads(LISTS.read_text()) if LISTS.exists() else {}


def names_behind(what: str) -> list[str]:
    """Modules behind the digest of a task, a function, or a run whose reward is composed."""
    rewards = [str(ROOT / "examples/rewards")]
    found: Iterable[str]
    if what in TASKS:
        found = scoring_sources(what)
    elif what == "keypoints":
        found = scoring_sources(what, search_path=[str(ROOT / "examples/tasks")])
    elif what == COMPOSED:
        parts = {"count": {"use": "right_count:right_count"}}
        reward = RewardConfig.model_validate({"sum": {"task": 1.0, "count": 1.0}, "parts": parts})
        found = run_sources("detection", reward, search_path=rewards)
    else:
        found = function_sources(what, search_path=rewards)
    return sorted(found)


EVERYTHING = (*TASKS, "keypoints", *FUNCTIONS, COMPOSED)


@pytest.mark.parametrize("what", EVERYTHING)
def test_the_files_behind_a_digest_are_those_that_are_listed(what: str) -> None:
    found, listed = set(names_behind(what)), set(EXPECTED[what])
    assert found == listed, (
        f"the digest of {what} lost {sorted(listed - found)} and gained {sorted(found - listed)}: "
        "if that is meant, run python -m tests.reward_workers.scoring.test_digest_lists and say "
        "why in the commit"
    )


def test_every_list_is_held() -> None:
    assert set(EXPECTED) == set(EVERYTHING)


@pytest.mark.parametrize("what", EVERYTHING)
def test_no_digest_hangs_on_what_only_starts_processes(what: str) -> None:
    assert "rewardtune" not in EXPECTED[what]
    assert not any(name.startswith(("rewardtune.run", "rewardtune.cli")) for name in EXPECTED[what])


if __name__ == "__main__":
    LISTS.write_text(json.dumps({each: names_behind(each) for each in EVERYTHING}, indent=1) + "\n")
