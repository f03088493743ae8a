"""Pages of docs/ that make something step by step: their files and commands, as printed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_FEWER_SCENES = {
    "--scenes-train 8000 --scenes-holdout 300": "--scenes-train 200 --scenes-holdout 20"
}


def printed(page: str, language: str) -> dict[str, str]:
    """Blocks of a language, by the file that the line before each names."""
    found = re.findall(
        rf"`([\w/.]+)`[^`\n]*(?:\n[^`\n]+)*:?\n\n```{language}\n(.*?)```", page, re.S
    )
    return dict(found)


def commands(page: str) -> list[str]:
    """What there is to do in a shell, block by block."""
    return re.findall(r"```sh\n(.*?)```", page, re.DOTALL)


def write_configs(folder: Path, page: str, smaller: Mapping[str, Mapping[str, str]]) -> None:
    """The page's configs; ``smaller`` has what takes long of each, and what stands for it."""
    for name, content in printed(page, "toml").items():
        (folder / name).write_text(_replaced(content, smaller[name], of=name))


def of_fewer_scenes(command: str) -> str:
    """The command that makes the page's scenes, for as many as a test needs."""
    return _replaced(command, _FEWER_SCENES, of="the command")


def _replaced(text: str, changes: Mapping[str, str], *, of: str) -> str:
    for before, after in changes.items():
        assert before in text, f"{of} has no {before}"
        text = text.replace(before, after)
    return text


def do(folder: Path, blocks: list[str]) -> str:
    """What is printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(blocks)],
        cwd=folder,
        env={**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
