"""When so many groups cannot be scored that going on would train on rubbish."""

from __future__ import annotations

from collections import deque

_WINDOW = 4
_MAX_RATIO = 0.5

TOO_MANY_UNSCORED = (
    f"more than half of the groups of the last {_WINDOW} batches could not be scored"
)


class UnscoredGroups:
    """Counts them over the last few batches."""

    def __init__(self, batch_size: int) -> None:
        self._limit = _MAX_RATIO * batch_size * _WINDOW
        self._num: deque[int] = deque(maxlen=_WINDOW)

    def are_too_many(self, num_unscored: int) -> bool:
        """Take in one batch; once it says yes it begins anew."""
        self._num.append(num_unscored)
        if sum(self._num) <= self._limit:
            return False
        self._num.clear()
        return True
