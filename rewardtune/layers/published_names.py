"""Our parameters' names and shapes beside those of a published checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_NUM_LISTED = 12

NameTable = Sequence[tuple[str, str]]
"""Rows of our name and the published one; # stands for the index of a layer.

What follows a row's name (.query.kernel) is the same on both sides but for the separator.
"""

Shape = tuple[int, ...]


def to_published(name: str, table: NameTable, *, network: str) -> str:
    """Our parameter's name as big_vision has it.

    Raises:
        ValueError: the ``network`` has no such parameter.
    """
    return _translate(name, table, ".", "/", network)


def from_published(name: str, table: NameTable, *, network: str) -> str:
    """The inverse of ``to_published``.

    Raises:
        ValueError: the published ``network`` has no such parameter.
    """
    return _translate(name, [(theirs, ours) for ours, theirs in table], "/", ".", network)


def check_fit(
    found: Mapping[str, Shape],
    needed: Mapping[str, Shape],
    path: str | Path,
    *,
    network: str,
    advice: str,
    fits: Callable[[str, Shape, Shape], bool] = lambda name, found, needed: found == needed,
) -> None:
    """Refuse arrays that are not those a network needs, naming all that differ.

    Args:
        found, needed: shapes by published name.
        path: of the checkpoint, for the message.
        network: what it does not fit, for the message.
        advice: what to do, the end of the message.
        fits: whether an array can be made to fit, where that is not equality of shapes.

    Raises:
        ValueError: arrays are missing, unexpected or misshapen.
    """
    problems = {
        "missing": sorted(needed.keys() - found.keys()),
        "unexpected": sorted(found.keys() - needed.keys()),
        "misshapen": [
            f"{name} {list(found[name])} instead of {list(needed[name])}"
            for name in sorted(needed.keys() & found.keys())
            if not fits(name, found[name], needed[name])
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(n)} {what}: {_some(n)}" for what, n in problems.items() if n)
        raise ValueError(f"checkpoint {path} does not fit {network}: {listed}. {advice}")


def _translate(name: str, rows: Iterable[tuple[str, str]], old: str, new: str, network: str) -> str:
    for before, after in rows:
        pattern = re.escape(before).replace(r"\#", r"(?P<layer>\d+)")
        match = re.fullmatch(f"{pattern}(?P<rest>{re.escape(old)}.*)?", name)
        if match:
            layer = match["layer"] if "#" in before else ""
            return after.replace("#", layer) + (match["rest"] or "").replace(old, new)
    raise ValueError(f"'{name}' is no parameter of {network}")


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NUM_LISTED} more"] if len(names) > _NUM_LISTED else []
    return ", ".join([*names[:_NUM_LISTED], *more])
