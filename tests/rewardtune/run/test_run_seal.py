"""A run's id and secret: made once, whole, for its owner alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rewardtune.run.run_seal import SEAL_NAME, run_seal


def test_a_run_keeps_its_id_and_its_secret(tmp_path: Path) -> None:
    made = run_seal(tmp_path / "run")
    assert run_seal(tmp_path / "run") == made
    other = run_seal(tmp_path / "other")
    assert (other.run_id, other.secret) != (made.run_id, made.secret)
    assert len(made.secret) == 32


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    run_seal(tmp_path)
    assert (tmp_path / SEAL_NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SEAL_NAME]


def test_of_several_that_begin_at_once_all_have_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: run_seal(tmp_path), range(16)))
    assert len({(seal.run_id, seal.secret) for seal in made}) == 1


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", json.dumps({"run_id": "x", "secret": "00"}), '{"run_id": 3}']
)
def test_what_is_no_id_and_secret_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / SEAL_NAME).write_text(text)
    with pytest.raises(ValueError, match="restore it, or delete it") as refused:
        run_seal(tmp_path)
    assert "\n" not in str(refused.value)
