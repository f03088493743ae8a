"""Files that come with the package: run configs, and the policies that the demos start from.

In a clone they are the folders ``configs`` and ``pretrained`` at its root; a wheel carries them
inside the package. A path is looked for in the current folder first, so a user's own file wins.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("configs", "pretrained")
_IN_A_WHEEL = Path(__file__).resolve().parent / "shipped_files"
ROOT = _IN_A_WHEEL if _IN_A_WHEEL.is_dir() else _IN_A_WHEEL.parents[1]
"""The folder that holds ``FOLDERS``."""


def find_file(path: Path) -> Path:
    """The path itself if something is there, else the shipped file of that name, else the path."""
    return path if path.exists() else shipped_file(path) or path


def find_config(path: Path) -> Path:
    """As ``find_file``; ``NAME`` alone also stands for ``configs/NAME.toml``."""
    found = find_file(path)
    if found.is_file() or path.suffix or len(path.parts) != 1:
        return found
    by_name = find_file(Path("configs") / f"{path}.toml")
    return by_name if by_name.is_file() else path


def shipped_file(path: Path) -> Path | None:
    """Where the package has ``configs/...`` or ``pretrained/...``; None if it has no such file."""
    if path.parts[:1] not in [(folder,) for folder in FOLDERS]:
        return None
    place = ROOT / path
    return place if place.is_file() else None
