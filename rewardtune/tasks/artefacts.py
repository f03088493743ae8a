"""Files that options name: found on this machine, and known to the run by what they hold.

An artefact is a file or folder that decides a reward and is too large for a config: document
frequencies, the weights of a network. A task's class, or a reward's, names its own::

    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        return {"statistics": Path(options["statistics"])} if "statistics" in options else {}

Keys are those of ``options``, dotted where tables are nested; values are the paths as they stand
there. The options come as written, not yet validated. Whoever has no such method has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewardtune.shipped import shipped_file

_READ_BYTES = 2**20


def named_artefacts(owner: Any, options: Mapping[str, Any], *, of: str) -> dict[str, Path]:
    """What ``owner.artefacts(options)`` names; empty if it has no such method.

    Args:
        of: whose they are, for errors: "task 'captioning'".

    Raises:
        ValueError: a key that the options do not have.
    """
    hook = getattr(owner, "artefacts", None)
    if hook is None:
        return {}
    named = {str(key): Path(path) for key, path in hook(options).items()}
    for key in named:
        if _get(options, key) is None:
            raise ValueError(
                f"{of} names an artefact '{key}' that its options do not have: artefacts() must "
                "return keys of the options"
            )
    return named


def found_artefacts(named: Mapping[str, Path], *, folder: Path | None, of: str) -> dict[str, Path]:
    """Where each artefact lies on this machine, as absolute paths.

    Args:
        folder: looked in first, where another machine keeps its copies: for the path as it is
            named if that is relative, then for its last part alone. Then the path itself counts,
            a relative one from the current folder, and then a shipped file of that name.

    Raises:
        ValueError: one is missing.
    """
    found = {}
    for key, path in named.items():
        places = [folder / path, folder / path.name] if folder is not None else []
        places += [path, *filter(None, [shipped_file(path)])]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            tried = ", ".join(dict.fromkeys(str(place) for place in places))
            raise ValueError(
                f"{of} needs {key} = {path}, which is not on this machine (looked for {tried}): "
                "copy it here, or give the folder that holds it with --artefacts"
            )
        found[key] = place.absolute()
    return found


def artefact_digest(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, or of a folder's files and their names in it.

    Hidden files of a folder, and folders such as ``.cache``, are left out.
    """
    if path.is_file():
        return _file_digest(path)
    digest = hashlib.sha256()
    for name in sorted(each.relative_to(path).as_posix() for each in path.rglob("*")):
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if (path / name).is_file() and not is_hidden:
            digest.update(f"{_file_digest(path / name)} {name}\n".encode())
    return digest.hexdigest()


def with_options(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``options`` with other values under some dotted keys, which must be there."""
    changed = dict(options)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        changed[first] = with_options(changed[first], {rest: value}) if rest else value
    return changed


def _get(options: Any, key: str) -> Any:
    for part in key.split("."):
        options = options.get(part) if isinstance(options, Mapping) else None
    return options


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
