"""Whether the packages of this project that Python finds are this project's.

Four of them have names that anybody's folder may have, and what stands earlier on ``sys.path``
hides what stands later. Half of a program of ours and half of somebody else's must not run.
"""

from __future__ import annotations

import os.path
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ("sampler", "learner", "reward_workers", "protos")


class HiddenPackageError(ImportError):
    """Something of the user's has the name of a package of ours, and Python finds it first."""


def check_packages() -> None:
    """Look where each of ``NAMES`` would be imported from; imports none of them.

    Uncaught, the error is one line on stderr, not a traceback: nothing of it is the caller's code.

    Raises:
        HiddenPackageError: it is not the one beside this package.
    """
    for name in NAMES:
        place, own = _place(name), os.path.join(ROOT, name)
        # Links are followed: some installers make every file one, or every package.
        if place is None or (os.path.exists(own) and os.path.samefile(place, own)):
            continue
        _say_uncaught_in_one_line()
        raise HiddenPackageError(
            f"{place} hides the package '{name}' of rewardtune ({own}): rename it, or take "
            f"{os.path.dirname(place)} off PYTHONPATH and do not start there"
        )


def _place(name: str) -> str | None:
    """The folder or file that ``import name`` would read; None where there is none.

    A folder without ``__init__.py`` is no answer: Python goes on looking, and finds ours.
    """
    spec = PathFinder.find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    found = folders[0] if folders else spec.origin
    return None if found is None else os.path.abspath(found)


def _say_uncaught_in_one_line() -> None:
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, HiddenPackageError):
            print(f"error: {error}", file=sys.stderr)
        else:
            before(kind, error, traceback)

    sys.excepthook = hook
