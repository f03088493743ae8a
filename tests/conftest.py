"""What holds for every test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Set before torch or ray is imported anywhere. Idle threads that spin slow two processes on two
# cores down several times, and tensors this small take one thread less time than two; Ray's
# settings keep it quiet, offline and free of files in HOME.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import pytest
from hypothesis import HealthCheck, settings

from tests.ray_session import ray_session
from tests.skipped import pytest_terminal_summary

__all__ = ["pytest_terminal_summary", "ray_session"]

# The same examples on every run: a failure that comes and goes tells nobody anything.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m alone``, import only what has the mark: to import all takes a third of a minute."""
    if config.option.markexpr != "alone" or not collection_path.match("test_*.py"):
        return None
    here = Path(__file__).parent
    folders = [folder for folder in collection_path.parents if here in folder.parents]
    told = [collection_path, *(folder / "conftest.py" for folder in folders)]
    texts = (path.read_text(encoding="utf-8") for path in told if path.is_file())
    return None if any("mark.alone" in text or "ray_session" in text for text in texts) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave Ray to the tests that run alone, and begin with the files that take longest."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.alone)
    if hasattr(config, "workerinput"):
        # One of two processes at a time: a long file that begins last would be waited for.
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def _threads_of_a_run_end_with_its_file() -> Iterator[None]:
    """A run sets the number for its process; bits of the next file would hang on it."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
