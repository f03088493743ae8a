from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewardtune.config.run_config import ConfigError
from rewardtune.sweep.config import load_sweep
from tests.rewardtune.sweep_world import BASE, load

ROOT = Path(__file__).parents[3]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.toml"))
BASE_WITHOUT_HOLDOUT = BASE.replace('holdout = "digits/holdout", ', "")
ROW = '[rows]\none = ["sampler.num_samples=2"]\n'


def refused(folder: Path, text: str, *, base: str = BASE_WITHOUT_HOLDOUT) -> str:
    with pytest.raises(ConfigError) as found:
        load(folder, text, base=base)
    assert "\n" not in str(found.value)
    return str(found.value).replace(str(folder), "")


def test_a_row_is_the_base_config_with_its_settings_over_those_of_all_rows(tmp_path: Path) -> None:
    sweep = load(
        tmp_path,
        'set = ["depth=0", "learner.num_steps=7"]\n'
        '[rows]\nplain = ["learner.baseline=false", "sampler.num_samples=1"]\n'
        'long = ["learner.num_steps=9"]\n',
    )
    assert sweep.directory == Path("runs/trial") and sweep.distinct == ["plain", "long"]
    plain, long = sweep.run_config("plain", 0), sweep.run_config("long", 2)
    assert (plain.depth, plain.learner.num_steps, plain.seed) == (0, 7, 0)
    assert (plain.learner.baseline, plain.sampler.num_samples) == (False, 1)
    assert (long.depth, long.learner.num_steps, long.seed) == (0, 9, 2)
    assert long.operations.directory == Path("runs/trial/long/2")
    assert len({sweep.key(row, seed) for row in sweep.rows for seed in range(3)}) == 6


def test_a_row_that_an_earlier_group_has_is_run_once(tmp_path: Path) -> None:
    sweep = load(
        tmp_path,
        '[rows.steps]\none = ["sampler.num_samples=2"]\nthree = ["sampler.num_samples=4"]\n'
        '[rows.samples]\none = ["sampler.num_samples=2", "learner.num_steps=6"]\n'
        'three = ["sampler.num_samples=4"]\n'
        '[until]\npairs = [["samples/three", "samples/one"]]\n',
    )
    assert sweep.distinct == ["steps/one", "steps/three", "samples/one"]
    assert sweep.runs_of("samples/three") == "steps/three"
    row = sweep.rows["samples/three"]
    assert (row.group, row.label) == ("samples", "three")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rows]", "/trial.toml: rows: Dictionary should have at least 1 item"),
        ("jobs = 2\n" + ROW, "/trial.toml: jobs: unknown key: there are config, metrics, data"),
        (ROW + "two = []", "/trial.toml: row 'two' changes nothing: give it a setting"),
        (ROW + 'two = ["sampler.num_sample=2"]', "unknown key sampler.num_sample = 2: did you me"),
        (ROW + 'two = ["sampler.num_samples"]', "write it as key=value"),
        (ROW + 'two = ["sampler.num_samples=2"]', "rows 'one' and 'two' are the same run"),
        (ROW + 'one = ["sampler.num_samples=3"]', "is not TOML"),
        (ROW + 'two = ["seed=3"]', "row 'two' sets seed, which the sweep does itself"),
        (ROW + 'two = ["mode=pretrain"]', "row 'two' has mode = 'pretrain': rows are tuned"),
        (ROW + '"../two" = ["depth=0"]', "'../two' is to name a folder"),
        ('set = ["operations.directory=x"]\n' + ROW, "set sets operations.directory, which the"),
        ('data = "holdout"\n' + ROW, "data = 'holdout' but /base.toml has no data.holdout"),
        ('data = "train"\n' + ROW, "/trial.toml: data: Input should be 'validation' or 'holdout'"),
        (ROW + '[until]\npairs = [["one", "two"]]', "until.pairs names 'two', which is no row: on"),
        (ROW + '[until]\npairs = [["one", "one"]]', "until.pairs compares 'one' with itself"),
        (
            ROW + '[until]\npairs = [["one", "one"]]\nmax_num_seeds = 2',
            "is less than num_seeds = 3",
        ),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_base_that_does_not_tune_is_refused(tmp_path: Path) -> None:
    base = BASE.replace('"tune"', '"pretrain"')
    assert "needs one with mode = 'tune'" in refused(tmp_path, ROW, base=base)


def test_a_sweep_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep .*/none\.toml cannot be read: No such file"):
        load_sweep(tmp_path / "none.toml")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_committed_sweeps_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    load_sweep(path)


@pytest.mark.parametrize("name", ["captioning_baselines", "panoptic_baselines"])
def test_the_baseline_sweeps_are_table_4(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    sweep = load_sweep(ROOT / "configs" / "sweeps" / f"{name}.toml")
    assert sweep.settings.num_seeds == 3 and sweep.settings.until is not None
    assert sweep.settings.until.max_num_seeds == 10
    baselines = {"none": 0, "one": 1, "three": 3, "seven": 7}
    drawn = {}
    for row in sweep.rows.values():
        learner, sampler = row.config.learner, row.config.sampler
        assert learner.estimator == "first" and row.config.depth == 0
        assert sampler.num_samples == baselines[row.label] + 1
        assert learner.baseline is (row.label != "none")
        drawn[row.name] = sampler.num_samples * learner.batch_size * learner.num_steps
    assert list(drawn) == [
        f"{group}/{row}" for group in ("equal_steps", "equal_samples") for row in baselines
    ]
    steps = {
        row.config.learner.num_steps for row in sweep.rows.values() if row.group == "equal_steps"
    }
    assert len(steps) == 1
    assert len({count for name, count in drawn.items() if "equal_samples" in name}) == 1


def test_the_sweep_in_the_guide_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n(.*?)```", guide, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "my_run.toml").write_text(BASE)
    (tmp_path / "my_sweep.toml").write_text(text)
    sweep = load_sweep(Path("my_sweep.toml"))
    assert sweep.runs_of("equal_samples/one") == "equal_steps/one" and len(sweep.rows) == 4
