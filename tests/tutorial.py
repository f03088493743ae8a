"""Pages of docs/ that make something step by step: their files and commands, as printed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path


def printed(page: str, language: str) -> dict[str, str]:
    """Blocks of a language, by the file that the line before each names."""
    found = re.findall(
        rf"`([\w/.]+)`[^`\n]*(?:\n[^`\n]+)*:?\n\n```{language}\n(.*?)```", page, re.S
    )
    return dict(found)


def commands(page: str) -> list[str]:
    """What there is to do in a shell, block by block."""
    return re.findall(r"```sh\n(.*?)```", page, re.DOTALL)


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
