"""Checkpoints survive full disks, killed writers and flipped bytes: with real ones of each."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from learner.checkpoint import (
    CheckpointError,
    CheckpointIncomplete,
    checkpoint_steps,
    clear_unfinished,
    latest_checkpoint,
    load_checkpoint,
    prune,
    save_checkpoint,
)

ROOT = Path(__file__).parents[2]


def files(value: float = 1.0) -> dict[str, dict[str, Tensor]]:
    return {
        "weights": {"a.kernel": torch.full((4, 3), value), "b": torch.arange(5.0)},
        "optimizer": {"momentum/b": torch.full((5,), value, dtype=torch.bfloat16)},
    }


def names_under(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def refuse(message: str) -> None:
    raise AssertionError(message)


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    whole = torch.arange(12, dtype=torch.int64).reshape(3, 4)
    tied = torch.randn(3)
    saved = {
        "weights": {
            "half": torch.tensor([1.0, math.pi, -0.0], dtype=torch.bfloat16),
            "transposed": whole.T,
            "view": whole[1],
            "tied": tied,
            "to": tied,
            "step": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "grown": torch.ones(2, requires_grad=True),
        },
        "behaviour-00000099": {"p": torch.tensor([1e-45, -3e38])},
    }
    state = {"step": 100, "history": [[50, 0.1 + 0.2]], "skipped": [3, 9], "note": "naïve"}
    path = save_checkpoint(tmp_path / "new" / "checkpoints", 100, saved, state)
    assert path.name == "checkpoint-00000100"
    loaded = load_checkpoint(path)
    assert (loaded.path, loaded.step, loaded.state) == (path, 100, state)
    assert loaded.files.keys() == saved.keys()
    for name, tensors in saved.items():
        assert loaded.files[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            got = loaded.files[name][key]
            assert got.dtype == tensor.dtype
            torch.testing.assert_close(got, tensor.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused_by_its_name_and_an_older_one_taken(
    tmp_path: Path, number: float
) -> None:
    save_checkpoint(tmp_path, 1, files(1.0), {})
    bad = files(1.0)
    bad["optimizer"]["momentum/b"][2] = number
    path = save_checkpoint(tmp_path, 2, bad, {})
    said = f"damaged checkpoint {path}: optimizer.safetensors has numbers that are not finite in "
    with pytest.raises(CheckpointError, match=f"{said}'momentum/b'"):
        load_checkpoint(path)
    messages: list[str] = []
    found = latest_checkpoint(tmp_path, messages.append)
    assert found is not None and found.step == 1
    assert messages == [f"skipped: {said}'momentum/b'"]


def test_the_same_contents_are_the_same_bytes(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", 1, files(), {"x": 1})
    second = save_checkpoint(tmp_path / "b", 1, files(), {"x": 1})
    assert names_under(first) == [
        "manifest.json",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    for name in names_under(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, files(1.0), {})
    save_checkpoint(tmp_path, 5, {"weights": files(2.0)["weights"]}, {"again": True})
    loaded = load_checkpoint(tmp_path / "checkpoint-00000005")
    assert loaded.state == {"again": True}
    assert loaded.files.keys() == {"weights"}
    assert (loaded.files["weights"]["a.kernel"] == 2.0).all()
    assert names_under(tmp_path) == ["checkpoint-00000005"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (truncate, "weights.safetensors", r"weights\.safetensors has \d+ bytes instead of \d+"),
    (flip, "optimizer.safetensors", r"optimizer\.safetensors has not the contents"),
    (flip, "state.json", r"state\.json has not the contents"),
    (Path.unlink, "weights.safetensors", r"weights\.safetensors is missing"),
    (truncate, "manifest.json", r"manifest\.json: Invalid JSON"),
]


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_damage_is_one_line_that_names_the_file(
    tmp_path: Path, damage: Callable[[Path], None], name: str, message: str
) -> None:
    path = save_checkpoint(tmp_path, 1, files(), {"x": 1})
    damage(path / name)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_damaged_checkpoints_are_skipped_with_a_message(
    tmp_path: Path, damage: Callable[[Path], None], name: str, message: str
) -> None:
    save_checkpoint(tmp_path, 99_999_999, files(1.0), {})
    path = save_checkpoint(tmp_path, 100_000_000, files(2.0), {})
    damage(path / name)
    messages: list[str] = []
    latest = latest_checkpoint(tmp_path, messages.append)
    assert latest is not None
    assert latest.step == 99_999_999
    assert len(messages) == 1
    assert messages[0].startswith("skipped: damaged checkpoint")


def test_a_checkpoint_without_manifest_is_none(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, files(), {})
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointIncomplete, match=r"is no complete checkpoint: .*manifest\.json"):
        load_checkpoint(path)
    messages: list[str] = []
    assert latest_checkpoint(tmp_path, messages.append) is None
    assert len(messages) == 1
    assert checkpoint_steps(tmp_path) == []


def test_a_missing_checkpoint_and_one_of_a_later_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such directory"):
        load_checkpoint(tmp_path / "checkpoint-00000001")
    path = save_checkpoint(tmp_path, 1, files(), {})
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="has format 2, but .* reads format 1"):
        load_checkpoint(path)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_afresh(tmp_path: Path) -> None:
    for step in (1, 2):
        truncate(save_checkpoint(tmp_path, step, files(), {}) / "state.json")
    messages: list[str] = []
    with pytest.raises(CheckpointError, match=r"checkpoint-00000002, checkpoint-00000001"):
        latest_checkpoint(tmp_path, messages.append)
    assert len(messages) == 2


def test_a_run_without_checkpoints_has_no_latest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "none", refuse) is None
    (tmp_path / "checkpoint-00000001").touch()
    (tmp_path / "checkpoint-notes").mkdir()
    assert latest_checkpoint(tmp_path, refuse) is None
    assert clear_unfinished(tmp_path) == []


def test_pruning_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        save_checkpoint(tmp_path, step, files(), {})
    removed = prune(tmp_path, keep_last=2, keep={20, 77})
    assert [path.name for path in removed] == ["checkpoint-00000010", "checkpoint-00000030"]
    assert checkpoint_steps(tmp_path) == [20, 40, 50]
    assert prune(tmp_path, keep_last=9) == []
    with pytest.raises(ValueError, match="keep_last must be at least 1"):
        prune(tmp_path, keep_last=0)


def test_what_killed_writers_left_is_cleared(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, files(), {})
    headless = save_checkpoint(tmp_path, 2, files(), {})
    (headless / "manifest.json").unlink()
    (tmp_path / ".unfinished-checkpoint-00000003-17").mkdir()
    assert len(clear_unfinished(tmp_path)) == 2
    assert names_under(tmp_path) == ["checkpoint-00000001"]


def test_file_names_cannot_leave_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain names"):
        save_checkpoint(tmp_path, 1, {"../weights": {}}, {})
    assert names_under(tmp_path) == []


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from learner.checkpoint import CheckpointError, save_checkpoint

root = Path(sys.argv[1])
small, large = {"p": torch.ones(10)}, {"p": torch.ones(1_000_000)}
save_checkpoint(root, 1, {"weights": small}, {})
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    save_checkpoint(root, 2, {"weights": small, "optimizer": large}, {})
except CheckpointError as error:
    print(error)
print(sorted(path.name for path in root.iterdir()))
save_checkpoint(root, 3, {"weights": small}, {})
print(sorted(path.name for path in root.iterdir()))
"""


def check_full_disk(output: str, reason: str) -> None:
    message, after_failure, after_recovery = output.splitlines()
    assert "cannot write checkpoint" in message
    assert "which needs 4000042 bytes" in message
    assert reason in message
    assert after_failure == "['checkpoint-00000001']"
    assert after_recovery == "['checkpoint-00000001', 'checkpoint-00000003']"


@pytest.mark.slow
def test_a_file_size_limit_is_one_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run(FULL_DISK, tmp_path, "limit")
    assert done.returncode == 0, done.stderr
    check_full_disk(done.stdout, "File too large")


@pytest.mark.slow
def test_a_full_disk_is_one_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("no right to mount a small disk; the file size limit above tests the same code")
    mount = 'mount -t tmpfs -o size=2m none "$1" && "$2" -c "$3" "$1" disk'
    done = subprocess.run(
        [*unshare, "sh", "-c", mount, "sh", tmp_path, sys.executable, FULL_DISK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    check_full_disk(done.stdout, "No space left on device")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from learner import checkpoint

def die_at(kill_at, call):
    count = 0
    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

root = Path(sys.argv[1])
files = {"weights": {"p": torch.ones(9)}, "optimizer": {"m": torch.ones(9)}}
for kill_at in range(1, 100):
    run = root / str(kill_at)
    checkpoint.save_checkpoint(run, 1, files, {})
    checkpoint.save_checkpoint(run, 2, files, {"old": True})
    if os.fork() == 0:
        sys.addaudithook(die_at(kill_at, lambda event, args: None))
        checkpoint.save_checkpoint(run, 2, files, {"old": False})
        os._exit(0)
    _, status = os.wait()
    if not os.WIFSIGNALED(status):
        print(kill_at)
        break
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_nothing_that_is_taken_for_complete(tmp_path: Path) -> None:
    """Killed before each of its audited system calls in turn, while it replaces a checkpoint."""
    done = run(KILLED, tmp_path)
    assert done.returncode == 0, done.stderr
    survived_at = int(done.stdout)
    assert survived_at > 20
    outcomes = set()
    for kill_at in range(1, survived_at + 1):
        root = tmp_path / str(kill_at)
        latest = latest_checkpoint(root, lambda message: None)
        assert latest is not None
        outcomes.add((latest.step, latest.state.get("old")))
        clear_unfinished(root)
        assert names_under(root) == [f"checkpoint-{step:08d}" for step in checkpoint_steps(root)]
        save_checkpoint(root, 2, files(), {})
        assert checkpoint_steps(root) == [1, 2]
    assert outcomes == {(2, True), (1, None), (2, False)}
