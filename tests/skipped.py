"""Which tests were skipped for want of what: the closing line of ``.ci/run``.

The hook appends to a file, as ``.ci/run`` runs pytest several times: one JSON line a skipped test.
With xdist the tests of all its workers come together where the hook is called.
``python -m tests.skipped FILE`` prints the line.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

FILE_VARIABLE = "REWARDTUNE_SKIPPED_TESTS"
# By a word of the reasons that tests give; what is missing has one name however they put it.
_MISSING = {
    "shared": "../shared",
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "redis": "redis-server",
    "kubectl": "kubectl",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    name = os.environ.get(FILE_VARIABLE)
    if name is None:
        return
    with Path(name).open("a", encoding="utf-8") as file:
        for report in terminalreporter.stats.get("skipped", []):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            file.write(json.dumps([report.nodeid, reason]) + "\n")


def closing_line(lines: Iterable[str]) -> str:
    """Of the file's lines; a test that was skipped in several runs counts once."""
    reason_of = dict(json.loads(line) for line in lines)
    missing = Counter(_what_is_missing(reason) for reason in reason_of.values())
    if not missing:
        return "no test was skipped"
    told = ", ".join(f"{what} ({count})" for what, count in sorted(missing.items()))
    return f"skipped for want of: {told}"


def _what_is_missing(reason: str) -> str:
    lower = reason.lower()
    return next((what for word, what in _MISSING.items() if word in lower), reason)


def main(arguments: Sequence[str] | None = None) -> int:
    (name,) = sys.argv[1:] if arguments is None else arguments
    print(closing_line(Path(name).read_text(encoding="utf-8").splitlines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
